"""Dumps of data before an update: which there are to be, and which belong to a generation."""

from __future__ import annotations

from collections.abc import Iterable

from consolidate import naming
from consolidate.actions import Action, BeginRestore, DumpData, LoadData, RemoveContainer, RestoreVolumes, WaitReady
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.images import Dump
from consolidate.diff.supplies import forget_receipts
from consolidate.observed import Observed, ObservedContainer, ObservedVolume

PROGRAM, VOLUMES = "program", "volumes"  # how a dump was made
HOLDERS = ("generation", "restore")  # helpers that are made when a dump is whole


def add_dump(
    draft: Draft, server: DesiredServer, current: ObservedContainer | None, generation: int, needs: Iterable[str]
) -> list[str]:
    """The operation that dumps a server's data before an update, or a dump in its place, makes its next `generation`.

    By the program that serves where the manifest has a command for it, else its volumes are copied. It goes with the
    records of generations: where none is kept there is no way back, and no dump. Nor is what a restore left half done
    worth one.
    """
    name = server.server.name
    refresh = draft.refreshes.get(server.name)
    have = draft.observed.volume_names
    data = tuple((v.name, v.volume) for v in server.volumes if v.name in have)
    if refresh is None or not data or current is None or not draft.desired.resolved.generations:
        return []
    if name in draft.dumps:  # another replica has made it
        return []
    if (refresh.back and refresh.dump is None) or draft.observed.helper(restoring(draft, name)):
        return []
    backup = server.backup if current.running and server.backup and server.backup.dump else None
    method = PROGRAM if backup else VOLUMES
    labels = draft.labels(name, "dump", **{naming.GENERATION: str(current.generation), naming.METHOD: method})
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
    draft.dumps[name] = action
    return [draft.add(f"dump:{server.name}", action, server.name, reason, needs=[*needs, leftover])]


def restoring(draft: Draft, server: str) -> str:
    """The name of the helper that is there while a server's data is being replaced."""
    return naming.helper(draft.desired.stack, server, "restore")


def dump_of(observed: Observed, server: str, generation: int) -> Dump | None:
    """The last dump of a generation's data, None where there is none."""
    found = whole_dumps(observed, server, generation)
    last = max(found, key=lambda v: (v.created, v.name), default=None)
    return _as_dump(last) if last else None


def wanted_dump(observed: Observed, word: ObservedContainer) -> Dump | None:
    """The dump that a restore was bringing back when it was cut off: that of what was there may be a newer one."""
    server, wanted = word.labels.get(naming.OF, ""), word.labels.get(naming.DUMP)
    return next((_as_dump(v) for v in observed.dumps.get(server, ()) if v.name == wanted), None)


def _as_dump(volume: ObservedVolume) -> Dump:
    return Dump(volume.name, volume.labels.get(naming.METHOD) == PROGRAM)


def whole_dumps(observed: Observed, server: str, generation: int) -> list[ObservedVolume]:
    """Those that are whole: something holds them, or the generation is there that was made after them.

    Any other was left by a killed run.
    """
    key = str(generation)
    after = {naming.dump_volume(observed.stack, server, c.generation) for c in observed.of_server(server)}
    mine = (v for v in observed.dumps.get(server, ()) if v.labels.get(naming.GENERATION) == key)
    held = observed.with_volume
    return [v for v in mine if v.name in after or any(c.helper in HOLDERS for c in held.get(v.name, ()))]


def begin_restore(draft: Draft, server: DesiredServer, generation: int, needs: Iterable[str]) -> list[str]:
    """Before anything is done: word that a server's data is being replaced, which goes last.

    In between nobody may believe what is there, nor start the new container with it.
    """
    name, stack, refresh = server.server.name, draft.desired.stack, draft.refreshes.get(server.server.name)
    if refresh is None or refresh.dump is None:
        return []
    present = present_dump(draft, name, generation)
    volume = present.volume if present else None
    begin = BeginRestore(restoring(draft, name), stack, name, refresh.generation, refresh.dump.volume, volume)
    return [draft.add(f"begin-restore:{name}", begin, name, "its data is replaced", needs=needs)]


def add_restore(
    draft: Draft, server: DesiredServer, dump: Dump, new: str, stops: Iterable[str], undo: Iterable[Action]
) -> list[str]:
    """The operations that bring a dump's data back: what the start of the container `new` needs.

    A dump that the program has made is read by it, into volumes that were empty when it started.
    """
    name, generation = server.server.name, draft.refreshes[server.server.name].generation
    reason, begun = f"the data of generation {generation}", f"begin-restore:{name}"
    forgotten = forget_receipts(draft, name, "the data that it tells of is replaced", [begun])
    leftover = f"remove:{naming.helper(draft.desired.stack, name, 'dump')}"  # it may still fill, and has the name
    needs = [begun, f"create:{name}", leftover, *forgotten, *stops]
    restored = draft.add(f"restore:{name}", restore(draft, server, dump), name, reason, needs=needs, undo=undo)
    if to_load := load(draft, server, dump, new):
        first = WaitReady(new, server.ready)
        draft.add(f"first:{name}", first, name, "it has to answer first", needs=[f"start:{name}"], undo=undo)
        draft.add(f"load:{name}", to_load[0], name, reason, needs=[f"first:{name}"], undo=undo)
    whole = RemoveContainer(restoring(draft, name))
    draft.add(f"end-restore:{name}", whole, name, "its data is whole", needs=[f"ready:{name}"])
    return [restored]


def present_dump(draft: Draft, server: str, generation: int) -> Dump | None:
    """The dump of what was there before a restore: made in this plan, or by a run that was cut off."""
    if action := draft.dumps.get(server):
        return Dump(action.volume, bool(action.container))
    there, wanted = draft.observed.helper(restoring(draft, server)), draft.refreshes[server].dump
    held = [v for v in there.volumes if wanted is None or v != wanted.volume] if there else []
    return next((_as_dump(v) for v in draft.observed.dumps.get(server, ()) if v.name in held), None)


def restore(draft: Draft, server: DesiredServer, dump: Dump) -> RestoreVolumes:
    data = tuple((v.name, v.volume) for v in server.volumes)
    return RestoreVolumes(draft.desired.stack, server.server.name, data, "" if dump.by_program else dump.volume)


def load(draft: Draft, server: DesiredServer, dump: Dump, container: str) -> list[LoadData]:
    """What is left to do once the server runs, where the dump is its program's."""
    if not dump.by_program or server.backup is None:
        return []
    return [LoadData(draft.desired.stack, server.server.name, container, server.backup.load, dump.volume)]


def dumps_of(draft: Draft, server: str, generation: int) -> tuple[str, ...]:
    """Volumes with dumps of a generation's data, there or to come."""
    there = (v.name for v in whole_dumps(draft.observed, server, generation))
    coming = draft.dumps.get(server)
    wanted = coming is not None and (naming.GENERATION, str(generation)) in coming.labels
    return (*there, *([coming.volume] if coming and wanted else []))
