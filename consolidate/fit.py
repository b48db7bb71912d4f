"""Whether a host can carry a stack: its memory, its processors, its ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from consolidate.errors import Problem
from consolidate.observed import HostFacts
from consolidate.resolved import Publish, Resolved, Server


def _held(publish: Publish, address: str) -> bool:
    """Whether something else on `address` is in the way; on all addresses of IPv6 it mostly holds those of IPv4."""
    ours, theirs = ipaddress.ip_address(publish.address), ipaddress.ip_address(address)
    if ours.version != theirs.version:
        return theirs.version == 6 and theirs.is_unspecified
    return ours == theirs or ours.is_unspecified or theirs.is_unspecified


def _times(server: Server) -> str:
    return f"{server.replicas} x {server.limits.memory / 2**20:g}M = " if server.replicas > 1 else ""


def host_problems(
    resolved: Resolved, host: HostFacts, foreign_ports: Iterable[tuple[str, int, str, str]]
) -> list[Problem]:
    """Where this host can't carry the stack: explicit memory beyond what is left of it, ports that others publish."""
    problems = []
    asked = {s.name: s.limits.memory * s.replicas for s in resolved.servers.values() if s.explicit_memory}
    left = host.memory - resolved.host.reserved_memory
    if left <= 0:
        what = f"the host has {host.memory >> 20}M, all of which is reserved"
        hint = "lower it: what is not reserved is for servers"
        problems.append(resolved.problem(what, "host", "reserve", "memory", hint=hint))
    elif sum(asked.values()) > left:
        largest = sorted(asked.items(), key=lambda i: -i[1])
        listed = ", ".join(f"{n} {_times(resolved.servers[n])}{m / 2**20:g}M" for n, m in largest[:5])
        total = f"{sum(asked.values()) / 2**20:g}M"
        what = f"the memory limits add up to {total}, and the host has {left // 2**20}M for servers"
        hint = f"lower some of them; the largest are {listed}; host.reserve keeps the rest"
        problems.append(resolved.problem(what, "servers", largest[0][0], "resources", "memory", hint=hint))
    others = list(foreign_ports)
    for server in resolved.servers.values():
        for publish in server.publish:
            for address, port, protocol, container in others:
                if (port, protocol) == (publish.port, publish.protocol) and _held(publish, address):
                    what = f"the port {publish.host} of the host is taken by {container}"
                    problems.append(_port_problem(resolved, what, server.name, publish))
                    break
    return problems


def host_warnings(resolved: Resolved, host: HostFacts) -> tuple[str, ...]:
    """What works on this host, but perhaps not as it was meant: explicit processors beyond those that it has."""
    asked = sum(s.limits.cpus * s.replicas for s in resolved.servers.values() if s.explicit_cpus)
    left = host.cpus - resolved.host.reserved_cpus
    if asked <= left:
        return ()
    reserved = f" ({resolved.host.reserved_cpus:g} of them reserved)" if resolved.host.reserved_cpus else ""
    return (f"cpus add up to {asked:g}, the host has {host.cpus}{reserved}: they will share",)


def _port_problem(resolved: Resolved, what: str, server: str, publish: Publish) -> Problem:
    if resolved.places is None:
        return Problem(what)
    from consolidate.resolve.ports import publish_problem  # seldom needed, and heavy

    return publish_problem(resolved.places, what, server, publish)
