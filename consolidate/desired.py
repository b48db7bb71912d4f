"""What should be on the engine, as values. Nothing here is Docker's own: any engine has such things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from consolidate import naming
from consolidate.counting import Drill
from consolidate.files import FileSet, FileSpec
from consolidate.locked import LockedImage
from consolidate.resolved import Check, Limits, Link, Publish, Resolved, Server

CONFIG_PATH, LIVE_PATH = "/config", "/live"
WRITE_PATH = "/write"  # below it helpers have the volumes that they fill or hold
CURRENT, NEXT = "current", "next"
RENDERED = ".rendered.json"  # beside files with secrets: their texts, with the secrets' names in place of the values
HASHED = "sha256:"  # begins the value of a field that is told by its hash alone
ROUTED_PORT = "port for the proxy"  # a part of a server that is not a part of its container: what it listens on
DOCKERFILE = "Dockerfile"


def is_dockerfile(file: FileSpec) -> bool:
    """Whether it is the one that a build goes by. What a stack copies is called `./Dockerfile`."""
    return PurePosixPath(file.path) == PurePosixPath(DOCKERFILE)


class Image(Struct, frozen=True):
    """An image by tag: built from `context`, or pulled, or the embedded base."""

    tag: str
    how: str  # build | pull | base
    context: FileSet = FileSet(())
    servers: tuple[str, ...] = ()

    @property
    def dockerfile(self) -> str:
        """The text of its Dockerfile; empty where its context has none."""
        file = next((f for f in self.context.files if is_dockerfile(f)), None)
        if file is None:
            return ""
        return file.text if file.text is not None else file.source.read_text() if file.source else ""


class Network(Struct, frozen=True):
    """A bridge. `internal` has no way out and no address of the host on it; `masquerade` lets it reach the outside."""

    name: str
    server: str
    role: str  # front | link | route
    internal: bool
    masquerade: bool = False


class DataVolume(Struct, frozen=True):
    name: str
    server: str
    volume: str


class FileVolume(Struct, frozen=True):
    """A volume of files that belongs to one generation; its name tells its content."""

    stack: str
    name: str
    server: str
    role: str  # config | secrets | check
    files: FileSet


class Live(Struct, frozen=True):
    """Files that change without a new container. `earlier` is the hash of those that are in the volume already, and
    stand there in place of `files`."""

    stack: str
    server: str
    volume: str
    files: FileSet
    check: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    signal: str = ""
    earlier: str = ""
    turn: int = 0  # times that the same files had to be written again, each time to a folder of its own

    @property
    def applied(self) -> str:
        return self.earlier or self.files.content

    @property
    def folder(self) -> str:
        """Where in the volume they are written to."""
        return naming.turned(self.applied, self.turn)


class Mount(Struct, frozen=True):
    volume: str
    target: str
    read_only: bool


class Container(Struct, frozen=True, dict=True):
    """A server's container, but for its generation and its networks, which can change while it runs.

    Of a server with several replicas, `server` is what this one is called (naming.replica).
    """

    stack: str
    server: str
    kind: str
    image: str
    user: str | None
    command: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None
    working_dir: str | None
    init: bool
    read_only: bool
    capabilities: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    tmpfs: tuple[tuple[str, str], ...]
    limits: Limits
    publish: tuple[Publish, ...]
    dns_options: tuple[str, ...]
    health: Check | None
    stop_signal: str
    stop_grace: float
    labels: tuple[tuple[str, str], ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        return naming.digest(asdict(self), 16)


class Trial(Struct, frozen=True):
    """The check of a server's configuration: `container` runs it once, serves nobody and has none of the server's data.

    `files` is a volume of its own, with the files that the server reads from the one that changes under it.
    """

    container: Container
    timeout: float
    files: FileVolume | None


class Made(Struct, frozen=True):
    """What a generation was made of: it stands on its container's label, so that it can be made again.

    `live` is the hash of the reloadable files that it began with, `secrets` are the ids of those in its volume of them.
    """

    container: Container
    ready: Check | None = None
    live: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)


class Backup(Struct, frozen=True):
    """Commands that write a server's data to their output and read it back; a whole dump ends with `complete`.

    Without them its volumes are copied; with `freeze` its programs stand still for the last part of that, those named in
    `first` before the others.
    """

    dump: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    complete: str = ""
    freeze: bool = False
    first: tuple[str, ...] = ()


class Grant(Struct, frozen=True):
    """What a provider is told about a consumer. `applied` changes when it must be told again.

    `password_in`: not the store has the consumer's password, but a container, at a path.
    """

    link: Link
    command: tuple[str, ...]
    input: str
    applied: str = ""
    revoke_command: tuple[str, ...] = ()
    revoke_input: str = ""
    password_in: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        return f"grant.{self.link.consumer}.{self.link.name}"


def grant_hash(command: Sequence[str], text: str, ids: Mapping[str, str]) -> str:
    """What changes when a provider must be told again; `ids` are those of the secrets in `text`."""
    return naming.digest([list(command), text, ids])


class DesiredServer(Struct, frozen=True):
    """All that one server is on the engine, or one of its replicas; these share all but the container.

    `parts`: the fields that its container is made of, as text.
    """

    server: Server
    container: Container
    networks: tuple[str, ...]
    parts: Mapping[str, str]
    volumes: tuple[DataVolume, ...]
    files: tuple[FileVolume, ...]
    live: Live | None
    ready: Check | None
    rolling: bool
    relaxed: tuple[str, ...] = ()
    trial: Trial | None = None
    backup: Backup | None = None
    drill: Drill | None = None

    @property
    def name(self) -> str:
        """The server's name, of a further replica with its number."""
        return self.container.server

    def replica(self, name: str) -> DesiredServer:
        """The same as another of the server's replicas."""
        trial = self.trial and replace(self.trial, container=replace(self.trial.container, server=name))
        return replace(self, container=replace(self.container, server=name), trial=trial)

    @property
    def made(self) -> Made:
        ids = {a: i for f in self.files if f.role == "secrets" for a, i in f.files.secret_ids.items()}
        return Made(self.container, self.ready, self.live.applied if self.live else "", ids)


class Desired(Struct, frozen=True, dict=True):
    """A whole stack. `servers` has each replica by its name, those of one server one after the other, the first in front.

    `locked` is the image that the lock has for each server; without a lock there is none.
    """

    stack: str
    resolved: Resolved
    images: tuple[Image, ...]
    networks: tuple[Network, ...]
    servers: Mapping[str, DesiredServer]
    grants: tuple[Grant, ...]
    locked: Mapping[str, LockedImage] = field(default_factory=dict)

    @cached_property
    def replicas(self) -> Mapping[str, list[str]]:
        """The names of each server's replicas."""
        found: dict[str, list[str]] = {}
        for name in self.servers:
            found.setdefault(naming.server_of(name), []).append(name)
        return found

    @property
    def digest(self) -> str:
        """A hash of all that it says of the engine: what has the same one makes the same of it."""
        servers = [
            [
                s.container.fingerprint,
                s.networks,
                [f.name for f in s.files],
                s.live and [s.live.applied, s.live.check, s.live.command, s.live.signal],
                s.trial and s.trial.container.fingerprint,
                s.ready,
                s.rolling,
            ]
            for s in self.servers.values()
        ]
        images = [[i.tag, i.how] for i in self.images]
        whole = [self.stack, images, self.networks, servers, [g.applied for g in self.grants]]
        locked = {s: [i.id, i.digest, i.content] for s, i in self.locked.items()}
        return naming.digest([*whole, *([locked] if locked else [])], 16)
