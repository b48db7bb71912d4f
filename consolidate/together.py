"""All or nothing: when one server fails, what the same plan has already replaced goes back as well.

What can't be taken back waits until all servers are ready. Until then each old container is still there, so that the way
back is a plan for what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import (
    ApplyGrant,
    ConnectNetwork,
    CreateContainer,
    KeepGeneration,
    NameOnNetwork,
    RemoveContainer,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    RevokeGrant,
    StartContainer,
    StopContainer,
    SwitchRoute,
    WaitReady,
    WriteLive,
)
from consolidate.desired import Desired
from consolidate.diff import Refresh, diff
from consolidate.observed import Observed, ObservedContainer
from consolidate.plan import Operation, Plan
from consolidate.present import as_it_is
from consolidate.report import Report

if TYPE_CHECKING:
    from consolidate.engine import Engine
    from consolidate.execute import Executor

FINAL = (KeepGeneration, RemoveContainer, RemoveImage, RemoveNetwork, RemoveVolume, RevokeGrant)
NEEDED = (ApplyGrant, ConnectNetwork, CreateContainer, NameOnNetwork, StartContainer, WaitReady, WriteLive)


def in_two(plan: Plan) -> tuple[Plan, Plan]:
    """What can be taken back, and what waits until that is done: removals, and all that needs one.

    A removal that a start waits for, such as that of who has its port, can't wait.
    """
    by_id = {o.id: o for o in plan.operations}
    at_once = _closure(
        (o.id for o in plan.operations if isinstance(o.action, NEEDED)), {o.id: o.needs for o in by_id.values()}
    )
    staying = {o.server for o in plan.operations if isinstance(o.action, WaitReady)}
    last = {o.id for o in plan.operations if o.id not in at_once and _is_final(o, staying)}
    users: dict[str, list[str]] = {}
    for operation in plan.operations:
        for need in (*operation.needs, *operation.after):
            users.setdefault(need, []).append(operation.id)
    last = _closure(last, users)
    return plan.only(by_id.keys() - last), plan.only(last)


def _is_final(operation: Operation, staying: set[str]) -> bool:
    gone = isinstance(operation.action, StopContainer | SwitchRoute) and operation.server not in staying
    return gone or isinstance(operation.action, FINAL)


def _closure(start: Iterable[str], leads_to: Mapping[str, Iterable[str]]) -> set[str]:
    found, todo = set(), list(start)
    while todo:
        if (id_ := todo.pop()) not in found:
            found.add(id_)
            todo += leads_to.get(id_, ())
    return found


def way_back(desired: Desired, before: Observed, now: Observed, reason: str) -> Plan:
    """The plan that brings back what was there `before`: old containers start again, new ones go.

    Servers that were to leave the stack are left alone, but for those that stopped already. Data stays.
    """
    standing = as_it_is(desired, before)
    refreshes = {
        name: Refresh(container.image_id, reason, back=True, container=container.name)
        for name in standing.servers
        if (container := before.current(name))
    }
    plan = diff(standing, now, (), refreshes)
    leaving = before.servers.keys() - desired.servers.keys()
    receipts = {c.name for each in before.receipts.values() for c in each}
    kept = (o for o in plan.operations if o.server not in leaving and not _stays(o, before, receipts))
    told = {o.id for o in plan.operations if isinstance(o.action, ApplyGrant)}
    operations = [
        replace(
            o,
            reason=o.reason if o.server in before.servers else f"{reason}; it was new",
            # A provider that can't be told keeps nobody from coming back.
            needs=tuple(n for n in o.needs if n not in told),
            after=(*o.after, *(n for n in o.needs if n in told)),
        )
        for o in kept
    ]
    stops = tuple(o.id for o in operations if isinstance(o.action, StopContainer))
    for container in _stopped(before, now, leaving):
        start, server = f"start:{container.name}", container.server or ""
        operations += [
            Operation(start, StartContainer(container.name), server, reason, after=stops, impact="restart"),
            Operation(f"ready:{server}", WaitReady(container.name, None), server, reason, (start,)),
        ]
    return replace(plan, operations=tuple(operations))


def _stays(operation: Operation, before: Observed, receipts: set[str]) -> bool:
    """What was there before is no leftover, nor is the record of a new server's failure."""
    match operation.action:
        case RevokeGrant(receipt=receipt):
            return receipt in receipts
        case RemoveContainer(nameless_volumes=True):
            return operation.server not in before.servers
    return False


def _stopped(before: Observed, now: Observed, leaving: Iterable[str]) -> list[ObservedContainer]:
    """Containers of servers that leave the stack, which ran before and don't now."""
    ran = [c for s in leaving for c in before.servers[s] if c.running]
    return [c for c in ran if any(n.name == c.name and not n.running for n in now.containers)]


def carry_out(
    engine: Engine,
    executor: Callable[[], Executor],
    plan: Plan,
    *,
    desired: Desired,
    before: Observed,
    tell: Callable[[str], None],
) -> Report:
    """Execute a plan of which all is done, or nothing stays; the report tells of the way back."""
    first, last = in_two(plan)
    one = executor()
    done = one.run(first)
    if done.ok:
        return Report(plan, (*done.outcomes, *one.run(last).outcomes))
    failed = done.failed[0].operation.server or done.failed[0].operation.id
    tell(f"{failed} failed: what has been done for the others is taken back")
    now = engine.observe(desired.stack)
    back = way_back(desired, before, now, f"taken back, since {failed} failed")
    notes = [
        *back.notes,
        *(f"{n}: its data stays as the newer program left it" for n in _ran_on_data(desired, before, done)),
    ]
    return Report(plan, done.outcomes, executor().run(replace(back, notes=tuple(notes))))


def _ran_on_data(desired: Desired, before: Observed, done: Report) -> list[str]:
    """Servers of which a new generation ran on data that there was before."""
    started = {
        o.operation.server
        for o in done.outcomes
        if o.status == "done" and isinstance(o.operation.action, StartContainer)
    }
    names = {naming.server_of(n) for n in started & before.servers.keys()}
    return [n for n, s in desired.servers.items() if n in names and s.volumes]
