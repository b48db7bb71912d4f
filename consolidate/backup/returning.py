"""What a restore does: which servers, into which volumes, who stops for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import (
    CreateVolume,
    FillVolumes,
    LeaveWord,
    LoadDump,
    RemoveContainer,
    StopContainer,
)
from consolidate.desired import Desired
from consolidate.errors import OperationFailed, UsageError, did_you_mean
from consolidate.generations import cut_off, way_on
from consolidate.observed import Observed
from consolidate.plan import Operation, Plan
from consolidate.snapshots import Manifest, Run


class Return(Struct, frozen=True):
    """A backup, and the servers of a stack that get their data from it; those of `emptied` had none, and lose what is there."""

    backup: Run
    manifest: Manifest
    servers: tuple[str, ...]
    emptied: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.servers, *self.emptied)

    @property
    def dumps(self) -> tuple[str, ...]:
        return tuple(s for s in self.servers if self.manifest.parts[s].method == "dump")

    @property
    def filled(self) -> tuple[str, ...]:
        return tuple(s for s in self.servers if s not in self.dumps)


def returned(backup: Run, manifest: Manifest, desired: Desired, servers: Sequence[str]) -> Return:
    """The servers that are meant: those of the command line, else all that the backup has.

    Raises UsageError for one that the backup, or the stack, does not have as it was.
    """
    wanted = tuple(servers) or tuple(manifest.parts)
    for name in wanted:
        part, server = manifest.parts.get(name), desired.servers.get(name)
        if part is None:
            hint = did_you_mean(name, manifest.parts) or f"it has: {', '.join(manifest.parts)}"
            raise UsageError(f"the backup {backup.run} has no data of '{name}'", hint=hint)
        if server is None:
            hint = "put it into the stack file as it was, or name the others: `-s SERVER`; `backup files` has that file"
            raise UsageError(f"the stack has no server '{name}', which the backup {backup.run} has data of", hint=hint)
        if part.kind != server.server.kind:
            what = f"{name} was a server of the kind {part.kind} in the backup {backup.run}; the stack has {server.server.kind}"
            raise UsageError(what, hint="`backup files` has the stack file of then")
        lost = set(part.volumes) - {v.volume for v in server.volumes}
        if lost or (part.method == "dump" and not (server.backup and server.backup.load)):
            what = f"{name} has no place for {', '.join(sorted(lost)) or 'a dump'} of the backup {backup.run}"
            raise UsageError(what, hint="`backup files` has the stack file of then")
    return Return(backup, manifest, wanted)


def taken_back(backup: Run, manifest: Manifest, desired: Desired, servers: Sequence[str]) -> Return:
    """The same for a backup of what was there before a restore of `servers`: those that it lacks had no data.

    Raises UsageError as `returned` does.
    """
    had = [s for s in servers if s in manifest.parts]
    back = returned(backup, manifest, desired, had) if had else Return(backup, manifest, ())
    return replace(back, emptied=tuple(s for s in servers if s not in manifest.parts and s in desired.servers))


def torn(desired: Desired, returning: Return) -> list[str]:
    """What to know where only some come back of those that were saved at one moment: files and rows won't fit.

    A server that is named is brought back alone all the same, since others may have their data in the same database.
    """
    parts, back = returning.manifest.parts, returning.servers
    links = {(link.consumer, link.provider) for link in desired.resolved.links}
    links = {(c, p) for c, p in links if c in parts and p in parts and parts[p].method == "dump"}
    found = []
    for provider in sorted({p for _, p in links}):
        users = sorted(c for c, p in links if p == provider)
        named = [c for c in users if c in back]
        if provider in back and (left := [c for c in users if c not in back]):
            what = f"the data of {provider} comes back, and that of {', '.join(left)} stays as it is"
            found.append(f"{what}, though they were saved at one moment: {_as_well(left)}")
        elif provider not in back and named:
            it = "it has" if len(named) == 1 else "they have"
            what = f"the data of {', '.join(named)} comes back, and what {it} in {provider} stays as it is"
            others = [c for c in users if c not in back]
            also = f", and what {', '.join(others)} has there" if others else ""
            found.append(f"{what}, though they were saved at one moment: {_as_well([provider])}{also}")
    return found


def _as_well(servers: Sequence[str]) -> str:
    return f"with `{' '.join(f'-s {s}' for s in servers)}` that comes back, too"


def check_cut_off(observed: Observed, wanted: Return, lost: Sequence[str]) -> None:
    """Where a restore was cut off: what is there of its servers isn't whole, and its way back is of them alone.

    Raises OperationFailed where one of them would stay so, or where another server's data would be replaced unsaved.
    """
    words = cut_off(observed)
    if words and (left := sorted(words.keys() - set(wanted.all))):
        what = f"the data of {', '.join(left)} is not whole: a restore was cut off"
        raise OperationFailed(what, hint=way_on(observed))
    if words and (more := sorted(set(lost) - words.keys())):
        what = f"a restore of {', '.join(sorted(words))} was cut off; until that is finished {', '.join(more)} is left alone"
        raise OperationFailed(what, hint=way_on(observed))


def other_images(observed: Observed, wanted: Return) -> str:
    """A word about servers that came back, and don't run the image that they ran when they were saved; empty for none."""
    found = []
    for name in wanted.servers:
        then, current = wanted.manifest.parts[name].image_id, observed.one_of(name)
        if current and then and current.image_id != then:
            found.append(f"{name} ({_short(current.image_id)}, then {_short(then)})")
    return f"not made of the images of then: {', '.join(found)}" if found else ""


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12]


def consumers(desired: Desired, returning: Return) -> list[str]:
    """Servers that use the dumped data of others, or what is emptied: they must not see it half there."""
    changing = (*returning.dumps, *returning.emptied)
    found = (link.consumer for link in desired.resolved.links if link.provider in changing)
    return list(dict.fromkeys(s for s in found if s not in returning.all))


def with_data(desired: Desired) -> tuple[str, ...]:
    """The servers that have volumes of data, there or not."""
    return tuple(n for n, replicas in desired.replicas.items() if desired.servers[replicas[0]].volumes)


def live(desired: Desired, observed: Observed, servers: Sequence[str]) -> tuple[str, ...]:
    """The servers of which there is data, that will be lost."""
    have = observed.volume_names
    return tuple(s for s in servers if any(v.name in have for v in desired.servers[s].volumes))


def word(stack: str, server: str) -> str:
    return naming.helper(stack, server, "restore")


def stop_plan(
    desired: Desired,
    observed: Observed,
    returning: Return,
    safety: str,
    arguments: str = "",
    *,
    everything: bool = False,
) -> Plan:
    """A plan that leaves word, stops the servers and those that use their data, and makes the volumes that aren't there."""
    stack, operations, words = desired.stack, [], []
    age = f"the backup {returning.backup.run}"
    for server in returning.all:
        leave = LeaveWord(
            word(stack, server), stack, server, returning.backup.run, safety, arguments, everything=everything
        )
        words.append(f"begin-restore:{server}")
        operations.append(Operation(words[-1], leave, server, f"its data becomes that of {age}"))
    for server in (*returning.all, *consumers(desired, returning)):
        for container in observed.of_server(server):
            if container.alive:
                downtime = "until the data is back"
                stop = StopContainer(container.name, None)
                operations.append(
                    Operation(
                        f"stop:{container.name}", stop, server, age, tuple(words), impact="restart", downtime=downtime
                    )
                )
    for server in returning.filled:
        for volume in desired.servers[server].volumes:
            if volume.name not in observed.volume_names:
                labels = {naming.STACK: stack, naming.OF: server, naming.ROLE: "data", naming.VOLUME: volume.volume}
                create = CreateVolume(volume.name, tuple(sorted(labels.items())))
                operations.append(Operation(f"volume:{volume.name}", create, server, age, tuple(words)))
    return Plan(stack, tuple(operations))


def places(desired: Desired, observed: Observed, returning: Return) -> list[tuple[str, str]]:
    """The volumes that a restore writes to, with their places in a session; others are emptied, if they are there."""
    return [
        (volume.name, f"{server}/{volume.volume}")
        for server in returning.all
        for volume in desired.servers[server].volumes
        if server in returning.filled or volume.name in observed.volume_names
    ]


def fill_plan(returning: Return, session: str, mounted: Sequence[tuple[str, str]]) -> Plan:
    """A plan that replaces what is in the volumes `mounted`; some are emptied alone."""
    volumes = []
    for _, place in mounted:
        server, _, volume = place.partition("/")
        volumes.append(
            (server, volume, returning.manifest.parts[server].snapshot if server in returning.filled else "")
        )
    if not volumes:
        return Plan(returning.manifest.stack, ())
    action = FillVolumes(session, tuple(volumes), returning.backup.manifest)
    names = ", ".join(dict.fromkeys(s for s, _, _ in volumes))
    return Plan(returning.manifest.stack, (Operation(f"restore:{names}", action, names, "its volumes"),))


def load_plan(desired: Desired, observed: Observed, returning: Return, session: str) -> Plan:
    """A plan that gives dumps to their servers, which run. What they knew of their consumers is then that of the backup, or
    nothing: they are told again."""
    operations = []
    for server in returning.dumps:
        container, how = observed.current(server), desired.servers[server].backup
        assert how is not None, "it was checked"
        snapshot = returning.manifest.parts[server].snapshot
        action = LoadDump(session, server, snapshot, container.name if container else "", how.load)
        operations.append(Operation(f"load:{server}", action, server, "its dump"))
        for receipt in observed.receipts.get(server, []):
            gone = RemoveContainer(receipt.name)
            operations.append(
                Operation(f"forget:{receipt.name}", gone, server, "it is told again", (f"load:{server}",))
            )
    for server in returning.emptied:
        operations += [
            Operation(f"forget:{r.name}", RemoveContainer(r.name), server, "it is told again")
            for r in observed.receipts.get(server, [])
        ]
    return Plan(desired.stack, tuple(operations))


def end_plan(stack: str, servers: Sequence[str]) -> Plan:
    """A plan that takes the word back: the data is whole."""
    ends = (Operation(f"end-restore:{s}", RemoveContainer(word(stack, s)), s, "its data is whole") for s in servers)
    return Plan(stack, tuple(ends))
