"""A .env file: lines of NAME=value, with the place of each."""

from __future__ import annotations

import io
from pathlib import Path

from msgspec import Struct

from consolidate.errors import Place, Problem, StackInvalid

MAX_BYTES = 2**20


class Line(Struct, frozen=True):
    """A variable; a `literal` one, in single quotes, has no variables in it."""

    name: str
    text: str
    literal: bool
    place: Place


def read(path: Path, shown_as: str) -> list[Line]:
    """The variables of a file, which need not be there. Raises StackInvalid."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        hint = "variables come from it; check its permissions"
        raise _invalid(f"the file can't be read: {error.strerror}", Place(shown_as, 1, 1), hint) from None
    if len(content) > MAX_BYTES:
        raise _invalid("the file is larger than 1 MiB", Place(shown_as, 1, 1), "is this the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _invalid("the file isn't UTF-8 text", Place(shown_as, line, 1), "save it as UTF-8") from None
    return _lines(text, shown_as)


def _lines(text: str, shown_as: str) -> list[Line]:
    from dotenv.parser import parse_stream  # most stacks have no such file

    found = []
    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        blank = len(written) - len(written.lstrip())
        place = Place(shown_as, binding.original.line + written.count("\n", 0, blank), 1)
        if binding.error:
            raise _invalid("this is no NAME=value", place, "a value with spaces or quotes: NAME='value'")
        if binding.key is not None and binding.value is not None:
            literal = written.partition("=")[2].lstrip().startswith("'")
            found.append(Line(binding.key, binding.value, literal, place))
    return found


def _invalid(what: str, place: Place, hint: str) -> StackInvalid:
    return StackInvalid([Problem(what, place, "", hint)])
