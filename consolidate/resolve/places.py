"""Where a value stands in the stack file, also of servers that a `for` has made."""

from __future__ import annotations

from typing import Any

from consolidate.errors import Place, Problem
from consolidate.loader import Document
from consolidate.stack import Publish


class Places:
    """Places of values, also of servers that a `for` has made."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.origin: dict[str, str] = {}

    def _source(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(path) > 1 and path[0] == "servers":
            return ("servers", self.origin.get(str(path[1]), str(path[1])), *path[2:])
        return path

    def problem(self, what: str, *path: str | int, hint: str = "", key: bool = False) -> Problem:
        source = self._source(path)
        place = self.document.key_place(source) if key else self.document.place(source)
        return Problem(what, place, ".".join(map(str, path)), hint)

    def place(self, *path: str | int) -> Place | None:
        return self.document.place(self._source(path))


def publish_problem(places: Places, what: str, server: str, publish: Publish) -> Problem:
    """A problem at the text in which `publish` stands: under `publish:`, or the setting that holds the port."""
    base = ("servers", places.origin.get(server, server))
    for path in places.document.values:
        if (
            path[:2] == base
            and len(path) > 2
            and str(publish.port) in str(value_at(places.document.data, path)).split(":")
        ):
            return places.problem(what, "servers", server, *path[2:])
    return places.problem(what, "servers", server, key=True)


def value_at(data: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        data = data[step]
    return data
