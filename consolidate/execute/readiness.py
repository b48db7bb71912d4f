"""Waiting for a server: until its check passes, or it is clear that it won't."""

from __future__ import annotations

import threading
import time

from consolidate.actions import WaitReady
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute.commands import Interrupted, last_words

FIRST_PROBE, SLOWEST_PROBE = 0.1, 2.0  # seconds between readiness probes: at first, and at last
LATE = 0.08  # of the time that a server has taken so far: how much later than that we may notice that it is ready
STEADY = 1.0  # seconds that a program with no check must run to count as ready
RESTARTS = 3  # engine restarts after which a starting program counts as dead


def wait_ready(engine: Engine, action: WaitReady, timeout: float | None, stopping: threading.Event) -> None:
    """Probe from the start on: fast at first, then slower, by what a probe costs.

    `timeout` is in seconds; without one the check's own holds. Raises OperationFailed with the program's last lines,
    and Interrupted once `stopping` is set.
    """
    begun = time.monotonic()
    limit = timeout or (action.check.timeout if action.check and action.check.timeout > 10 else 60.0)
    pause, said = FIRST_PROBE, ""
    command = action.check.command if action.check else None
    restarts, steady, code = -1, begun, 0
    while True:
        probe = time.monotonic()
        state = engine.state(action.name)
        if state.restarts != restarts or not state.running:  # the first look, or it died and the engine starts it again
            restarts, steady, code = state.restarts, time.monotonic(), state.exit_code or code
        command = command or state.test or None
        if state.restarts >= RESTARTS or state.status in ("exited", "dead"):
            code = state.exit_code or code
            raise _failed(engine, f"{action.name} ended with exit status {code} instead of getting ready", action)
        if state.running and command is None and probe - steady > STEADY:  # between two looks: each may take long
            return
        if state.running and command is not None:
            try:
                verdict, said = engine.run(action.name, command)
            except OperationFailed as error:  # it ended between the two calls
                verdict, said = 1, error.what
            if verdict == 0:
                return
        if time.monotonic() - begun > limit:
            last = said.strip().splitlines()[-1:] or [state.error]
            raise _failed(engine, f"{action.name} is not ready after {limit:g} s; its check says: {last[0]}", action)
        if stopping.wait(max(pause, time.monotonic() - probe)):
            raise Interrupted
        pause = min(FIRST_PROBE + LATE * (time.monotonic() - begun), SLOWEST_PROBE)


def _failed(engine: Engine, what: str, action: WaitReady) -> OperationFailed:
    return OperationFailed(what, log=last_words(engine, action.name))
