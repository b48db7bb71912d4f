"""Checking a configuration, in a container that serves nobody."""

from __future__ import annotations

import contextlib
import threading
import time

from consolidate.actions import CheckConfiguration
from consolidate.engine import Engine, State
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.commands import Interrupted, last_words

PAUSE = 0.05  # seconds between looks at whether it has ended


def check_configuration(engine: Engine, action: CheckConfiguration, stopping: threading.Event) -> None:
    """Run the check to its end, and remove what it ran in.

    Raises OperationFailed with the last lines of what it said, and Interrupted once `stopping` is set.
    """
    name = action.creation.name
    try:
        engine.create(action.creation)
        engine.start(name, new=True)
        state = _ended(engine, action, stopping)
        if state.running or state.exit_code:
            why = f"its check takes longer than {action.timeout:g} s" if state.running else f"status {state.exit_code}"
            what = f"{action.server} refuses its new configuration ({why}); the one that runs goes on as it is"
            raise OperationFailed(what, log=last_words(engine, name))
    except BaseException:
        with contextlib.suppress(ConsolidateError):
            _remove(engine, action)
        raise
    _remove(engine, action)


def _ended(engine: Engine, action: CheckConfiguration, stopping: threading.Event) -> State:
    """Its state when it has ended, or when its time is over."""
    end = time.monotonic() + action.timeout
    while True:
        state = engine.state(action.creation.name)
        if not state.running or time.monotonic() > end:
            return state
        if stopping.wait(PAUSE):
            raise Interrupted


def _remove(engine: Engine, action: CheckConfiguration) -> None:
    engine.remove(action.creation.name)
    if action.files:
        engine.remove_volume(action.files)
