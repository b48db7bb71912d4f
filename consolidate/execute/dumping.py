"""Dumps of a server's data, into a volume of the engine: complete, or not there."""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from collections.abc import Generator

from consolidate import naming
from consolidate.desired import Container, Mount
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.commands import Interrupted, last_words
from consolidate.files import archive_of
from consolidate.plan import CreateContainer, DumpData
from consolidate.resolved import Limits

DUMP, DATA = "/dump", "/data"  # where a dump is, and the volumes that it is of
COMPLETE = "complete"  # the file that is written last: what the dump is of
PART = 4 * 2**20  # bytes of a part; the engine takes one at a time
TAIL = 1000  # bytes at the end of which the last line is
PAUSE = 0.1
LIMITS = Limits(memory=128 * 2**20, cpus=1.0, pids=20)

# Files that change or go meanwhile are no error (tar's status 1): the server goes on.
COPY = """\
set -euo pipefail
for volume in "$@"; do
    { tar --create --sparse --numeric-owner --directory="/data/$volume" . || [ $? -eq 1 ]; } | gzip -1 > "/dump/$volume.tar.gz"
done
sync /dump/*
"""
GZIP = 31  # zlib's wbits


def dump_data(engine: Engine, action: DumpData, stopping: threading.Event) -> None:
    """Make the dump, and see that it is whole.

    Raises OperationFailed, and Interrupted once `stopping` is set; then nothing of it is left.
    """
    helper = naming.helper(action.stack, action.server, "dump")
    engine.create_volume(action.volume, dict(action.labels))
    try:
        if action.container:
            _of_program(engine, action, helper, stopping)
        else:
            copy_volumes(engine, action, helper, stopping)
        engine.remove(helper)
    except BaseException:
        with contextlib.suppress(ConsolidateError):
            engine.remove(helper)
            engine.remove_volume(action.volume)
        raise


def _of_program(engine: Engine, action: DumpData, helper: str, stopping: threading.Event) -> None:
    """What the server's own program says to the dump command, packed, in parts as the engine takes them."""
    holder(engine, action.stack, action.server, helper, action.volume)
    squeeze, packed, tail, parts, size = zlib.compressobj(1, wbits=GZIP), bytearray(), b"", 0, 0
    with contextlib.closing(_said(engine, action)) as said:
        for chunk in said:
            if stopping.is_set():
                raise Interrupted
            tail, size = (tail + chunk)[-TAIL:], size + len(chunk)
            packed += squeeze.compress(chunk)
            while len(packed) >= PART:
                _put(engine, helper, part_name(parts), bytes(packed[:PART]))
                del packed[:PART]
                parts += 1
    last = tail.rstrip().rpartition(b"\n")[2].decode(errors="replace")
    if not last.startswith(action.complete):
        what = f"the dump of {action.server} is not whole: it ends with {last[:80]!r}, not with {action.complete!r}"
        raise OperationFailed(what, log=tail.decode(errors="replace").splitlines()[-3:])
    packed += squeeze.flush()
    _put(engine, helper, part_name(parts), bytes(packed))
    _put(engine, helper, COMPLETE, json.dumps({"parts": parts + 1, "size": size}).encode())


def _said(engine: Engine, action: DumpData) -> Generator[bytes]:
    try:
        yield from engine.output(action.container, action.command)
    except OperationFailed as error:
        raise OperationFailed(
            f"{action.server} can't be dumped: {error.what}", hint=error.hint, log=error.log
        ) from None


def holder(engine: Engine, stack: str, server: str, name: str, volume: str) -> None:
    """A helper that holds a dump's volume for the archive API."""
    labels = {naming.STACK: stack, naming.HELPER: "dump", naming.OF: server}
    engine.create_helper(name, labels, {volume: DUMP})


def part_name(number: int) -> str:
    return f"{number:06d}.gz"


def _put(engine: Engine, helper: str, name: str, data: bytes) -> None:
    with archive_of(name, data) as tar:
        engine.put(helper, DUMP, tar)


def copy_volumes(engine: Engine, action: DumpData, helper: str, stopping: threading.Event) -> None:
    """Archives of the server's volumes, made on the engine by a container of the base image."""
    mounts = [Mount(v, f"{DATA}/{n}", read_only=True) for v, n in action.data]
    names = tuple(n for _, n in action.data)
    run_to_end(
        engine,
        action.stack,
        action.server,
        helper,
        (COPY, *names),
        (*mounts, Mount(action.volume, DUMP, False)),
        stopping,
    )
    _put(engine, helper, COMPLETE, json.dumps({"volumes": names}).encode())


def run_to_end(
    engine: Engine,
    stack: str,
    server: str,
    name: str,
    script: tuple[str, ...],
    mounts: tuple[Mount, ...],
    stopping: threading.Event,
) -> None:
    """Run a script as root with volumes, and with no network; it stays, ended.

    Raises OperationFailed with its last lines, and Interrupted.
    """
    container = Container(
        stack=stack,
        server=server,
        kind="",
        image=naming.BASE_IMAGE,
        user="0:0",
        command=(script[0], "dump", *script[1:]),
        entrypoint=("bash", "-c"),
        working_dir=None,
        init=True,
        read_only=True,
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
        environment=(),
        mounts=mounts,
        tmpfs=(),
        limits=LIMITS,
        publish=(),
        dns_options=(),
        health=None,
        stop_signal="SIGTERM",
        stop_grace=1.0,
    )
    labels = ((naming.HELPER, "dump"), (naming.OF, server), (naming.STACK, stack))
    engine.create(CreateContainer(name, 0, container, (), tuple(sorted(labels)), once=True))
    engine.start(name)
    while (state := engine.state(name)).running:
        if stopping.wait(PAUSE):
            raise Interrupted
    if state.exit_code:
        what = f"the data of {server} can't be copied (status {state.exit_code})"
        raise OperationFailed(what, log=last_words(engine, name))
