"""What servers are made of: secrets, images, networks, volumes and files."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import (
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    ProvideImage,
    RemoveContainer,
    StoreSecrets,
    WriteFiles,
    WriteLive,
)
from consolidate.desired import DataVolume, DesiredServer, Image, Network
from consolidate.diff.draft import Draft
from consolidate.diff.reasons import by_hand
from consolidate.observed import free_subnets
from consolidate.pinned import command
from consolidate.plan import FieldChange, Impact


def add_secrets(draft: Draft) -> None:
    if not draft.store:
        return
    volume = naming.store_volume(draft.desired.stack)
    if volume not in draft.observed.volume_names:
        draft.add(f"volume:{volume}", CreateVolume(volume, draft.labels("", "store")), "", "holds the secrets")
    count = len(draft.store)
    reason = f"{count} secrets, some of them new"
    draft.add("secrets", StoreSecrets(draft.desired.stack, draft.store), "", reason, needs=[f"volume:{volume}"])


def add_images(draft: Draft) -> None:
    for image in draft.desired.images:
        locked = [s for s in image.servers if s in draft.pins]
        _add_locked(draft, image, locked)
        if draft.observed.newest(image.tag) is not None or (locked and len(locked) == len(image.servers)):
            continue
        reason = {"build": "not built yet", "pull": "not on the engine", "base": "every image is built from it"}[
            image.how
        ]
        needs = [f"image:{draft.desired.images[0].tag}"] if image.how == "build" else []
        servers = ", ".join(image.servers)
        draft.add(f"image:{image.tag}", ProvideImage(image), servers, reason, needs=needs)


def _add_locked(draft: Draft, image: Image, servers: Iterable[str]) -> None:
    """The images that the lock has for servers which all ask for the same one. After an update these may be several."""
    wanted: dict[str, list[str]] = {}
    for server in servers:
        wanted.setdefault(draft.pins[server].image, []).append(server)
    for name, users in wanted.items():
        if name in draft.observed.images:
            continue
        locked = draft.desired.locked[users[0]]
        count = len(locked.packages or ())
        reason = (
            f"the lock has it with the versions of {count} packages" if image.how == "build" else "by the lock's digest"
        )
        again = command(draft.desired.resolved, *users)
        how = "build" if image.how == "build" else "pull"  # a new base image would be another than that of then
        wanted_image = replace(image, tag=name, how=how, servers=tuple(users))
        provide = ProvideImage(wanted_image, locked=locked, stack=draft.desired.stack, again=again)
        needs = [f"image:{draft.desired.images[0].tag}"] if image.how == "build" else []
        draft.add(f"image:{name}", provide, ", ".join(users), reason, needs=needs)


def add_networks(draft: Draft) -> None:
    missing = [n for n in draft.desired.networks if n.name not in draft.observed.network_names]
    pool = draft.desired.resolved.host.subnets
    for network, subnet in zip(missing, free_subnets(draft.observed, pool, len(missing)), strict=True):
        labels = draft.labels(network.server, network.role)
        action = CreateNetwork(network.name, subnet, network.internal, network.masquerade, labels, pool)
        needs = _leave(draft, network.name)
        draft.add(f"network:{network.name}", action, network.server, why_network(network), needs=needs)
        if not (network.internal or network.masquerade or draft.observed.host.keeps_in):
            draft.notes.append(f"{network.server}: reaches the outside without `egress`, since it publishes")


def _leave(draft: Draft, network: str) -> list[str]:
    """Stopped containers leave a network that has gone before another gets its name.

    They cling to the very one that they were on and would not start, and afterwards nothing tells the two apart. So do
    replicas that are too many: where this run fails before they go, the next one may want them.
    """
    known = draft.desired.replicas
    staying = [
        c for c in draft.observed.on_network.get(network, []) if c.server and naming.server_of(c.server) in known
    ]
    return [
        draft.add(f"disconnect:{c.name}:{network}", DisconnectNetwork(c.name, network), str(c.server), "it has gone")
        for c in staying
    ]


def add_files(draft: Draft, server: DesiredServer) -> None:
    """Volumes, and files to fill them with; replicas share them."""
    have, filled = draft.observed.volume_names, draft.observed.filled
    for volume in server.volumes:
        if volume.name not in have and f"volume:{volume.name}" not in draft.ids:
            _data_volume(draft, volume)
    for files in server.files:
        if files.name not in filled and f"files:{files.name}" not in draft.ids:
            reason = "its configuration" if files.role == "config" else "the secrets that it reads"
            draft.add(f"files:{files.name}", WriteFiles(files), server.server.name, reason, needs=["secrets"])


def _data_volume(draft: Draft, volume: DataVolume) -> None:
    labels = draft.labels(volume.server, "data", **{naming.VOLUME: volume.volume})
    needs = forget_receipts(draft, volume.server, "the data that it tells of is lost")
    create = CreateVolume(volume.name, labels)
    draft.add(f"volume:{volume.name}", create, volume.server, "data that outlives containers", needs=needs)


def forget_receipts(draft: Draft, server: str, reason: str, needs: Iterable[str] = ()) -> list[str]:
    """Receipts tell what data knew that goes. They go first: else a run stopped in between would still believe them."""
    receipts = draft.observed.receipts.get(server, [])
    for receipt in receipts:
        if f"forget:{receipt.name}" not in draft.ids:
            draft.add(f"forget:{receipt.name}", RemoveContainer(receipt.name), server, reason, needs=needs)
    return [f"forget:{c.name}" for c in receipts]


def add_live(
    draft: Draft, server: DesiredServer, container: str | None, generation: int, needs: Iterable[str] = ()
) -> str | None:
    """The operation that writes the reloadable files, where they differ from those last applied.

    `container` runs, after `needs` at the latest, and is told; one that starts later reads them by itself. An older
    generation than the one that they were written for has not heard of them: it came back because its successor failed.
    """
    live = server.live
    if live is None:
        return None
    receipt = draft.observed.live(live.server)
    have = draft.observed.volume_names
    heard = receipt is not None and receipt.generation <= generation
    applied = naming.turn_of(draft.observed.applied(live.server))[0]
    edited: tuple[FieldChange, ...] = ()
    if heard and applied == naming.turn_of(live.applied)[0] and live.volume in have:
        drift = draft.drifts.get(live.server)
        if drift is None or not drift.of_live:
            return None
        live, edited = replace(live, turn=drift.turn), drift.of_live
    if live.volume not in have and f"volume:{live.volume}" not in draft.ids:
        labels = draft.labels(live.server, "live")
        draft.add(
            f"volume:{live.volume}",
            CreateVolume(live.volume, labels),
            live.server,
            "files that can change under it",
        )
    impact: Impact = "reload" if container else "none"
    reason = by_hand(edited) if edited else "its reloadable files changed" if receipt else "its reloadable files"
    needs = [f"volume:{live.volume}", "secrets", *needs]
    downtime = "nothing under way is cut off" if container else ""
    return draft.add(
        f"live:{live.server}",
        WriteLive(live, container, generation),
        live.server,
        reason,
        needs=needs,
        impact=impact,
        downtime=downtime,
        changes=edited,
    )


def why_network(network: Network) -> str:
    return {
        "front": "its way to the outside, its own",
        "link": "the private network of a link",
        "route": "the private network with the proxy",
    }[network.role]
