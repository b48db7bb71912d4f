"""Ports of the host that pass from one server to another: who has one stops before who gets it starts."""

from __future__ import annotations

from msgspec.structs import replace

from consolidate.diff.draft import Draft
from consolidate.observed import ObservedContainer
from consolidate.plan import StartContainer, WaitReady
from consolidate.resolved import Publish

EVERY = {"0.0.0.0", "::"}  # noqa: S104


def add_port_needs(draft: Draft) -> None:
    """A start needs the stop of the other server's container that still has the port.

    That stop then waits for no third server, or two that swap their ports could wait for each other; and the stopped
    one is not started again when its successor fails, since its port is another's by then.
    """
    published = [c for c in draft.observed.containers if c.alive and c.ports and c.server is not None]
    needs: dict[str, list[str]] = {}
    for name, server in draft.desired.servers.items():
        others = (c for c in published if c.server != name) if server.server.publish else ()
        holders = [c for c in others if any(_holds(c, p) for p in server.server.publish)]
        needs[f"start:{name}"] = [f"stop:{c.name}" for c in holders]
    giving = {n for each in needs.values() for n in each}
    for index, operation in enumerate(draft.operations):
        more = needs.get(operation.id, [])
        kept = [n for n in operation.needs if operation.id not in giving or n.startswith("create:")]
        back = (StartContainer, WaitReady)
        undo = [a for a in operation.undo if not (isinstance(a, back) and f"stop:{a.name}" in giving)]
        draft.operations[index] = replace(operation, needs=(*kept, *more), undo=tuple(undo))


def _holds(container: ObservedContainer, publish: Publish) -> bool:
    return any(
        (port, protocol) == (publish.port, publish.protocol)
        and (address == publish.address or EVERY & {address, publish.address})
        for address, port, protocol in container.ports
    )
