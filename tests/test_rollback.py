"""The way back to earlier generations, by example, on the engine in memory."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming, vault
from consolidate.actions import CreateContainer
from consolidate.diff import Refresh
from consolidate.errors import UsageError
from consolidate.generations import history
from consolidate.resolved import Resolved
from consolidate.secret import Secret
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box, read_text
from tests.shop import the
from tests.world import NOW, World, programs, resolved


def site(title: str = "One", *, rolling: bool = True, storage: bool = True, **more: Any) -> Resolved:
    www = {"kind": "page", "title": title, "rolling": rolling, "domains": ["www.test"]}
    servers: dict[str, Any] = {"edge": {"kind": "gate"}, "db": {"kind": "depot"}, "www": www}
    if storage:
        www["storage"] = "db"
    return resolved({"stack": "shop", "servers": servers | more})


@pytest.fixture
def world() -> World:
    world = World()
    for title in ("One", "Two", "Three"):
        assert world.up(site(title)).ok
    return world


def told(world: World, server: str = "www") -> list[tuple[int, str]]:
    return [(g.number, g.result) for g in history(world.engine.observe("shop"))[server]]


def title(world: World) -> str:
    (config,) = [m.volume for m in world.box("www").mounts if m.target == "/config"]
    return read_text(world.engine.volumes[config].files, "page")


def go_back(world: World, stack: Resolved, server: str | None = None, number: int | None = None) -> None:
    world.roll_back(stack, server, number)
    report = world.run()
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []


def test_it_goes_back_to_the_last_that_served(world: World) -> None:
    """As a new generation, rolling, with the same container as then; the others are left alone."""
    starts = world.starts()
    fingerprints = {g.number: g.fingerprint for g in history(world.engine.observe("shop"))["www"]}
    prepared = world.roll_back(site("Three"), "www")
    assert the(prepared.plan, "create:www").reason == "back to generation 2: file page changed"
    assert the(prepared.plan, "start:www").impact == "rolling"
    assert "switch:www" in {o.id for o in prepared.plan.operations}
    assert {o.server for o in prepared.plan.operations} == {"www"}
    assert world.run().ok
    assert "Two" in title(world)
    assert world.box("www").labels[naming.FINGERPRINT] == fingerprints[2]
    assert told(world) == [(4, "running"), (3, "rolled back"), (2, "replaced"), (1, "replaced")]
    assert {n: s for n, s in world.starts().items() if n != "www"} == {n: s for n, s in starts.items() if n != "www"}


def test_the_base_image_may_be_gone(world: World) -> None:
    """The lock of a way back is a container of it: it comes with the plan."""
    world.engine.images.discard(naming.BASE_IMAGE, used=False)
    prepared = world.roll_back(site("Three"), "www")
    assert f"image:{naming.BASE_IMAGE}" in {o.id for o in prepared.plan.operations}


def test_going_back_again_goes_further_back(world: World) -> None:
    """What was left by a rollback is no good generation, nor is the one that the present is a copy of."""
    go_back(world, site("Three"), "www")
    go_back(world, site("Three"), "www")
    assert "One" in title(world)
    assert told(world)[:2] == [(5, "running"), (4, "rolled back")]


def test_to_a_given_generation_and_forth(world: World) -> None:
    """Any that is kept can be had; `up` brings what the file says, and with the file of then nothing is left to do."""
    go_back(world, site("Three"), "www", 1)
    assert "One" in title(world)
    assert world.make_plan(site("One")).operations == ()
    assert world.up(site("Three")).ok
    assert "Three" in title(world)


def test_what_is_changed_in_the_file_meanwhile_is_left_alone(world: World) -> None:
    """A plan back does not bring what `up` has not yet brought, be it to others."""
    more = site("Four", db={"kind": "depot", "depth": 2}, edge={"kind": "gate", "motto": "on"}, new={"kind": "page"})
    prepared = world.roll_back(more, "www")
    assert {o.server for o in prepared.plan.operations} == {"www"}
    assert world.run().ok
    assert "Two" in title(world)


def test_without_a_server_all_go_back_that_the_last_up_replaced(world: World) -> None:
    """Those that it left alone or made anew stay."""
    world.stamp = {naming.RUN: "the last", naming.BY: "ada@desk"}
    more = site("Four", db={"kind": "depot", "depth": 2}, new={"kind": "page"})
    assert world.up(more).ok
    starts = world.starts()
    go_back(world, more)
    assert "Three" in title(world)
    assert told(world, "db")[:2] == [(3, "running"), (2, "rolled back")]
    assert world.starts()["new"] == starts["new"]
    assert world.starts()["edge"] == starts["edge"]


def test_the_password_of_then_is_told_again(world: World) -> None:
    """A server that goes back across a rotation gets its old secrets, and its provider knows them."""
    before = world.secrets["www/storage_password"].value.reveal()
    stored = dict(world.secrets) | {"www/storage_password": vault.record("www/storage_password", Secret("new"), NOW)}
    world.store(stored)
    assert world.up(site("Three")).ok

    def known() -> str:
        (data,) = [m.volume for m in world.box("db").mounts if m.target == "/data"]
        return read_text(world.engine.volumes[data].files, "www_storage")

    assert known() == "new"
    go_back(world, site("Three"), "www")
    assert known() == before
    assert world.up(site("Three")).ok
    assert known() == "new"


def test_a_server_goes_back_to_before_its_first_domain() -> None:
    """A container that was made then doesn't tell at which port the proxy would have found it."""
    world, page = World(), {"kind": "page", "title": "One"}
    for page_ in (page, page | {"title": "Two", "domains": ["www.test"]}):
        stack = resolved({"stack": "shop", "servers": {"edge": {"kind": "gate"}, "www": page_}})
        assert world.up(stack).ok
    go_back(world, stack, "www")
    assert "One" in title(world)


def test_the_password_of_then_is_masked_as_well() -> None:
    """The store no longer knows it, and a provider that refuses may quote what it was told."""
    quoted: list[str] = []

    def refusing(engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        if quoted and command == ("bash", "/config/grant"):
            quoted.append((stdin or b"").decode())
            return 1, f"not good: {quoted[-1]}"
        return programs(engine, box, command, stdin)

    world = World(MemoryEngine(refusing))
    assert world.up(site("One")).ok
    before = world.secrets["www/storage_password"].value.reveal()
    world.store(
        dict(world.secrets) | {"www/storage_password": vault.record("www/storage_password", Secret("new"), NOW)}
    )
    assert world.up(site("Two")).ok
    world.roll_back(site("Two"), "www")
    quoted.append("from now on")
    report = world.run()
    assert before in quoted[1]
    (failed,) = report.failed
    assert "not good" in failed.log[0]
    assert before not in str(failed)


def test_the_image_of_then_comes_back(world: World) -> None:
    """By its id, whatever its tag means by now."""
    image = {"kind": "page", "image": "example.test/site:1", "rolling": False}
    first, second = (resolved({"stack": "shop", "servers": {"www": image | {"title": t}}}) for t in ("One", "Two"))
    world = World()
    world.up(first)
    then = world.engine.images["example.test/site:1"]
    world.engine.images.add("example.test/site:1")
    move = Refresh("example.test/site:1", "its tag has moved")
    world.make_plan(second, refreshes={"www": move})
    assert world.run().ok
    world.roll_back(second, "www")
    create = the(world.plan, "create:www").action
    assert isinstance(create, CreateContainer)
    assert create.image == then
    assert world.run().ok
    assert world.box("www").image_id == then


def test_a_link_that_has_gone_does_not_come_back_and_is_told(world: World) -> None:
    """The plan says so."""
    assert world.up(site("Four", storage=False)).ok
    prepared = world.roll_back(site("Four", storage=False), "www")
    assert any("shop_link_www_storage" in n and "does not come back" in n for n in prepared.plan.notes)
    assert world.run().ok
    assert "Three" in title(world)


def test_reloadable_files_go_back_where_no_reload_came_between() -> None:
    """What the replacement brought goes with it; what was reloaded since is today's, and stays."""
    world = World()
    gate = {"kind": "gate"}

    def stack(motto: str, memory: str, *pages: str) -> Resolved:
        servers = {p: {"kind": "page", "domains": [f"{p}.test"]} for p in pages}
        edge = gate | {"motto": motto, "resources": {"memory": memory}}
        return resolved({"stack": "shop", "servers": {"edge": edge, **servers}})

    world.up(stack("", "32M", "a"))
    first = world.box("edge").memory["routes"]
    world.up(stack("on", "48M", "a", "c"))
    assert world.box("edge").memory["routes"] != first
    after = world.copy()
    go_back(world, stack("on", "48M", "a", "c"), "edge")
    assert world.box("edge").memory["routes"] == first

    after.up(stack("on", "48M", "a", "c", "b"))  # a reload: a route more
    now = after.box("edge").memory["routes"]
    prepared = after.roll_back(stack("on", "48M", "a", "c", "b"), "edge")
    assert any("reloadable files stay as they are" in n for n in prepared.plan.notes)
    assert after.run().ok
    assert after.box("edge").memory["routes"] == now


def test_a_way_back_that_fails_is_taken_back(world: World) -> None:
    """The present one serves on, and the failure is told as any other."""
    prepared = world.roll_back(site("Three"), "www")
    wait = the(prepared.plan, "ready:www").action
    before = world.starts()
    assert not world.run(refused=wait).ok
    assert world.starts() == before
    assert told(world)[:2] == [(4, "failed"), (3, "running")]


def test_there_is_no_way_back_to(world: World) -> None:
    """What isn't kept, has failed, is the present, or has lost its files: each is told with what there is."""
    with pytest.raises(UsageError, match="no generation 9 that is kept") as raised:
        world.roll_back(site("Three"), "www", 9)
    assert "there are: 2, 1" in raised.value.hint
    with pytest.raises(UsageError, match="is the present one"):
        world.roll_back(site("Three"), "www", 3)
    with pytest.raises(UsageError, match="has no earlier generation"):
        world.roll_back(site("Three"), "db")
    with pytest.raises(UsageError, match="no server 'ww'"):
        world.roll_back(site("Three"), "ww")
    record = world.engine.boxes["shop-www.gen.2"]
    world.engine.volumes.pop(next(m.volume for m in record.mounts if "_config_" in m.volume))
    with pytest.raises(UsageError, match="is not whole: shop_www_config_"):
        world.roll_back(site("Three"), "www", 2)
