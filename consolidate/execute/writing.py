"""Filling volumes: with the files of servers before they start, and with new ones while a server runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TypeVar

from consolidate import files, naming
from consolidate.actions import PointLive, WriteLive
from consolidate.desired import CURRENT, NEXT, WRITE_PATH, FileVolume, Live
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.commands import must_run
from consolidate.files import FileSpec

T = TypeVar("T")
Reveal = Callable[[str], str]  # a secret's value, by its address

BATCH = 16  # volumes filled at once: an archive costs the engine about the same whatever is in it


class Unreadable(OperationFailed):
    """A file of ours can't be read; found out before the engine was asked for anything."""


def batches(items: Sequence[T]) -> list[tuple[T, ...]]:
    """What is written together."""
    return [tuple(items[i : i + BATCH]) for i in range(0, len(items), BATCH)]


def archive_of(specs: Iterable[FileSpec], reveal: Reveal) -> IO[bytes]:
    """The files as a tar archive.

    Raises Unreadable.
    """
    try:
        return files.archive(specs, reveal)
    except OSError as error:
        raise Unreadable(f"{error.filename} can't be read: {error.strerror}") from None


def write_volumes(engine: Engine, volumes: Sequence[FileVolume], reveal: Reveal) -> None:
    """Fill volumes: new ones, or again those of a run that was stopped.

    The writer's name stands for just these volumes, so that it never takes the place of another's remains.
    """
    stack, servers = volumes[0].stack, {v.server for v in volumes}
    writer = naming.helper(stack, "", f"{naming.digest(sorted(v.name for v in volumes), 12)}.writer")
    labels = {naming.STACK: stack, naming.OF: ", ".join(sorted(servers)), naming.HELPER: "writer"}
    theirs = {v.name: {naming.STACK: stack, naming.OF: v.server, naming.ROLE: v.role} for v in volumes}
    with archive_of((f for v in volumes for f in v.files.below(v.name).files), reveal) as tar:
        try:
            engine.create_helper(writer, labels, {v.name: f"{WRITE_PATH}/{v.name}" for v in volumes}, theirs)
            engine.put(writer, WRITE_PATH, tar)
        except OperationFailed:
            _forget(engine, writer, volumes)
            raise
    engine.remove(writer)


def _forget(engine: Engine, writer: str, volumes: Sequence[FileVolume]) -> None:
    """Remove what could not be filled: on a full disk it takes the room that others need."""
    with contextlib.suppress(ConsolidateError):
        engine.remove(writer)
        for volume in volumes:
            engine.remove_volume(volume.name)


def write_live(engine: Engine, action: WriteLive, reveal: Reveal) -> None:
    """Write the new files beside the current ones, have them checked, make them current, and tell the program."""
    live, container = action.live, action.container
    stack = live.stack
    writer = naming.helper(stack, live.server, "live")
    labels = {naming.STACK: stack, naming.HELPER: "live", naming.OF: live.server}
    engine.create_helper(writer, labels, {live.volume: WRITE_PATH})
    new = (*live.files.below(live.folder).files, _link(NEXT, live))
    if container is None:  # nobody reads them yet: they are current at once
        new = (*new, _link(CURRENT, live))
    with archive_of(new, reveal) as tar:
        engine.put(writer, WRITE_PATH, tar)
    if container and live.check:
        refusal = f"{live.server} refuses its new files; it goes on with the old ones"
        must_run(engine, container, live.check, refusal)
    if container:
        with archive_of([_link(CURRENT, live)], reveal) as tar:
            engine.put(writer, WRITE_PATH, tar)
    if container and live.command:
        must_run(engine, container, live.command, f"{live.server} did not reload")
    elif container and live.signal:
        engine.kill(container, live.signal)
    applied = {naming.APPLIED: live.folder, naming.GENERATION: str(action.generation)}
    engine.create_helper(writer, labels | applied, {live.volume: WRITE_PATH})


def point_live(engine: Engine, action: PointLive) -> None:
    """Make files current that are in the volume already; who reads them starts later, and reads them by itself."""
    writer = naming.helper(action.stack, action.server, "live")
    labels = {naming.STACK: action.stack, naming.HELPER: "live", naming.OF: action.server}
    applied = {naming.APPLIED: action.applied, naming.GENERATION: str(action.generation)}
    links = [FileSpec(name, 0o777, link=action.applied) for name in (CURRENT, NEXT)]
    with archive_of(links, lambda address: address) as tar:
        engine.put(writer, WRITE_PATH, tar)
    engine.create_helper(writer, labels | applied, {action.volume: WRITE_PATH})


def _link(name: str, live: Live) -> FileSpec:
    return FileSpec(name, 0o777, link=live.folder)
