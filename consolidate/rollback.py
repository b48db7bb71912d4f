"""Back to earlier generations: which there are, which are meant, and the plan that brings them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import LIVE_PATH, Desired
from consolidate.diff import Refresh, diff
from consolidate.diff.dumps import dump_of, wanted_dump
from consolidate.diff.images import Dump
from consolidate.diff.ports import clash
from consolidate.diff.reasons import changes, why
from consolidate.engine import Engine
from consolidate.errors import UsageError, did_you_mean
from consolidate.generations import FAILED, REPLACED, Generation, check_restored, history, of_container, served
from consolidate.observed import Observed
from consolidate.pipeline import Prepared, check_servers, narrowed, prepare
from consolidate.present import as_it_is, back_to, live_hash
from consolidate.source import Source


def rows(observed: Observed, servers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row for each generation that the engine knows of, each server's newest first; keys are stable.

    Raises UsageError for an unknown server.
    """
    known = history(observed)
    for name in servers:
        if name not in known:
            hint = did_you_mean(name, known) or f"there are: {', '.join(known) or 'none'}"
            raise UsageError(f"the engine has no server '{name}' of this stack", hint=hint)
    return [_row(g) for s, each in known.items() if not servers or s in servers for g in each]


def _row(generation: Generation) -> dict[str, Any]:
    return {
        "server": generation.server,
        "generation": generation.number,
        "when": _time(generation.when),
        "by": generation.by,
        "reason": generation.reason,
        "fields": [{"field": f, "old": old, "new": new} for f, old, new in generation.changes],
        "image": generation.image,
        "image_id": generation.image_id,
        "result": generation.result,
        "detail": generation.detail,
        "log": list(generation.log),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def prepare_rollback(
    source: Source, engine: Engine, server: str | None, number: int | None, *, with_data: bool = False
) -> Prepared:
    """Read the stack and the engine, and plan the way back.

    Raises UsageError where there is none, and OperationFailed where another one was cut off.
    """
    prepared = prepare(source, engine, restoring=with_data)
    return returned(prepared, server, number, with_data=with_data)


def returned(prepared: Prepared, server: str | None, number: int | None = None, *, with_data: bool = False) -> Prepared:
    """The plan that returns a server to an earlier generation, by default to the last that served before.

    Without a server: all that the last `up` replaced. With its data: as it was dumped before an update. Raises
    UsageError where there is no way back, and OperationFailed where the data of another one is not whole.
    """
    if server is not None:
        check_servers(prepared.resolved, [server])
    observed = prepared.observed
    check_restored(observed, but_for=server if with_data else None)
    known = history(observed)
    if with_data and server is None:
        raise UsageError("--with-data is for one server", hint="name it: consolidate rollback SERVER --with-data")
    if with_data and len(observed.replicas.get(server or "", ())) > 1:
        hint = "write `replicas: 1` first, and `up`; afterwards as many as before"
        raise UsageError(f"{server} has several replicas, which would write to the data meanwhile", hint=hint)
    dump = None
    if server is None:
        targets = last_replaced(observed, prepared.desired.servers)
    elif with_data:
        target, dump = _dumped(observed, known, server, number)
        targets = {server: target}
    else:
        targets = {server: _target(known, server, number)}
    _check_whole(observed, targets.values())
    standing = as_it_is(prepared.desired, observed)
    _check_kinds(prepared.desired, targets)
    meant = targets
    targets = {n: t for s, t in targets.items() for n in dict.fromkeys((s, *observed.replicas.get(s, ())))}
    _check_alone(prepared.desired, targets)
    _check_ports(observed, targets)
    desired = back_to(standing, prepared.desired, observed, targets)
    plan = diff(desired, observed, (), _refreshes(desired, observed, targets, dump))
    plan = narrowed(plan, desired.resolved, tuple(targets))
    plan = replace(plan, notes=tuple(notes(desired, observed, meant, dump)) if plan else ())
    return replace(prepared, resolved=desired.resolved, desired=desired, plan=plan)


def _target(known: Mapping[str, list[Generation]], server: str, number: int | None) -> Generation:
    mine = known.get(server, [])
    found = previous(mine) if number is None else next((g for g in mine if g.number == number), None)
    there = ", ".join(str(g.number) for g in mine if served(g))
    hint = f"there are: {there}; `consolidate history {server}` tells of them" if there else ""
    if found is None and number is None:
        raise UsageError(f"{server} has no earlier generation to go back to", hint=hint or "none is kept")
    if found is None:
        raise UsageError(f"{server} has no generation {number} that is kept", hint=hint or "none is kept")
    if found.result == FAILED:
        raise UsageError(f"generation {number} of {server} has failed: {found.detail}", hint=hint)
    if not served(found):
        raise UsageError(f"generation {number} of {server} is the present one: it is {found.result}", hint=hint)
    return found


def _dumped(
    observed: Observed, known: Mapping[str, list[Generation]], server: str, number: int | None
) -> tuple[Generation, Dump]:
    """The generation that is meant, and the last dump of its data: also the present one, whose update has failed.

    Raises UsageError where there is none.
    """
    mine = {g.number: g for g in known.get(server, []) if g.made is not None}
    cut_off = observed.helper(naming.helper(observed.stack, server, "restore"))
    if cut_off and number not in (None, cut_off.generation):
        hint = f"finish that first: consolidate rollback {server} {cut_off.generation} --with-data"
        raise UsageError(f"the way back to generation {cut_off.generation} of {server} was cut off", hint=hint)
    dumps = {n: dump for n in mine if (dump := dump_of(observed, server, n))}
    if cut_off and (begun := wanted_dump(observed, cut_off)):
        dumps[cut_off.generation] = begun
    chosen = cut_off.generation if cut_off else number if number is not None else max(dumps, default=0)
    if chosen not in dumps or chosen not in mine:
        there = ", ".join(map(str, sorted(dumps)))
        what = f"generation {chosen} of {server}" if number is not None else server
        hint = (
            f"there are dumps of the generations {there}" if there else "`update` makes them before it changes a server"
        )
        raise UsageError(f"there is no dump of the data of {what}", hint=hint)
    return mine[chosen], dumps[chosen]


def previous(known: Sequence[Generation]) -> Generation | None:
    """The last good one before the present: one that served until another took its place, and differs from that."""
    present = next((g for g in known if not served(g) and g.result != FAILED), None)
    same = (present.fingerprint, present.image_id) if present else ("", "")
    earlier = [g for g in known if served(g) and (g.fingerprint, g.image_id) != same]
    return next((g for g in earlier if g.result == REPLACED), earlier[0] if earlier else None)


def last_replaced(observed: Observed, servers: Iterable[str]) -> dict[str, Generation]:
    """The servers that the last `up` replaced, and what they were.

    Raises UsageError where it replaced none.
    """
    names = dict.fromkeys(naming.server_of(s) for s in servers)
    present = [
        of_container(observed, c) for n in names for r in observed.replicas.get(n, ()) if (c := observed.current(r))
    ]
    last = max(present, key=lambda g: g.when, default=None)
    run = dict.fromkeys(g.server for g in present if last and g.run == last.run)
    known = history(observed)
    found = {s: g for s in run if (g := previous(known.get(s, [])))}
    if not found:
        what = f"the last `up` ({_time(last.when)}, by {last.by}) replaced no server" if last else "nothing is up"
        raise UsageError(what, hint="name a server; `consolidate history` lists what is kept")
    return found


def _check_whole(observed: Observed, targets: Iterable[Generation]) -> None:
    """Raises UsageError where a generation's image or files have been removed from the engine by hand."""
    have = observed.volume_names
    for target in targets:
        assert target.made is not None, "there is a way back to it"
        mounts = target.made.container.mounts
        lost = [m.volume for m in mounts if (m.read_only or m.target == LIVE_PATH) and m.volume not in have]
        if target.image_id not in observed.images:
            lost.append(f"the image {target.image} ({target.image_id[7:19]})")
        if lost:
            what = f"generation {target.number} of {target.server} is not whole: {', '.join(lost)} has gone"
            raise UsageError(what, hint="somebody removed it from the engine; choose another generation")


def _check_kinds(desired: Desired, targets: Mapping[str, Generation]) -> None:
    """Raises UsageError where a generation was of another kind: its links and routes are not those of the stack."""
    for name, target in targets.items():
        was, is_ = target.made.container.kind if target.made else "", desired.servers[name].server.kind
        if was != is_:
            what = f"generation {target.number} of {name} was a server of the kind {was}; the stack has {is_}"
            raise UsageError(what, hint="put the file of then back, and use `up`")


def _check_alone(desired: Desired, targets: Mapping[str, Generation]) -> None:
    """Raises UsageError where a generation has what one container only can have, and several would go back to it."""
    several = {t.server for name, t in targets.items() if name != t.server}
    for name, made in ((t.server, t.made) for t in targets.values() if t.server in several and t.made):
        shared = {m.volume for m in desired.servers[name].container.mounts}
        alone = [p.host for p in made.container.publish]
        alone += [m.volume for m in made.container.mounts if not m.read_only and m.volume not in shared]
        if alone:
            what = f"generation {targets[name].number} of {name} was one container, which alone has {alone[0]}; it has replicas now"
            raise UsageError(what, hint="write `replicas: 1` first, and `up`; or choose another generation")


def _check_ports(observed: Observed, targets: Mapping[str, Generation]) -> None:
    """Raises UsageError where a port that a generation publishes is another's by now."""
    taken = [(*p, c.server or c.name) for c in observed.containers if c.server not in targets for p in c.ports]
    for target in targets.values():
        for publish in target.made.container.publish if target.made else ():
            for address, port, protocol, owner in (*taken, *observed.foreign_ports):
                if (port, protocol) == (publish.port, publish.protocol) and clash(address, publish.address):
                    what = (
                        f"generation {target.number} of {target.server} publishes {publish.host}, which {owner} has now"
                    )
                    raise UsageError(what, hint="choose another generation, or change the file and use `up`")


def _refreshes(
    desired: Desired, observed: Observed, targets: Mapping[str, Generation], dump: Dump | None
) -> dict[str, Refresh]:
    """Each server gets the image that it had, by its id, whatever its name means by now."""
    found = {}
    for name, target in targets.items():
        current = observed.current(name)
        differs = changes(desired.servers[name], current)
        told = why(desired.servers[name], current, (), differs)
        if current and not differs and dump and current.image_id == target.image_id:
            told = "its data"
        elif current and not differs:
            told = f"the image {target.image_id[7:19]}, not {current.image_id[7:19]}"
        reason = f"back to generation {target.number}: {told}"
        found[name] = Refresh(target.image_id, reason, differs, True, target.number, dump)
    return found


def notes(
    desired: Desired, observed: Observed, targets: Mapping[str, Generation], dump: Dump | None = None
) -> Iterable[str]:
    """What doesn't go back with them."""
    there = {n.name for n in desired.networks}
    for name, target in targets.items():
        made = target.made
        if made is None:
            continue
        if target.live and live_hash(observed, target) != target.live:
            yield f"{name}: its reloadable files stay as they are, since they were reloaded after generation {target.number}"
        lost = [n for n in target.networks if n not in there]
        if lost:
            yield f"{name}: it was on {', '.join(lost)}, which the stack has no more: that link does not come back"
        if dump:
            yield f"{name}: its data becomes what it was {made_at(observed, dump)}; what it is now is dumped first"
        elif any(not m.read_only for m in made.container.mounts):
            yield f"{name}: its data stays as it is; what a newer program made of it is not taken back"
    yield f"the next `consolidate up` does what the file says again: change it first if {', '.join(targets)} shall stay so"


def made_at(observed: Observed, dump: Dump) -> str:
    """When a dump was made, as the engine has it."""
    created = next((v.created for v in observed.volumes if v.name == dump.volume), "")
    return created[:19].replace("T", " ") if created else "then"
