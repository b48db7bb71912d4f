"""What no server declares any more. Data volumes stay."""

from __future__ import annotations

import json

from consolidate import naming
from consolidate.actions import (
    CheckConfiguration,
    DisconnectNetwork,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RevokeGrant,
    StopContainer,
)
from consolidate.diff.draft import Draft
from consolidate.diff.records import add_bounds, kept_volumes, last_record
from consolidate.observed import ObservedContainer


def add_removals(draft: Draft) -> None:
    """Remove what no server declares any more. Data volumes stay."""
    _gone_containers(draft)
    leaving = {o.action.name: o.id for o in draft.operations if isinstance(o.action, RemoveContainer)}
    parting = {
        (o.action.container, o.action.network): o.id
        for o in draft.operations
        if isinstance(o.action, DisconnectNetwork)
    }
    wanted = {n.name for n in draft.desired.networks}
    for network in draft.observed.networks:
        if network.name not in wanted:
            server = network.labels.get(naming.OF, "")
            members = [c.name for c in draft.observed.on_network.get(network.name, [])]
            needs = [leaving[m] for m in members if m in leaving]
            needs += [parting[m, network.name] for m in members if (m, network.name) in parting]
            draft.add(
                f"remove-network:{network.name}",
                RemoveNetwork(network.name),
                server,
                "nothing uses it any more",
                needs=needs,
            )
    add_bounds(draft)
    _gone_volumes(draft)


def _gone_containers(draft: Draft) -> None:
    for name, found in draft.observed.servers.items():
        if naming.server_of(name) in draft.desired.replicas:
            continue
        for container in found:
            stop = draft.add(
                f"stop:{container.name}",
                StopContainer(container.name, None),
                name,
                "it is no longer in the stack",
                impact="restart",
                downtime="it is gone",
            )
            needs = [stop]
            if record := last_record(draft.observed, container):
                draft.kept.setdefault(naming.server_of(name), []).append(record)
                reason = "there is a dump of its data"
                needs.append(draft.add(f"keep:{container.name}", record, name, reason, needs=[stop]))
            draft.add(
                f"remove:{container.name}",
                RemoveContainer(container.name),
                name,
                "it is no longer in the stack",
                needs=needs,
            )
    granted = {naming.helper(draft.desired.stack, g.link.provider, g.name) for g in draft.desired.grants}
    live = {naming.helper(draft.desired.stack, s, "live") for s, d in draft.desired.servers.items() if d.live}
    for helper in draft.observed.containers:
        if helper.helper and helper.name != helper.own_name:
            reason = f"{helper.own_name} is in its place"
            draft.add(f"remove:{helper.name}", RemoveContainer(helper.name), helper.labels.get(naming.OF, ""), reason)
        elif helper.helper == "grant" and helper.name not in granted:
            if f"forget:{helper.name}" not in draft.ids:
                _revoke(draft, helper)
        elif helper.helper in ("live", "writer", "check", "probe", "dump", "backup") and helper.name not in live:
            # Writers, checks and probes were left by a killed run, and go once all that they were to fill is full.
            server = helper.labels.get(naming.OF, "")
            reason, needs = "nothing needs it any more", [f"files:{v}" for v in helper.volumes]
            draft.add(f"remove:{helper.name}", RemoveContainer(helper.name), server, reason, needs=needs)
        elif helper.helper == "freeze":
            server, reason = helper.labels.get(naming.OF, ""), "a backup was cut off: its programs go on"
            ended = [draft.add(f"stop:{helper.name}", StopContainer(helper.name, None), server, reason)]
            draft.add(f"remove:{helper.name}", RemoveContainer(helper.name), server, reason, needs=ended)


def _revoke(draft: Draft, receipt: ObservedContainer) -> None:
    provider = receipt.labels.get(naming.OF, "")
    stored = json.loads(receipt.labels.get(naming.REVOKE, "{}"))
    command = tuple(stored.get("command", ()))
    container = draft.names[provider] if _takes(draft, provider, command) else None
    action = RevokeGrant(receipt.name, container, command, stored.get("input", ""))
    reason = "the server that it was for has gone; what it owned there is kept"
    draft.add(f"revoke:{receipt.name}", action, provider, reason, needs=[f"ready:{provider}"])


def _takes(draft: Draft, provider: str, command: tuple[str, ...]) -> bool:
    """Whether the provider is there and still of a kind that knows the command."""
    server = draft.desired.servers.get(provider)
    return server is not None and command in server.server.revokes


def _gone_volumes(draft: Draft) -> None:
    wanted = {f.name for d in draft.desired.servers.values() for f in d.files}
    wanted |= {d.live.volume for d in draft.desired.servers.values() if d.live} | kept_volumes(draft)
    removed = draft.observed.replicas.keys() - draft.desired.replicas.keys()
    data = {v.name for d in draft.desired.servers.values() for v in d.volumes}
    wanted |= {o.action.files for o in draft.operations if isinstance(o.action, CheckConfiguration) and o.action.files}
    removals = {o.action.name: o.id for o in draft.operations if isinstance(o.action, RemoveContainer)}
    for volume in draft.observed.volumes:
        role, server = volume.labels.get(naming.ROLE, ""), volume.labels.get(naming.OF, "")
        if role in ("config", "secrets", "live", "check", "dump") and volume.name not in wanted:
            holders = [c.name for c in draft.observed.with_volume.get(volume.name, [])]
            needs = [removals[h] for h in holders if h in removals]
            gone = server not in draft.desired.replicas
            reason = "its server has gone" if gone else "it belonged to an earlier generation"
            after = [] if gone else [f"ready:{server}"]
            draft.add(f"remove-volume:{volume.name}", RemoveVolume(volume.name), server, reason, needs=[*needs, *after])
        elif role == "data" and volume.name not in data and server in removed:
            draft.notes.append(f"{server}: its data is kept in the volume {volume.name}")
