"""Generations of servers: what each was, as the engine tells it in labels of containers that run and of records. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import DesiredServer, Grant, Made, grant_hash
from consolidate.errors import OperationFailed
from consolidate.observed import Observed, ObservedContainer
from consolidate.resolved import SECRETS_PATH

# How a generation ended; one that has a container still has the engine's word for its state instead.
REPLACED, STOPPED, ROLLED_BACK, FAILED = "replaced", "stopped", "rolled back", "failed"


class Generation(Struct, frozen=True, omit_defaults=True):
    """One generation of a server: who made it when (seconds, Unix time) and why, what it was, and what became of it.

    `run` is the `up` that made it. `image` is the name that it was made by, `image_id` what that meant then. `live` is
    the hash of the reloadable files that it had last, `changes` are (field, old, new). A failed one has no `made`:
    there is no way back to it.
    """

    server: str
    number: int
    when: int
    by: str = ""
    run: str = ""
    reason: str = ""
    changes: tuple[tuple[str, str | None, str | None], ...] = ()
    image: str = ""
    image_id: str = ""
    result: str = ""
    detail: str = ""
    log: tuple[str, ...] = ()
    fingerprint: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    live: str = ""
    made: Made | None = None


def made_of(container: ObservedContainer) -> Made | None:
    """What a container was made of, None where no label of ours tells it."""
    try:
        return msgspec.json.decode(container.labels.get(naming.MADE, ""), type=Made)
    except msgspec.DecodeError:
        return None


def granted_to(
    grant: Grant, consumer: DesiredServer, made: Made | None, container: str, folder: str = SECRETS_PATH
) -> Grant | None:
    """What a provider is told about a consumer as that was `made`, with the password of then; None where it had none.

    Where the store has another by now, the password of then is in `container`, below `folder`. `consumer` is what is
    wanted of it now.
    """
    address, then = grant.link.password, made.secrets if made else {}
    name = next((n for n, spec in consumer.server.secrets.items() if spec.address == address), None)
    if address is None or name is None or address not in then:
        return None
    if then[address] == consumer.made.secrets.get(address):
        return grant
    applied = grant_hash(grant.command, grant.input, {address: then[address]})
    return replace(grant, applied=applied, password_in=(container, f"{folder}/{name}"))


def of_container(observed: Observed, container: ObservedContainer) -> Generation:
    """What a container's labels tell of its generation; its result is the engine's word."""
    labels, made, server = container.labels, made_of(container), naming.server_of(container.server or "")
    if made:  # that of another replica is the same
        made = replace(made, container=replace(made.container, server=server))
    return Generation(
        server,
        container.generation,
        container.created,
        by=labels.get(naming.BY, ""),
        run=labels.get(naming.RUN, ""),
        reason=labels.get(naming.REASON, ""),
        changes=_changes(labels.get(naming.CHANGES, "")),
        image=made.container.image if made else container.image,
        image_id=container.image_id,
        result=container.state,
        detail="" if container.running else container.status,
        fingerprint=made.container.fingerprint if made else container.fingerprint,
        parts=parts_of(container),
        networks=tuple(sorted(container.networks)),
        live=observed.applied(server),
        made=made,
    )


def parts_of(container: ObservedContainer) -> dict[str, str]:
    """The fields that a container was made of, by its label."""
    try:
        return msgspec.json.decode(container.labels.get(naming.PARTS, "{}"), type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def _changes(label: str) -> tuple[tuple[str, str | None, str | None], ...]:
    try:
        return msgspec.json.decode(label, type=tuple[tuple[str, str | None, str | None], ...])
    except msgspec.DecodeError:
        return ()


def of_record(helper: ObservedContainer) -> Generation | None:
    """What a record tells, None where it isn't ours or can't be read."""
    try:
        return msgspec.json.decode(helper.labels.get(naming.RECORD, ""), type=Generation)
    except msgspec.DecodeError:
        return None


def record_label(generation: Generation) -> str:
    return msgspec.json.encode(generation).decode()


def records(observed: Observed, server: str) -> list[tuple[ObservedContainer, Generation]]:
    """The records of a server's generations, the newest first."""
    found = [(c, g) for c in observed.records.get(server, ()) if (g := of_record(c))]
    return sorted(found, key=lambda pair: -pair[1].number)


def history(observed: Observed) -> dict[str, list[Generation]]:
    """All known generations of each server, the newest first."""
    return {s: history_of(observed, s) for s in sorted({*observed.replicas, *observed.records})}


def history_of(observed: Observed, server: str) -> list[Generation]:
    """All known generations of one server, the newest first.

    What has a container is told by that, unless it is the stopped one of a generation that has failed, or that of a
    replica whose turn has not come.
    """
    known = {g.number: g for _, g in records(observed, server)}
    recorded = set(known)
    containers = observed.of_server(server)
    newest = max((c.generation for c in containers if c.running), default=0)
    for container in sorted(containers, key=lambda c: (c.running, -naming.replica_number(c.server or ""))):
        if (container.running and container.generation == newest) or container.generation not in recorded:
            known[container.generation] = of_container(observed, container)
    return [known[n] for n in sorted(known, reverse=True)]


def served(generation: Generation) -> bool:
    """Whether there is a way back to it."""
    return generation.result in (REPLACED, STOPPED, ROLLED_BACK) and generation.made is not None


def outlived(known: list[Generation], limit: int) -> list[Generation]:
    """Of a server's recorded generations those that are too many.

    The last `limit` that served are kept, and as many failures, if none older than these.
    """
    newest = sorted(known, key=lambda g: -g.number)
    good = [g for g in newest if g.result != FAILED]
    oldest = good[:limit][-1].number if good[:limit] else 0
    failed = [g for g in newest if g.result == FAILED and g.number > oldest]
    kept = {g.number for g in (*good[:limit], *failed[:limit])}
    return [g for g in newest if g.number not in kept]


def check_restored(observed: Observed, *, of: Collection[str] = (), but_for: str | None = None) -> None:
    """Raises OperationFailed where data was being replaced by a run that was cut off: what is there is not whole.

    `of` are the servers that matter, all for none; that of `but_for` does not.
    """
    for word in (c for c in observed.containers if c.helper == "restore"):
        server, generation = word.labels.get(naming.OF, ""), word.labels.get(naming.GENERATION, "")
        backup = word.labels.get(naming.SNAPSHOT, "")
        if (server == but_for and not backup) or (of and server not in of):
            continue
        if backup:
            raise OperationFailed(f"the data of {server} is not whole: a restore was cut off", hint=way_on(observed))
        raise OperationFailed(
            f"the data of {server} is not whole: a `rollback --with-data` was cut off",
            hint=f"finish it: consolidate rollback {server} {generation} --with-data",
        )


def cut_off(observed: Observed) -> dict[str, ObservedContainer]:
    """The servers whose data a restore of a backup was replacing as it was cut off, with the word that it left."""
    words = (c for c in observed.containers if c.helper == "restore" and c.labels.get(naming.SNAPSHOT))
    return {word.labels.get(naming.OF, ""): word for word in words}


def way_on(observed: Observed) -> str:
    """The commands that finish a restore that was cut off, or return to what was there: for its servers alone."""
    words = cut_off(observed)
    last = next(iter(words.values())).labels
    options, servers = last.get(naming.ARGUMENTS, ""), " ".join(f"-s {s}" for s in sorted(words))
    backup, safety = last[naming.SNAPSHOT], last.get(naming.SAFETY, "")
    hint = " ".join(filter(None, ("finish it: consolidate restore", backup, options, servers)))
    if safety and safety != backup:
        hint += f"; or return to what was there before: consolidate restore {safety} {servers}"
    return hint
