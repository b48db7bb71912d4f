"""Dumps of a server's data, into volumes of the engine. What holds one vouches for it: a killed run's may not be whole."""

from __future__ import annotations

import contextlib
import json
import tarfile
import threading
import zlib
from collections.abc import Generator, Iterator

from consolidate import naming
from consolidate.actions import BeginRestore, DumpData, LoadData, RestoreVolumes
from consolidate.desired import Mount
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.commands import LOG_LINES, Interrupted, last_words
from consolidate.execute.helping import helper_container
from consolidate.files import archive_of
from consolidate.resolved import Limits
from consolidate.store import only_bytes, only_file

DUMP, DATA = "/dump", "/data"  # where a dump is, and the volumes that it is of
COMPLETE = "complete"  # the file that is written last: what the dump is of
PART = 4 * 2**20  # bytes of a part; the engine takes one at a time
TAIL = 1000  # bytes at the end of which the last line is
PAUSE = 0.1
LIMITS = Limits(memory=128 * 2**20, cpus=1.0, pids=20)

# Files that change or go meanwhile are no error (tar's status 1): the server goes on.
COPY = """\
set -euo pipefail
umask 077
for volume in "$@"; do
    { tar --create --sparse --numeric-owner --directory="/data/$volume" . || [ $? -eq 1 ]; } | gzip -1 > "/dump/$volume.tar.gz"
done
sync /dump/*
"""
# The volume's own folder stays: it is what is mounted.
FILL = """\
set -euo pipefail
for volume in "$@"; do
    find "/data/$volume" -mindepth 1 -delete
    [ ! -e "/dump/$volume.tar.gz" ] || tar --extract --gzip --sparse --numeric-owner --same-owner --same-permissions \\
        --directory="/data/$volume" --file="/dump/$volume.tar.gz"
    sync --file-system "/data/$volume"
done
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
    helper = helper_container(
        name,
        stack,
        server,
        "dump",
        ("bash", "-c"),
        (script[0], "dump", *script[1:]),
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
        limits=LIMITS,
        mounts=mounts,
    )
    engine.create(helper)
    engine.start(name, new=True)
    while (state := engine.state(name)).running:
        if stopping.wait(PAUSE):
            raise Interrupted
    if state.exit_code:
        what = f"the data of {server} can't be copied (status {state.exit_code})"
        raise OperationFailed(what, log=last_words(engine, name))


def begin_restore(engine: Engine, action: BeginRestore) -> None:
    labels = {
        naming.STACK: action.stack,
        naming.HELPER: "restore",
        naming.OF: action.server,
        naming.GENERATION: str(action.generation),
        naming.DUMP: action.dump,
    }
    engine.create_helper(action.name, labels, {v: f"{DUMP}/{v}" for v in (action.dump, action.present) if v})


def restore_volumes(engine: Engine, action: RestoreVolumes, stopping: threading.Event) -> None:
    """Empty volumes, and fill them from a dump's archives, where it has such. Raises OperationFailed, and Interrupted."""
    helper = naming.helper(action.stack, action.server, "dump")
    mounts = [Mount(v, f"{DATA}/{n}", read_only=False) for v, n in action.data]
    if action.dump:
        mounts.append(Mount(action.dump, DUMP, read_only=True))
    script = (FILL, *(n for _, n in action.data))
    try:
        run_to_end(engine, action.stack, action.server, helper, script, tuple(mounts), stopping)
    finally:
        engine.remove(helper)


def load_data(engine: Engine, action: LoadData) -> None:
    """Give a whole dump to the command that reads it.

    Raises OperationFailed with what that says, and where the dump is damaged.
    """
    helper = naming.helper(action.stack, action.server, "dump")
    holder(engine, action.stack, action.server, helper, action.dump)
    try:
        parts = json.loads(only_file(engine.get(helper, f"{DUMP}/{COMPLETE}")))["parts"]
        code, said = engine.feed(action.name, action.command, _unpacked(engine, helper, parts))
    except (ValueError, KeyError, TypeError, zlib.error, tarfile.TarError) as error:
        what = f"the dump of {action.server} in the volume {action.dump} is damaged: {error}"
        raise OperationFailed(what, hint="its disk may be at fault; go back to another dump, or to a backup") from None
    finally:
        engine.remove(helper)
    if code:
        raise OperationFailed(f"{action.server} does not take its dump", log=said.splitlines()[-LOG_LINES:])


def _unpacked(engine: Engine, helper: str, parts: int) -> Iterator[bytes]:
    expand = zlib.decompressobj(wbits=GZIP)
    for number in range(parts):
        packed = only_bytes(engine.get(helper, f"{DUMP}/{part_name(number)}"))
        while packed:
            yield expand.decompress(packed, PART)
            packed = expand.unconsumed_tail
    if not expand.eof:
        raise ValueError("it ends too early")
