"""`consolidate doctor`: the checks of `doctor`, put to the engine and the stack at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from consolidate import doctor, lately, naming, snapshots
from consolidate.docker_engine import DockerEngine
from consolidate.doctor import Check, Daemon, Endpoint
from consolidate.engine import tenure
from consolidate.errors import EngineUnavailable, OperationFailed
from consolidate.generations import check_restored
from consolidate.observed import Observed
from consolidate.source import Source, load_stack

UNAVAILABLE = EngineUnavailable.status
OLD, OLD_DRILL = timedelta(days=7), timedelta(days=90)


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
    saved: list[Check] = []
    if source is not None:
        resolved = load_stack(source)
        held = set()
        if not isinstance(engine, EngineUnavailable):
            observed = engine.observe(resolved.name)
            held = {p for c in observed.containers for p in c.ports}
            data = lately.with_data(observed) & resolved.servers.keys()
            saved = [
                *not_whole(observed),
                *backups(observed, sorted(data), datetime.now(UTC)),
                *left_of_drill(engine.observe(naming.drill(resolved.name))),
            ]
        published = [p for s in resolved.servers.values() for p in s.publish]
        free = [p for p in published if (p.address, p.port, p.protocol) not in held]
        wanted = [Endpoint(p.address, p.port, protocol=p.protocol) for p in free]
    return [*doctor.checks(doctor.gather(engine, wanted=wanted)), *saved]


def backups(observed: Observed, data: Sequence[str], now: datetime) -> Iterator[Check]:
    """Whether there is a backup of all servers with data, and whether it was seen to come back."""
    hint = "Type: consolidate backup"
    if not data:
        return
    for role, name, limit in ((lately.SAVED, "backups", OLD), (lately.DRILLED, "drills", OLD_DRILL)):
        times = lately.times(observed, role)
        never = [s for s in data if s not in times]
        if never:
            yield Check(name, "warn", f"never of {', '.join(never)}", hint)
        else:
            oldest = min(data, key=lambda s: times[s])
            old = now - times[oldest] > limit
            detail = f"the last of {oldest} is {snapshots.age(now, times[oldest])} old, others are no older"
            yield Check(name, "warn" if old else "ok", detail, hint if old else "")
        if len(never) == len(data):
            return  # what was never saved can't be tried
        hint = "Type: consolidate restore latest --drill"


def not_whole(observed: Observed) -> Iterator[Check]:
    """Data that was being replaced by a run which was cut off: nothing of it starts before that is finished."""
    if _at_work(observed):
        return
    try:
        check_restored(observed)
    except OperationFailed as error:
        yield Check("data", "warn", error.what, error.hint or "")


def left_of_drill(observed: Observed) -> Iterator[Check]:
    """What a drill has left that was killed: its servers may run, and take memory."""
    left = [c.name for c in observed.containers if c.helper != "lock"]
    if left and not _at_work(observed):
        detail = f"one was cut off, and {len(left)} containers of it are there: {', '.join(left[:3])} …"
        yield Check("drill", "warn", detail, "The next one removes them: consolidate restore latest --drill")


def _at_work(observed: Observed) -> bool:
    """Whether somebody holds the stack's lock."""
    lock = observed.helper(naming.helper(observed.stack, "", "lock"))
    return lock is not None and tenure(lock.state, lock.labels.get(naming.PROCESS, "")) == "held"


def status(found: Sequence[Check]) -> int:
    """69 when something that servers need is missing."""
    return UNAVAILABLE if any(c.status == "fail" for c in found) else 0
