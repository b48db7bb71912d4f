"""Published ports of which the host has one only."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from consolidate.errors import Problem
from consolidate.places import Places
from consolidate.resolve.work import Work
from consolidate.resolved import Publish, Server
from consolidate.stack import parse_publish


def check_ports(work: Work, servers: Mapping[str, Server]) -> None:
    taken: dict[tuple[int, str], list[tuple[Publish, str]]] = {}
    for server in servers.values():
        for publish in server.publish:
            same = taken.setdefault((publish.port, publish.protocol), [])
            owner = next((o for other, o in same if _clash(publish, other)), None)
            if owner is not None:
                what = f"the port {publish.host} is taken by '{owner}' already"
                work.problems.append(publish_problem(work.places, what, server.name, publish))
            same.append((publish, server.name))


def _clash(one: Publish, other: Publish) -> bool:
    """Whether the engine can't bind both. It binds all addresses of IPv6 without those of IPv4."""
    if (one.port, one.protocol) != (other.port, other.protocol):
        return False
    a, b = ipaddress.ip_address(one.address), ipaddress.ip_address(other.address)
    return a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)


def publish_problem(places: Places, what: str, server: str, publish: Publish) -> Problem:
    """A problem at the text in which `publish` stands: under `publish:`, or the setting that holds the port."""
    hint = "choose another port, or another address of the host"
    entry = places.entries[server]
    for index, text in reversed(list(enumerate(entry.get("publish", ())))):
        if parse_publish(text) == publish:
            return places.problem(what, "servers", server, "publish", index, hint=hint)
    for key, value in entry.items():
        if isinstance(value, str | int) and str(value).rpartition(":")[2] == str(publish.port):
            return places.problem(what, "servers", server, key, hint=hint)
    return places.problem(what, "servers", server, hint=hint, key=True)
