"""The arrow up to the plan: stack file → servers → desired, engine → observed, and the difference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct, field
from msgspec.structs import replace

from consolidate import naming, vault
from consolidate.actions import CreateContainer, ProvideImage, RemoveImage, StartContainer, StopContainer, SwitchRoute
from consolidate.desired import Desired
from consolidate.diff import Drift, diff
from consolidate.engine import Engine
from consolidate.errors import OperationFailed, StackInvalid, UsageError, did_you_mean
from consolidate.fit import host_problems, host_warnings
from consolidate.generations import check_restored
from consolidate.locked import not_to_be_had
from consolidate.observed import Observed
from consolidate.plan import Plan
from consolidate.remembered import Remembered, remember
from consolidate.resolved import Resolved
from consolidate.secret import SecretRecord
from consolidate.source import Asked, Source, ask, inputs, resolve_document, with_lock
from consolidate.store import only_file, read_secrets

BASE = f"image:{naming.BASE_IMAGE}"  # the operation that brings the base image


class Prepared(Struct, frozen=True):
    """Everything that a verb needs to decide, and the plan that follows from it."""

    resolved: Resolved
    desired: Desired
    observed: Observed
    secrets: Mapping[str, SecretRecord]
    new_ids: Mapping[str, str]  # of secrets that nobody has stored yet
    plan: Plan = field(default_factory=lambda: Plan("", ()))
    drifts: Mapping[str, Drift] = field(default_factory=dict)  # what was changed by hand, where it was looked for


def prepare(
    source: Source,
    engine: Engine,
    *,
    servers: Sequence[str] = (),
    now: datetime | None = None,
    asked: Asked | None = None,
    ids: Mapping[str, str] = {},
    deep: bool = False,
    restoring: bool = False,
    strict: bool = False,
) -> Prepared:
    """Read the stack and the engine, which may have been `asked` before, and plan. New secrets get these `ids`.

    `deep`: look also for what somebody has changed by hand of the servers themselves. `strict`: no server may be without
    an image in the lock, where there is a lock, nor with one that is not to be had; else such get what there is.

    Raises StackInvalid, also where the host is too small or a port is taken, and OperationFailed where a restore was cut
    off, unless the caller looks for that (`restoring`).
    """
    asked, now = asked or ask(source, engine), now or datetime.now(UTC)
    prepared = None
    if asked.remembered is not None:
        with contextlib.suppress(StackInvalid):  # it doesn't know the places of what is wrong
            prepared = _from_memory(source, engine, asked, asked.remembered, now, ids)
        if prepared is None:
            asked = ask(source, engine, afresh=True)
    prepared = prepared or _from_files(source, engine, asked, now, ids, strict=strict)
    if not restoring:
        check_restored(prepared.observed)
    if deep:
        prepared = _deep(prepared, engine)
    prepared = replace(prepared, plan=narrowed(prepared.plan, prepared.resolved, servers))
    if strict:
        check_images(prepared.plan)
    return prepared


def _from_files(
    source: Source, engine: Engine, asked: Asked, now: datetime, ids: Mapping[str, str], *, strict: bool
) -> Prepared:
    resolved = resolve_document(source, asked.read())
    records, new_ids = _secrets(engine, asked.answer.result(), resolved, now, ids)
    from consolidate.desire import desire  # it renders: a remembered stack has no need of it

    desired, fits = with_lock(source, desire(resolved, records), strict=strict)
    if fits and not new_ids:  # else the ids are of secrets that nobody has stored yet
        known = Remembered(desired, _ids(resolved, records))
        remember(source.key, inputs(source, resolved), asked.since, known, asked.read().asked)
    return _planned(desired, asked.answer.result(), records, new_ids)


def _from_memory(
    source: Source, engine: Engine, asked: Asked, known: Remembered, now: datetime, ids: Mapping[str, str]
) -> Prepared | None:
    """The same without reading and rendering; None where secrets are others than those that it was rendered for."""
    resolved = known.desired.resolved
    records, new_ids = _secrets(engine, asked.answer.result(), resolved, now, ids)
    if _ids(resolved, records) != known.ids:
        return None
    return _planned(known.desired, asked.answer.result(), records, new_ids)


def _secrets(
    engine: Engine, observed: Observed, resolved: Resolved, now: datetime, ids: Mapping[str, str]
) -> tuple[dict[str, SecretRecord], dict[str, str]]:
    """The records of all secrets, and the ids of those that are new."""
    read = vault.read_source(resolved, _in_proxy(engine, observed, resolved.proxy))
    stored = read_secrets(engine, observed)
    records = vault.settle(vault.needed(resolved), stored, now, read, ids)
    return records, {a: r.id for a, r in records.items() if r is not stored.get(a)}


def _ids(resolved: Resolved, records: Mapping[str, SecretRecord]) -> dict[str, str]:
    return {address: records[address].id for address in vault.needed(resolved)}


def _planned(
    desired: Desired, observed: Observed, records: Mapping[str, SecretRecord], new_ids: Mapping[str, str]
) -> Prepared:
    resolved = desired.resolved
    check_host(resolved, observed)
    try:
        plan = diff(desired, observed, records.values() if new_ids else ())
    except ValueError as error:
        raise StackInvalid([resolved.problem(str(error), "host", "subnets")]) from None
    resolved = replace(resolved, warnings=host_warnings(resolved, observed.host))
    return Prepared(resolved, desired, observed, records, new_ids, plan)


def _deep(prepared: Prepared, engine: Engine) -> Prepared:
    """With what was changed by hand in the plan."""
    from consolidate.inspection import drifts  # seldom asked for

    secrets = prepared.secrets
    found = drifts(engine, prepared.desired, prepared.observed, secrets)
    store = secrets.values() if prepared.new_ids else ()
    return replace(prepared, plan=diff(prepared.desired, prepared.observed, store, drifts=found), drifts=found)


def _in_proxy(engine: Engine, observed: Observed, proxy: str | None) -> Callable[[str], str | None]:
    """A reader of files in the proxy's container; None where it has no such file, or isn't there."""

    def read(path: str) -> str | None:
        container = observed.current(proxy) if proxy else None
        if container is None:
            return None
        try:
            return only_file(engine.get(container.name, path))
        except OperationFailed:
            return None

    return read


def check_host(resolved: Resolved, observed: Observed) -> None:
    """What only the host can tell: memory that isn't there, ports that others hold.

    Raises StackInvalid.
    """
    taken = [*observed.foreign_ports, *_listening(resolved, observed)]
    problems = host_problems(resolved, observed.host, taken)
    if problems:
        raise StackInvalid(problems)


def _listening(resolved: Resolved, observed: Observed) -> list[tuple[str, int, str, str]]:
    """Ports that programs of this machine listen on, where the engine is its own and the stack wants one anew."""
    held = {(p, t) for c in observed.containers for _, p, t in c.ports}
    wanted = {(p.port, p.protocol) for s in resolved.servers.values() for p in s.publish} - held
    if not wanted:
        return []
    from consolidate.doctor import is_local, listeners

    if not is_local({"Name": observed.host.name, "KernelVersion": observed.host.kernel}):
        return []
    others = (e for e in listeners() if (e.port, e.protocol) in wanted and e.program != "docker-proxy")
    return [(e.address, e.port, e.protocol, e.program or "another program") for e in others]


def check_images(plan: Plan) -> None:
    """Raises OperationFailed where the plan needs an image of the lock that can be neither pulled nor built again."""
    for operation in plan.operations:
        action = operation.action
        if isinstance(action, ProvideImage) and action.locked is not None and not action.locked.can_be_had:
            raise not_to_be_had(operation.server, action.locked, action.again)


def check_servers(resolved: Resolved, names: Iterable[str]) -> None:
    """Raises UsageError for a server that the stack doesn't have."""
    for name in names:
        if name not in resolved.servers:
            hint = did_you_mean(name, resolved.servers) or f"it has: {', '.join(resolved.servers)}"
            raise UsageError(f"the stack has no server '{name}'", hint=hint)


def narrowed(plan: Plan, resolved: Resolved, servers: Sequence[str]) -> Plan:
    """The operations of these servers and whatever they need; all of them for none. Whose container comes, starts or stops
    for these is done whole.

    A route is for several servers, and so is an image: it is switched, or removed, where all that it needs is done
    anyway, and pulls nobody in. The base image comes with whatever is to be done: the lock is a container of it.
    """
    if not servers:
        return plan
    servers = tuple(map(naming.server_of, servers))
    check_servers(resolved, servers)
    wanted, by_id = set(servers), {o.id: o for o in plan.operations}
    shared = {o.id: o for o in plan.operations if isinstance(o.action, SwitchRoute | RemoveImage)}
    own = {o.id for o in plan.operations if not wanted.isdisjoint(map(naming.server_of, o.server.split(", ")))}
    whole: dict[str, list[str]] = {}  # server → its operations, until they are all chosen
    for operation in plan.operations:
        if operation.id not in shared:
            whole.setdefault(naming.server_of(operation.server), []).append(operation.id)
    chosen: set[str] = set()
    todo = [id_ for id_ in own if id_ not in shared]
    while todo:
        id_ = todo.pop()
        if id_ not in chosen:
            chosen.add(id_)
            todo += by_id[id_].needs
            # It stops for these, or begins for them: it has to come back, and to be found, and its forerunner to go.
            if isinstance(by_id[id_].action, CreateContainer | StartContainer | StopContainer):
                todo += whole.pop(naming.server_of(by_id[id_].server), [])
    for each in shared.values():  # in the plan's order, so that one can follow another
        if chosen.issuperset(each.needs) and (each.needs or each.id in own):
            chosen.add(each.id)
    return plan.only({*chosen, BASE} if chosen else ())
