"""Records of earlier generations: what is left of one when another takes its place, and how many are kept."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import KeepGeneration, RemoveContainer
from consolidate.diff.draft import Draft
from consolidate.diff.dumps import dumps_of, whole_dumps
from consolidate.generations import FAILED, REPLACED, ROLLED_BACK, STOPPED, Generation, of_container, outlived, records
from consolidate.observed import Observed, ObservedContainer

FILES = ("config", "secrets", "live")  # roles of volumes that a generation's record keeps


def keep_generation(draft: Draft, container: ObservedContainer, needs: Iterable[str]) -> list[str]:
    """The operation that leaves a record of a container whose place another takes, where there is to be one."""
    server = naming.server_of(container.server or "")
    back = (refresh := draft.refreshes.get(container.server or "")) is not None and refresh.back
    result = ROLLED_BACK if back else REPLACED if container.running else STOPPED
    action = record_of(draft.observed, container, result, dumps_of(draft, server, container.generation))
    if action is None or not draft.desired.resolved.generations:
        return []
    if any(a.name == action.name for a in draft.kept.get(server, ())):
        return []
    draft.kept.setdefault(server, []).append(action)
    return [draft.add(f"keep:{container.name}", action, server, "so that there is a way back", needs=needs)]


def record_of(
    observed: Observed, container: ObservedContainer, result: str, dumps: Iterable[str]
) -> KeepGeneration | None:
    """A record of a container that goes, which holds its files and these `dumps` of its data.

    None where it never ran, where there is one already, also of another replica, and where its image has gone: there is
    no way back to that.
    """
    server, stack = naming.server_of(container.server or ""), observed.stack
    name, generation = naming.record(stack, server, container.generation), of_container(observed, container)
    known = {c.name: g for c, g in records(observed, server)}.get(name)
    if generation.made is None or container.state == "created":
        return None
    if container.image_id and container.image_id not in observed.images:
        return None
    if known is not None and not (known.result == FAILED and container.running):
        return None
    files = (v for v in container.volumes if observed.roles.get(v) in FILES)
    covered = tuple(m.target for m in generation.made.container.mounts if not m.read_only)
    return KeepGeneration(name, stack, replace(generation, result=result), (*files, *dumps), covered)


def last_record(observed: Observed, container: ObservedContainer) -> KeepGeneration | None:
    """A record of a container that goes without a successor, where a dump of its data stays: it tells what that is of."""
    dumps = [v.name for v in whole_dumps(observed, naming.server_of(container.server or ""), container.generation)]
    return record_of(observed, container, STOPPED, dumps) if dumps else None


def failure(draft: Draft, server: str, number: int, reason: str, image: str) -> list[KeepGeneration]:
    """The record of a generation that fails, for its undo: what went wrong is known to that alone. None where none is kept.

    It holds the dump that was made before: the old one may not like what the new one has done to its data.
    """
    failed = Generation(server, number, 0, reason=reason, image=image, result=FAILED)
    dump, coming = naming.dump_volume(draft.desired.stack, server, number), draft.dumps.get(server)
    held = (dump,) if coming and coming.volume == dump else ()
    record = KeepGeneration(naming.record(draft.desired.stack, server, number), draft.desired.stack, failed, held)
    return [record] if draft.desired.resolved.generations else []


def add_bounds(draft: Draft) -> None:
    """Remove records that are too many, and those of servers that have gone."""
    keeping = {o.action.name: o.id for o in draft.operations if isinstance(o.action, KeepGeneration)}
    for server in sorted(draft.observed.records):
        there = records(draft.observed, server)
        added = draft.kept.get(server, [])
        reason, needs = "only the last ones are kept", [keeping[a.name] for a in added]
        if server in draft.desired.replicas:
            known = {g.number: g for _, g in there} | {a.generation.number: a.generation for a in added}
            many = {g.number for g in outlived(list(known.values()), draft.desired.resolved.generations)}
        else:
            dumps = {v.name for v in draft.observed.dumps.get(server, ())}  # they are data, which stays
            many, reason = {g.number for c, g in there if dumps.isdisjoint(c.volumes)}, "its server has gone"
        for helper, generation in there:
            if generation.number in many and f"remove:{helper.name}" not in draft.ids:
                action = RemoveContainer(helper.name, nameless_volumes=True)
                draft.add(f"remove:{helper.name}", action, server, reason, needs=needs)


def kept_volumes(draft: Draft) -> set[str]:
    """Volumes of files that records hold which stay or come."""
    going = {o.action.name for o in draft.operations if isinstance(o.action, RemoveContainer)}
    staying = [c for each in draft.observed.records.values() for c in each if c.name not in going]
    coming = (a for each in draft.kept.values() for a in each)
    return {v for c in staying for v in c.volumes} | {v for a in coming for v in a.volumes}
