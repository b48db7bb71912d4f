"""What takes a new generation back that fails: it goes, and the old one serves on with all that it had."""

from __future__ import annotations

from consolidate import naming
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.dumps import load, present_dump, restore, restoring
from consolidate.diff.records import failure
from consolidate.observed import ObservedContainer
from consolidate.plan import (
    Action,
    CreateContainer,
    PointLive,
    RemoveContainer,
    RemoveVolume,
    StartContainer,
    StopContainer,
    WaitReady,
)


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
    name = server.server.name
    record = failure(draft, name, create.generation, reason, create.container.image)
    if old is None:
        return [StopContainer(create.name, server.container.stop_grace), record]
    undo: list[Action] = [RemoveContainer(create.name), *live_back(draft, server)]
    rest: list[Action] = [*_files_gone(draft, server), record]
    refresh = draft.refreshes.get(name)
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
    record = failure(draft, server.server.name, generation, reason, server.container.image)
    return [*_files_gone(draft, server), record]


def _files_gone(draft: Draft, server: DesiredServer) -> list[Action]:
    new = (f.name for f in server.files if f"files:{f.name}" in draft.ids and f.name not in draft.observed.roles)
    return list(map(RemoveVolume, new))


def start_again(container: ObservedContainer) -> list[Action]:
    """Start what served before, and see by its own health check that it serves."""
    return [StartContainer(container.name), WaitReady(container.name, None)]


def live_back(draft: Draft, server: DesiredServer) -> list[Action]:
    """The reloadable files that were current become so again, where the plan writes others."""
    live = server.live
    if live is None or f"live:{live.server}" not in draft.ids:
        return []
    receipt = draft.observed.helper(naming.helper(draft.desired.stack, live.server, "live"))
    applied = receipt.labels.get(naming.APPLIED, "") if receipt and live.volume in receipt.volumes else ""
    if receipt is None or not applied:
        return []
    return [PointLive(draft.desired.stack, live.server, live.volume, applied, receipt.generation)]
