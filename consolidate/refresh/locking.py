"""The lock of a stack: what its servers are made of, written down; and held against what runs and what the stack asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from consolidate import dockerfile, naming, packages
from consolidate.actions import ProvideImage
from consolidate.desired import Desired, Image
from consolidate.diff.images import locked_name
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError
from consolidate.locked import Base, Lock, LockedImage, replaced
from consolidate.observed import Observed
from consolidate.packages import PackageChange
from consolidate.pinned import asked, asks
from consolidate.plan import Operation, Plan
from consolidate.refresh.look import Look, short
from consolidate.refresh.update import Update
from consolidate.source import Source, environments, load_stack


class Difference(Struct, frozen=True):
    """What a lock has for a server, and what it would have if it were written now; `packages` where both have lists."""

    server: str
    why: str
    locked: LockedImage | None
    now: LockedImage | None = None

    @property
    def packages(self) -> list[PackageChange]:
        old, new = (i.packages if i else None for i in (self.locked, self.now))
        return packages.compared(old, new, {}) if old is not None and new is not None else []

    def to_json(self) -> dict[str, Any]:
        """The row that others build on; keys are stable."""
        changes = [{k: v for k, v in asdict(c).items() if k != "security"} for c in self.packages]
        sides = {"locked": _json(self.locked), "now": _json(self.now)}
        return {"server": self.server, "why": self.why, **sides, "packages": changes}


def _json(image: LockedImage | None) -> dict[str, Any] | None:
    return {"asks": image.asks, "id": image.id, "digest": image.digest or None} if image else None


class Choice(Struct, frozen=True):
    """A server's image in the lock: the one that it has there already, else the one with an id; neither: none is there."""

    server: str
    asks: str
    image: Image
    kept: LockedImage | None
    id: str = ""


def choices(desired: Desired, observed: Observed, old: Lock, servers: Sequence[str] = ()) -> list[Choice]:
    """What the lock has to say of each server: what it runs; where it doesn't run, what it said before.

    Of `servers` that are named, also where these don't run, what there is today. The others stay as they are.
    """
    images = {s: i for i in desired.images for s in i.servers}
    found = []
    for name, words in asked(desired.resolved, desired.images).items():
        image, before = images[name], old.get(name, words)
        if servers and name not in servers:
            if before:
                found.append(Choice(name, words, image, before))
            continue
        current = observed.one_of(name)
        runs = current.image_id if current and current.labels.get(naming.IMAGE) == image.tag else ""
        if runs and runs in observed.images:
            kept = before if before and _is(observed, image, before, runs) else None
            found.append(Choice(name, words, image, kept, runs))
        elif before and not servers:
            found.append(Choice(name, words, image, before))
        else:
            newest = observed.newest(image.tag)
            found.append(Choice(name, words, image, None, observed.images[newest] if newest else ""))
    return found


def _is(observed: Observed, image: Image, locked: LockedImage, id_: str) -> bool:
    """Whether what runs is as a lock says: the very image, or one that was built again for it."""
    return id_ in (locked.id, observed.images.get(locked_name(observed, image.tag, locked)))


def missing(desired: Desired, chosen: Iterable[Choice]) -> Plan:
    """The builds and pulls without which there is nothing to write down."""
    wanted: dict[str, tuple[Image, list[str]]] = {}
    for each in chosen:
        if each.kept is None and not each.id:
            wanted.setdefault(each.image.tag, (each.image, []))[1].append(each.server)
    operations = []
    for tag, (image, servers) in wanted.items():
        reason = "to be locked, and not built yet" if image.how == "build" else "to be locked, and not on the engine"
        action = ProvideImage(replace(image, servers=tuple(servers)))
        operations.append(Operation(f"image:{tag}", action, ", ".join(servers), reason))
    return Plan(desired.stack, tuple(operations))


def lock_of(
    look: Look, desired: Desired, chosen: Iterable[Choice], old: Lock, source: Source, only: Sequence[str] = ()
) -> Lock:
    """The lock with what was chosen, of `only` some servers where these are named; packages are read on the engine."""
    wanted = {}
    for each in chosen:
        if found := each.kept or (described(look, each.image, each.asks, each.id) if each.id else None):
            wanted[each.server] = found
    mine = asked(desired.resolved, desired.images)
    stale = any(mine.get(s) != words for s, known in old.servers.items() for words in known)
    return replaced(old, wanted, mine, _asked_elsewhere(source) if stale else (), only)


def described(look: Look, image: Image, words: str, id_: str) -> LockedImage:
    """What a lock says of an image of the engine."""
    names = look.observed.images
    if image.how != "build":
        repository = naming.listed_image(image.tag).partition("@")[0]
        head, slash, last = repository.rpartition("/")
        own = f"{head}{slash}{last.partition(':')[0]}@"
        digests = sorted((n for n, i in names.items() if i == id_ and "@" in n), key=lambda n: not n.startswith(own))
        return LockedImage(words, id_, digest=next(iter(digests), ""))
    return LockedImage(words, id_, "", image.tag.rpartition(":")[2], _base(look, image, id_), look.packages(id_))


def _base(look: Look, image: Image, id_: str) -> Base | None:
    """What it was built from; its id only where that is what the name in the Dockerfile still means."""
    stage = dockerfile.last_base(image.dockerfile)
    if stage is None:
        return None
    known = look.observed.images.get(naming.listed_image(stage.start))
    if known is None:
        return Base(stage.start)
    layers, own = (look.engine.image(i).layers for i in (known, id_))
    if own[: len(layers)] != layers:
        return Base(stage.start)
    digests = sorted(n for n, i in look.observed.images.items() if i == known and "@" in n)
    return Base(stage.start, known, next(iter(digests), ""))


def _asked_elsewhere(source: Source) -> list[tuple[str, str]] | None:
    """What the other environments ask for, by server; None where one of them can't be read on this machine."""
    from consolidate.desire.content import image_of

    found = []
    for name in {None, *environments(source)} - {source.environment}:
        try:
            resolved = load_stack(replace(source, environment=name))
            found += [(s.name, asks(s, image_of(s, resolved))) for s in resolved.servers.values()]
        except ConsolidateError:
            return None
    return found


def differences(desired: Desired, old: Lock, new: Lock, servers: Sequence[str] = ()) -> list[Difference]:
    """What the new lock has that the old one has not, server by server, and what the stack asks for that neither has."""
    found = []
    wanted = asked(desired.resolved, desired.images)
    for name in sorted({*old.servers, *new.servers, *wanted}):
        if servers and name not in servers:
            continue
        before, now = old.servers.get(name, {}), new.servers.get(name, {})
        words = wanted.get(name)
        one, other = before.get(words or ""), now.get(words or "")
        if words is not None and other != one:
            why = "it has another image" if one else "the stack asks for another" if before else "not locked yet"
            found.append(Difference(name, why, one or next(iter(before.values()), None), other))
        elif words is not None and other is None:
            why = "the stack asks for another" if before else "not locked yet"
            found.append(Difference(name, why, next(iter(before.values()), None)))
        elif gone := [i for asks_, i in before.items() if asks_ not in now]:
            found.append(Difference(name, "no environment asks for it any more", gone[0]))
    return found


def behind(desired: Desired, observed: Observed, lock: Lock, servers: Sequence[str] = ()) -> list[Difference]:
    """Servers that run what the stack asked for before: the lock has been written for what it asks for now."""
    images = {s: i.tag for i in desired.images for s in i.servers}
    found = []
    for name, words in asked(desired.resolved, desired.images).items():
        current, locked = observed.one_of(name), lock.get(name, words)
        named = not servers or name in servers
        if named and locked and current and current.labels.get(naming.IMAGE) != images[name]:
            found.append(Difference(name, "it runs what the stack asked for before", locked))
    return found


def image_text(image: LockedImage | None) -> str:
    """An image in a table: what was asked for, and by what it is known."""
    return f"{image.asks} {short(image.digest.rpartition('@')[2] or image.id)}" if image else ""


@dataclass
class Moving:
    """An update's work on the lock. It moves before any server does: should the run be killed, `up` goes on to the same.

    A server that stays with the image that it had gets its place in the lock back. Without a lock nothing is written.
    """

    source: Source
    engine: Engine
    change: Update

    @cached_property
    def old(self) -> Lock | None:
        from consolidate import lock_file  # it needs pydantic, which a remembered stack has no need of

        return lock_file.read(self.source.lock)

    def begin(self) -> list[str]:
        """The servers that the lock has moved for. Raises UsageError where it can't be written."""
        if self.old is None or not self.change.moving:
            return []
        desired, look = self.change.prepared.desired, self.change.look
        images = {s: i for i in desired.images for s in i.servers}
        words = asked(desired.resolved, desired.images)
        wanted = {s: described(look, images[s], words[s], id_) for s, id_ in self.change.moving.items()}
        self._write(wanted)
        return sorted(wanted)

    def end(self) -> list[str]:
        """The servers that didn't move. Raises EngineUnavailable."""
        if self.old is None or not self.change.moving:
            return []
        desired = self.change.prepared.desired
        observed, words = self.engine.observe(desired.stack), asked(desired.resolved, desired.images)
        stayed = {}
        for server, id_ in self.change.moving.items():
            current, before = observed.one_of(server), self.old.get(server, words[server])
            if before and (current is None or current.image_id != id_):
                stayed[server] = before
        if stayed:
            self._write(stayed)
        return sorted(stayed)

    def _write(self, wanted: Mapping[str, LockedImage]) -> None:
        from consolidate import lock_file

        desired = self.change.prepared.desired
        now = lock_file.read(self.source.lock) or Lock()
        mine = asked(desired.resolved, desired.images)
        lock_file.write(self.source.lock, replaced(now, wanted, mine, None), self.source.file.name)
