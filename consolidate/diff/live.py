"""What reloadable files wait for, where they can."""

from __future__ import annotations

from collections import defaultdict

from msgspec import structs

from consolidate.actions import WriteLive
from consolidate.diff.draft import Draft
from consolidate.diff.undo import served
from consolidate.generations import made_of
from consolidate.plan import Operation
from consolidate.resolved import Link


def add_live_needs(draft: Draft) -> None:
    """Those of the proxy wait until replicas that are too many have gone, a new password until its consumer is reached.

    With fewer places for a server the proxy might else know none but those that go; and should the consumer fail, the
    files know its old password. Neither is waited for by those that it waits for itself: a server may start only once
    all replicas of another serve, of which the proxy has to hear first.
    """
    resolved, links = draft.desired.resolved, defaultdict[str, list[Link]](list)
    for link in resolved.links:
        links[link.provider].append(link)
    for index, operation in enumerate(draft.operations):
        match operation:
            case Operation(action=WriteLive(live=live, container=container)):
                waits = [f"left:{r.server}" for r in resolved.routes] if live.server == resolved.proxy else []
                if container:
                    rotated = [li.consumer for li in links[live.server] if _rotated(draft, li)]
                    waits += [f"{seen}:{consumer}" for consumer in rotated for seen in ("ready", "probe")]
                waits = [w for w in waits if w in draft.ids]
                if waits:
                    behind = _behind(draft, operation.id)
                    waits = [w for w in waits if w not in behind]
                    draft.operations[index] = structs.replace(operation, needs=(*operation.needs, *waits))


def _behind(draft: Draft, id_: str) -> set[str]:
    """All that waits for an operation, directly or not, and itself."""
    waiting: dict[str, list[str]] = {}
    for operation in draft.operations:
        for need in (*operation.needs, *operation.after):
            waiting.setdefault(need, []).append(operation.id)
    found, todo = {id_}, [id_]
    while todo:
        more = [o for o in waiting.get(todo.pop(), ()) if o not in found]
        found.update(more)
        todo += more
    return found


def _rotated(draft: Draft, link: Link) -> bool:
    """Whether the consumer is replaced by one with another password."""
    first = draft.desired.replicas[link.consumer][0]
    old = served(draft, first) if f"create:{first}" in draft.ids else None
    then = made.secrets if old and (made := made_of(old)) else {}
    address = link.password or ""
    return address in then and then[address] != draft.desired.servers[first].made.secrets.get(address)
