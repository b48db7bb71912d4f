"""A file to its root node, or to what is wrong with its text."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from consolidate.errors import Place, StackInvalid
from consolidate.loader.nodes import MAX_DEPTH, Node, compose
from consolidate.loader.scalars import NULLS
from consolidate.loader.words import invalid, place_at

MAX_BYTES = 1024 * 1024


# Not in a file: what YAML forbids or no editor shows, and line ends that editors and YAML count differently.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")


_MISALIGNED = "give keys of one mapping the same column; quote a value with quotes, braces or a colon in it"
# What libyaml or PyYAML says (the first that fits), what we say, what to do; `{}` is where the construct begins.
_SYNTAX = (
    ("nesting depth", f"nested deeper than {MAX_DEPTH} levels", "make it flatter"),
    ("mapping values are not allowed", "no `key: value` can stand here", f"{_MISALIGNED}; a colon needs a space after"),
    ("sequence entries are not allowed", "a list can't begin here", "begin it on the next line, or write [a, b]"),
    ("',' or", "a bracket isn't closed, or a comma is missing", "the bracket opens at {}"),
    ("unexpected end of stream", "a quote isn't closed", "the quote opens at {}"),
    ("unexpected document", "a quote isn't closed", "the quote opens at {}"),
    ("escape", "an unknown escape after a backslash", "in 'single quotes' a backslash is a plain character"),
    ("expected ':'", "this key has no colon", "write `key: value`, with a space after the colon"),
    ("alphabetic or numeric", "no value can begin with * or & without quotes", 'put quotes around it: "*…"'),
    ("document start", "this doesn't go on with what stands above", "give all top-level keys the first column"),
    ("'-' indicator", "this is no item of the list above", "give all items of a list the same column"),
    ("expected key", "this is neither a key nor a part of the value before it", _MISALIGNED),
    ("block end", "this is neither a key nor a part of the value before it", _MISALIGNED),
)


def parse(path: Path, name: str, *, is_overlay: bool) -> Node | None:
    """The root of a file; None for an overlay that says nothing."""
    start = Place(name, 1, 1)
    text = _read(path, start, is_overlay)
    if bad := _UNPRINTABLE.search(text):
        what = f"the character U+{ord(bad[0]):04X} can't stand in a YAML file"
        raise invalid(what, place_at(name, text, bad.start()), "remove it; is this a text file?")
    try:
        root = compose(text, name)
    except yaml.YAMLError as error:
        raise syntax_error(error, text, name) from None
    if root is None or (root.plain and root.text in NULLS):
        if is_overlay:
            return None
        raise invalid("the file is empty", start, "write a first one: `consolidate init`")
    if not root.mapping:
        what = f"a file holds `key: value` lines; this one holds {'a text' if root.scalar else 'a list'}"
        raise invalid(what, root.place, "write an example: `consolidate init`")
    return root


def _read(path: Path, start: Place, is_overlay: bool) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        hint = "check its name, or write one" + ("" if is_overlay else ": `consolidate init`")
        raise invalid("there is no such file", start, hint) from None
    except IsADirectoryError:
        raise invalid("this is a folder, not a file", start, f"name the file, e.g. {path / 'stack.yml'}") from None
    except OSError as error:
        hint = "check its permissions" if isinstance(error, PermissionError) else "check its name and the disk"
        raise invalid(f"the file can't be read: {error.strerror}", start, hint) from None
    if len(content) > MAX_BYTES:
        raise invalid("the file is larger than 1 MiB", start, "some hundred lines are usual; is this the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        place = place_at(start.file, before, len(before))
        raise invalid("the file isn't UTF-8 text", place, "save it as UTF-8; is this a YAML file?") from None


def syntax_error(error: yaml.YAMLError, text: str, name: str) -> StackInvalid:
    """What PyYAML can't parse, in words that help."""
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or error)
    if mark is None:
        return invalid(f"not YAML: {said}", Place(name, 1, 1), "check the file")
    place, begin = (Place(name, m.line + 1, m.column + 1) for m in (mark, context or mark))
    lines = text.split("\n")
    line = lines[min(mark.line, len(lines) - 1)]
    if mark.line >= len(lines):  # libyaml ends a last line that has no end
        place = Place(name, len(lines), len(line) + 1)
    if "tab character" in said or line[: mark.column + 1].strip(" ").startswith("\t"):
        return invalid("a tab can't indent in YAML", place, "indent with spaces")
    if "cannot start any token" in said:
        what = f"no value can begin with {line[mark.column : mark.column + 1]} without quotes"
        return invalid(what, place, "put quotes around the value")
    for sign, what, hint in _SYNTAX:
        if sign in said:
            more = "; a ${…} between braces or brackets needs quotes" if "${" in line else ""
            return invalid(what, place, hint.format(begin) + more)
    return invalid(f"not YAML: {said}", place, f"check this line and those before it, from {begin} on")
