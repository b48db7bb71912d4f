"""What a plan says of things that happened behind our back, by example."""

from __future__ import annotations

from consolidate.plan import ApplyGrant
from tests.shop import acts, shop, the
from tests.stacks import strike
from tests.world import World, faults


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
