"""Dumps of data before an update: which there are to be, and which belong to a generation."""

from __future__ import annotations

from collections.abc import Iterable

from consolidate import naming
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.observed import ObservedContainer
from consolidate.plan import DumpData


def add_dump(
    draft: Draft, server: DesiredServer, current: ObservedContainer | None, generation: int, needs: Iterable[str]
) -> list[str]:
    """The operation that dumps a server's data before an update makes its next `generation`.

    By the program that serves where the manifest has a command for it, else its volumes are copied. It goes with the
    records of generations: where none is kept there is no way back, and no dump.
    """
    name = server.server.name
    refresh = draft.refreshes.get(name)
    have = draft.observed.volume_names
    data = tuple((v.name, v.volume) for v in server.volumes if v.name in have)
    if refresh is None or refresh.back or not data or current is None or not draft.desired.resolved.generations:
        return []
    backup = server.backup if current.running else None
    labels = draft.labels(name, "dump", **{naming.GENERATION: str(current.generation)})
    action = DumpData(
        naming.dump_volume(draft.desired.stack, name, generation),
        draft.desired.stack,
        name,
        labels,
        current.name if backup else "",
        backup.dump if backup else (),
        backup.complete if backup else "",
        data,
    )
    leftover = f"remove:{naming.helper(draft.desired.stack, name, 'dump')}"
    reason = f"the data of generation {current.generation}, to go back to"
    return [draft.add(f"dump:{name}", action, name, reason, needs=[*needs, leftover])]


def dumps_of(draft: Draft, server: str, generation: int) -> tuple[str, ...]:
    """Volumes with dumps of a generation's data, there or to come."""
    key = str(generation)
    there = (
        v.name
        for v in draft.observed.volumes
        if (v.labels.get(naming.ROLE), v.labels.get(naming.OF), v.labels.get(naming.GENERATION))
        == ("dump", server, key)
    )
    coming = (
        o.action.volume
        for o in draft.operations
        if isinstance(o.action, DumpData) and o.server == server and (naming.GENERATION, key) in o.action.labels
    )
    return (*there, *coming)
