"""Which image a server gets, and which images go, by example: refreshes of what was built, tags that have moved on."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming
from consolidate.actions import CreateContainer, RemoveImage
from consolidate.diff import Refresh
from consolidate.plan import Plan
from consolidate.resolved import Resolved
from tests.memory_parts import Killed
from tests.shop import PAGE, acts, the
from tests.world import World, faults, resolved

STAMPS = "20240501T120000", "20240601T120000"
MORE_MEMORY = {"memory": "48M"}


def pages(generations: int = 0, **servers: Any) -> Resolved:
    """A gate and two pages of one image; without `generations` no earlier one is kept, which would keep its image."""
    page = {"kind": "page", "domains": ["www.test"]}
    all_ = {"edge": {"kind": "gate"}, "www": page, "blog": page | {"domains": ["blog.test"]}} | servers
    return resolved({"stack": "pages", "generations": generations, "servers": all_})


@pytest.fixture
def up() -> World:
    world = World()
    world.up(pages())
    return world


def plain(world: World, server: str = "www") -> str:
    assert world.desired is not None
    return world.desired.servers[server].container.image


def build(world: World, stamp: str, server: str = "www") -> str:
    """What `update` builds: the same image again."""
    tag = naming.refreshed_image(plain(world, server), stamp)
    world.engine.images.add(tag)
    return tag


def refresh(world: World, *servers: str, stamp: str = STAMPS[0]) -> Plan:
    """The plan of an update that has found something new for these servers."""
    tag = build(world, stamp, servers[0])
    return world.make_plan(pages(), *servers, refreshes=dict.fromkeys(servers, Refresh(tag, "openssl 1 → 2")))


def made_of(plan: Plan, server: str) -> str:
    action = the(plan, f"create:{server}").action
    assert isinstance(action, CreateContainer)
    return action.image


def removed(plan: Plan) -> list[str]:
    return [o.action.name for o in plan.operations if isinstance(o.action, RemoveImage)]


def test_a_refresh_replaces_its_server_alone(up: World) -> None:
    """One server moves to the new image, another of the same kind stays as it is, and so does the image that it has."""
    before = up.starts()
    plan = refresh(up, "www")
    assert the(plan, "create:www").reason == "openssl 1 → 2"
    assert the(plan, "start:www").impact == "rolling"
    assert removed(plan) == []
    assert up.run().ok
    assert up.box("www").image_id == up.engine.images[naming.refreshed_image(plain(up), STAMPS[0])]
    assert {n: s for n, s in up.starts().items() if n != "www"} == {n: s for n, s in before.items() if n != "www"}
    assert not up.make_plan(pages())
    assert faults(up, pages()) == []


def test_what_nothing_is_made_of_any_more_goes(up: World) -> None:
    """The old image goes with the last container of it, by the plan; then there is nothing left to do."""
    old = plain(up)
    plan = refresh(up, "www", "blog")
    assert removed(plan) == [old]
    assert {"remove:pages-www-1", "remove:pages-blog-1"} <= up.plan_needs(f"remove-image:{old}")
    assert up.run().ok
    assert old not in up.engine.images
    assert not up.make_plan(pages())


def test_an_image_that_a_container_of_another_stack_has_stays(up: World) -> None:
    """Kinds' images are shared by all stacks of an engine."""
    other = resolved({"stack": "other", "servers": {"home": {"kind": "page", "domains": ["home.test"]}}})
    World(up.engine).up(other)
    assert removed(refresh(up, "www", "blog")) == []


def test_an_image_that_an_earlier_generation_had_stays_as_long_as_that_is_kept(up: World) -> None:
    """There is a way back to it; it goes in the plan that removes the last record of it."""
    stack, first = pages(1), plain(up)
    for stamp, gone in zip(STAMPS, ([], [first]), strict=True):
        move = Refresh(build(up, stamp), "new")
        plan = up.make_plan(stack, refreshes={"www": move, "blog": move})
        assert removed(plan) == gone
        assert up.run().ok
        assert faults(up, stack) == []
        assert not up.make_plan(stack)
    assert naming.refreshed_image(first, STAMPS[0]) in up.engine.images


def test_only_an_update_brings_a_newer_image(up: World) -> None:
    """Replaced for another reason a server keeps its image, whether a newer one is there or not."""
    refresh(up, "www")
    up.run()
    newest = build(up, STAMPS[1])
    page = {"kind": "page", "domains": ["www.test"], "resources": MORE_MEMORY}
    plan = up.make_plan(pages(www=page, blog=page | {"domains": ["blog.test"]}))
    assert made_of(plan, "www") == naming.refreshed_image(plain(up), STAMPS[0])
    assert made_of(plan, "blog") == plain(up)
    assert "image" not in acts(plan)
    assert newest not in removed(plan)


def test_a_new_server_gets_the_newest(up: World) -> None:
    """Also where the image that the stack asks for has gone: a refresh of it stands for it, and nothing is built."""
    refresh(up, "www", "blog")
    up.run()
    newest = build(up, STAMPS[1])
    plan = up.make_plan(pages(shop=PAGE | {"domains": ["shop.test"], "storage": None}))
    assert made_of(plan, "shop") == newest
    assert "image" not in acts(plan)


def test_what_a_killed_update_built_is_no_reason_to_do_anything(up: World) -> None:
    """Once a newer one is there it goes, since nothing was made of it."""
    build(up, STAMPS[0])
    assert not up.make_plan(pages())
    build(up, STAMPS[1])
    assert removed(up.make_plan(pages())) == [naming.refreshed_image(plain(up), STAMPS[0])]
    assert up.run().ok
    assert not up.make_plan(pages())


def test_a_pulled_tag_moves_for_the_server_that_is_updated_alone() -> None:
    """The others keep the image that they have, by its id; it goes with the last of them."""
    image = {"kind": "page", "image": "example.test/site:1", "domains": ["www.test"]}
    stack = pages(www=image, blog=image | {"domains": ["blog.test"]})
    world = World()
    world.up(stack)
    old = world.engine.images["example.test/site:1"]
    world.engine.images.add("example.test/site:1")
    assert not world.make_plan(stack)
    move = Refresh("example.test/site:1", "its tag has moved")
    world.make_plan(stack, refreshes={"www": move})
    world.run()
    assert world.box("www").image_id == world.engine.images["example.test/site:1"] != old
    more = pages(
        www=image | {"resources": MORE_MEMORY}, blog=image | {"domains": ["blog.test"], "resources": MORE_MEMORY}
    )
    plan = world.make_plan(more)
    assert (made_of(plan, "www"), made_of(plan, "blog")) == ("example.test/site:1", old)
    assert removed(world.make_plan(stack, refreshes={"blog": move})) == [old]
    assert world.run().ok
    assert old not in world.engine.images
    assert not world.make_plan(stack)


def test_a_refreshed_proxy_takes_no_switch_from_its_predecessor(up: World) -> None:
    """The one that goes is not told of servers that move in the same plan."""
    edge, page = build(up, STAMPS[0], "edge"), build(up, STAMPS[0], "www")
    up.make_plan(pages(), refreshes={"edge": Refresh(edge, "new"), "www": Refresh(page, "new")})
    assert "switch:www" not in {o.id for o in up.plan.operations}
    assert up.run().ok
    assert faults(up, pages()) == []
    assert not up.make_plan(pages())


def test_an_update_may_be_killed_anywhere(up: World) -> None:
    """The next `up` ends with each server on one image or the other, and with nothing left to do."""
    refresh(up, "www", "blog")
    whole = up.copy()
    whole.make_plan(pages(), refreshes=dict.fromkeys(("www", "blog"), Refresh(f"{plain(up)}-{STAMPS[0]}", "new")))
    whole.run()
    count = len(whole.engine.writes)
    assert count > 8
    for writes in range(count):
        world = up.copy()
        refreshes = dict.fromkeys(("www", "blog"), Refresh(f"{plain(up)}-{STAMPS[0]}", "new"))
        world.make_plan(pages(), refreshes=refreshes)
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        world.up(pages())
        assert faults(world, pages()) == []
        assert not world.make_plan(pages())
        assert {world.box(s).image_id for s in ("www", "blog")} <= set(world.engine.images)
