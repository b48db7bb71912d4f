"""Which data is saved together, and the plans that save it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from consolidate import naming, repository, snapshots
from consolidate.actions import (
    CompleteBackup,
    CreateNetwork,
    ForgetBackups,
    OpenRepository,
    ProvideImage,
    ReadVolumes,
    SaveData,
    SavedDump,
    SavedVolumes,
)
from consolidate.desired import Backup, Desired, Image
from consolidate.errors import OperationFailed
from consolidate.files import FileSet
from consolidate.observed import Observed, ObservedNetwork, free_subnets
from consolidate.pipeline import BASE
from consolidate.plan import Operation, Plan
from consolidate.resolved import Backups, Keep
from consolidate.snapshots import DATA, FIRST, Manifest, Part, tags

REPOSITORY = "repository"  # what the operations are about that are of no server


def open_plan(
    observed: Observed,
    image: Image,
    session: str,
    backups: Backups,
    volumes: Iterable[tuple[str, str]] = (),
    holder: str = "",
    *,
    new: bool,
    writes: bool,
    alone: bool,
) -> Plan:
    """A plan that starts a session; its image is built where it isn't there. For a server it gets a network of its own with a
    way out, which tells the `holder`.

    Raises OperationFailed where there is no room for that.
    """
    found = observed.newest(image.tag)
    operations = []
    if observed.newest(naming.BASE_IMAGE) is None:
        base = ProvideImage(Image(naming.BASE_IMAGE, "base"))
        operations.append(Operation(BASE, base, "", "what backups are made with"))
    if found is None:
        provide = ProvideImage(image)
        needs = tuple(o.id for o in operations)
        operations.append(Operation(f"image:{image.tag}", provide, "", "what backups are made with", needs))
    network = ""
    if repository.parse(backups.repository).remote:
        network = naming.session_network(session)
        operations.append(
            Operation(
                f"network:{network}", _network(observed, network, backups, holder), "", "its way to the repository"
            )
        )
    opened = OpenRepository(
        session,
        observed.stack,
        found or image.tag,
        backups.repository,
        tuple(volumes),
        new,
        writes,
        alone,
        naming.host_label(observed.host.name),
        network,
        backups.known_hosts,
        tuple(s.address.partition("/")[2] for s in backups.credentials),
    )
    needs = tuple(o.id for o in operations)
    operations.append(Operation(f"open:{REPOSITORY}", opened, "", backups.repository, needs))
    return Plan(observed.stack, tuple(operations))


def _network(observed: Observed, name: str, backups: Backups, holder: str) -> CreateNetwork:
    labels = {naming.STACK: observed.stack, naming.HELPER: "backup", naming.OF: "", naming.PROCESS: holder}
    try:
        (subnet,) = free_subnets(observed, backups.subnets, 1)
    except ValueError as error:
        raise OperationFailed(str(error)) from None
    return CreateNetwork(name, subnet, False, True, tuple(sorted(labels.items())), backups.subnets)


def session_networks(observed: Observed) -> list[ObservedNetwork]:
    return [n for n in observed.networks if n.labels.get(naming.HELPER) == "backup"]


class Units:
    """The data of a stack: what is saved how, and what is saved at one moment.

    A server whose programs can stand still is saved at the moment at which the dumps begin of those that it links to.
    """

    def __init__(self, desired: Desired, observed: Observed) -> None:
        self.volumes: dict[str, SavedVolumes] = {}
        self.dumps: dict[str, SavedDump] = {}
        self.places: dict[str, str] = {}  # of a volume in a session
        self.restless: dict[str, str] = {}  # what is to be dumped and can't be, and the state that it is in
        for name, replicas in desired.replicas.items():  # they share their data
            server = desired.servers[replicas[0]]
            data = tuple(v for v in server.volumes if v.name in observed.volume_names)
            current, how = observed.one_of(name), server.backup or Backup()
            runs = current is not None and current.running
            if data and current and runs and how.dump:
                records = server.drill.dumped if server.drill else None
                self.dumps[name] = SavedDump(name, current.name, how.dump, how.complete, records)
            elif data:
                if current and current.alive and not runs and how.dump:
                    self.restless[name] = current.state
                serving = ((n, observed.current(n)) for n in observed.replicas.get(name, ()))
                still = tuple((n, c.name, how.first) for n, c in serving if c and c.running) if how.freeze else ()
                stored = server.drill.stored if server.drill and still else None  # else they come and go
                self.volumes[name] = SavedVolumes(name, tuple(v.volume for v in data), still, stored)
                self.places |= {v.name: f"{name}/{v.volume}" for v in data}
        self.groups = self._groups(desired)

    def _groups(self, desired: Desired) -> list[list[str]]:
        """Servers with data, each with those of its moment."""
        group = {name: [name] for name in desired.servers if name in self.volumes or name in self.dumps}
        for link in desired.resolved.links:
            one, other = group.get(link.consumer), group.get(link.provider)
            together = (
                link.provider in self.dumps and link.consumer in self.volumes and self.volumes[link.consumer].freeze
            )
            if together and one is not None and other is not None and one is not other:
                one += other
                group |= dict.fromkeys(other, one)
        return list({id(g): g for g in group.values()}.values())

    def of(self, servers: Sequence[str]) -> list[list[str]]:
        """The groups of these servers, all for none.

        Raises OperationFailed for one whose program comes and goes: its files change, and it can't be dumped.
        """
        found = [g for g in self.groups if not servers or not set(servers).isdisjoint(g)]
        for name in (s for g in found for s in g if s in self.restless):
            hint = f"see `consolidate logs {name}`; `-s SERVER` saves others; after `consolidate down -s {name}` its files are saved as they lie"
            raise OperationFailed(f"{name} is {self.restless[name]}, and can't be dumped", hint=hint)
        return found


def mounts(units: Units, groups: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """The volumes that a session needs, with their places."""
    wanted = {s for g in groups for s in g}
    return [(v, place) for v, place in units.places.items() if place.partition("/")[0] in wanted]


def manifest_of(
    desired: Desired,
    observed: Observed,
    units: Units,
    groups: Iterable[Sequence[str]],
    *,
    file: str,
    run: str,
    by: str,
    now: datetime,
    program: str,
) -> Manifest:
    """What the backup will be, but for the snapshots that it is in."""
    parts = {}
    for name in (s for g in groups for s in g):
        current, saved = observed.one_of(name), units.volumes.get(name)
        server = desired.servers[name]
        volumes = saved.volumes if saved else tuple(v.volume for v in server.volumes)
        image = current.image_id if current else ""
        parts[name] = Part(
            server.server.kind,
            server.container.image,
            image,
            "volumes" if saved else "dump",
            volumes,
            bool(saved and saved.freeze),
        )
    environment = desired.resolved.environment
    began = now.isoformat(timespec="seconds")
    return Manifest(desired.stack, environment, file, run, began, by, parts, program)


def save_plan(
    units: Units,
    groups: Sequence[Sequence[str]],
    manifest: Manifest,
    session: str,
    files: FileSet,
    rows: Sequence[Mapping[str, Any]],
    keep: Keep,
    reason: str,
) -> Plan:
    """A plan that saves groups, one after another, and then forgets what is not to be kept of the repository's `rows`."""
    told_by = (f"{snapshots.STACK}={manifest.stack}", f"{snapshots.RUN}={manifest.run}", f"{snapshots.REASON}={reason}")
    operations: list[Operation] = []
    volumes = tuple(units.volumes[s] for g in groups for s in g if s in units.volumes)
    read: tuple[str, ...] = ()
    if volumes:
        first = ReadVolumes(session, manifest.stack, told_by, volumes, parent_of(rows, volumes))
        names = ", ".join(v.server for v in volumes)
        operations.append(Operation(f"read:{names}", first, names, "while they go on"))
        read = (operations[0].id,)
    for group in groups:
        still = tuple(v for v in volumes if v.server in group and v.freeze)
        dumps = tuple(units.dumps[s] for s in group if s in units.dumps)
        if still or dumps:
            action = SaveData(session, manifest.stack, told_by, still, dumps)
            names = ", ".join(group)
            told = "its data" if len(group) == 1 else "their data, of one moment"
            after = tuple(o.id for o in operations[-1:])
            operations.append(Operation(f"save:{names}", action, names, told, read if still else (), after))
    saved = tuple(o.id for o in operations)
    either = (units.dumps.get(s) or units.volumes.get(s) for g in groups for s in g)
    counted = tuple(e.server for e in either if e and e.records)
    whole = CompleteBackup(session, told_by, manifest, files, counted)
    operations.append(Operation("complete:backup", whole, "", "with the stack's files and secrets it is whole", saved))
    if forget := forgotten(rows, manifest, keep, reason):
        why = f"kept: {keep.daily} daily, {keep.weekly} weekly, {keep.monthly} monthly"
        operations.append(Operation("forget:backups", ForgetBackups(session, *forget), "", why, ("complete:backup",)))
    return Plan(manifest.stack, tuple(operations))


def parent_of(rows: Sequence[Mapping[str, Any]], volumes: Sequence[SavedVolumes]) -> str:
    """Of what earlier backups have read that which has most of these volumes, the last of such; none where nothing has."""
    wanted = {f"{DATA}/{s.server}/{v}" for s in volumes for v in s.volumes}
    found = [(len(wanted & set(row["paths"])), row["time"], row["id"]) for row in rows if FIRST in tags(row)]
    most = max(found, default=(0, "", ""))
    return most[2] if most[0] else ""


def forgotten(
    rows: Sequence[Mapping[str, Any]], manifest: Manifest, keep: Keep, reason: str
) -> tuple[tuple[str, ...], bool] | None:
    """Snapshots that go once a backup is there, and whether that leaves anything to be removed; None for no snapshot."""
    runs = snapshots.runs_of(rows)
    coming = snapshots.Run(
        manifest.run,
        manifest.stack,
        datetime.fromisoformat(manifest.began),
        tuple(sorted(manifest.parts)),
        reason,
        "coming",
        (),
    )
    gone = [r for r in snapshots.outlived([coming, *runs], keep) if r is not coming]
    ids = [s for r in gone for s in r.snapshots]
    only_read = (r for r in rows if FIRST in tags(r) and snapshots.SERVER not in tags(r))
    ids += [row["id"] for row in only_read if row["id"] not in ids]
    return (tuple(ids), bool(gone)) if ids else None
