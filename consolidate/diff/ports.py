"""Ports of the host that pass from one server to another: who has one stops before who gets it starts."""

from __future__ import annotations

from msgspec.structs import replace

from consolidate.actions import StartContainer, WaitReady
from consolidate.diff.draft import Draft
from consolidate.observed import ObservedContainer

EVERY = {"0.0.0.0", "::"}  # noqa: S104


def add_port_needs(draft: Draft) -> None:
    """A start needs the stop of the other server's container that still has the port.

    That stop then waits for no third server, or two that swap their ports could wait for each other; and the stopped
    one is not started again when its successor fails, since its port is another's by then.
    """
    published: dict[tuple[int, str], list[tuple[str, ObservedContainer]]] = {}
    for container in draft.observed.containers:
        if container.alive and container.server is not None:
            for address, port, protocol in container.ports:
                published.setdefault((port, protocol), []).append((address, container))
    needs: dict[str, list[str]] = {}
    for name, server in draft.desired.servers.items():
        found = ((p, *held) for p in server.server.publish for held in published.get((p.port, p.protocol), ()))
        holders = [c.name for p, address, c in found if c.server != name and clash(p.address, address)]
        needs[f"start:{name}"] = [f"stop:{c}" for c in dict.fromkeys(holders)]
    giving = {n for each in needs.values() for n in each}
    for index, operation in enumerate(draft.operations):
        more = needs.get(operation.id, [])
        kept = [n for n in operation.needs if operation.id not in giving or n.startswith("create:")]
        back = (StartContainer, WaitReady)
        undo = [a for a in operation.undo if not (isinstance(a, back) and f"stop:{a.name}" in giving)]
        draft.operations[index] = replace(operation, needs=(*kept, *more), undo=tuple(undo))


def clash(one: str, other: str) -> bool:
    """Whether the same port of two addresses of the host can't be had by two."""
    return one == other or bool(EVERY & {one, other})
