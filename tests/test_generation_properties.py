"""What holds for records and ways back, whatever the stacks."""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, example, given, note, settings
from hypothesis import strategies as st

from consolidate import naming
from consolidate.actions import SwitchRoute, WriteFiles
from consolidate.diff import diff
from consolidate.errors import UsageError
from consolidate.generations import history, served
from consolidate.together import in_two
from tests.stacks import stacks
from tests.world import World, faults, resolved

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # to shrink a stack of these takes minutes
orders = st.integers(0, 2**16)


@settings(max_examples=20)
@given(st.lists(stacks(), min_size=2, max_size=6), st.integers(0, 3), orders)
def test_records_are_bounded_and_nothing_is_left_behind(all_: Any, limit: int, order: int) -> None:
    """After any number of changes there are so many records of each server, and no volume of files that none needs."""
    world = World()
    for stack in all_:
        wanted = resolved(stack | {"generations": limit})
        report = world.up(wanted, seed=order)
        assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
        assert faults(world, wanted) == []
        assert world.make_plan(wanted).operations == ()


@settings(max_examples=30, phases=PHASES)
@given(st.lists(stacks(), min_size=2, max_size=4), orders, st.integers(0, 9))
def test_after_a_rollback_the_server_is_what_it_was(all_: Any, order: int, which: int) -> None:
    """The plan for what was wanted back is empty then, the container is made of the same, and no other was touched.

    The next `up` makes all right again.
    """
    world = World()
    for stack in all_:
        world.up(resolved(stack), seed=order)
    wanted = resolved(all_[-1])
    known = [g for each in history(world.observe(wanted)).values() for g in each if served(g)]
    if not known:
        return
    target = known[which % len(known)]
    note(f"{target.server} {target.number}")
    starts = world.starts()
    try:
        prepared = world.roll_back(wanted, target.server, target.number)
    except UsageError as refused:
        assert any(word in refused.what for word in ("has now", "of the kind", "one container"))
        return
    others = [o for o in prepared.plan.operations if naming.server_of(o.server) != target.server]
    assert [o.id for o in others if not isinstance(o.action, SwitchRoute)] == [], "a proxy may be waited for"
    report = world.run(seed=order)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    left = diff(prepared.desired, world.observe(wanted))
    assert [o.id for o in left.operations if naming.server_of(o.server) == target.server] == []
    made = target.made
    assert made is not None
    assert world.box(target.server).mounts == made.container.mounts
    assert world.box(target.server).labels[naming.FINGERPRINT] == target.fingerprint
    assert {n: s for n, s in world.starts().items() if naming.server_of(n) != target.server} == {
        n: s for n, s in starts.items() if naming.server_of(n) != target.server
    }
    world.up(wanted, seed=order)
    assert faults(world, wanted) == []


def serving(world: World) -> Any:
    """What runs, and what was applied to it."""
    boxes = {
        b.name: (b.id, b.state, dict(b.networks)) for b in world.engine.boxes.values() if naming.SERVER in b.labels
    }
    receipts = {n: b.labels[naming.APPLIED] for n, b in world.engine.boxes.items() if naming.APPLIED in b.labels}
    return boxes, set(world.engine.networks), receipts


A_PAGE: Any = {"kind": "page", "port": 9000}
JOINED: Any = ({"a": A_PAGE}, {"a": A_PAGE, "b": A_PAGE | {"reads": ["a"]}, "c": A_PAGE})  # `a` gets its first network


@settings(max_examples=30, phases=PHASES)
@example({"stack": "shop", "servers": JOINED[0]}, {"stack": "shop", "servers": JOINED[1]}, 13, None)
@given(stacks(), stacks(), orders, st.integers(0, 200))
def test_all_or_nothing(earlier: Any, later: Any, order: int, which: int | None) -> None:
    """Whichever operation that can be taken back fails: what ran before runs again, and the way forth stays open."""
    world, wanted = World(), resolved(later)
    world.up(resolved(earlier), seed=order)
    before = serving(world)
    data = {n: v.files for n, v in world.engine.volumes.items() if v.labels[naming.ROLE] == "data"}
    plan = world.make_plan(wanted)
    able = [o for o in in_two(plan)[0].operations if not isinstance(o.action, WriteFiles)]
    if not able:
        return
    chosen = able[which % len(able)] if which is not None else next(o for o in able if o.id == "ready:c")
    note(f"{chosen.id} fails")
    report = world.together(wanted, seed=order, refused=chosen.action)
    assert not report.ok
    assert report.back is not None
    assert [(o.operation.id, o.message) for o in report.back.outcomes if o.status != "done"] == []
    assert serving(world) == before
    assert data.keys() <= world.engine.volumes.keys()
    world.up(wanted, seed=order)
    assert faults(world, wanted) == []
