"""Servers on their way from the file to `Resolved`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from consolidate.errors import Problem, StackInvalid
from consolidate.kinds import Catalogue, Kind
from consolidate.loader import Document
from consolidate.places import Places
from consolidate.resolved import Limits, Link, Route
from consolidate.stack import ServerEntry


@dataclass
class Draft:
    """A server on its way: validated, not yet linked."""

    name: str
    kind: Kind
    entry: ServerEntry
    settings: dict[str, Any]
    links: dict[str, Link] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    limits: Limits | None = None


@dataclass
class Work:
    """What the steps of `resolve` share: what was read, what was found out, and every problem on the way."""

    document: Document
    catalogue: Catalogue
    folder: Path
    environment: str | None
    places: Places
    name: str = ""
    problems: list[Problem] = field(default_factory=list)
    drafts: dict[str, Draft] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    proxy: Draft | None = None
    authority: str | None = None
    _located: dict[str, tuple[Path, bool]] = field(default_factory=dict)

    @cached_property
    def root(self) -> Path:
        """The folder without links, asked for once."""
        return self.folder.resolve()

    @cached_property
    def routed(self) -> frozenset[str]:
        """The servers with a route, once all routes are found."""
        return frozenset(r.server for r in self.routes)

    @cached_property
    def consumers(self) -> Mapping[tuple[str, str], list[Link]]:
        """The links to each (provider, provides) by the consumers' names, once all links are found."""
        found: dict[tuple[str, str], list[Link]] = {}
        for _, draft in sorted(self.drafts.items()):
            for link in draft.links.values():
                found.setdefault((link.provider, link.provides), []).append(link)
        return found

    def located(self, given: str) -> tuple[Path, bool]:
        """A path of the stack without links, and whether it exists; many servers may name the same one."""
        if given not in self._located:
            path = (self.root / given).resolve()
            self._located[given] = path, path.exists()
        return self._located[given]

    def stop_on_problems(self) -> None:
        """Raises StackInvalid with the problems found so far, if any."""
        if self.problems:
            once = {(p.place, p.what): p for p in reversed(self.problems)}  # servers of one `for` share their mistakes
            raise StackInvalid([p for p in self.problems if once[p.place, p.what] is p])
