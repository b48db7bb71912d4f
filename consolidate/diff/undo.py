"""What takes a new generation back that fails: it goes, and the old one serves on with all that it had."""

from __future__ import annotations

from msgspec import structs

from consolidate import naming
from consolidate.actions import (
    Action,
    ApplyGrant,
    CreateContainer,
    KeepGeneration,
    LoadData,
    PointLive,
    RemoveContainer,
    RemoveVolume,
    RestoreVolumes,
    StartContainer,
    StopContainer,
    WaitReady,
)
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.dumps import load, present_dump, restore, restoring
from consolidate.diff.records import failure
from consolidate.diff.replicas import replicas
from consolidate.generations import granted_to, made_of
from consolidate.observed import ObservedContainer
from consolidate.plan import Operation


def undo_of(
    draft: Draft,
    server: DesiredServer,
    create: CreateContainer,
    reason: str,
    old: ObservedContainer | None,
    *,
    stopped: bool,
) -> list[Action]:
    """The undo of a start, and of the wait for it. `old` is what served before; `stopped` for the new one.

    A first generation stays, stopped, for its log; its successor takes its name.
    """
    told = _told(draft, server, create.generation, reason)
    if old is None:
        return [StopContainer(create.name, server.container.stop_grace), *told]
    undo: list[Action] = [RemoveContainer(create.name), *live_back(draft, server)]
    rest: list[Action] = [*_files_gone(draft, server), *told]
    refresh = draft.refreshes.get(server.name)
    if refresh and refresh.dump:
        return [*undo, *rest, *_data_back(draft, server, create.generation, old, stopped=stopped)]
    return [*undo, *(start_again(old) if stopped else []), *rest]


def _data_back(
    draft: Draft, server: DesiredServer, generation: int, old: ObservedContainer, *, stopped: bool
) -> list[Action]:
    """What was there before a restore that fails, from its own dump. Where that is lost, the word of it stays."""
    name = server.server.name
    present = present_dump(draft, name, generation)
    if present is None:
        return []
    undo: list[Action] = [restore(draft, server, present)]
    if stopped:
        undo += [*start_again(old), *load(draft, server, present, old.name)]
    return [*undo, RemoveContainer(restoring(draft, name))]


def undo_of_check(draft: Draft, server: DesiredServer, generation: int, reason: str) -> list[Action]:
    """The undo of a configuration's check, before which there is nothing but files."""
    return [*_files_gone(draft, server), *_told(draft, server, generation, reason)]


def _told(draft: Draft, server: DesiredServer, generation: int, reason: str) -> list[Action]:
    """The record of the failure, but for a generation that is good: another replica serves with it by then."""
    name = server.server.name
    there = any(c.generation == generation and c.server != server.name for c in draft.observed.of_server(name))
    if there or _is_another_made(draft, server):
        return []
    return [*failure(draft, name, generation, reason, server.container.image)]


def _is_another_made(draft: Draft, server: DesiredServer) -> bool:
    return any(f"create:{n}" in draft.ids for n in replicas(draft, server) if n != server.name)


def _files_gone(draft: Draft, server: DesiredServer) -> list[Action]:
    if _is_another_made(draft, server):  # it has them by then
        return []
    new = (f.name for f in server.files if f"files:{f.name}" in draft.ids and f.name not in draft.observed.roles)
    return list(map(RemoveVolume, new))


def undo_of_create(draft: Draft, server: DesiredServer, generation: int, undo: list[Action]) -> list[Action]:
    """Of that what holds while the old one still runs: its data has not been touched, so the new dump of it goes."""
    later = StartContainer | StopContainer | WaitReady | RestoreVolumes | LoadData
    name = server.server.name
    word = RemoveContainer(restoring(draft, name))
    early: list[Action] = [a for a in undo if not isinstance(a, later) and a != word]
    early = [structs.replace(a, volumes=()) if isinstance(a, KeepGeneration) else a for a in early]
    if f"begin-restore:{name}" in draft.ids and not draft.observed.helper(word.name):
        early.append(word)
    if f"dump:{server.name}" in draft.ids:
        early.append(RemoveVolume(naming.dump_volume(draft.desired.stack, name, generation)))
    return early


def add_grants_back(draft: Draft) -> None:
    """A provider that is told a new password while its consumer still serves with the old one.

    That is done last, right before the consumer is replaced; and whatever fails from then on, the provider is told the old
    one again. So it is where an earlier run that was killed has told it.
    """
    told: dict[str, list[ApplyGrant]] = {}
    for grant in draft.desired.grants:
        link, receipt = grant.link, naming.helper(draft.desired.stack, grant.link.provider, grant.name)
        first = draft.desired.replicas[link.consumer][0]  # the others have theirs once it is well
        old, server = served(draft, first), draft.desired.servers[first]
        if old and draft.observed.helper(receipt) and f"forget:{receipt}" not in draft.ids:
            had = granted_to(grant, server, made_of(old), old.name)
            if had and had != grant:
                again = ApplyGrant(draft.desired.stack, had, draft.names[link.provider], receipt)
                told.setdefault(first, []).append(again)
    before, of = {c: _to_be_ready(draft, c) for c in told}, {naming.server_of(c): c for c in told}
    starts = {o.server: o.needs for o in draft.operations if o.server in told and o.id == f"start:{o.server}"}
    for index, operation in enumerate(draft.operations):
        match operation:
            case Operation(action=ApplyGrant(grant=grant)) if grant.link.consumer in of:
                name = of[grant.link.consumer]
                needs = tuple(dict.fromkeys((*operation.needs, *before[name])))
                before[name].append(operation.id)
                changed = structs.replace(operation, server=name, needs=needs, undo=tuple(told[name]))
            case Operation(action=StopContainer(), server=name) if operation.id in starts.get(name, ()):
                changed = structs.replace(operation, undo=tuple(told[name]))
            case Operation(server=name, undo=(RemoveContainer() | StopContainer() as gone, *rest)) if name in told:
                early = operation.id == f"create:{name}"
                changed = operation if early else structs.replace(operation, undo=(gone, *told[name], *rest))
            case _:
                continue
        draft.operations[index] = changed


def served(draft: Draft, server: str) -> ObservedContainer | None:
    """The container that comes back should its successor fail."""
    new = draft.names[server]
    found = [c for c in draft.observed.servers.get(server, ()) if c.name != new]
    return next((c for c in found if c.running), found[0] if found else None)


def _to_be_ready(draft: Draft, server: str) -> list[str]:
    """All but its grants that a server's start waits for."""
    providers = (link.provider for link in draft.desired.servers[server].server.links)
    return [f"create:{server}", *(f"ready:{n}" for p in providers for n in draft.desired.replicas[p])]


def start_again(container: ObservedContainer) -> list[Action]:
    """Start what served before, and see by its own health check that it serves."""
    return [StartContainer(container.name), WaitReady(container.name, None)]


def live_back(draft: Draft, server: DesiredServer) -> list[Action]:
    """The reloadable files that were current become so again, where the plan writes others."""
    live = server.live
    if live is None or f"live:{live.server}" not in draft.ids:
        return []
    receipt, applied = draft.observed.live(live.server), draft.observed.applied(live.server)
    if receipt is None or not applied or live.volume not in receipt.volumes:
        return []
    return [PointLive(draft.desired.stack, live.server, live.volume, applied, receipt.generation)]
