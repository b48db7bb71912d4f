"""Replicas of one server: whose turn it is, who serves beside one, and those that are too many."""

from __future__ import annotations

from collections.abc import Collection
from itertools import takewhile
from typing import TYPE_CHECKING

from consolidate import naming
from consolidate.desired import DesiredServer

if TYPE_CHECKING:
    from consolidate.diff.draft import Draft


def replicas(draft: Draft, server: DesiredServer) -> list[str]:
    return draft.desired.replicas[server.server.name]


def others_serve(draft: Draft, server: DesiredServer, networks: Collection[str]) -> bool:
    """Whether another replica is there that requests may go to already, on one of `networks` where such are looked for."""
    others = (c for c in draft.observed.of_server(server.server.name) if c.alive and c.server != server.name)
    return any(n in networks for c in others for n in c.networks)


def turn(draft: Draft, server: DesiredServer) -> list[str]:
    """What has to be done before a replica is touched: those before it are new already, and serve; and whoever goes has gone.

    All of them start at once where none is there, or where none serves and this one only has to start: with a new
    generation that fails its files go, which those after it would have as well.
    """
    there = draft.observed.of_server(server.server.name)
    if not there or (draft.right(server) and not any(c.alive for c in there)):
        return []
    needs = [f"left:{server.server.name}"] if staying(draft, server.server.name) else []
    for name in takewhile(lambda n: n != server.name, replicas(draft, server)):
        stops = (f"stop:{c.name}" for c in draft.observed.servers.get(name, ()))
        needs += [f"ready:{name}", *stops, f"settle:{name}"]
    return needs


def staying(draft: Draft, server: str) -> tuple[str, ...]:
    """The containers of the replicas that stay, as far as they serve now; in front those that have their name for sure."""
    wanted, route = draft.desired.replicas[server], naming.route_network(draft.desired.stack, server)
    routed = route in draft.desired.servers[wanted[0]].networks
    found = (c for n in wanted for c in reversed(draft.observed.servers.get(n, ())))
    return tuple(c.name for c in found if c.running and (not routed or route in c.networks))


def beside(draft: Draft, server: DesiredServer) -> tuple[str, ...]:
    """The containers of the server's other replicas when the turn of this one has come: new ones before it, old ones after it."""
    found: list[str] = []
    for name in replicas(draft, server):
        if name != server.name and name in draft.names:
            found.append(draft.names[name])
        elif name != server.name:
            found += [c.name for c in draft.observed.servers.get(name, ()) if c.alive]
    return tuple(found)
