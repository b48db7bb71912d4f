"""Plans that need no stack file but for its name: `down` and `restart`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from consolidate import lately, naming
from consolidate.actions import RemoveContainer, RemoveNetwork, RemoveVolume, StartContainer, StopContainer, WaitReady
from consolidate.diff.records import last_record
from consolidate.errors import UsageError, did_you_mean
from consolidate.generations import check_restored
from consolidate.observed import Observed, ObservedContainer
from consolidate.plan import Operation, Plan


def down_plan(observed: Observed, *, volumes: bool, servers: Sequence[str] = ()) -> Plan:
    """A plan that removes a stack from the engine; its data, of which dumps are a part, only with `volumes`.

    A dump stays with the records that hold it or are left for it: they tell what it is of. Raises OperationFailed where a restore was cut
    off that could not be finished afterwards.
    """
    if not volumes:
        check_restored(observed, of=servers)
    records = [] if volumes else [c for c in observed.containers if c.helper == "generation" and _dumps(observed, c)]
    held = {v for c in records for v in c.volumes}
    operations: list[Operation] = []
    removed = {}
    for container in observed.containers:
        server = container.server or container.labels.get(naming.OF, "")
        if container.helper == "lock" or (servers and naming.server_of(server) not in servers):
            continue
        if (container.helper in ("secrets", *lately.KEPT) and not volumes) or container in records:
            continue
        needs: tuple[str, ...] = ()
        if container.alive:
            id_ = f"stop:{container.name}"
            stop = StopContainer(container.name, None)
            operations.append(Operation(id_, stop, server, "down", impact="restart", downtime="it is gone"))
            needs = (id_,)
        if container.server and not volumes and (record := last_record(observed, container)):
            id_ = f"keep:{container.name}"
            operations.append(Operation(id_, record, server, "there is a dump of its data", needs))
            held.update(record.volumes)
            needs = (*needs, id_)
        id_ = f"remove:{container.name}"
        removed[container.name] = id_
        gone = RemoveContainer(container.name, nameless_volumes=container.helper == "generation")
        operations.append(Operation(id_, gone, server, "down", needs))
    for network in observed.networks:
        users = [c.name for c in observed.on_network.get(network.name, [])]
        if all(u in removed for u in users):
            needs = tuple(removed[u] for u in users)
            action = RemoveNetwork(network.name)
            owner = network.labels.get(naming.OF, "")
            operations.append(Operation(f"remove-network:{network.name}", action, owner, "down", needs))
    notes = []
    for volume in observed.volumes:
        role, owner = volume.labels.get(naming.ROLE, ""), volume.labels.get(naming.OF, "")
        if servers and owner not in servers:
            continue
        if role in ("data", "store", "dump") and not volumes:
            notes.append(f"kept: the volume {volume.name}")
            continue
        if volume.name in held:
            continue
        users = [c.name for c in observed.with_volume.get(volume.name, [])]
        needs = tuple(removed[u] for u in users if u in removed)
        remove = RemoveVolume(volume.name)
        operations.append(Operation(f"remove-volume:{volume.name}", remove, owner, "down", needs))
    return Plan(observed.stack, tuple(operations), tuple(notes))


def _dumps(observed: Observed, record: ObservedContainer) -> list[str]:
    return [v for v in record.volumes if observed.roles.get(v) == "dump"]


def data_owners(observed: Observed) -> list[str]:
    """The servers that have data there, with or without a container."""
    return sorted({v.labels.get(naming.OF, "") for v in observed.volumes if v.labels.get(naming.ROLE) == "data"})


def restart_plan(observed: Observed, servers: Sequence[str]) -> Plan:
    """A plan that stops and starts servers of the engine, the replicas of one server one after the other.

    Raises UsageError for an unknown one, and OperationFailed where a restore was cut off.
    """
    check_restored(observed)
    asked = dict.fromkeys(n for server in servers for n in _meant(observed, server))
    meant: dict[str, list[ObservedContainer]] = {}  # a replica may be named beside its server, and before it
    for name in asked:
        if container := observed.current(name):
            meant.setdefault(naming.server_of(name), []).append(container)
    operations: list[Operation] = []
    for server, containers in meant.items():
        needs: tuple[str, ...] = ()
        for container in containers:
            others = any(c.alive and c.server != container.server for c in observed.of_server(server))
            downtime = "the other replicas serve meanwhile" if others else "from its stop until it is ready"
            operations += _restart(container, needs, downtime)
            needs = (operations[-1].id,)
    return Plan(observed.stack, tuple(operations))


def _meant(observed: Observed, server: str) -> list[str]:
    """The replicas that a name stands for: all of a server's, or the very one. Raises UsageError."""
    found = observed.replicas.get(server) or [n for n in observed.servers if n == server]
    if not found:
        hint = did_you_mean(server, observed.servers) or f"there are: {', '.join(observed.servers) or 'none'}"
        raise UsageError(f"the engine has no server '{server}' of this stack", hint=hint)
    return found


def _restart(container: ObservedContainer, needs: tuple[str, ...], downtime: str) -> list[Operation]:
    name, reason = container.server or "", "asked for"
    stop, start = f"stop:{name}", f"start:{name}"
    ending = StopContainer(container.name, None)
    return [
        Operation(stop, ending, name, reason, needs, impact="restart", downtime=downtime),
        Operation(start, StartContainer(container.name), name, reason, (stop,), impact="restart"),
        Operation(f"ready:{name}", WaitReady(container.name, None), name, reason, (start,)),
    ]
