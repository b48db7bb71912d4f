"""Which networks there are, and who is on them."""

from __future__ import annotations

from consolidate import naming
from consolidate.desired import Network
from consolidate.resolved import Resolved, Server


def networks(resolved: Resolved) -> tuple[Network, ...]:
    made = [
        Network(name, s.name, "front", internal=False, masquerade=s.egress)
        for s in resolved.servers.values()
        for name in _front(s, resolved)
    ]
    for link in resolved.links:
        name = naming.link_network(resolved.name, link.consumer, link.name)
        made.append(Network(name, link.consumer, "link", internal=True))
    routed = ((r.server, naming.route_network(resolved.name, r.server)) for r in resolved.routes)
    made += [Network(name, server, "route", internal=True) for server, name in routed]
    return tuple(made)


def _front(server: Server, resolved: Resolved) -> set[str]:
    """The one that a server has when it publishes or may reach the outside."""
    name = naming.front_network(resolved.name, server.name, egress=server.egress)
    return {name} if server.egress or server.publish else set()


def memberships(resolved: Resolved) -> dict[str, tuple[str, ...]]:
    """The networks that each server is on."""
    found = {s.name: _front(s, resolved) for s in resolved.servers.values()}
    for link in resolved.links:
        for name in (link.consumer, link.provider):
            found[name].add(naming.link_network(resolved.name, link.consumer, link.name))
    for route in resolved.routes:
        for name in filter(None, (route.server, resolved.proxy)):
            found[name].add(naming.route_network(resolved.name, route.server))
    return {name: tuple(sorted(networks)) for name, networks in found.items()}
