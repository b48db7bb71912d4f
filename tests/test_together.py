"""All or nothing, by example, on the engine in memory."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming, vault
from consolidate.generations import history
from consolidate.report import Report
from consolidate.resolved import SECRETS_PATH, Resolved
from consolidate.secret import Secret
from consolidate.together import in_two
from tests.memory_parts import read_text
from tests.shop import the
from tests.world import NOW, World, faults, resolved


def shop(**servers: Any) -> Resolved:
    page = {"kind": "page", "domains": ["www.test"], "storage": "db"}
    all_ = {"edge": {"kind": "gate"}, "db": {"kind": "depot"}, "www": page, "old": {"kind": "page", "rolling": False}}
    return resolved({"stack": "shop", "servers": {n: s for n, s in (all_ | servers).items() if s}})


CHANGED = {
    "db": {"kind": "depot", "depth": 2},
    "www": {"kind": "page", "domains": ["www.test"], "storage": "db", "title": "New"},
    "old": {"kind": "page", "rolling": False, "title": "New"},
}


@pytest.fixture
def world() -> World:
    world = World()
    assert world.up(shop()).ok
    return world


def state(world: World) -> Any:
    """All that serves, but for when it was started, and for what records alone hold."""
    boxes = {
        b.name: (b.id, b.state, dict(b.networks)) for b in world.engine.boxes.values() if naming.SERVER in b.labels
    }
    records = [b for b in world.engine.boxes.values() if b.labels.get(naming.HELPER) == "generation"]
    used = {m.volume for b in world.engine.boxes.values() if b not in records for m in b.mounts}
    held = {m.volume for b in records for m in b.mounts} - used
    volumes = {n for n, v in world.engine.volumes.items() if v.labels[naming.ROLE] != "data" and n not in held}
    receipts = {n: b.labels[naming.APPLIED] for n, b in world.engine.boxes.items() if naming.APPLIED in b.labels}
    return boxes, set(world.engine.networks), volumes, receipts


def attempt(world: World, stack: Resolved, refused: str) -> Report:
    plan = world.make_plan(stack)
    report = world.together(stack, refused=the(plan, refused).action)
    assert {o.operation.id for o in report.failed} == {refused}
    assert report.back is not None
    assert [(o.operation.id, o.message) for o in report.back.outcomes if o.status != "done"] == []
    return report


@pytest.mark.parametrize(
    "refused", ["ready:old", "ready:www", "ready:db", "start:old", "probe:www", "switch:www", "create:www"]
)
def test_whatever_fails_the_very_containers_of_before_serve_again(world: World, refused: str) -> None:
    """With their files, networks and receipts, and with nothing of the attempt left; `up` with the old file has nothing to do."""
    before = state(world)
    report = attempt(world, shop(**CHANGED), refused)
    assert not report.ok
    assert state(world) == before
    records = [o.operation.id for o in world.make_plan(shop()).operations]
    assert records == []


def test_history_tells_of_it(world: World) -> None:
    """The one that failed, and those that were taken back for it."""
    attempt(world, shop(**CHANGED), "ready:old")
    known = history(world.engine.observe("shop"))
    assert [(g.number, g.result) for g in known["old"]] == [(2, "failed"), (1, "running")]
    assert [(g.number, g.result) for g in known["db"]] == [(2, "rolled back"), (1, "running")]


def test_without_a_failure_it_is_as_any_other_up(world: World) -> None:
    """All is done, records are left, and nothing is left to do."""
    world.make_plan(shop(**CHANGED))
    assert world.together(shop(**CHANGED)).ok
    assert world.make_plan(shop(**CHANGED)).operations == ()
    assert [(g.number, g.result) for g in history(world.engine.observe("shop"))["www"]] == [
        (2, "running"),
        (1, "replaced"),
    ]


def test_new_servers_go_and_their_data_stays(world: World) -> None:
    """So do their networks and their accounts."""
    before = state(world)
    more = {"store": {"kind": "depot"}, "blog": {"kind": "page", "domains": ["blog.test"], "storage": "store"}}
    report = attempt(world, shop(**CHANGED, **more), "ready:old")
    assert state(world) == before
    assert "shop_store_data" in world.engine.volumes
    assert report.back is not None
    assert any("shop_store_data" in n for n in report.back.plan.notes)


def test_servers_that_leave_stay_until_all_are_ready(world: World) -> None:
    """What can't come back is removed last."""
    before = state(world)
    attempt(world, shop(db=CHANGED["db"], www=None, old=CHANGED["old"]), "ready:old")
    assert state(world) == before


def test_who_had_a_port_gets_it_back() -> None:
    """A server that leaves had to stop for another to start: it serves again."""
    world = World()
    page = {"kind": "page", "rolling": False}
    one = resolved({"stack": "shop", "servers": {"a": page | {"publish": ["9001:80"]}, "b": page}})
    two = resolved({"stack": "shop", "servers": {"c": page | {"publish": ["9001:80"]}, "b": page | {"title": "New"}}})
    world.up(one)
    before = state(world)
    attempt(world, two, "ready:b")
    assert state(world) == before


def test_a_server_that_has_its_first_domain_since_it_was_made_comes_back() -> None:
    """Its container doesn't tell at which port the proxy finds it."""
    world, page = World(), {"kind": "page", "storage": "db", "domains": ["www.test"]}
    assert world.up(shop(www=page | {"domains": []})).ok
    made = world.box("www").name
    assert world.up(shop(www=page)).ok
    assert world.box("www").name == made
    before = state(world)
    attempt(world, shop(www=page | {"title": "New"}, old=CHANGED["old"]), "ready:old")
    assert state(world) == before


def test_a_rotated_password_is_told_again(world: World) -> None:
    """The consumer's old container knows only the old one."""
    old = world.secrets["www/storage_password"].value.reveal()
    world.store(
        dict(world.secrets) | {"www/storage_password": vault.record("www/storage_password", Secret("new"), NOW)}
    )
    attempt(world, shop(old=CHANGED["old"]), "ready:old")
    (data,) = [m.volume for m in world.box("db").mounts if m.target == "/data"]
    assert read_text(world.engine.volumes[data].files, "www_storage") == old


def test_a_password_that_can_not_be_read_hinders_nobody_else(world: World) -> None:
    """All that is there again serves again, the report tells of it, and the next `up` puts it right."""
    world.store(
        dict(world.secrets) | {"www/storage_password": vault.record("www/storage_password", Secret("new"), NOW)}
    )
    (secrets,) = [m.volume for m in world.box("www").mounts if m.target == SECRETS_PATH]
    world.engine.volumes[secrets].files.clear()
    before, stack = world.starts(), shop(old=CHANGED["old"])
    plan = world.make_plan(stack)
    back = world.together(stack, refused=the(plan, "ready:old").action).back
    assert back is not None
    (untold,) = [o for o in back.outcomes if o.status != "done"]
    assert untold.operation.id == "grant:db:www:storage"
    assert "the secret www/storage_password of then can't be read in shop-www-1" in untold.message
    assert {n: id_ for n, (id_, _) in world.starts().items()} == {n: id_ for n, (id_, _) in before.items()}
    assert world.up(stack).ok
    assert faults(world, stack) == []


def test_a_password_that_nobody_has_to_be_told_is_not_read(world: World) -> None:
    """A consumer that the plan leaves alone may be without its files: the others go back as if it were not there."""
    (secrets,) = [m.volume for m in world.box("www").mounts if m.target == SECRETS_PATH]
    world.engine.volumes[secrets].files.clear()
    before = state(world)
    report = attempt(world, shop(old=CHANGED["old"]), "ready:old")
    assert report.back is not None
    assert not any("password" in n for n in report.back.plan.notes)
    assert state(world) == before


def test_what_waits_is_what_cannot_be_taken_back(world: World) -> None:
    """No removal of a server, volume, network or account before the last wait."""
    plan = world.make_plan(shop(**CHANGED, edge=None))
    first, last = in_two(plan)
    assert {o.verb for o in first.operations}.isdisjoint(
        {"remove", "remove volume", "remove network", "revoke", "keep"}
    )
    assert {o.id for o in (*first.operations, *last.operations)} == {o.id for o in plan.operations}
