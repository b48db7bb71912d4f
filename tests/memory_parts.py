"""What the engine in memory is made of: containers, networks, volumes, their files, and the faults of a test."""

from __future__ import annotations

import functools
import io
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateContainer
from consolidate.desired import Container, Mount
from consolidate.errors import OperationFailed

CPUS = 8
Predicate = Callable[[str, tuple[Any, ...]], bool]
FOLDERS = ("", "/tmp", "/run", "/etc", "/var")  # that every image has


class Killed(BaseException):
    """What a process that is killed with -9 would not live to see."""


@dataclass
class Entry:
    """A file, a folder or a symbolic link."""

    type: bytes
    mode: int
    uid: int
    gid: int
    data: bytes = b""
    link: str = ""


Files = dict[str, Entry]


@dataclass
class Store:
    """A volume."""

    labels: dict[str, str]
    files: Files = field(default_factory=dict)


@dataclass
class Bridge:
    """A network."""

    id: str
    subnet: str
    internal: bool
    masquerade: bool
    labels: dict[str, str]


@dataclass
class Box:
    """A container. `started` counts its starts, `memory` is what its program keeps for itself until it ends."""

    id: str
    name: str
    image: str
    created: int
    labels: dict[str, str]
    mounts: tuple[Mount, ...]
    networks: dict[str, str] = field(default_factory=dict)  # name → the server's name there, empty for none yet
    joined: dict[str, str] = field(default_factory=dict)  # name → the network's id, from its last start
    image_id: str = ""
    made: Container | None = None  # what it was made from, helpers apart
    also: dict[str, str] = field(default_factory=dict)  # fields that we never set
    alone: bool = False  # made without a network: it can't join one
    ports: frozenset[tuple[str, int, str]] = frozenset()
    read_only: bool = False
    test: tuple[str, ...] = ()
    once: tuple[str, ...] = ()  # the command of one that runs to its end and is let be
    state: str = "created"
    exit_code: int = 0
    error: str = ""
    started: int = 0
    signals: list[str] = field(default_factory=list)
    files: Files = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, creation: CreateContainer, id_: str, created: int) -> Box:
        want = creation.container
        return cls(
            id=id_,
            name=creation.name,
            image=creation.image or want.image,
            created=created,
            labels=dict(creation.labels),
            mounts=want.mounts,
            networks={
                n: "" if n in creation.nameless else naming.server_of(want.server) for n in creation.networks[:1]
            },
            made=replace(
                want,
                stop_grace=float(int(want.stop_grace)),
                publish=tuple(sorted(want.publish, key=str)),
                limits=replace(want.limits, cpus=min(want.limits.cpus, CPUS)),
            ),
            alone=not creation.networks,
            ports=frozenset((p.address, p.port, p.protocol) for p in want.publish),
            read_only=want.read_only,
            test=want.health.command if want.health else (),
            once=(*(want.entrypoint or ()), *(want.command or ())) if creation.once else (),
        )

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def alive(self) -> bool:
        return self.state in ("running", "paused")

    @property
    def open_ports(self) -> frozenset[tuple[str, int, str]]:
        return self.ports if self.alive else frozenset()

    def end(self, code: int) -> None:
        if self.alive:
            self.state, self.exit_code, self.memory = "exited", code, {}


class Base:
    """Counts calls and commits the faults that a test asks for."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.writes: list[tuple[str, tuple[Any, ...]]] = []
        self.reads: Counter[str] = Counter()
        self.faults: list[Predicate] = []
        self.kill_at: int | None = None
        self.killed = False

    @property
    def written(self) -> Counter[str]:
        return Counter(name for name, _ in self.writes)

    def fail_on(self, predicate: Predicate) -> None:
        """From now on refuse each write call for which `predicate(method, arguments)` holds."""
        self.faults.append(predicate)

    def kill_after(self, writes: int) -> None:
        """Let that many more write calls through; the next one, and every call after it, raises Killed."""
        self.kill_at = len(self.writes) + writes

    def revive(self) -> None:
        """Another process takes over, and nothing fails any more."""
        self.killed, self.kill_at, self.faults = False, None, []

    def called(self, name: str, args: tuple[Any, ...], *, writes: bool) -> None:
        if self.killed:
            raise Killed
        if not writes:
            self.reads[name] += 1
            return
        if self.kill_at is not None and len(self.writes) >= self.kill_at:
            self.killed = True
            raise Killed
        if any(refuses(name, args) for refuses in self.faults):
            raise OperationFailed(f"the test lets {name} fail")
        self.writes.append((name, args))


def _call(method: Callable[..., Any], *, writes: bool) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Base, *args: Any, **kwargs: Any) -> Any:
        with self.guard:
            self.called(method.__name__, args, writes=writes)
            return method(self, *args, **kwargs)

    return call


def write(method: Callable[..., Any]) -> Callable[..., Any]:
    """A call that changes the engine."""
    return _call(method, writes=True)


def read(method: Callable[..., Any]) -> Callable[..., Any]:
    """A call that only looks."""
    return _call(method, writes=False)


def mount_at(box: Box, path: str) -> tuple[Mount | None, str]:
    """The mount that `path` lies in, if any, and the path below it."""
    found = [m for m in box.mounts if path == m.target or path.startswith(m.target + "/")]
    if not found:
        return None, path.strip("/")
    mount = max(found, key=lambda m: len(m.target))
    return mount, path.removeprefix(mount.target).strip("/")


def has_folder(files: Files, path: str, *, root: bool) -> bool:
    known = path in files and files[path].type == tarfile.DIRTYPE
    return path == "" or known or (root and f"/{path}" in FOLDERS)


def extract(files: Files, archive: IO[bytes], below: str) -> None:
    """Unpack a tar archive as the engine does: what is there is replaced, a folder stays, links are not followed."""
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            path = PurePosixPath(below, member.name).as_posix().strip("/")
            content = tar.extractfile(member) if member.isreg() else None
            data = content.read() if content else b""
            files[path] = Entry(member.type, member.mode, member.uid, member.gid, data, member.linkname)


def pack(files: Files, path: str, name: str) -> bytes:
    """A tar archive of what is at `path`, or of all, under a name."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        for key, entry in sorted(files.items()):
            if not path or key == path or key.startswith(f"{path}/"):
                info = tarfile.TarInfo(f"{name}{key.removeprefix(path)}" if path else f"{name}/{key}")
                info.type, info.mode, info.uid, info.gid = entry.type, entry.mode, entry.uid, entry.gid
                info.size, info.linkname = len(entry.data), entry.link
                tar.addfile(info, io.BytesIO(entry.data))
    return spool.getvalue()


def read_text(files: Files, path: str) -> str:
    """A file's text; a link in its way is followed."""
    first, _, rest = path.partition("/")
    if first in files and files[first].link:
        path = f"{files[first].link}/{rest}" if rest else files[first].link
    return files[path].data.decode()


def helper_box(name: str, id_: str, created: int, labels: Mapping[str, str], volumes: Mapping[str, str]) -> Box:
    mounts = tuple(Mount(v, t, read_only=False) for v, t in volumes.items())
    return Box(id_, name, "consolidate/helper:1", created, dict(labels), mounts, alone=True)


def stack_of(labels: Mapping[str, str]) -> str | None:
    return labels.get(naming.STACK)
