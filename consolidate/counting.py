"""How records are counted: in a dump as it streams by, among files, in what a command says. Pure, and knows no kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

HEAD = 4096  # bytes of a line that its expressions may look at


class DumpedRecords(Struct, frozen=True):
    """The records in a dump, by regular expressions for the beginnings of its lines.

    A line that `record` matches is one, of what a line that `name` matches has named last (its first group), within what
    a line that `scope` matches has; where that has no group, nothing is counted. From a line that the first of `skip`
    matches to one that the second does, nothing counts.
    """

    name: str
    record: str
    scope: str = ""
    skip: tuple[str, ...] = ()


class StoredRecords(Struct, frozen=True):
    """The records that are files: an expression for a whole path, VOLUME/…, and the name of what such a file is of."""

    path: str
    name: str


class Page(Struct, frozen=True):
    """What a web server is asked for; `status` is an expression for a whole one.

    `text` is a command that prints, in the server that was brought back, what the page has to hold: its last line.
    """

    port: int
    path: str = "/"
    status: str = "200"
    text: tuple[str, ...] = ()


class Drill(Struct, frozen=True):
    """How it is seen that all of a server's data has come back; `records` is what they are called.

    `count` says in the server that was brought back how many there are, as NAME, a tab and a number for each name. With
    `grows` there may be more than the backup has.
    """

    records: str = "records"
    count: tuple[str, ...] = ()
    dumped: DumpedRecords | None = None
    stored: StoredRecords | None = None
    grows: bool = False
    page: Page | None = None


class DumpCounter:
    """Counts the records of a dump that is fed to it in parts; nothing of it is kept but the beginning of a line."""

    def __init__(self, how: DumpedRecords) -> None:
        record = how.record.encode()
        self._name = re.compile(how.name.encode())
        self._scope = re.compile(how.scope.encode()) if how.scope else None
        self._record = re.compile(record)
        self._run = re.compile(rb"(?:(?:%s)[^\n]*+\n)*+" % record)
        self._skip = tuple(re.compile(s.encode()) for s in how.skip)
        self._counts: dict[str, int] = {}
        self._within: str | None = None if how.scope else ""
        self._current: str | None = None
        self._skipping = self._in_line = False
        self._head = b""

    def feed(self, part: bytes) -> None:
        if self._in_line:  # its beginning has been looked at
            end = part.find(b"\n")
            if end < 0:
                return
            part, self._in_line = part[end + 1 :], False
        part = self._head + part
        end = part.rfind(b"\n") + 1
        self._lines(part, end)
        self._head = part[end:]
        if len(self._head) > HEAD:
            self._line(self._head)
            self._head, self._in_line = b"", True

    def counts(self) -> dict[str, int]:
        """What there was until now, by name; what was named and has no record has 0. Nothing can be fed after this."""
        if self._head:
            self._line(self._head)
            self._head = b""
        return self._counts

    def _lines(self, text: bytes, end: int) -> None:
        at = 0
        while at < end:
            if self._current is not None and not self._skipping:  # most of a dump: one look for all of them
                run = self._run.match(text, at, end)
                if run and run.end() > at:
                    self._counts[self._current] += text.count(b"\n", at, run.end())
                    at = run.end()
                    continue
            stop = text.index(b"\n", at)
            self._line(text[at : min(stop, at + HEAD)])
            at = stop + 1

    def _line(self, line: bytes) -> None:
        if self._skip:
            if self._skipping:
                self._skipping = not self._skip[1].match(line)
                return
            if self._skip[0].match(line):
                self._skipping = True
                return
        if self._scope and (found := self._scope.match(line)):
            self._within, self._current = _text(found), None
        elif found := self._name.match(line):
            name = _text(found)
            inside = None if self._within is None or name is None else [*filter(None, (self._within, name))]
            self._current = None if inside is None else ".".join(inside)
            if self._current is not None:
                self._counts.setdefault(self._current, 0)
        elif self._current is not None and self._record.match(line):
            self._counts[self._current] += 1


def _text(found: re.Match[bytes]) -> str | None:
    return None if found[1] is None else found[1].decode(errors="replace")


def among_files(how: StoredRecords, paths: Iterable[str]) -> dict[str, int]:
    """How many of `paths` are records, by the name of what they are of."""
    expression, counts = re.compile(how.path), dict[str, int]()
    for path in paths:
        if found := expression.fullmatch(path):
            name = found.expand(how.name)
            counts[name] = counts.get(name, 0) + 1
    return counts


def in_words(said: str) -> dict[str, int]:
    """Lines of NAME, a tab and a number; those of one name are added.

    Raises ValueError for a line that is something else.
    """
    counts: dict[str, int] = {}
    for line in said.splitlines():
        name, tab, number = line.rpartition("\t")
        if not tab or not number.strip().isdecimal():
            raise ValueError(f"{line[:80]!r} is no name, tab and number")
        counts[name] = counts.get(name, 0) + int(number)
    return counts
