"""Is this host fit to run servers, and what mends it?

facts.py reads the host and the engine, checks.py judges what was read, engine_setup.py makes an engine where none
answers, and `fix` below brings it together with the base image.
"""

from __future__ import annotations

from collections.abc import Callable

from consolidate import base_image
from consolidate.apt import Progress
from consolidate.doctor.checks import Endpoint, Facts, checks, clashes
from consolidate.doctor.engine_setup import Daemon, start
from consolidate.doctor.facts import Probe, gather, is_local, listeners
from consolidate.doctor.verdict import Check, Status
from consolidate.errors import EngineUnavailable

__all__ = [
    "Check",
    "Daemon",
    "Endpoint",
    "Facts",
    "Probe",
    "Status",
    "checks",
    "clashes",
    "fix",
    "gather",
    "is_local",
    "listeners",
]


def fix(connect: Callable[[], base_image.ImageStore], progress: Progress, *, daemon: Daemon | None) -> None:
    """Mend what can be mended: make an engine answer, and give it the base image. Nothing when all is well.

    `connect` raises EngineUnavailable while no engine answers. `daemon` is the engine that this program may install
    and start: this machine's own. It is None when the user named another one, which is then not ours to start.
    """
    try:
        engine = connect()
    except EngineUnavailable:
        if daemon is None:
            raise
        start(daemon, progress)
        engine = connect()
    base_image.ensure(engine, progress)
