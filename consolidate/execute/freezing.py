"""Programs of servers that stand still for a moment. They go on by themselves soon, whatever becomes of us."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from consolidate import naming
from consolidate.actions import CreateContainer
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.commands import last_words
from consolidate.execute.helping import helper_container
from consolidate.resolved import Limits

LIMIT = 30  # seconds after which they go on in any case
UNDER_WAY = 1  # second that the others have to end what they have begun, once those that stand still first do so
PATIENCE, PAUSE = 20.0, 0.02
# Who hands out work stands still first, so that what is under way is done, and not once more after a restore.
# Signals to -1 reach all processes of the server's but its process 1, and neither this one. So nobody has to reach the
# engine for them to go on. Nothing else may be run in here: it would be stopped as well.
STAND_STILL = f"""trap 'kill -CONT -1; exit 0' TERM
for program in "$@"; do
    for process in /proc/[0-9]*; do
        read -r name 2> /dev/null < $process/comm && [ "$name" = "$program" ] && kill -STOP ${{process#/proc/}}
    done
done
[ $# = 0 ] || sleep {UNDER_WAY}
kill -STOP -1
echo frozen
sleep {LIMIT} & wait $!
kill -CONT -1
exit 9
"""


@contextlib.contextmanager
def frozen(
    engine: Engine, stack: str, servers: Sequence[tuple[str, str, tuple[str, ...]]]
) -> Iterator[Callable[[], bool]]:
    """Have the programs of servers, or of their replicas, stand still; given with their containers and who is the first.

    What is yielded lets them go on, and says whether none has gone on before. Raises OperationFailed.
    """
    helpers: list[str] = []
    try:
        for server, container, first in servers:
            helpers.append(naming.helper(stack, server, "freeze"))
            engine.create(_helper(stack, server, container, helpers[-1], first))
        for helper in helpers:
            engine.start(helper, new=True)
        for helper in helpers:
            _wait_for(lambda h=helper: "frozen" in last_words(engine, h), f"{helper} does not freeze anything")  # type: ignore[misc]

        def thaw() -> bool:
            until_now = [_thaw(engine, helper) for helper in helpers]
            return all(until_now)

        yield thaw
    finally:
        for helper in helpers:
            with contextlib.suppress(ConsolidateError):
                _thaw(engine, helper)
                engine.remove(helper)


def _thaw(engine: Engine, helper: str) -> bool:
    """Let the programs go on: whether they stood still until now. To be removed it has to have ended by itself."""
    state = engine.state(helper)
    if state.running:
        with contextlib.suppress(OperationFailed):  # it ends just now
            engine.kill(helper, "TERM")
        _wait_for(lambda: not engine.state(helper).running, f"{helper} does not end")
        state = engine.state(helper)
    return state.exit_code == 0 and state.status == "exited"


def _wait_for(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise OperationFailed(what, hint=f"its server goes on within {LIMIT} s")
        time.sleep(PAUSE)


def _helper(stack: str, server: str, container: str, name: str, first: tuple[str, ...]) -> CreateContainer:
    return helper_container(
        name,
        stack,
        server,
        "freeze",
        ("bash", "-c"),
        (STAND_STILL, "stand-still", *first),
        capabilities=("KILL",),
        limits=Limits(memory=32 * 2**20, cpus=1.0, pids=10),
        init=False,
        stop_grace=5.0,
        processes_of=container,
    )
