"""The port to an engine: what the rest of the program asks of it, in its own words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct, field

from consolidate import naming, process
from consolidate.observed import Details, HostFacts, Observed, ObservedContainer, ObservedFile

if TYPE_CHECKING:
    from consolidate.actions import CreateContainer, CreateNetwork
    from consolidate.desired import Image
    from consolidate.resolved import Limits

Progress = Callable[[str], None]

LOCK_GRACE = 30.0  # seconds in which a lock that another machine has made must run
ENDED = ("exited", "dead", "removing")  # a container's state, once its program has ended for good

Tenure = Literal["held", "left", "unsettled"]


def tenure(state: str, identity: str) -> Tenure:
    """Whether somebody holds a lock: by the state of its container, and by its holder's identity.

    On our machine the holder's process says it. Another machine's holder has gone once its lock has ended; a lock that
    doesn't run yet is unsettled: its holder may be about to start it, or be dead.
    """
    fate = process.fate(identity)
    if fate == "ended" or (fate == "unknown" and state in ENDED):
        return "left"
    return "unsettled" if (fate, state) == ("unknown", "created") else "held"


def broken_off(lock: ObservedContainer | None) -> bool:
    """Whether an earlier run did not come to its end: its lock is still there, or has been taken over by whoever works."""
    if lock is None:
        return False
    return naming.BROKEN_OFF in lock.labels or tenure(lock.state, lock.labels.get(naming.PROCESS, "")) == "left"


def taken_over(who: str, since: str) -> str:
    """A word about a lock whose holder has gone; `since` in UTC."""
    return f"{who} has gone before it was done, and held the lock since {since} UTC; this run takes over"


class State(Struct, frozen=True):
    """How one container is; `restarts` counts the engine's own restarts of it."""

    status: str  # the engine's word
    running: bool
    exit_code: int
    restarts: int
    health: str = "none"
    test: tuple[str, ...] = ()  # its health check's command
    error: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)  # by network
    names: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # by network: those that it was given, and others


class ImageFacts(Struct, frozen=True):
    """An image; the first of its `layers` are those of the image that it was built from."""

    id: str
    labels: Mapping[str, str]
    layers: tuple[str, ...]

    @property
    def chains(self) -> tuple[str, ...]:
        """What tells each layer together with all that are below it: so engines know what they have (OCI's chain ids)."""
        found: list[str] = []
        for layer in self.layers:
            below = f"{found[-1]} {layer}".encode() if found else b""
            found.append(f"sha256:{hashlib.sha256(below).hexdigest()}" if below else layer)
        return tuple(found)

    def shared(self, chains: Set[str]) -> int:
        """How many of its lowest layers are among these."""
        return next((n for n, chain in reversed([*enumerate(self.chains, 1)]) if chain in chains), 0)


class Machine(Struct, frozen=True):
    """What an engine's images are for, and how it keeps them.

    Where that is by `layers`, an archive needs to have those alone that the engine lacks. Others want it whole, and
    containerd's store calls an image by another id.
    """

    id: str  # the engine's own
    system: str
    architecture: str
    store: Literal["layers", "podman", "containerd"] = "layers"


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whose engine answers so to GET /version: Podman says it among the components, and the number is then its own."""
    return any(part.get("Name") == "Podman Engine" for part in version.get("Components") or ())


class Engine(Protocol):
    """An engine that runs containers. Every method raises OperationFailed when the engine refuses, and
    EngineUnavailable when it doesn't answer."""

    parallel: int  # calls that may be under way at once

    def info(self) -> Mapping[str, Any]: ...
    def version(self) -> Mapping[str, Any]: ...
    def registry_error(self, tag: str, timeout: float) -> str: ...
    def facts(self) -> HostFacts: ...
    def machine(self) -> Machine: ...
    def observe(self, stack: str) -> Observed: ...

    def registry_digest(self, tag: str, timeout: float) -> str: ...
    def has_image(self, tag: str) -> bool: ...
    def image(self, name: str) -> ImageFacts: ...
    def build(self, image: Image, context: IO[bytes], progress: Progress, *, cache: bool = True) -> None: ...
    def pull(self, tag: str, progress: Progress) -> None: ...
    def tag_image(self, image: str, tag: str) -> None: ...
    def remove_image(self, name: str) -> None: ...
    def import_image(self, stream: IO[bytes], tag: str) -> None: ...
    def all_images(self) -> tuple[ImageFacts, ...]: ...
    def layer_sizes(self, image: str) -> tuple[int, ...]: ...
    def save_image(self, image: str, leave_out: int) -> Iterator[bytes]: ...
    def load_image(self, archive: Iterable[bytes], progress: Progress) -> None: ...

    def create_network(self, network: CreateNetwork) -> None: ...
    def remove_network(self, name: str) -> None: ...
    def connect(self, container: str, network: str, alias: str) -> None: ...
    def disconnect(self, container: str, network: str) -> None: ...

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None: ...
    def remove_volume(self, name: str) -> None: ...

    def create(self, creation: CreateContainer) -> None: ...
    def create_helper(
        self,
        name: str,
        labels: Mapping[str, str],
        volumes: Mapping[str, str],
        volume_labels: Mapping[str, Mapping[str, str]] | None = None,
        image: str | None = None,
        covered: Sequence[str] = (),
    ) -> None: ...
    def start(self, container: str, *, new: bool = False) -> None: ...
    def stop(self, container: str, grace: float | None) -> None: ...
    def restart(self, container: str, grace: float) -> None: ...
    def unpause(self, container: str) -> None: ...
    def kill(self, container: str, signal: str) -> None: ...
    def rename(self, container: str, name: str) -> None: ...
    def remove(self, container: str, *, nameless_volumes: bool = False) -> None: ...
    def state(self, container: str) -> State: ...
    def details(self, container: str) -> Details: ...
    def update(self, container: str, limits: Limits) -> None: ...

    def put(self, container: str, path: str, archive: IO[bytes]) -> None: ...
    def get(self, container: str, path: str) -> bytes: ...
    def files(self, container: str, path: str) -> Mapping[str, ObservedFile]: ...
    def run(self, container: str, command: Sequence[str], stdin: bytes | None = None) -> tuple[int, str]: ...
    def output(self, container: str, command: Sequence[str]) -> Iterator[bytes]: ...
    def feed(self, container: str, command: Sequence[str], input_: Iterable[bytes]) -> tuple[int, str]: ...
    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]: ...
    def attach(self, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> int: ...
    def logs(self, container: str, *, tail: int | None, since: int | None, follow: bool) -> Iterator[bytes]: ...
    def lock(self, stack: str, holder: str, tell: Callable[[str], None]) -> AbstractContextManager[None]: ...
