"""Commands that somebody has begun in a server and that say nothing any more: ended from outside, which the engine can't."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from consolidate import naming
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError
from consolidate.execute.helping import helper_container
from consolidate.resolved import Limits

PATIENCE, PAUSE = 20.0, 0.05
# What an engine begins in a container has no parent there, and leads a session of its own.
END = """\
for status in /proc/[0-9]*/status; do
    pid=${status//[^0-9]/}
    [ "$pid" != 1 ] && [ "$pid" != $$ ] && grep -q '^PPid:[[:space:]]0$' "$status" || continue
    mapfile -d '' words < "/proc/$pid/cmdline" || continue
    words=("${words[@]: -$#}")  # of a script its interpreter stands before that
    [ "${words[0]##*/}" = "${1##*/}" ] && words[0]=$1
    [ "${words[*]@Q}" = "${*@Q}" ] && kill -KILL -- "-$pid"
done 2>/dev/null
true
"""


def end_command(engine: Engine, stack: str, server: str, container: str, command: Sequence[str]) -> None:
    """Kill what runs in a server's container with this very command line, and all that it has begun.

    A container in the same process namespace does it, whatever the server's image has. Raises OperationFailed.
    """
    name = naming.helper(stack, server, "end")
    helper = helper_container(
        name,
        stack,
        server,
        "backup",  # so that whoever comes after a run that was killed removes it, too
        ("bash", "-c"),
        (END, "end", *command),
        capabilities=("KILL",),
        limits=Limits(memory=32 * 2**20, cpus=1.0, pids=10),
        init=False,
        processes_of=container,
    )
    try:
        engine.create(helper)
        engine.start(name, new=True)
        deadline = time.monotonic() + PATIENCE
        while engine.state(name).running and time.monotonic() < deadline:
            time.sleep(PAUSE)
    finally:
        with contextlib.suppress(ConsolidateError):
            engine.remove(name)
