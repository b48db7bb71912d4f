"""What runs, as something to be desired: so a plan for one server leaves the others as they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import (
    CONFIG_PATH,
    LIVE_PATH,
    WRITE_PATH,
    DataVolume,
    Desired,
    DesiredServer,
    FileVolume,
    Grant,
    Live,
    Made,
    Network,
)
from consolidate.files import FileSet
from consolidate.generations import Generation, granted_to, history_of, made_of, parts_of
from consolidate.observed import Observed, ObservedContainer
from consolidate.resolved import SECRETS_PATH


def as_it_is(desired: Desired, observed: Observed) -> Desired:
    """What the engine has of what the stack says. What is not there, and all that is for it, is left out."""
    names = (
        n for s, wanted in desired.replicas.items() for n in dict.fromkeys((*wanted, *observed.replicas.get(s, ())))
    )
    found = {n: c for n in names if (c := observed.current(n)) and made_of(c)}
    servers = {n: _standing(desired.servers[naming.server_of(n)].replica(n), c, observed) for n, c in found.items()}
    return restricted(desired, observed, servers)


def back_to(standing: Desired, desired: Desired, observed: Observed, targets: Mapping[str, Generation]) -> Desired:
    """What runs, but for some servers what they were in earlier generations; those may also not run at all.

    All of a server's replicas go back.
    """
    servers, joined = dict(standing.servers), set[str]()
    for name, generation in targets.items():
        assert generation.made is not None, "there is a way back to it"
        of = desired.servers[naming.server_of(name)]
        networks = servers[name].networks if name in servers else of.networks
        joined.update(networks)
        servers[name] = earlier_server(
            of.replica(name), generation.made, generation.parts, networks, live_hash(observed, generation)
        )
    found = restricted(desired, observed, servers, targets)
    gone = (n for n in desired.networks if n.name in joined - observed.network_names)  # after `down` there is none
    return replace(found, networks=(*found.networks, *gone))


def _standing(server: DesiredServer, container: ObservedContainer, observed: Observed) -> DesiredServer:
    made = made_of(container)
    assert made is not None, "its label tells what it was made of"
    networks = tuple(sorted(container.networks))
    return earlier_server(server, made, parts_of(container), networks, observed.applied(server.server.name))


def earlier_server(
    server: DesiredServer, made: Made, parts: Mapping[str, str], networks: tuple[str, ...], live: str
) -> DesiredServer:
    """A server with the container of one of its generations. Its files are in volumes that exist."""
    container, name = replace(made.container, server=server.name), server.server.name
    stack = container.stack
    volumes, files, live_volume = [], [], ""
    for mount in container.mounts:
        if mount.target == LIVE_PATH:
            live_volume = mount.volume
        elif mount.read_only:
            role = "config" if mount.target == CONFIG_PATH else "secrets"
            files.append(FileVolume(stack, mount.volume, name, role, FileSet((), made.secrets)))
        else:
            word = mount.volume.removeprefix(naming.data_volume(stack, name, ""))
            volumes.append(DataVolume(mount.volume, name, word))
    same_kind = container.kind == server.server.kind  # else it knows none of the commands that this kind has
    told = server.live if same_kind else None
    known = server.server if same_kind else replace(server.server, links=(), provides=(), revokes=(), switch=())
    return replace(
        server,
        server=replace(known, kind=container.kind, publish=container.publish),
        container=container,
        networks=networks,
        parts=parts,
        volumes=tuple(volumes),
        files=tuple(files),
        live=Live(
            stack,
            name,
            live_volume,
            FileSet(()),
            told.check if told else (),
            told.command if told else (),
            told.signal if told else "",
            live,
        )
        if live_volume
        else None,
        ready=made.ready,
        rolling=server.rolling and not container.publish and same_kind,
        relaxed=(),
        trial=None,
    )


def live_hash(observed: Observed, generation: Generation) -> str:
    """The reloadable files for a server that goes back.

    Those that it had, where only new generations have brought others since. What was reloaded since then belongs to
    today's stack (a mailbox, a route), and stays.
    """
    now = observed.applied(generation.server)
    return generation.live if generation.live and not reloaded_since(observed, generation) else now


def reloaded_since(observed: Observed, generation: Generation) -> bool:
    later = [g for g in history_of(observed, generation.server) if g.number > generation.number and g.made]
    return any(g.made is not None and g.made.live != g.live for g in later)


def restricted(
    desired: Desired,
    observed: Observed,
    servers: Mapping[str, DesiredServer],
    targets: Mapping[str, Generation] = {},
) -> Desired:
    """A stack of these servers, and of what there is between them; some are what they were in `targets`."""
    resolved = desired.resolved
    names = {naming.server_of(n) for n in servers}
    links = tuple(li for li in resolved.links if li.consumer in names and li.provider in names)
    known_links = frozenset(links)
    kept = {
        name: replace(s, server=replace(s.server, links=tuple(li for li in s.server.links if li in known_links)))
        for name, s in servers.items()
    }
    receipts = {c.name: c.labels.get(naming.APPLIED, "") for c in observed.containers if c.helper == "grant"}
    known = ((g, receipts.get(naming.helper(desired.stack, g.link.provider, g.name))) for g in desired.grants)
    grants = (
        _granted(desired, observed, g, receipt, targets.get(g.link.consumer))
        for g, receipt in known
        if g.link in known_links and receipt is not None
    )
    return Desired(
        desired.stack,
        replace(
            resolved,
            servers={s.server.name: s.server for s in kept.values()},
            links=links,
            routes=tuple(r for r in resolved.routes if r.server in names),
            proxy=resolved.proxy if resolved.proxy in servers else None,
        ),
        desired.images[:1],  # the base, of which the lock is made
        tuple(_networks(observed)),
        kept,
        tuple(grants),
    )


def _granted(desired: Desired, observed: Observed, grant: Grant, receipt: str, target: Generation | None) -> Grant:
    """What a provider has been told, with the password that its consumer has; of one that goes back what it was told then."""
    server, stack = desired.servers[grant.link.consumer], desired.stack
    current = observed.one_of(grant.link.consumer)
    if target is None:
        had = granted_to(grant, server, made_of(current), current.name) if current else None
        return replace(had or grant, applied=receipt)
    there = next((c for c in observed.of_server(target.server) if c.generation == target.number), None)
    if there:
        had = granted_to(grant, server, target.made, there.name)
    else:
        mounts = target.made.container.mounts if target.made else ()
        folder = next((f"{WRITE_PATH}/{m.volume}" for m in mounts if m.target == SECRETS_PATH), "")
        had = granted_to(grant, server, target.made, naming.record(stack, target.server, target.number), folder)
    return had or replace(grant, applied=receipt)


def _networks(observed: Observed) -> Iterable[Network]:
    for network in observed.networks:
        if naming.HELPER in network.labels:
            continue
        role = network.labels.get(naming.ROLE, "")
        leads_out = network.name.startswith(naming.front_network(observed.stack, "", egress=True))
        owner = network.labels.get(naming.OF, "")
        yield Network(network.name, owner, role, internal=role != "front", masquerade=leads_out)
