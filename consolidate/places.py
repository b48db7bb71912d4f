"""Where a value stands in the stack file, also of servers that a `for` has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consolidate.errors import Place, Problem
from consolidate.loader import Document, yaml_path
from consolidate.mistakes import SECRET_NAME
from consolidate.variables import Use


def told(use: Use) -> str:
    """What gave a variable its text, for people."""
    words = {"environment": "of the environment", "word": "which is not set: its default", "unset": "which is not set"}
    return words.get(use.origin) or str(use.place)


class Places:
    """Places of values, also of servers that a `for` has made. A remembered stack has None instead."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.origin: dict[str, str] = {}
        self.entries: dict[str, Mapping[str, Any]] = {}  # of each server, every `for` written out
        self.loops: dict[str, tuple[str, str]] = {}  # of each server that a `for` has made: (name, text) in the braces

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def _source(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(path) > 1 and path[0] == "servers":
            return ("servers", self.origin.get(str(path[1]), str(path[1])), *path[2:])
        return path

    def problem(self, what: str, *path: str | int, hint: str = "", key: bool = False, shows: bool = True) -> Problem:
        """A problem with what stands at a path, or with its `key`. `shows`: its words may have the value in them."""
        source = self._source(path)
        place = self.document.key_place(source) if key else self.document.place(source)
        uses = self.uses(*path)
        if shows and any(SECRET_NAME.search(u.name) for u in uses):
            what, hint = (
                "what stands here is refused, and not shown, since a variable with a secret's name is in it",
                "",
            )
        used = ", ".join(f"{u.name} ({told(u)})" for u in uses)
        return Problem(
            what, place, yaml_path(path), "\n  ".join(filter(None, [hint, used and f"it comes from {used}"]))
        )

    def place(self, *path: str | int) -> Place | None:
        return self.document.place(self._source(path))

    def uses(self, *path: str | int) -> tuple[Use, ...]:
        """The variables in a value."""
        return self.document.uses.get(self._source(path), ())

    def loop(self, *path: str | int) -> tuple[str, str] | None:
        """What a `for` has put into a value: the name and the text."""
        loop = self.loops.get(str(path[1])) if len(path) > 1 and path[0] == "servers" else None
        if loop is None:
            return None
        written = self.document.data
        for step in self._source(path):
            try:
                written = written[step]
            except (KeyError, IndexError, TypeError):  # a key has it
                return loop
        return loop if "{" + loop[0] + "}" in str(written) else None
