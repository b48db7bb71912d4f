"""Values for the tests of the engine's contract."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import IO, Any

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateContainer, CreateNetwork
from consolidate.desired import Container, Mount
from consolidate.engine import Engine
from consolidate.naming import BASE_IMAGE
from consolidate.observed import ObservedContainer, free_subnets
from consolidate.resolved import Check, Limits, Publish
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box

POOL = "10.219.0.0/16"
WAIT_FOR_EVER = ("sleep", "infinity")


def on_this_machine(engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
    """A program for the engine in memory: commands run as processes of this machine; the container's own doesn't."""
    if command == ("start",):
        return 0, ""
    done = subprocess.run(command, input=stdin, stdin=None if stdin else subprocess.DEVNULL, capture_output=True)
    return done.returncode, (done.stdout + done.stderr).decode()


def container(stack: str, server: str = "one", **changes: Any) -> Container:
    made = Container(
        stack=stack,
        server=server,
        kind="thing",
        image=BASE_IMAGE,
        user="33:33",
        command=WAIT_FOR_EVER,
        entrypoint=None,
        working_dir=None,
        init=True,
        read_only=True,
        capabilities=(),
        environment=(("COLOUR", "blue"),),
        mounts=(),
        tmpfs=(("/tmp", "rw,nosuid,nodev,noexec,size=1048576,mode=1777"),),
        limits=Limits(64 * 2**20, 0.5, 50),
        publish=(),
        dns_options=(),
        health=Check(("true",), 30.0, 5.0, 3),
        stop_signal="SIGTERM",
        stop_grace=2.0,
    )
    return replace(made, **changes)


def creation(
    stack: str, server: str = "one", *, networks: tuple[str, ...] = (), once: bool = False, **changes: Any
) -> CreateContainer:
    want = container(stack, server, **changes)
    labels = {
        naming.STACK: stack,
        naming.SERVER: server,
        naming.KIND: want.kind,
        naming.GENERATION: "1",
        naming.FINGERPRINT: want.fingerprint,
    }
    ordered = tuple(sorted(labels.items()))
    return CreateContainer(naming.container(stack, server, 1), 1, want, networks, ordered, once=once)


def network(engine: Engine, stack: str, name: str, *, internal: bool = True, masquerade: bool = False) -> str:
    """Make a network; its name on the engine."""
    subnet = free_subnets(engine.observe(stack), POOL, 1)[0]
    labels = ((naming.OF, "one"), (naming.STACK, stack))
    full = f"{stack}_{name}"
    engine.create_network(CreateNetwork(full, subnet, internal, masquerade, labels, POOL))
    return full


def started(engine: Engine, stack: str, server: str = "one", **more: Any) -> str:
    """Make and start a container; its name."""
    made = creation(stack, server, **more)
    engine.create(made)
    engine.start(made.name)
    return made.name


def seen(engine: Engine, stack: str, name: str) -> ObservedContainer:
    return next(c for c in engine.observe(stack).containers if c.name == name)


def tar_of(*members: tuple[str, bytes, int, int]) -> IO[bytes]:
    """An archive of files, each with name, content, mode and owner."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        for name, data, mode, owner in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(data), mode, owner, owner
            tar.addfile(info, io.BytesIO(data))
    spool.seek(0)
    return spool


def link(name: str, target: str) -> IO[bytes]:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)
    spool.seek(0)
    return spool


def members(archive: bytes) -> dict[str, tuple[bytes, int, int]]:
    """What an archive holds: content or link's target, mode and owner by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            data = content.read() if content else member.linkname.encode()
            found[member.name] = (data, member.mode & 0o7777, member.uid)
        return found


def mount(volume: str, target: str, *, read_only: bool = False) -> Mount:
    return Mount(volume, target, read_only)


def publish(port: int) -> Publish:
    return Publish("127.0.0.1", port, 80)
