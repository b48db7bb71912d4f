"""Between servers: what a start waits for, grants, and requests that move to a new generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consolidate import naming
from consolidate.actions import (
    ADDRESS,
    Action,
    ApplyGrant,
    NameOnNetwork,
    ReachServer,
    RemoveContainer,
    StopContainer,
    SwitchRoute,
    WaitReady,
)
from consolidate.desired import ROUTED_PORT, DesiredServer
from consolidate.diff.draft import Draft
from consolidate.diff.records import keep_generation
from consolidate.diff.replicas import beside, staying, turn
from consolidate.observed import ObservedContainer


def before_start(draft: Draft, server: DesiredServer) -> list[str]:
    """What must hold before a server starts: its providers are ready and know it."""
    needs = []
    for link in server.server.links:
        needs += [f"ready:{n}" for n in draft.desired.replicas[link.provider]]
        needs.append(f"grant:{link.provider}:{link.consumer}:{link.name}")
    return needs


def take_over(
    draft: Draft,
    server: DesiredServer,
    new: str,
    old: list[ObservedContainer],
    reason: str,
    undo: Sequence[Action] = (),
    *,
    late: bool = False,
    unnamed: bool = False,
) -> None:
    """Once the new container is ready it gets the requests, and the old ones go. `undo` is for one that isn't reached.

    `late`: other replicas serve, and it joins them, also where none goes. `unnamed`: whoever made it may have left it
    without its name.
    """
    name, grace = server.name, server.container.stop_grace
    left = [c for c in old if f"stop:{c.name}" not in draft.ids]  # in service, or by a run that was killed
    rolled = [c for c in left if c.alive]
    of = server.server.name
    route, proxy = routed_by(draft, server)
    serving = (new, *beside(draft, server))
    done = [f"ready:{name}", *turn(draft, server)]

    def add(id_: str, does: str, containers: tuple[str, ...], *words: str, **more: Any) -> str:
        return draft.add(id_, SwitchRoute(proxy[0], (*proxy[1:], *words), containers, route), name, does, **more)

    # A generation from before the first domain doesn't tell the port that the proxy has for it now.
    ports = (str(r.port) for r in draft.desired.resolved.routes if r.server == of)
    port = server.parts.get(ROUTED_PORT) or next(ports, "")
    if (rolled or late) and proxy and port:  # its own check doesn't tell whether it is reached from there
        reach = ReachServer(proxy[0], (*proxy[1:], "probe"), new, route, port)
        needs = [*done, f"connect:{proxy[0]}:{route}"]
        done = [draft.add(f"probe:{name}", reach, name, "does the proxy reach it?", needs=needs, undo=undo)]
    if left or late or unnamed:
        # Of one that takes nobody's place nothing would tell the next plan that it still has no name.
        back = () if old else undo
        done += [
            draft.add(f"name:{name}:{n}", NameOnNetwork(new, n, of), name, "it is found there", needs=done, undo=back)
            for n in found_on(draft, server)
        ]
    if rolled and proxy:
        needs = [*done, f"live:{draft.desired.resolved.proxy}"]
        words = ("take", of, str(int(grace)), ADDRESS)
        does = "requests go to the new one"
        done = [add(f"switch:{name}", does, serving, *words, needs=needs, impact="rolling", undo=undo)]
    if proxy and (left or late or (old and draft.observed.broken_off)):
        # Before they are removed: as long as they are there, the next plan knows that this is still to be done. A run
        # that was broken off may have left it to do also where this one stops them for another reason.
        needs = [*done, f"live:{draft.desired.resolved.proxy}", *(f"stop:{c.name}" for c in old)]
        does = "the old one has gone" if old else "requests go to it as well"
        add(f"settle:{name}", does, serving, "settle", of, ADDRESS, needs=needs)
    for container in old:
        id_ = f"stop:{container.name}"
        if container in rolled:
            draft.add(id_, StopContainer(container.name, grace), name, reason, needs=done)
        needs = [*done, id_, f"settle:{name}", *keep_generation(draft, container, done)]
        draft.add(f"remove:{container.name}", RemoveContainer(container.name), name, reason, needs=needs)


def routed_by(draft: Draft, server: DesiredServer) -> tuple[str, tuple[str, ...]]:
    """The network that the proxy finds a server on, and the proxy's container with its `switch` command, if it has such."""
    route = naming.route_network(draft.desired.stack, server.server.name)
    return route, _running_proxy(draft) if route in found_on(draft, server) else ()


def add_leaving(draft: Draft) -> None:
    """Replicas that are too many: requests go to the others, then they go.

    All of that comes first: with fewer places the proxy might know none but those that go.
    """
    for of, wanted in draft.desired.replicas.items():
        extra = [n for n in draft.observed.replicas.get(of, ()) if n not in draft.desired.servers]
        leaving = [c for n in extra for c in draft.observed.servers[n]]
        if not leaving:
            continue
        server, first = draft.desired.servers[wanted[0]], extra[0]
        route, proxy = routed_by(draft, server)
        known = [c for c in leaving if route in c.networks]
        proxy = proxy if known else ()  # it never had requests for them
        done: list[str] = []
        others = staying(draft, of)
        if not others:  # one has to be there first: the next may need the proxy to know of places for fewer
            others = (draft.names[wanted[0]],)
            done = [f"ready:{wanted[0]}", f"connect:{others[0]}:{route}"]
            done += [f"name:{wanted[0]}:{n}" for n in found_on(draft, server)]
        reason = "the stack wants no more than one" if len(wanted) == 1 else f"the stack wants {len(wanted)} replicas"
        if proxy and any(c.alive for c in known):
            words, grace = (*proxy[1:], "leave", of), str(int(server.container.stop_grace))
            switch = SwitchRoute(proxy[0], (*words, grace, ADDRESS), others, route)
            done = [draft.add(f"leave:{of}", switch, first, "requests go to the others", needs=done, impact="rolling")]
        stops = [
            draft.add(
                f"stop:{c.name}", StopContainer(c.name, None), c.server or "", reason, needs=done, impact="rolling"
            )
            for c in leaving
        ]
        if proxy:
            switch = SwitchRoute(proxy[0], (*proxy[1:], "settle", of, ADDRESS), others, route)
            stops = [draft.add(f"left:{of}", switch, first, "it has gone", needs=stops)]
        for container in leaving:
            id_ = f"remove:{container.name}"
            left = [f"disconnect:{container.name}:{n}" for n in container.networks]
            draft.add(id_, RemoveContainer(container.name), container.server or "", reason, needs=[*stops, *left])


def found_on(draft: Draft, server: DesiredServer) -> tuple[str, ...]:
    """The networks on which others look for a server: the proxy, and those that link to it."""
    stack, name = draft.desired.stack, server.server.name
    known = {naming.route_network(stack, name)} - {naming.route_network(stack, draft.desired.resolved.proxy or "")}
    known |= {
        naming.link_network(stack, li.consumer, li.name) for li in draft.desired.resolved.links if li.provider == name
    }
    return tuple(n for n in server.networks if n in known)


def _running_proxy(draft: Draft) -> tuple[str, ...]:
    """The proxy's container and its `switch` command, where it goes on running as it is; else nothing."""
    proxy = draft.desired.servers.get(draft.desired.resolved.proxy or "")
    if proxy is None or not proxy.server.switch:
        return ()
    kept = draft.right(proxy)
    return (kept.name, *proxy.server.switch) if kept and kept.running else ()


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
    """Wait until the proxy has found the servers that are new; all of them, where it may not have had the time: it is new
    itself, or a run was broken off that may have started them a moment ago."""
    resolved = draft.desired.resolved
    proxy = draft.desired.servers[resolved.proxy] if resolved.proxy else None
    routed = [r.server for r in resolved.routes]
    ready = {s: [f"ready:{n}" for n in draft.desired.replicas[s] if f"ready:{n}" in draft.ids] for s in routed}
    switched = {s for s in routed for n in draft.desired.replicas[s] if f"switch:{n}" in draft.ids}
    new = [s for s in routed if ready[s] and s not in switched]
    if proxy is None or not proxy.server.switch:
        return
    name = proxy.server.name
    waiting = routed if draft.observed.broken_off else new or (routed if f"start:{name}" in draft.ids else [])
    if waiting:
        command = (*proxy.server.switch, "wait", *waiting)
        needs = [f"ready:{name}", f"live:{name}", *(n for s in new for n in ready[s])]
        draft.add(f"routes:{name}", SwitchRoute(draft.names[name], command), name, "it routes to them", needs=needs)
