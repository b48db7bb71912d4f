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


def networks_of(server: Server, resolved: Resolved) -> tuple[str, ...]:
    stack, name = resolved.name, server.name
    names = _front(server, resolved)
    names |= {
        naming.link_network(stack, li.consumer, li.name) for li in resolved.links if name in (li.consumer, li.provider)
    }
    names |= {naming.route_network(stack, r.server) for r in resolved.routes if name in (r.server, resolved.proxy)}
    return tuple(sorted(names))
