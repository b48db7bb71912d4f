"""What stack.lock.yml says: the very image of each server, by its id and by what is in it. Values; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct, field

from consolidate import naming
from consolidate.errors import OperationFailed, Place

BRING = "bring it from an engine that has it (`consolidate ship` there)"


class Base(Struct, frozen=True):
    """What an image was built from: its name in the Dockerfile, and its id and digest where they are known."""

    name: str
    id: str = ""
    digest: str = ""


class LockedImage(Struct, frozen=True):
    """One image. `asks` is what the stack asks for: redis:7, or web:CONTEXT of what is built.

    A pulled one has its repository's `digest`; a built one its build's `context`, its base, and its packages where it has
    a list of them.
    """

    asks: str
    id: str
    digest: str = ""
    context: str = ""
    base: Base | None = None
    packages: Mapping[str, str] | None = None

    @property
    def content(self) -> str:
        """A hash of what a rebuild has to have: two that are built from the same and have the same packages are alike."""
        return naming.digest([self.context, self.packages])

    @property
    def can_be_had(self) -> bool:
        """Whether it can be pulled, or built again and compared, where it isn't there."""
        return bool(self.digest or self.packages)


class Lock(Struct, frozen=True):
    """By server and what its stack asks for. `places` tells where each server stands in the file."""

    servers: Mapping[str, Mapping[str, LockedImage]] = field(default_factory=dict)
    places: Mapping[str, Place | None] = field(default_factory=dict)
    keys: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (asks, id) → what the file calls the image

    def get(self, server: str, asks: str) -> LockedImage | None:
        return self.servers.get(server, {}).get(asks)


def not_to_be_had(servers: str, image: LockedImage, again: str, pull: OperationFailed | None = None) -> OperationFailed:
    """An image that isn't on the engine, and that nothing tells how to make; or whose `pull` has failed."""
    why = "it has no list of packages that a new build could be held against" if image.context else "no registry had it"
    why = pull.what if pull else why
    first = f"{pull.hint}; or " if pull and pull.hint else ""
    return OperationFailed(
        f"{servers}: the image of the lock, {image.asks} with the id {image.id[:19]}, is not on this engine, and {why}",
        hint=f"{first}{BRING}; or lock what there is today: `{again}`",
    )


def replaced(
    old: Lock,
    wanted: Mapping[str, LockedImage],
    mine: Mapping[str, str],
    elsewhere: Iterable[tuple[str, str]] | None,
    only: Collection[str] = (),
) -> Lock:
    """The lock with these images for its servers.

    `mine` is what the stack asks for each of its servers: what it asks for no more goes, unless another environment asks
    for it; `elsewhere` is that, by server, None where nobody knows. With `only`, all others stay as they are.
    """
    others = set(elsewhere) if elsewhere is not None else None
    servers: dict[str, dict[str, LockedImage]] = {}
    for name in sorted({*old.servers, *wanted}):
        found = {
            asks: image
            for asks, image in old.servers.get(name, {}).items()
            if mine.get(name) == asks or others is None or (name, asks) in others or (only and name not in only)
        }
        if name in wanted:
            found[wanted[name].asks] = wanted[name]
        if found:
            servers[name] = dict(sorted(found.items()))
    return Lock(servers, keys=named(servers, old.keys))


def named(
    servers: Mapping[str, Mapping[str, LockedImage]], before: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """What the file calls each image: what is asked for, with a number where that means several.

    An image keeps the name that it has, and a new one takes the first that is free: so the lines of servers stay as they
    are where all of them move on.
    """
    images = dict.fromkeys((i.asks, i.id) for each in servers.values() for i in each.values())
    found = {key: before[key] for key in images if key in before}
    taken = set(found.values())
    for asks, id_ in images:
        if (asks, id_) not in found:
            number = 1
            while (name := asks if number == 1 else f"{asks}.{number}") in taken:
                number += 1
            taken.add(name)
            found[asks, id_] = name
    return found
