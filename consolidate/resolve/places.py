"""Where a value stands in the stack file, also of servers that a `for` has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consolidate.errors import Place, Problem
from consolidate.loader import Document, yaml_path
from consolidate.stack import Publish, parse_publish


class Places:
    """Places of values, also of servers that a `for` has made."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.origin: dict[str, str] = {}
        self.entries: dict[str, Mapping[str, Any]] = {}  # of each server, every `for` written out

    def _source(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(path) > 1 and path[0] == "servers":
            return ("servers", self.origin.get(str(path[1]), str(path[1])), *path[2:])
        return path

    def problem(self, what: str, *path: str | int, hint: str = "", key: bool = False) -> Problem:
        source = self._source(path)
        place = self.document.key_place(source) if key else self.document.place(source)
        return Problem(what, place, yaml_path(path), hint)

    def place(self, *path: str | int) -> Place | None:
        return self.document.place(self._source(path))


def publish_problem(places: Places, what: str, server: str, publish: Publish, hint: str) -> Problem:
    """A problem at the text in which `publish` stands: under `publish:`, or the setting that holds the port."""
    entry = places.entries[server]
    for index, text in reversed(list(enumerate(entry.get("publish", ())))):
        if parse_publish(text) == publish:
            return places.problem(what, "servers", server, "publish", index, hint=hint)
    for key, value in entry.items():
        if isinstance(value, str | int) and str(value).rpartition(":")[2] == str(publish.port):
            return places.problem(what, "servers", server, key, hint=hint)
    return places.problem(what, "servers", server, hint=hint, key=True)
