"""`consolidate doctor`: the checks of `doctor`, put to the engine and the stack at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consolidate import doctor
from consolidate.docker_engine import DockerEngine
from consolidate.doctor import Check, Daemon, Endpoint
from consolidate.errors import EngineUnavailable
from consolidate.source import Source, load_stack

UNAVAILABLE = EngineUnavailable.status


def mend(connect: Callable[[], DockerEngine], progress: Callable[[str], None], *, ours: bool) -> None:
    """Make an engine answer and give it the base image. `ours`: no other engine was named, so this machine's own."""
    doctor.fix(connect, progress, daemon=Daemon() if ours else None)


def look(connect: Callable[[], DockerEngine], source: Source | None) -> list[Check]:
    """All checks, with the ports that the stack publishes and does not hold yet."""
    try:
        engine: DockerEngine | EngineUnavailable = connect()
    except EngineUnavailable as error:
        engine = error
    wanted: list[Endpoint] = []
    if source is not None:
        resolved = load_stack(source)
        held = set()
        if not isinstance(engine, EngineUnavailable):
            held = {p for c in engine.observe(resolved.name).containers for p in c.ports}
        published = [p for s in resolved.servers.values() for p in s.publish]
        free = [p for p in published if (p.address, p.port, p.protocol) not in held]
        wanted = [Endpoint(p.address, p.port, protocol=p.protocol) for p in free]
    return doctor.checks(doctor.gather(engine, wanted=wanted))


def status(found: Sequence[Check]) -> int:
    """69 when something that servers need is missing."""
    return UNAVAILABLE if any(c.status == "fail" for c in found) else 0
