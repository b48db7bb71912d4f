"""Ports and memory: what clashes in the stack, and with the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consolidate.errors import Problem
from consolidate.observed import HostFacts
from consolidate.resolve.model import Resolved, Server
from consolidate.resolve.places import Places, publish_problem
from consolidate.resolve.work import Work
from consolidate.stack import Publish


def check_ports(work: Work, servers: Mapping[str, Server]) -> None:
    taken: dict[tuple[int, str], tuple[Publish, str]] = {}
    for server in servers.values():
        for publish in server.publish:
            for (port, protocol), (other, owner) in taken.items():
                clash = publish.address == other.address or "0.0.0.0" in (publish.address, other.address)  # noqa: S104
                if (publish.port, publish.protocol) == (port, protocol) and clash:
                    what = f"the port {publish.address}:{publish.port} is taken by '{owner}' already"
                    work.problems.append(publish_problem(work.places, what, server.name, publish))
            taken[publish.port, publish.protocol] = (publish, server.name)


def host_problems(
    resolved: Resolved, host: HostFacts, foreign_ports: Iterable[tuple[str, int, str, str]]
) -> list[Problem]:
    """Where this host can't carry the stack: explicit memory beyond what is left of it, ports that others publish."""
    places = Places(resolved.document)
    asked = {s.name: s.limits.memory for s in resolved.servers.values() if s.explicit_memory}
    left = host.memory - int(resolved.host.reserve.memory)
    problems = []
    if sum(asked.values()) > left:
        listed = ", ".join(f"{n} {m / 2**20:g}M" for n, m in sorted(asked.items(), key=lambda i: -i[1])[:5])
        what = f"the memory limits add up to {sum(asked.values()) / 2**20:g}M, and the host has {left / 2**20:.0f}M for servers"
        problems.append(places.problem(what, "servers", hint=f"the largest are {listed}; host.reserve keeps the rest"))
    for server in resolved.servers.values():
        for publish in server.publish:
            for address, port, protocol, container in foreign_ports:
                wild = {"0.0.0.0", "::"} & {address, publish.address}  # noqa: S104
                if (port, protocol) == (publish.port, publish.protocol) and (wild or address == publish.address):
                    what = f"the port {publish.address}:{publish.port} of the host is taken by {container}"
                    problems.append(publish_problem(places, what, server.name, publish))
                    break
    return problems
