"""What holds for every stack, whatever is on the engine when it comes up."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from graphlib import TopologicalSorter
from typing import Any

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from consolidate import naming
from consolidate.actions import RemoveVolume, WriteFiles
from consolidate.pipeline import BASE
from consolidate.plan import Plan
from consolidate.resolved import Resolved
from tests.implied import done_already, implied, implied_by, objects
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Killed
from tests.stacks import changes_by_hand, mishaps, stacks, strike
from tests.world import World, deep_faults, faults, resolved

orders = st.integers(0, 2**16)
states = st.tuples(stacks(), st.none() | st.integers(0, 40), st.lists(mishaps(), max_size=2))


def before(state: tuple[Any, int | None, list[tuple[str, int]]], order: int) -> World:
    """An engine with an earlier stack: complete, or the run was killed, and with what happened behind our back."""
    stack, killed_after, happened = state
    world = World()
    if killed_after is not None:
        world.engine.kill_after(killed_after)
        with contextlib.suppress(Killed):
            world.up(resolved(stack), seed=order)
        world.engine.revive()
        return world
    world.up(resolved(stack), seed=order)
    for mishap in happened:
        strike(world.engine, mishap)
    return world


def check_converged(world: World, stack: Resolved) -> None:
    assert faults(world, stack) == []
    again = world.make_plan(stack)
    assert [(o.id, o.reason) for o in again.operations] == []


def data_of(engine: MemoryEngine) -> dict[str, Any]:
    return {n: v.files for n, v in engine.volumes.items() if v.labels.get(naming.ROLE) in ("data", "store")}


@settings(max_examples=100)
@given(states, stacks(), orders)
def test_after_up_nothing_is_left_to_do(state: Any, stack: Any, order: int) -> None:
    """Whatever was there, one `up` brings the engine to what the stack says, and the next has nothing to do.

    What an operation needs is done before it begins.
    """
    world, wanted = before(state, order), resolved(stack)
    report = world.up(wanted, seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    when = {(e.operation.id, e.status): i for i, e in enumerate(world.events)}
    for operation in world.plan.operations:
        late = [n for n in operation.needs if when[n, "done"] > when[operation.id, "started"]]
        assert late == [], operation.id
    check_converged(world, wanted)


@settings(max_examples=60)
@given(states, stacks())
def test_a_plan_can_be_executed(state: Any, stack: Any) -> None:
    """Ids are unique, every need is in the plan, none waits for itself in a circle, and who is linked to waits for whom."""
    world, wanted = before(state, 0), resolved(stack)
    plan = world.make_plan(wanted)
    ids = [o.id for o in plan.operations]
    assert len(ids) == len(set(ids))
    needs = {o.id: {*o.needs, *o.after} for o in plan.operations}
    assert {n for each in needs.values() for n in each} <= set(ids)
    TopologicalSorter(needs).prepare()
    for link in wanted.links:
        ready, start = f"ready:{link.provider}", f"start:{link.consumer}"
        assert not {ready, start} <= set(ids) or ready in world.plan_needs(start), "a provider is ready before"


@settings(max_examples=60)
@given(states, stacks(), orders)
def test_only_what_the_plan_says_is_written(state: Any, stack: Any, order: int) -> None:
    """Planning writes nothing but a lost helper of the store; `up` writes what the plan's operations imply."""
    world, wanted = before(state, order), resolved(stack)
    world.engine.writes.clear()
    helpers = {b.labels.get(naming.HELPER) for b in world.engine.boxes.values()}  # one may have another name by now
    lost = f"{wanted.name}_secrets" in world.engine.volumes and "secrets" not in helpers
    world.make_plan(wanted)
    assert [name for name, _ in world.engine.writes] == ["create_helper"] * lost
    world.engine.writes.clear()
    plan = world.plan
    assert world.run(seed=order).ok
    written = objects(world.engine.writes)
    assert not written - implied(plan)
    assert implied(plan) - written <= done_already(plan)
    filled = Counter(o.action.volume.name for o in plan.operations if isinstance(o.action, WriteFiles))
    assert (
        Counter(v for n, a in world.engine.writes if n == "create_helper" and "writer" in a[0] for v in a[2]) == filled
    )


hands = st.lists(changes_by_hand(), min_size=1, max_size=3)


@settings(max_examples=60)
@given(states, hands, stacks(), orders)
def test_after_a_closer_look_nothing_is_left_either(state: Any, changes: Any, stack: Any, order: int) -> None:
    """With --drift, one `up` repairs what somebody changed of servers and their files, and does what the plan says."""
    world, wanted = before(state, order), resolved(stack)
    for change in changes:
        strike(world.engine, change)
    plan = world.make_plan(wanted, deep=True)
    world.engine.writes.clear()
    report = world.run(seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    assert not objects(world.engine.writes) - implied(plan)
    assert deep_faults(world, wanted) == []
    check_converged(world, wanted)
    assert [(o.id, o.reason) for o in world.make_plan(wanted, deep=True).operations] == []


@settings(max_examples=30)
@given(stacks(), hands, orders)
def test_without_a_closer_look_nobody_looks(stack: Any, changes: Any, order: int) -> None:
    """What no list shows is no reason for anything, and costs no call, before somebody asks for it."""
    world, wanted = World(), resolved(stack)
    world.up(wanted, seed=order)
    for change in changes:
        strike(world.engine, change)
    world.engine.reads.clear()
    assert not world.make_plan(wanted)
    assert set(world.engine.reads) == {"observe"} | ({"get"} if world.secrets else set())


@settings(max_examples=10)
@given(stacks(), hands, orders, st.booleans())
def test_a_repair_that_is_killed_anywhere_is_completed(stack: Any, changes: Any, order: int, between: bool) -> None:
    """After a kill between any two writes of an `up --drift`, the next ones complete it, also with one without between.

    The next one has no receipt of reloadable files where it was cut off in writing them, and writes them as new ones; a
    file that somebody added to them is then seen by the one after it.
    """
    world, wanted = World(), resolved(stack)
    world.up(wanted, seed=order)
    for change in changes:
        strike(world.engine, change)
    writes, complete = 0, False
    while not complete:
        attempt = world.copy()
        attempt.engine.kill_after(writes)
        try:
            attempt.up(wanted, seed=order, deep=True)
            complete = True
        except Killed:
            note(f"killed after {attempt.engine.writes[-1:]}")
            attempt.engine.revive()
            if between:  # it may fail for what was changed, and is in nobody's way
                attempt.up(wanted, seed=order)
            assert attempt.up(wanted, seed=order, deep=True).ok
            assert attempt.up(wanted, seed=order, deep=True).ok
        assert deep_faults(attempt, wanted) == []
        check_converged(attempt, wanted)
        writes += 1


@settings(max_examples=60)
@given(stacks(), stacks(), orders)
def test_servers_that_do_not_change_go_on(earlier: Any, later: Any, order: int) -> None:
    """A server whose container is as before keeps its id and its start, whatever happens to the others."""
    world = World()
    world.up(resolved(earlier), seed=order)
    assert world.desired
    old, starts = world.desired.servers, world.starts()
    world.up(resolved(later), seed=order)
    for name, server in world.desired.servers.items():
        was_alone = name in old and not old[name].networks and server.networks  # it can't join one later
        if name in old and old[name].container.fingerprint == server.container.fingerprint and not was_alone:
            assert world.starts()[name] == starts[name]


@settings(max_examples=60)
@given(states, stacks(), orders)
def test_data_is_never_removed(state: Any, stack: Any, order: int) -> None:
    """No `up` removes a volume of data, that of a server that has gone included."""
    world = before(state, order)
    kept = set(data_of(world.engine))
    plan = world.make_plan(resolved(stack))
    removed = {o.action.name for o in plan.operations if isinstance(o.action, RemoveVolume)}
    assert not removed & kept
    world.run(seed=order)
    assert kept <= set(data_of(world.engine))


@example(  # replicas that are too many go before the provider that takes their place is made, which nobody names then
    {
        "stack": "shop",
        "servers": {
            "a": {"kind": "page", "rolling": True, "storage": "c", "replicas": 3},
            "b": {"kind": "gate"},
            "c": {"kind": "depot"},
        },
    },
    [("a container is paused", 7)],
    {"stack": "shop", "servers": {"c": {"kind": "page", "storage": "a"}, "a": {"kind": "depot", "depth": 2}}},
    1839,
)
@settings(max_examples=12)
@given(stacks(), st.lists(mishaps(), max_size=1), stacks(), orders)
def test_killed_anywhere_the_next_up_converges(earlier: Any, happened: Any, later: Any, order: int) -> None:
    """After a kill between any two writes of an `up`, the next one completes it and leaves nothing behind."""
    world, wanted = before((earlier, None, happened), order), resolved(later)
    writes, complete = 0, False
    while not complete:
        attempt = world.copy()
        attempt.engine.kill_after(writes)
        try:
            attempt.up(wanted, seed=order)
            complete = True
        except Killed:
            note(f"killed after {attempt.engine.writes[-1:]}")
            attempt.engine.revive()
            kept = set(data_of(attempt.engine))
            report = attempt.up(wanted, seed=order + 1)
            assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
            assert kept <= set(data_of(attempt.engine))
        check_converged(attempt, wanted)
        writes += 1


@settings(max_examples=30)
@given(states, stacks(), orders)
def test_other_stacks_are_not_touched(state: Any, stack: Any, order: int) -> None:
    """What others have on the engine, names alike included, is afterwards as it was before."""
    world = before(state, order)
    others = {"stack": "shop-a", "servers": {"b": {"kind": "page", "domains": ["x.test"]}, "edge": {"kind": "gate"}}}
    neighbour = World(world.engine)
    neighbour.up(resolved(others))
    theirs = {n: copy.deepcopy(b) for n, b in world.engine.boxes.items() if b.labels[naming.STACK] == "shop-a"}
    networks = {n: copy.deepcopy(b) for n, b in world.engine.networks.items() if n.startswith("shop-a_")}
    volumes = {n: copy.deepcopy(v) for n, v in world.engine.volumes.items() if n.startswith("shop-a_")}
    world.up(resolved(stack), seed=order)
    assert {n: b for n, b in world.engine.boxes.items() if n in theirs} == theirs
    assert {n: b for n, b in world.engine.networks.items() if n in networks} == networks
    assert {n: v for n, v in world.engine.volumes.items() if n in volumes} == volumes


def dependants(plan: Plan, id_: str) -> set[str]:
    """What needs an operation, directly or not."""
    found: set[str] = set()
    todo = [id_]
    while todo:
        current = todo.pop()
        more = {o.id for o in plan.operations if current in o.needs} - found
        found |= more
        todo += more
    return found


@example(  # all is stopped and pruned; a replica was to go, the run fails, and it is wanted again
    (
        {"stack": "shop", "servers": {"a": {"kind": "page", "rolling": False, "replicas": 2}}},
        None,
        [("all is stopped and pruned", 0)],
    ),
    {"stack": "shop", "servers": {"a": {"kind": "gate", "http": 9004, "egress": True}}},
    0,
    0,
    True,
)
@example(  # the one that was to join other replicas has no name yet, and they go: then it serves alone, by its name
    (
        {
            "stack": "shop",
            "servers": {
                "b": {"kind": "gate", "http": 9003},
                "a": {"kind": "page", "rolling": False, "domains": ["a.test"], "replicas": 3},
            },
        },
        None,
        [("a container is renamed", 0)],
    ),
    {
        "stack": "shop",
        "servers": {
            "b": {"kind": "gate", "http": 9004},
            "a": {"kind": "page", "rolling": False, "domains": ["a.test"], "publish": ["9003:80"], "egress": True},
        },
    },
    0,
    32,
    False,
)
@settings(max_examples=100)
@given(states, stacks(), orders, st.integers(0, 200), st.booleans())
def test_a_failure_stops_its_dependants_only(state: Any, stack: Any, order: int, which: int, back: bool) -> None:
    """When one operation fails, those that need it are skipped and all others are done.

    The next `up` completes it, or brings the earlier stack back.
    """
    world, wanted = before(state, order), resolved(stack)
    plan = world.make_plan(wanted)
    # These are written in batches, and the base image is there for the lock, whatever becomes of its operation.
    able = [o for o in plan.operations if not isinstance(o.action, WriteFiles) and o.id != BASE]
    if not able:
        return
    chosen = able[which % len(able)]
    note(f"{chosen.id} fails")
    world.engine.writes.clear()
    report = world.run(seed=order, refused=chosen.action)
    assert {o.operation.id for o in report.failed} == {chosen.id}
    assert {o.operation.id for o in report.skipped} == dependants(plan, chosen.id)
    done = [o.operation.action for o in report.outcomes if o.status == "done"]
    assert not objects(world.engine.writes) - implied_by([*done, *chosen.undo]), "nothing but the plan, and one undo"
    wanted = resolved(state[0]) if back else wanted
    report = world.up(wanted, seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    check_converged(world, wanted)


@settings(max_examples=50)
@given(states, stacks(), orders, st.integers(0, 3))
def test_a_choice_of_servers_breaks_no_other(state: Any, stack: Any, order: int, which: int) -> None:
    """With -s the chosen server is right, no other that stays stops running, and a whole `up` does the rest."""
    world, wanted = before(state, order), resolved(stack)
    chosen = sorted(wanted.servers)[which % len(wanted.servers)]
    engine = world.engine
    ran = {naming.replica_of(b.labels) for b in engine.boxes.values() if b.running}
    report = world.up(wanted, chosen, seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    running = {naming.replica_of(b.labels): b for b in engine.boxes.values() if b.running}
    assert world.desired
    chosen_ones = world.desired.replicas[chosen]
    assert (ran & set(world.desired.servers)) | set(chosen_ones) <= set(running)
    for name in chosen_ones:
        assert running[name].labels[naming.FINGERPRINT] == world.desired.servers[name].container.fingerprint
    report = world.up(wanted, seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    check_converged(world, wanted)
