"""Between servers: what a start waits for, grants, and requests that move to a new generation."""

from __future__ import annotations

from consolidate import naming
from consolidate.desired import DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.records import keep_generation
from consolidate.observed import ObservedContainer
from consolidate.plan import (
    ADDRESS,
    ApplyGrant,
    NameOnNetwork,
    RemoveContainer,
    StopContainer,
    SwitchRoute,
    WaitReady,
)


def before_start(draft: Draft, server: DesiredServer) -> list[str]:
    """What must hold before a server starts: its providers are ready and know it."""
    needs = []
    for link in server.server.links:
        needs.append(f"ready:{link.provider}")
        needs.append(f"grant:{link.provider}:{link.consumer}:{link.name}")
    return needs


def take_over(draft: Draft, server: DesiredServer, new: str, old: list[ObservedContainer], reason: str) -> None:
    """Once the new container is ready it gets the requests, and the old ones go."""
    name, grace = server.server.name, server.container.stop_grace
    ready = f"ready:{name}"
    rolled = [c for c in old if c.alive and f"stop:{c.name}" not in draft.ids]
    route = route_network(draft, server)
    proxy = _running_proxy(draft)
    if rolled and route:
        alias = NameOnNetwork(new, route, name)
        ready = draft.add(f"name:{name}", alias, name, "the proxy finds it", needs=[ready])
    if rolled and route and proxy:
        command = (*proxy[1], "take", name, str(int(grace)), ADDRESS)
        needs = [ready, f"live:{draft.desired.resolved.proxy}"]
        switch = SwitchRoute(proxy[0], command, new, route)
        ready = draft.add(f"switch:{name}", switch, name, "requests go to the new one", needs=needs, impact="rolling")
    if route and proxy and any(draft.observed.broken_off or f"stop:{c.name}" not in draft.ids for c in old):
        # Before they are removed: as long as they are there, the next plan knows that this is still to be done. A run
        # that was broken off may have left it to do also where this one stops them for another reason.
        settle = SwitchRoute(proxy[0], (*proxy[1], "settle", name, ADDRESS), new, route)
        needs = [ready, *(f"stop:{c.name}" for c in old)]
        draft.add(f"settle:{name}", settle, name, "the old one has gone", needs=needs)
    for container in old:
        id_ = f"stop:{container.name}"
        if container in rolled:
            draft.add(id_, StopContainer(container.name, grace), name, reason, needs=[ready])
        needs = [ready, id_, f"settle:{name}", *keep_generation(draft, container, [ready])]
        draft.add(f"remove:{container.name}", RemoveContainer(container.name), name, reason, needs=needs)


def route_network(draft: Draft, server: DesiredServer) -> str | None:
    name = naming.route_network(draft.desired.stack, server.server.name)
    return name if name in server.networks and server.server.name != draft.desired.resolved.proxy else None


def _running_proxy(draft: Draft) -> tuple[str, tuple[str, ...]] | None:
    """The proxy's container and its `switch` command, where it goes on running as it is."""
    proxy = draft.desired.servers.get(draft.desired.resolved.proxy or "")
    if proxy is None or not proxy.server.switch:
        return None
    kept = draft.right(proxy)
    return (kept.name, proxy.server.switch) if kept and kept.running else None


def add_grants(draft: Draft) -> None:
    """Grants compare with their receipts; a provider whose data is new has forgotten them."""
    for grant in draft.desired.grants:
        link = grant.link
        receipt_name = naming.helper(draft.desired.stack, link.provider, grant.name)
        receipt = draft.observed.helper(receipt_name)
        forgotten = f"forget:{receipt_name}" in draft.ids
        if receipt and receipt.labels.get(naming.APPLIED) == grant.applied and not forgotten:
            continue
        known = receipt and not forgotten
        reason = "its account changed" if known else f"{link.consumer} needs its {link.provides}"
        if f"ready:{link.provider}" not in draft.ids:  # it runs, but a run that was stopped may just have started it
            ready = WaitReady(draft.names[link.provider], draft.desired.servers[link.provider].ready)
            draft.add(f"ready:{link.provider}", ready, link.provider, "it has to answer first")
        draft.add(
            f"grant:{link.provider}:{link.consumer}:{link.name}",
            ApplyGrant(draft.desired.stack, grant, draft.names[link.provider], receipt_name),
            link.provider,
            reason,
            needs=[f"ready:{link.provider}", "secrets"],
        )


def add_routes(draft: Draft) -> None:
    """Wait until the proxy has found the servers that are new."""
    resolved = draft.desired.resolved
    proxy = draft.desired.servers[resolved.proxy] if resolved.proxy else None
    routed = [r.server for r in resolved.routes]
    new = [s for s in routed if f"ready:{s}" in draft.ids and f"switch:{s}" not in draft.ids]
    if proxy is None or not proxy.server.switch:
        return
    name = proxy.server.name
    waiting = new or (routed if f"start:{name}" in draft.ids else [])
    if waiting:
        command = (*proxy.server.switch, "wait", *waiting)
        needs = [f"ready:{name}", f"live:{name}", *(f"ready:{s}" for s in new)]
        draft.add(f"routes:{name}", SwitchRoute(draft.names[name], command), name, "it routes to them", needs=needs)
