"""What a plan says of things that happened behind our back, by example."""

from __future__ import annotations

import contextlib
import copy
from unittest.mock import patch

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import ApplyGrant, StopContainer, WaitReady
from consolidate.summary import summarise
from tests.memory_parts import Files, Killed
from tests.shop import PAGE, acts, shop, the
from tests.stacks import strike
from tests.world import World, deep_faults, faults


def test_lost_data_repeats_the_grants(world: World) -> None:
    """A provider whose volume is new has forgotten its consumers, and is told of them again."""
    world.engine.remove("shop-db-1")
    world.engine.remove_volume("shop_db_data")
    plan = world.make_plan(shop())
    assert any(isinstance(o.action, ApplyGrant) for o in plan.operations)
    assert world.run().ok
    assert faults(world, shop()) == []


def test_lost_data_repeats_the_grants_also_after_a_kill(world: World) -> None:
    """Once the new volume is there nothing else tells that its data was lost: the receipts go first."""
    world.engine.remove("shop-db-1")
    world.engine.remove_volume("shop_db_data")
    plan = world.make_plan(shop())
    (receipt,) = [o.id for o in plan.operations if o.id.startswith("forget:")]
    assert receipt in the(plan, "volume:shop_db_data").needs


def test_a_server_that_ended_is_started_again(world: World) -> None:
    """What is right but does not run is started, and nothing more."""
    world.engine.boxes["shop-db-1"].end(1)
    plan = world.make_plan(shop())
    assert acts(plan) == ["start", "wait"]
    assert the(plan, "start:db").reason == "it is exited"


def test_the_proxy_that_finds_a_server_again_is_not_made_anew(world: World) -> None:
    """It runs on, and is only waited for."""
    world.box("www").end(1)
    assert [(r.what, r.change) for r in summarise(world.make_plan(shop()))] == [("www", "start"), ("edge", "wait")]


def test_a_server_that_was_disconnected_is_connected_again(world: World) -> None:
    """A network that is missing is joined while the server runs."""
    network = "shop_link_www_storage"
    world.engine.disconnect("shop-www-1", network)
    plan = world.make_plan(shop())
    assert [(o.verb, o.reason) for o in plan.operations] == [("connect", f"it needs {network}")]


def test_pruned_networks_are_joined_anew(world: World) -> None:
    """A stopped container clings to the network that it was on: it leaves that one and joins the new one."""
    strike(world.engine, ("all is stopped and pruned", 0))
    plan = world.make_plan(shop())
    assert {"disconnect", "create network", "connect", "start"} <= set(acts(plan))
    assert world.run().ok
    assert faults(world, shop()) == []


def test_a_renamed_server_gets_its_name_back_and_goes_on(world: World) -> None:
    """Labels tell what it is: nothing is replaced, and what else is done with it waits for its name."""
    world.engine.rename("shop-db-1", "old-db")
    world.engine.boxes["old-db"].end(1)
    before = world.engine.boxes["old-db"].id
    plan = world.make_plan(shop())
    assert acts(plan) == ["start", "wait", "rename"]
    assert "rename:shop-db-1" in the(plan, "start:db").needs
    assert the(plan, "rename:shop-db-1").reason == "somebody has called it old-db"
    assert world.run().ok
    assert world.box("db").id == before
    assert faults(world, shop()) == []


def test_a_name_that_another_has_by_now_stays_theirs(world: World) -> None:
    """Another's container is not renamed: ours keeps the name that it was given, which the plan says, and goes on."""
    world.engine.rename("shop-db-1", "old-db")
    world.engine.create_helper("shop-db-1", {}, {})
    world.engine.boxes["old-db"].end(1)
    plan = world.make_plan(shop())
    assert acts(plan) == ["start", "wait"]
    assert plan.notes == ("db: its container stays old-db; another one is called shop-db-1",)
    assert world.run().ok
    assert world.engine.boxes["old-db"].running


def test_the_receipt_of_a_grant_may_be_renamed(world: World) -> None:
    """A receipt of another name is not that of a consumer which has gone: nothing is taken back."""
    world.engine.rename("shop-db.grant.www.storage", "what-is-this")
    plan = world.make_plan(shop())
    assert acts(plan) == ["rename"]
    assert world.run().ok
    assert faults(world, shop()) == []


def test_a_server_on_a_network_of_others_leaves_it(world: World) -> None:
    """Whatever else is there, two servers meet on networks of the stack alone."""
    strike(world.engine, ("a container is on a network of others", 0))
    plan = world.make_plan(shop())
    assert [(o.verb, o.reason) for o in plan.operations] == [("disconnect", "theirs is no network of this stack")]
    assert world.run().ok
    assert faults(world, shop()) == []


def test_a_server_off_all_its_networks_joins_them_without_a_new_container(world: World) -> None:
    """Only one that was made without a network can't join one."""
    for network in list(world.engine.boxes["shop-db-1"].networks):
        world.engine.disconnect("shop-db-1", network)
    plan = world.make_plan(shop())
    assert acts(plan) == ["connect"]
    assert world.run().ok
    assert faults(world, shop()) == []


def test_a_paused_server_goes_on(world: World) -> None:
    """An engine refuses to start what is paused; it goes on, and is not ready before it answers."""
    world.engine.boxes["shop-www-1"].state = "paused"
    plan = world.make_plan(shop())
    assert [(o.verb, o.reason) for o in plan.operations if o.server == "www"][:2] == [
        ("unpause", "it is paused"),
        ("wait", "it is paused"),
    ]
    assert world.run().ok
    assert world.starts()["www"][1] == 1
    assert faults(world, shop()) == []


def test_a_paused_server_that_is_replaced_ends_by_itself(world: World) -> None:
    """Its program is asked to end, not killed: it may hold data."""
    world.engine.boxes["shop-db-1"].state = "paused"
    plan = world.make_plan(shop(db={"kind": "depot", "depth": 2}))
    assert "stop:shop-db-1" in the(plan, "start:db").needs


def test_after_a_run_that_was_broken_off_servers_are_asked_whether_they_are_ready(world: World) -> None:
    """That run may have started them and died before it knew; an `up` that says it is done has seen them all ready."""
    world.engine.kill_after(0)
    with contextlib.suppress(Killed):
        world.up(shop(new={"kind": "page", "domains": ["new.test"]}))
    world.engine.revive()
    plan = world.make_plan(shop())
    assert {o.server for o in plan.operations if isinstance(o.action, WaitReady)} == {*shop().servers}
    assert set(acts(plan)) == {"wait", "switch route"}, "and the proxy has to find them"
    links = [(s.name, link.provider) for s in shop().servers.values() for link in s.links]
    assert links
    assert all(f"ready:{provider}" in the(plan, f"ready:{consumer}").needs for consumer, provider in links)
    assert world.run().ok
    assert not world.make_plan(shop())


def test_after_a_run_that_was_broken_off_the_proxy_has_to_find_also_those_that_are_ready(world: World) -> None:
    """The engine's own check may have seen them ready by then, which says nothing about the proxy."""
    world.engine.kill_after(0)
    with contextlib.suppress(Killed):
        world.up(shop(new={"kind": "page", "domains": ["new.test"]}))
    world.engine.revive()
    seen = world.engine.observe("shop")
    healthy = tuple(replace(c, status="Up 1 second (healthy)") for c in seen.containers)
    with patch.object(world.engine, "observe", lambda *_: replace(seen, containers=healthy)):
        (only,) = world.make_plan(shop()).operations
    assert (only.verb, only.server) == ("switch route", "edge")
    assert {r.server for r in shop().routes} <= {*only.action.command}  # type: ignore[union-attr]


def test_a_route_is_settled_before_the_old_container_goes(world: World) -> None:
    """It is what tells the next run that there was something to settle, should this one be killed in between."""
    rolling = PAGE | {"rolling": True}
    world.up(shop(www=rolling))
    plan = world.make_plan(shop(www=rolling | {"title": "New"}))
    (old,) = [o for o in plan.operations if isinstance(o.action, StopContainer)]
    assert old.id in the(plan, "settle:www").needs
    assert "settle:www" in the(plan, old.id.replace("stop", "remove")).needs
    world.engine.stop(old.action.name, 0)  # type: ignore[union-attr]
    plan = world.make_plan(shop(www=rolling))
    assert "settle:www" not in {o.id for o in plan.operations}, "it is to be started again"


def files_of(world: World, role: str, server: str) -> Files:
    wanted = {naming.ROLE: role, naming.OF: server}
    (found,) = [v.files for v in world.engine.volumes.values() if wanted.items() <= v.labels.items()]
    return found


def test_limits_are_set_back_while_the_server_goes_on(world: World) -> None:
    """Nothing is replaced and nobody notices; the plan tells the old value and the new."""
    box = world.box("db")
    assert box.made
    box.made = replace(box.made, limits=replace(box.made.limits, memory=2**24))
    box.also["restart"] = "no"
    plan = world.make_plan(shop(), deep=True)
    (only,) = plan.operations
    assert (only.verb, only.impact, only.reason) == (
        "set limits",
        "none",
        "changed by hand: memory 16M → 32M; restart no → always",
    )
    assert [r.change for r in summarise(plan)] == ["limits"]
    assert world.run().ok
    assert deep_faults(world, shop()) == []
    assert world.starts()["db"] == (box.id, 1)


def test_edited_files_are_made_anew_in_another_volume(world: World) -> None:
    """Who reads the edited one reads it until the new container takes its place, which no later plan undoes."""
    edited = files_of(world, "config", "db")
    edited["ready"].data += b"# by hand\n"
    before = copy.deepcopy(edited)
    plan = world.make_plan(shop(), deep=True)
    assert the(plan, "create:db").reason == "changed by hand: file ready changed"
    (write,) = [o.id for o in plan.operations if o.verb == "write files"]
    assert write.endswith(".1")
    assert write in the(plan, "create:db").needs
    assert world.run().ok
    assert edited == before
    assert deep_faults(world, shop()) == []
    assert not world.make_plan(shop())


def test_a_server_that_is_replaced_anyway_gets_no_edited_file(world: World) -> None:
    """Its new container would have the same volume, which an edit has made another one's."""
    files_of(world, "secrets", "db")["root"].data = b"by hand"
    changed = shop(db={"kind": "depot", "resources": {"memory": "64M"}})
    plan = world.make_plan(changed, deep=True)
    assert the(plan, "create:db").reason == "memory 32M → 64M; changed by hand: secret root changed"
    assert "by hand'" not in str(plan.to_json())
    assert world.run().ok
    assert deep_faults(world, changed) == []


def test_edited_live_files_are_taken_over_from_another_folder(world: World) -> None:
    """The program is told once all of them are there; it does not start anew."""
    live = files_of(world, "live", "edge")
    (routes,) = [p for p in live if p.endswith("/routes")]
    live[routes].data += b"by hand\n"
    plan = world.make_plan(shop(), deep=True)
    assert [(o.verb, o.impact, o.reason) for o in plan.operations] == [
        ("write live files", "reload", "changed by hand: file routes changed")
    ]
    assert world.run().ok
    assert live["current"].link == f"{routes.partition('/')[0]}.1"
    assert faults(world, shop()) == deep_faults(world, shop()) == []


def test_requests_are_not_switched_at_a_proxy_that_is_replaced_itself(world: World) -> None:
    """The proxy that comes finds the new containers by itself."""
    rolling = shop(www=PAGE | {"rolling": True})
    assert world.up(rolling).ok
    for server in ("www", "edge"):
        world.box(server).also["privileged"] = "yes"
    plan = world.make_plan(rolling, deep=True)
    assert {"create:www", "create:edge"} <= {o.id for o in plan.operations}
    assert "switch:www" not in {o.id for o in plan.operations}
    assert world.run().ok
    assert deep_faults(world, rolling) == []


def test_of_two_generations_on_the_same_data_neither_goes_on_beside_the_other(world: World) -> None:
    """An engine that was killed has started both: both end before the newer one starts, and the older one goes."""
    old = copy.deepcopy(world.engine.boxes["shop-db-1"])
    changed = shop(db={"kind": "depot", "depth": 2})
    world.up(changed)
    world.engine.boxes[old.name] = old
    plan = world.make_plan(changed)
    assert {"stop:shop-db-1", "stop:shop-db-2"} <= {*the(plan, "start:db").needs}
    assert world.run().ok
    assert faults(world, changed) == []
