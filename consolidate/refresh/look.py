"""What there is newer than the images of servers: asked of distributions and of registries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming, packages
from consolidate.desired import Desired, Image
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.inventory import packages_of
from consolidate.observed import Observed, ObservedContainer
from consolidate.packages import PackageChange
from consolidate.pipeline import check_servers

ASKING = 2  # containers that ask apt at once
REGISTRY_TIMEOUT = 20.0


class Running(Struct, frozen=True):
    """A server that runs, or one of its replicas, and the image that the stack asks for it."""

    server: str
    image: Image
    container: ObservedContainer


class Change(Struct, frozen=True):
    """One package, or one digest, that is another in a server's next image."""

    server: str
    change: PackageChange

    def to_json(self) -> dict[str, Any]:
        """The row that others build on; keys are stable."""
        made = self.change
        return {
            "server": self.server,
            "package": made.package,
            "old": made.old,
            "new": made.new,
            "security": made.security,
        }


class News(Struct, frozen=True):
    """What is new for each server, what to know about it, and which could not be told of, with the reason."""

    stack: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, OperationFailed] = {}

    def to_json(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "changes": [c.to_json() for c in self.changes],
            "notes": list(self.notes),
            "failures": {s: e.what for s, e in self.failures.items()},
        }


def once(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Changes by server: what is new for one of its replicas mostly is for all."""
    return tuple(dict.fromkeys(replace(c, server=naming.server_of(c.server)) for c in changes))


def running(desired: Desired, observed: Observed, servers: Sequence[str]) -> list[Running]:
    """The servers of the stack that have a container; all of them where none is named. Raises UsageError."""
    check_servers(desired.resolved, servers)
    images = {i.tag: i for i in desired.images}
    found = []
    for name, server in desired.servers.items():
        current = observed.current(name)
        if current and (not servers or server.server.name in servers):
            found.append(Running(name, images[server.container.image], current))
    return found


class Look:
    """Questions to an engine about images; each is asked once."""

    def __init__(self, engine: Engine, observed: Observed) -> None:
        self.engine = engine
        self.observed = observed
        self._offered: dict[str, list[PackageChange] | OperationFailed | None] = {}
        self._lists: dict[str, Mapping[str, str] | None] = {}

    def ask(self, images: Iterable[str]) -> None:
        """Ask apt in containers of these images, some at once."""
        new = [i for i in dict.fromkeys(images) if i not in self._offered]
        with ThreadPoolExecutor(ASKING, thread_name_prefix="ask") as pool:
            self._offered |= zip(new, pool.map(self._ask, new), strict=True)

    def _ask(self, image: str) -> list[PackageChange] | OperationFailed | None:
        name = next((t for t, i in self.observed.images.items() if i == image and t not in (i, naming.UNNAMED)), image)
        try:
            status, said = self.engine.run_once(image, packages.ASK)
            return None if status == packages.NO_APT else packages.offered(said, status, name)
        except OperationFailed as error:
            return None if "/bin/sh" in error.what else error  # no shell, no apt

    def offered(self, image: str) -> list[PackageChange] | None:
        """What its distribution has newer; None where there is no apt to ask.

        Raises OperationFailed where apt can't tell.
        """
        self.ask([image])
        found = self._offered[image]
        if isinstance(found, OperationFailed):
            raise found
        return found

    def moved(self, image: Image, has: str) -> PackageChange | None:
        """What a pulled image's tag has moved to from the image with the id `has`: on the engine, else at its registry.

        A name with a digest never moves, nor does what was loaded into the engine without a registry. Raises
        OperationFailed where its registry doesn't answer.
        """
        there = self.observed.images.get(naming.listed_image(image.tag), has)
        if there != has:
            return PackageChange(image.tag, short(has), short(there))
        repository = naming.listed_image(image.tag).rpartition(":")[0]
        own = {n for n, i in self.observed.images.items() if i == has and n.startswith(f"{repository}@")}
        if "@" in image.tag or not own:
            return None
        try:
            digest = self.engine.registry_digest(image.tag, REGISTRY_TIMEOUT)
        except OperationFailed as error:
            what = f"the registry does not tell what {image.tag} is now: {error.what}"
            raise OperationFailed(what, hint=error.hint) from None
        if f"{repository}@{digest}" in own:
            return None
        return PackageChange(image.tag, short(next(iter(own)).partition("@")[2]), short(digest))

    def packages(self, image: str) -> Mapping[str, str] | None:
        """The packages of an image; None where it has no list that we can read."""
        if image not in self._lists:
            self._lists[image] = packages_of(self.engine, self.observed.stack, image)
        return self._lists[image]


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
