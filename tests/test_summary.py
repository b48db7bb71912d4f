"""A plan in few rows: what each is called."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming
from consolidate.console.change import SIGNS
from consolidate.summary import summarise
from tests.world import World, resolved


def shop(title: str = "One", *, blog: bool = True, **more: Any) -> Any:
    page = {"kind": "page", "rolling": False}
    servers = {"www": page | {"title": title}} | ({"blog": page} if blog else {})
    return resolved({"stack": "shop", "servers": servers} | more)


@pytest.fixture
def world() -> World:
    world = World()
    for title in ("One", "Two", "Three"):
        assert world.up(shop(title)).ok
    return world


def rows(world: World, stack: Any) -> list[tuple[str, str, str]]:
    return [(SIGNS[r.change], r.what, r.change) for r in summarise(world.make_plan(stack))]


def test_records_that_are_too_many_are_no_server_that_goes(world: World) -> None:
    """Fewer are kept: that is tidied up, and the server runs on."""
    assert rows(world, shop("Three", generations=1)) == [("~", "www", "tidy")]


def test_a_volume_that_is_left_over_is_no_server_that_goes(world: World) -> None:
    """A killed run has filled it for nobody."""
    labels = {naming.STACK: "shop", naming.OF: "www", naming.ROLE: "config"}
    world.engine.create_volume("shop_www_config_0", labels)
    assert rows(world, shop("Three")) == [("~", "www", "tidy")]


def test_an_image_that_goes_is_told_by_its_name(world: World) -> None:
    """It is for several servers, none of which goes."""
    assert world.desired
    plain = world.desired.servers["blog"].container.image
    for month in (1, 2):
        world.engine.images.add(naming.refreshed_image(plain, f"20240{month}01T120000"))
    gone = naming.refreshed_image(plain, "20240101T120000")
    assert rows(world, shop("Three")) == [("~", gone, "tidy")]


def test_a_server_that_goes_is_told_as_such(world: World) -> None:
    """Whatever else of its goes along, and whatever is tidied up with another."""
    assert rows(world, shop("Three", blog=False, generations=1)) == [("-", "blog", "remove"), ("~", "www", "tidy")]
