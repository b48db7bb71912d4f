"""Ports, memory and processors: what clashes in the stack, and with the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from consolidate.errors import Problem
from consolidate.observed import HostFacts
from consolidate.resolve.model import Resolved, Server
from consolidate.resolve.places import publish_problem
from consolidate.resolve.work import Work
from consolidate.stack import Publish

PORT_HINT = "choose another port, or another address of the host"


def check_ports(work: Work, servers: Mapping[str, Server]) -> None:
    taken: list[tuple[Publish, str]] = []
    for server in servers.values():
        for publish in server.publish:
            owner = next((o for other, o in taken if _clash(publish, other)), None)
            if owner is not None:
                what = f"the port {publish.host} is taken by '{owner}' already"
                work.problems.append(publish_problem(work.places, what, server.name, publish, PORT_HINT))
            taken.append((publish, server.name))


def _clash(one: Publish, other: Publish) -> bool:
    """Whether the engine can't bind both. It binds all addresses of IPv6 without those of IPv4."""
    if (one.port, one.protocol) != (other.port, other.protocol):
        return False
    a, b = ipaddress.ip_address(one.address), ipaddress.ip_address(other.address)
    return a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)


def _held(publish: Publish, address: str) -> bool:
    """Whether something else on `address` is in the way; on all addresses of IPv6 it mostly holds those of IPv4."""
    ours, theirs = ipaddress.ip_address(publish.address), ipaddress.ip_address(address)
    if ours.version != theirs.version:
        return theirs.version == 6 and theirs.is_unspecified
    return ours == theirs or ours.is_unspecified or theirs.is_unspecified


def host_problems(
    resolved: Resolved, host: HostFacts, foreign_ports: Iterable[tuple[str, int, str, str]]
) -> list[Problem]:
    """Where this host can't carry the stack: explicit memory beyond what is left of it, ports that others publish."""
    problems = []
    asked = {s.name: s.limits.memory for s in resolved.servers.values() if s.explicit_memory}
    left = host.memory - int(resolved.host.reserve.memory)
    if sum(asked.values()) > left:
        largest = sorted(asked.items(), key=lambda i: -i[1])
        listed = ", ".join(f"{n} {m / 2**20:g}M" for n, m in largest[:5])
        total = f"{sum(asked.values()) / 2**20:g}M"
        what = f"the memory limits add up to {total}, and the host has {left // 2**20}M for servers"
        hint = f"lower some of them; the largest are {listed}; host.reserve keeps the rest"
        problems.append(resolved.places.problem(what, "servers", largest[0][0], "resources", "memory", hint=hint))
    others = list(foreign_ports)
    for server in resolved.servers.values():
        for publish in server.publish:
            for address, port, protocol, container in others:
                if (port, protocol) == (publish.port, publish.protocol) and _held(publish, address):
                    what = f"the port {publish.host} of the host is taken by {container}"
                    problems.append(publish_problem(resolved.places, what, server.name, publish, PORT_HINT))
                    break
    return problems


def host_warnings(resolved: Resolved, host: HostFacts) -> tuple[str, ...]:
    """What works on this host, but perhaps not as it was meant: explicit processors beyond those that it has."""
    asked = sum(s.limits.cpus for s in resolved.servers.values() if s.explicit_cpus)
    left = host.cpus - resolved.host.reserve.cpus
    if asked <= left:
        return ()
    reserved = f" ({resolved.host.reserve.cpus:g} of them reserved)" if resolved.host.reserve.cpus else ""
    return (f"cpus add up to {asked:g}, the host has {host.cpus}{reserved}: they will share",)
