"""Backups in a repository: what each holds, and which are kept. Values, and pure functions of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct

from consolidate.resolved import Keep

ASKED, SAFETY = "asked for", "before a restore"  # why a backup was made
DATA = "/data"  # where each server's volumes are, in a snapshot
RECENT = timedelta(days=1)
VERSION = 2  # of the manifest, and of what a backup has beside it
STACK, RUN, SERVER, REASON = "stack", "run", "server", "reason"  # what restic's tags tell, as KEY=VALUE
MANIFEST = "manifest"  # the tag of the snapshot that is written last: it makes a backup of what was written before
FIRST = "first"  # the tag of what was read while servers went on; those that stand still have another of their own


class Part(Struct, frozen=True):
    """What a backup has of one server: its program's dump, or its `volumes`, in restic's snapshot `snapshot`.

    `records` were counted, of a dump on its way into the repository, of files in the volumes while the programs stood
    still, by the name of what they are of.
    """

    kind: str
    image: str  # the one that the stack asks for, and the one that ran
    image_id: str
    method: Literal["dump", "volumes"]
    volumes: tuple[str, ...]
    frozen: bool = False
    snapshot: str = ""
    records: Mapping[str, int] | None = None


class Manifest(Struct, frozen=True):
    """What a backup is: of which stack, when, by whom, and where it has the data of each server."""

    stack: str
    environment: str | None
    file: str  # the stack file, among the files that travel with it
    run: str
    began: str  # ISO 8601, UTC
    by: str
    parts: Mapping[str, Part]
    program: str = ""  # the version of ours
    version: int = VERSION

    def located(self, snapshots: Iterable[Mapping[str, Any]]) -> Manifest:
        """The same, with the snapshots of restic in which each server is.

        Raises LookupError where one has none.
        """
        rows = sorted(snapshots, key=lambda row: str(row["time"]))
        found = {s: row["id"] for row in rows for s in tags(row).get(SERVER, ())}
        lost = [s for s in self.parts if s not in found]
        if lost:
            raise LookupError(", ".join(lost))
        return msgspec.structs.replace(
            self, parts={s: msgspec.structs.replace(p, snapshot=found[s]) for s, p in self.parts.items()}
        )

    def counted(self, records: Mapping[str, Mapping[str, int]]) -> Manifest:
        """The same, with the records of servers."""
        parts = {s: msgspec.structs.replace(p, records=records.get(s, p.records)) for s, p in self.parts.items()}
        return msgspec.structs.replace(self, parts=parts)


class Run(Struct, frozen=True):
    """A backup as restic's list of snapshots shows it: `whole`, with its manifest, or what a run that was cut off has left.

    `run` is its name.
    """

    run: str
    stack: str
    when: datetime
    servers: tuple[str, ...]
    reason: str
    manifest: str  # the snapshot's id
    snapshots: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return bool(self.manifest)


def tags(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """A snapshot's tags by their keys."""
    found: dict[str, list[str]] = {}
    for tag in row.get("tags") or ():
        key, _, value = tag.partition("=")
        found.setdefault(key, []).append(value)
    return found


def runs_of(rows: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The backups in restic's list, the newest first."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for run in tags(row).get(RUN, ()):
            grouped.setdefault(run, []).append(row)
    found = []
    for run, members in grouped.items():
        last = next((r for r in members if MANIFEST in tags(r)), None)
        told = tags(last or members[0])
        when = datetime.strptime(run[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        stack, reason = (next(iter(told.get(k, ())), "") for k in (STACK, REASON))
        servers = tuple(sorted({s for r in members for s in tags(r).get(SERVER, ())}))
        found.append(
            Run(run, stack, when, servers, reason, last["id"] if last else "", tuple(r["id"] for r in members))
        )
    return sorted(found, key=lambda r: (r.when, r.run), reverse=True)


def asked_for(runs: Iterable[Run]) -> bool:
    """Whether somebody has made a backup, and so was told of the passphrase."""
    return any(r.whole and r.reason == ASKED for r in runs)


def chosen(runs: Sequence[Run], name: str, servers: Collection[str] = ()) -> Run:
    """The backup that is meant by `latest`, or by the beginning of its name.

    `latest` is the newest with the data of all of `servers` that any backup has, or of as many as one has; none of those that
    were made of what a restore replaced. Raises LookupError with what there is.
    """
    whole = [r for r in runs if r.whole]
    if name == "latest":
        found = [r for r in whole if r.reason != SAFETY]
        if not found:
            raise LookupError("the repository holds no backup of that")
        return max(found, key=lambda r: len(set(servers) & set(r.servers)))  # of several the first: the newest
    found = [r for r in whole if r.run.startswith(name)]
    if len(found) != 1:
        what = f"there is no backup '{name}'" if not found else f"'{name}' may be several backups"
        raise LookupError(f"{what}; there are: {', '.join(r.run for r in whole[:10]) or 'none'}")
    return found[0]


def lacking(runs: Sequence[Run], run: Run, servers: Collection[str]) -> dict[str, str]:
    """The servers of which `run` has no data, with the newest backup that has and that `latest` may mean."""
    asked = [r for r in runs if r.whole and r.reason != SAFETY]
    found = ((s, next((r for r in asked if s in r.servers), None)) for s in servers if s not in run.servers)
    return {server: other.run for server, other in found if other}


def outlived(runs: Sequence[Run], keep: Keep) -> list[Run]:
    """The backups that `keep` has no place for, and what runs that were cut off have left.

    Of each day, ISO week and month that has a backup of a server the last one is kept, so many of each; and all that were
    made within a day before the newest, whatever `keep` says: somebody may still be at work between two of them. Those that
    were made for different reasons don't stand in for each other.
    """
    whole = sorted((r for r in runs if r.whole), key=lambda r: (r.when, r.run), reverse=True)
    series = {(s, r.reason) for r in whole for s in r.servers}
    kept = set().union(*(_kept([r for r in whole if s in r.servers and r.reason == why], keep) for s, why in series))
    return [r for r in runs if r.run not in kept]


def _kept(whole: Sequence[Run], keep: Keep) -> set[str]:
    """Of backups of one thing, the newest first, those that stay."""
    kept = {r.run for r in whole if r.when >= whole[0].when - RECENT}
    periods: list[tuple[int, Callable[[datetime], tuple[int, ...]]]] = [
        (keep.daily, lambda when: when.timetuple()[:3]),
        (keep.weekly, lambda when: tuple(when.isocalendar()[:2])),
        (keep.monthly, lambda when: when.timetuple()[:2]),
    ]
    for count, period in periods:
        last: dict[tuple[int, ...], Run] = {}
        for run in whole:
            last.setdefault(period(run.when), run)
        kept |= {r.run for r in list(last.values())[:count]}
    return kept


def age(now: datetime, then: datetime) -> str:
    """How long ago that was, in its largest unit."""
    seconds = int((now - then).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def encode(manifest: Manifest) -> str:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode()


def decode(text: str) -> Manifest:
    """A manifest read back.

    Raises ValueError where it is damaged, or of another version than this program knows.
    """
    if (version := msgspec.json.decode(text).get("version")) != VERSION:
        what = f"its version is {version}, and this program knows {VERSION}"
        raise ValueError(f"{what}: the version of consolidate that made it brings it back")
    return msgspec.json.decode(text, type=Manifest)
