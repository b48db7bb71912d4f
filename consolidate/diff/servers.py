"""Containers: kept, started, or replaced."""

from __future__ import annotations

import json

import msgspec

from consolidate import naming
from consolidate.actions import (
    Action,
    ConnectNetwork,
    CreateContainer,
    DisconnectNetwork,
    NameOnNetwork,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    WaitReady,
)
from consolidate.desired import ROUTED_PORT, DesiredServer
from consolidate.diff.checks import add_check
from consolidate.diff.draft import Draft
from consolidate.diff.drift import made_right
from consolidate.diff.dumps import add_dump, add_restore, begin_restore
from consolidate.diff.images import image_of
from consolidate.diff.reasons import by_hand, changes, why
from consolidate.diff.replicas import others_serve, replicas, turn
from consolidate.diff.routes import before_start, found_on, take_over
from consolidate.diff.supplies import add_live
from consolidate.diff.undo import start_again, undo_of, undo_of_create
from consolidate.generations import records
from consolidate.observed import ObservedContainer
from consolidate.plan import Impact


def add_container(draft: Draft, server: DesiredServer) -> None:
    name = server.name
    found, right = draft.observed.servers.get(name, []), draft.right(server)
    if right:
        draft.names[name] = right.name
        _keep(draft, server, right, [c for c in found if c is not right])
    else:
        lost = draft.lost(server) if made_right(server, draft.observed) else []
        _replace(draft, server, draft.observed.current(name), found, lost)


def _keep(draft: Draft, server: DesiredServer, container: ObservedContainer, others: list[ObservedContainer]) -> None:
    """The right container is there: let it run, on the right networks, alone."""
    name = server.name
    joined = _networks_right(draft, server, container)
    _as_made(draft, server, container, unnamed=found_on(draft, server) if others else ())
    paused = container.state == "paused"  # its program has started: it has to be told
    rolling = server.rolling and not any(c.ports for c in others)
    serving = [c for c in others if c.alive]
    # Two on the same data: an engine that was killed has started both. Neither may go on while the other does.
    double = container.alive and bool(serving) and not rolling
    paused = paused and not double
    told = container.name if (container.running or paused) and not double else None
    live = add_live(draft, server, told, container.generation, [f"ready:{name}"] if paused else ())
    late = others_serve(draft, server, found_on(draft, server))
    undo: list[Action] = []
    if container.running and not others:
        if draft.observed.broken_off and not container.healthy:
            ready, reason = (
                WaitReady(container.name, server.ready),
                "a run was broken off that may not have seen it ready",
            )
            draft.add(f"ready:{name}", ready, name, reason, needs=[*joined, *before_start(draft, server)])
        if draft.observed.broken_off and late:  # nor that the others and the proxy find it
            take_over(draft, server, container.name, [], "", late=True)
        return
    if not container.running or double:
        stop = [
            draft.add(
                f"stop:{c.name}", StopContainer(c.name, server.container.stop_grace), name, "an earlier generation"
            )
            for c in (*serving, *([container] if double else []))
            if not rolling
        ]
        reason = (
            "an earlier generation runs as well"
            if double
            else f"it is {container.state}"
            if container.state != "created"
            else "it was created but not started"
        )
        needs = [*joined, *stop, *([live] if live and not paused else []), *before_start(draft, server)]
        needs += turn(draft, server)
        undo = [StopContainer(container.name, server.container.stop_grace)]
        never_ran = container.state == "created"  # a killed run may have stopped the old one for it
        undo += [a for c in serving or others[: int(never_ran)] if not rolling for a in start_again(c)]
        start = UnpauseContainer(container.name) if paused else StartContainer(container.name)
        draft.add(f"start:{name}", start, name, reason, needs=needs, impact="restart", undo=undo)
        draft.add(
            f"ready:{name}",
            WaitReady(container.name, server.ready),
            name,
            reason,
            needs=[f"start:{name}"],
            undo=undo,
        )
    elif others:
        # An earlier run was stopped before it knew: should the new one not get ready, the old one comes back.
        better = serving or others[0].state == "created"
        undo = [] if better else [RemoveContainer(container.name), *start_again(others[0])]
        reason = "an earlier run did not see it ready"
        draft.add(f"ready:{name}", WaitReady(container.name, server.ready), name, reason, undo=undo)
    unnamed = bool(others) or container.state == "created"  # it was to join others, who have gone since
    take_over(
        draft,
        server,
        container.name,
        others,
        "an earlier generation",
        undo if late else (),
        late=late,
        unnamed=unnamed,
    )


def _as_made(draft: Draft, server: DesiredServer, container: ObservedContainer, *, unnamed: tuple[str, ...]) -> None:
    """What somebody has changed of a container, and can be changed back while it goes on.

    On the networks `unnamed` its name is an older generation's until it takes over.
    """
    name, drift = server.name, draft.drifts.get(server.name)
    if drift is None or drift.container != container.id:
        return
    if drift.fields:
        update = UpdateContainer(container.name, server.container.limits)
        draft.add(f"update:{container.name}", update, name, by_hand(drift.fields), changes=drift.fields)
    for network in drift.nameless:
        if network in container.networks and network not in unnamed:
            alias = NameOnNetwork(container.name, network, server.server.name)
            draft.add(f"name:{container.name}:{network}", alias, name, f"{network} does not know it by its name")


def _networks_right(draft: Draft, server: DesiredServer, container: ObservedContainer) -> list[str]:
    name, wanted = server.name, set(server.networks)
    prefix = f"{draft.desired.stack}_"  # also those that have gone, without which a stopped one would not start
    made = []
    for network in sorted(set(container.networks) - wanted):
        leave = DisconnectNetwork(container.name, network)
        ours = network in draft.observed.network_names or network.startswith(prefix)
        reason = "nothing there is declared any more" if ours else f"{network} is no network of this stack"
        made.append(draft.add(f"disconnect:{container.name}:{network}", leave, name, reason))
    left = {n for n in container.networks if f"disconnect:{container.name}:{n}" in draft.ids}
    for network in sorted(wanted - (set(container.networks) - left)):
        action = ConnectNetwork(container.name, network, server.server.name)
        made.append(
            draft.add(
                f"connect:{container.name}:{network}",
                action,
                name,
                f"it needs {network}",
                needs=[f"network:{network}"],
            )
        )
    return made


def _next_generation(draft: Draft, server: DesiredServer, found: list[ObservedContainer]) -> int:
    """The one of the replicas that are right, unless it has been there; else the next of the server.

    Nobody may have its name: `a-b` and `c` make the same names as `a` and `b-c`. Nor has it a dump yet, which a killed
    run may have left.
    """
    stack, name, of = draft.desired.stack, server.name, server.server.name
    names, volumes = draft.observed.foreign_names, draft.observed.volume_names
    others = (draft.desired.servers[n] for n in replicas(draft, server) if n != name)
    right = max((c.generation for other in others if (c := draft.right(other))), default=0)
    if right > max((c.generation for c in found), default=0) and naming.container(stack, name, right) not in names:
        return right
    known = [g.number for _, g in records(draft.observed, of)]
    generation = max([*known, *(c.generation for c in draft.observed.of_server(of))], default=0) + 1
    while naming.container(stack, name, generation) in names or naming.dump_volume(stack, of, generation) in volumes:
        generation += 1
    return generation


def _replace(
    draft: Draft,
    server: DesiredServer,
    current: ObservedContainer | None,
    found: list[ObservedContainer],
    lost: list[str],
) -> None:
    name, of, want = server.name, server.server.name, server.container
    generation = _next_generation(draft, server, found)
    new = naming.container(draft.desired.stack, name, generation)
    draft.names[name] = new
    refresh = draft.refreshes.get(name)
    changed = refresh.changes if refresh else changes(server, current)
    reason = refresh.reason if refresh else why(server, current, lost, changed)
    number, count = naming.replica_number(name), len(replicas(draft, server))
    if current is None and refresh is None and count > 1:
        reason = f"replica {number} of {count} is not there yet"
    if (drift := draft.drifts.get(name)) and current and drift.changes:
        known = changed or refresh or lost
        reason = f"{reason}; {by_hand(drift.changes)}" if known else by_hand(drift.changes)
        changed = (*changed, *drift.changes)
    running = current is not None and current.running
    # A port that it gives up may be another's from now on.
    rolling = server.rolling and running and not any(c.ports for c in found) and not (refresh and refresh.dump)
    # The proxy knows one port of a server: two generations that listen on different ones can't serve together.
    rolling = rolling and not any(c.field == ROUTED_PORT and c.old and c.new for c in changed)
    late = others_serve(draft, server, found_on(draft, server))
    impact: Impact = "rolling" if rolling else "restart" if running else "none"
    downtime = (
        ""
        if not running
        else "none expected: the new one starts first"
        if rolling
        else "none expected: the other replicas serve meanwhile"
        if late
        else "from its stop until the new one is ready"
    )
    # Until its configuration is found good nothing is done that the old one would notice.
    image = image_of(draft.observed, server, draft.image_for(name))
    checked = add_check(draft, server, generation, image, reason) if running and not rolling else []
    live = add_live(draft, server, None, generation, checked)
    labels = {
        naming.STACK: draft.desired.stack,
        naming.SERVER: of,
        **({naming.REPLICA: str(number)} if number > 1 else {}),
        naming.KIND: want.kind,
        naming.GENERATION: str(generation),
        naming.FINGERPRINT: want.fingerprint,
        naming.IMAGE: want.image,
        naming.PARTS: json.dumps(dict(server.parts), sort_keys=True),
        naming.MADE: msgspec.json.encode(server.made).decode(),
        naming.REASON: reason,
        naming.CHANGES: json.dumps([(c.field, c.old, c.new) for c in changed]),
    }
    dumped = add_dump(draft, server, current, generation, checked)
    begun = begin_restore(draft, server, generation, [*checked, *dumped])
    needs = [f"image:{image}", *checked, *dumped, *begun, *([live] if live else []), *turn(draft, server)]
    needs += [f"{kind}:{m.volume}" for m in want.mounts for kind in ("volume", "files")]
    needs += [f"network:{n}" for n in server.networks]
    # Before it is ready nobody must find it.
    nameless = found_on(draft, server) if rolling or late else ()
    create = CreateContainer(new, generation, want, server.networks, tuple(sorted(labels.items())), nameless, image)
    undo = undo_of(draft, server, create, reason, current, stopped=running and not rolling)
    early = undo_of_create(draft, server, generation, undo)
    draft.add(f"create:{name}", create, name, reason, needs=needs, changes=changed, undo=early)
    stops = []
    if not rolling:
        stops = [
            draft.add(
                f"stop:{c.name}",
                StopContainer(c.name, want.stop_grace),
                name,
                "the new one takes its place",
                needs=[f"create:{name}", *before_start(draft, server)],
                impact="restart",
            )
            for c in found
            if c.alive
        ]
    if refresh and refresh.dump:
        stops += add_restore(draft, server, refresh.dump, new, stops, undo)
    draft.add(
        f"start:{name}",
        StartContainer(new, new=True),
        name,
        reason,
        needs=[f"create:{name}", *stops, *before_start(draft, server)],
        impact=impact,
        downtime=downtime,
        undo=undo,
    )
    started = [f"start:{name}", f"load:{name}"]
    draft.add(f"ready:{name}", WaitReady(new, server.ready), name, reason, needs=started, undo=undo)
    take_over(draft, server, new, found, "replaced", undo, late=late)
    if number == 1:
        draft.notes += [f"{name}: {note}" for note in server.relaxed]
