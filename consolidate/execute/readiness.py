"""Waiting for a server: until its check passes and the proxy reaches it, or it is clear that it won't."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from consolidate.actions import ReachServer, WaitReady
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute.commands import Interrupted, last_words

FIRST_PROBE, SLOWEST_PROBE = 0.1, 2.0  # seconds between readiness probes: at first, and at last
LATE = 0.08  # of the time that a server has taken so far: how much later than that we may notice that it is ready
STEADY = 1.0  # seconds that a program with no check must run to count as ready
LIMIT = 60.0  # seconds that a server has, where nothing says otherwise
RESTARTS = 3  # engine restarts after which a starting program counts as dead


def wait_ready(engine: Engine, action: WaitReady, timeout: float | None, stopping: threading.Event) -> None:
    """Probe from the start on: fast at first, then slower, by what a probe costs.

    `timeout` is in seconds; without one the check's own holds. Raises OperationFailed with the program's last lines,
    and Interrupted once `stopping` is set.
    """
    begun = time.monotonic()
    limit = timeout or (action.check.timeout if action.check and action.check.timeout > 10 else LIMIT)
    said = ""
    command = action.check.command if action.check else None
    restarts, steady, code = -1, begun, 0
    for probe in _looks(begun, stopping):
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


def reach_server(engine: Engine, action: ReachServer, timeout: float | None, stopping: threading.Event) -> None:
    """Try from the proxy until the server is reached, at the pace of `wait_ready`.

    `timeout` is in seconds. Raises OperationFailed with the program's last lines, and Interrupted once `stopping` is set.
    """
    begun, limit, restarts = time.monotonic(), timeout or LIMIT, None
    for _ in _looks(begun, stopping):
        state, said = engine.state(action.name), f"it has no address on the network {action.network}"
        restarts = state.restarts if restarts is None else restarts
        if state.restarts >= restarts + RESTARTS or state.status in ("exited", "dead"):
            raise _failed(engine, f"{action.name} ended with exit status {state.exit_code}", action)
        if address := state.addresses.get(action.network):
            try:
                verdict, said = engine.run(action.proxy, (*action.command, address, action.port))
            except OperationFailed as error:  # the proxy does not run just now
                verdict, said = 1, error.what
            if verdict == 0:
                return
        if time.monotonic() - begun > limit:
            last = "".join(f"; {line}" for line in said.strip().splitlines()[-1:])
            what = f"the proxy, {action.proxy}, does not reach {action.name} at port {action.port} within {limit:g} s{last}"
            raise _failed(engine, what, action)


def _looks(begun: float, stopping: threading.Event) -> Iterator[float]:
    """When to look, by the monotonic clock: often at first, then more seldom, by what a look costs."""
    pause = FIRST_PROBE
    while True:
        look = time.monotonic()
        yield look
        if stopping.wait(max(pause, time.monotonic() - look)):
            raise Interrupted
        pause = min(FIRST_PROBE + LATE * (time.monotonic() - begun), SLOWEST_PROBE)


def _failed(engine: Engine, what: str, action: WaitReady | ReachServer) -> OperationFailed:
    return OperationFailed(what, log=last_words(engine, action.name))
