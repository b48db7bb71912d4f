"""Records of earlier generations: what is kept, for how long, and what a failure leaves."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming, vault
from consolidate.actions import RemoveVolume, WaitReady
from consolidate.diff import Refresh
from consolidate.generations import Generation, history, outlived
from consolidate.resolved import SECRETS_PATH
from consolidate.secret import Secret
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box, Killed, read_text
from tests.shop import the
from tests.world import NOW, World, faults, programs, resolved

PAGE = {"kind": "page", "rolling": False}


def site(title: str = "One", **more: Any) -> Any:
    return resolved({"stack": "shop", "servers": {"www": PAGE | {"title": title}}} | more)


def told(world: World) -> list[tuple[int, str]]:
    return [(g.number, g.result) for g in history(world.engine.observe("shop")).get("www", [])]


def fail(world: World, title: str) -> None:
    """An `up` whose new generation never gets ready."""
    plan = world.make_plan(site(title))
    wait = next(o.action for o in plan.operations if isinstance(o.action, WaitReady))
    assert not world.run(refused=wait).ok


def test_a_first_up_leaves_no_record() -> None:
    """What was never replaced costs no helper."""
    world = World()
    world.up(site())
    assert told(world) == [(1, "running")]
    assert not [b for b in world.engine.boxes.values() if b.labels.get(naming.HELPER) == "generation"]


def test_a_generation_that_is_replaced_can_be_made_again() -> None:
    """Its record has the very container, the image's id and its volumes, which stay."""
    world = World()
    world.up(site("One"))
    assert world.desired
    before = world.desired.servers["www"]
    world.up(site("Two"))
    running, record = history(world.engine.observe("shop"))["www"]
    assert record.made is not None
    assert record.made.container == before.container
    assert record.fingerprint == before.container.fingerprint
    assert record.parts == before.parts
    assert record.made.ready == before.ready
    assert record.image_id.startswith("sha256:")
    assert running.changes == (("file page", before.parts["file page"], running.parts["file page"]),)
    assert running.reason == "file page changed"
    assert before.files[0].name in world.engine.volumes
    assert faults(world, site("Two")) == []


def test_the_last_three_are_kept_and_no_more() -> None:
    """The fourth before the running one goes with its volume, in the plan that made it the fourth."""
    world = World()
    volumes = []
    for title in ("One", "Two", "Three", "Four", "Five"):
        world.up(site(title))
        assert world.desired
        volumes.append(world.desired.servers["www"].files[0].name)
    assert told(world) == [(5, "running"), (4, "replaced"), (3, "replaced"), (2, "replaced")]
    assert [v in world.engine.volumes for v in volumes] == [False, True, True, True, True]
    assert world.make_plan(site("Five")).operations == ()


def test_how_many_are_kept_is_a_setting() -> None:
    """With fewer, what is too many goes at the next `up`; with none nothing is left."""
    world = World()
    for title in ("One", "Two", "Three"):
        world.up(site(title))
    world.up(site("Three", generations=1))
    assert told(world) == [(3, "running"), (2, "replaced")]
    world.up(site("Three", generations=0))
    assert told(world) == [(3, "running")]
    assert faults(world, site("Three", generations=0)) == []
    world.up(site("Four", generations=0))
    assert told(world) == [(4, "running")]
    plan = world.make_plan(site("Five", generations=0))
    assert not world.run(refused=the(plan, "ready:www").action).ok
    assert told(world) == [(4, "running")]


def test_a_failure_is_told_with_its_reason_and_leaves_nothing_else() -> None:
    """The old one runs, the new one's volume has gone, its number is not given again."""
    world = World()
    world.up(site("One"))
    volumes = set(world.engine.volumes)
    fail(world, "Two")
    assert told(world) == [(2, "failed"), (1, "running")]
    failed = history(world.engine.observe("shop"))["www"][0]
    assert failed.detail == "the test refuses it"
    assert failed.reason == "file page changed"
    assert set(world.engine.volumes) == volumes
    assert world.make_plan(site("One")).operations == ()
    world.up(site("Two"))
    assert told(world) == [(3, "running"), (2, "failed"), (1, "replaced")]


def test_failures_push_no_good_generation_out() -> None:
    """Of failures as many are kept, beside those that served."""
    world = World()
    world.up(site("One"))
    world.up(site("Two"))
    for attempt in range(5):
        fail(world, f"Bad {attempt}")
    assert (1, "replaced") in told(world)
    world.up(site("Three"))
    assert told(world) == [
        (8, "running"),
        (7, "failed"),
        (6, "failed"),
        (5, "failed"),
        (2, "replaced"),
        (1, "replaced"),
    ]


def test_a_first_generation_that_failed_is_told_and_can_be_put_right() -> None:
    """It stays, stopped, for its log; once it runs after all, it is no failure any more."""
    world = World()
    fail(world, "One")
    assert told(world) == [(1, "failed")]
    world.up(site("One"))
    assert told(world) == [(1, "running")]
    world.up(site("Two"))
    assert told(world) == [(2, "running"), (1, "replaced")]


def test_a_server_that_leaves_takes_its_records_along() -> None:
    """Nothing keeps files of a server that the stack no longer has."""
    world = World()
    world.up(site("One"))
    world.up(site("Two"))
    other = resolved({"stack": "shop", "servers": {"other": PAGE}})
    plan = world.make_plan(other)
    assert len([o for o in plan.operations if isinstance(o.action, RemoveVolume)]) == 2
    assert world.run().ok
    assert faults(world, other) == []


def test_which_generations_are_too_many() -> None:
    """Failures older than what is kept tell nothing of use."""

    def known(*numbers: int) -> list[Generation]:
        return [Generation("www", abs(n), 0, result="failed" if n < 0 else "replaced") for n in numbers]

    assert {g.number for g in outlived(known(1, 2, -3, 4, 5, -6), 2)} == {1, 2, 3}
    assert outlived(known(-1, -2), 3) == []


def test_an_image_stays_for_as_long_as_a_record_is_of_it() -> None:
    """What an update has superseded is needed for the way back; it goes with the last record of it."""
    world = World()
    world.up(site())
    assert world.desired
    plain = world.desired.servers["www"].container.image
    for month in range(5):
        tag = naming.refreshed_image(plain, f"20240{month + 1}01T120000")
        world.engine.images.add(tag)
        world.make_plan(site(), refreshes={"www": Refresh(tag, "newer")})
        assert world.run().ok
    assert told(world)[0] == (6, "running")
    kept = [t for t in world.engine.images if t.startswith(plain)]
    assert kept == [naming.refreshed_image(plain, f"20240{m}01T120000") for m in (2, 3, 4, 5)]


def test_a_password_that_was_rotated_in_vain_is_told_again() -> None:
    """The old consumer serves on with its old password, so its provider must know that one."""
    world = World()

    def stack(title: str) -> Any:
        www = PAGE | {"title": title, "storage": "db"}
        return resolved({"stack": "shop", "servers": {"db": {"kind": "depot"}, "www": www}})

    world.up(stack("One"))
    address = "www/storage_password"
    old = world.secrets[address].value.reveal()
    world.store(dict(world.secrets) | {address: vault.record(address, Secret("new"), NOW)})
    plan = world.make_plan(stack("Two"))
    wait = next(o.action for o in plan.operations if o.id == "ready:www")
    receipt = world.engine.boxes["shop-db.grant.www.storage"].labels
    assert not world.run(refused=wait).ok
    (data,) = [m.volume for m in world.box("db").mounts if m.target == "/data"]
    assert read_text(world.engine.volumes[data].files, "www_storage") == old
    assert world.engine.boxes["shop-db.grant.www.storage"].labels == receipt
    assert world.box("www").running
    assert world.up(stack("Two")).ok
    assert read_text(world.engine.volumes[data].files, "www_storage") == "new"


ROTATED = "www/storage_password"


def shop(title: str = "One", *, rolling: bool = False, other: str = "One") -> Any:
    """A page that stores with one and reads from another, behind a gate."""
    www = {
        "kind": "page",
        "title": title,
        "rolling": rolling,
        "domains": ["www.test"],
        "storage": "db",
        "reads": ["other"],
    }
    servers = {"edge": {"kind": "gate"}, "db": {"kind": "depot"}, "other": PAGE | {"title": other}, "www": www}
    return resolved({"stack": "shop", "servers": servers})


def passwords(world: World) -> tuple[str, str]:
    """The one that the page logs in with, in its newest container that runs, and the one that its depot takes."""
    serving = [b for b in world.engine.boxes.values() if b.labels.get(naming.SERVER) == "www" and b.running]
    secrets = [m.volume for b in serving for m in b.mounts if m.target == SECRETS_PATH][-1]
    has, takes = world.engine.volumes[secrets].files, world.engine.volumes["shop_db_data"].files
    return read_text(has, "storage_password"), read_text(takes, "www_storage")


@pytest.mark.parametrize("rolling", [False, True])
def test_whatever_fails_the_page_that_serves_can_log_in(rolling: bool) -> None:
    """Its password is rotated in the same change, in which its other provider is replaced as well."""
    up, changed = World(), shop("Two", rolling=rolling, other="Two")
    up.up(shop(rolling=rolling))
    up.store(dict(up.secrets) | {ROTATED: vault.record(ROTATED, Secret("new"), NOW)})
    operations, kept = up.make_plan(changed).operations, 0
    for refused in operations:
        world = up.copy()
        plan = world.make_plan(changed)
        world.run(refused=the(plan, refused.id).action)
        has, takes = passwords(world)
        assert has == takes, refused.id
        kept += has != "new"
        assert world.up(changed).ok
        assert passwords(world) == ("new", "new")
        assert faults(world, changed) == []
    assert kept > len(operations) / 3


def test_a_provider_alone_is_not_told_a_new_password() -> None:
    """`up -s` of it leaves its consumers alone; that of the consumer brings it to both."""
    world = World()
    world.up(shop())
    world.store(dict(world.secrets) | {ROTATED: vault.record(ROTATED, Secret("new"), NOW)})
    before = world.starts()
    assert world.up(shop(), "db").ok
    assert world.starts() == before
    assert len(set(passwords(world))) == 1
    assert world.up(shop(), "www").ok
    assert passwords(world) == ("new", "new")


def test_a_new_password_that_a_killed_run_has_told_is_taken_back_as_well() -> None:
    """Wherever it was killed: when the next one fails, the old page serves on and can log in."""
    up, changed, kept = World(), shop("Two"), 0
    up.up(shop())
    up.store(dict(up.secrets) | {ROTATED: vault.record(ROTATED, Secret("new"), NOW)})
    up.make_plan(changed)
    whole = up.copy()
    whole.plan, whole.secrets = up.plan, up.secrets
    before = len(whole.engine.writes)
    assert whole.run().ok
    for writes in range(len(whole.engine.writes) - before):
        world = up.copy()
        world.plan, world.secrets = up.plan, up.secrets
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        wait = [o.action for o in world.make_plan(changed).operations if o.id == "ready:www"]
        if wait:
            assert not world.run(refused=wait[0]).ok
            has, takes = passwords(world)
            assert has == takes, writes
            kept += has != "new"
        assert world.up(changed).ok
        assert passwords(world) == ("new", "new")
    assert kept > 5


def test_reloadable_files_know_a_new_password_once_it_is_needed() -> None:
    """They are reloaded when the new consumer is ready; whatever fails before, the one that serves can log in."""
    up, address = World(), "www/relay_password"

    def stack(title: str) -> Any:
        www = PAGE | {"title": title, "relay": "edge", "domains": ["www.test"]}
        return resolved({"stack": "shop", "servers": {"edge": {"kind": "gate"}, "www": www}})

    def known(world: World) -> bool:
        serving = [b for b in world.engine.boxes.values() if b.labels.get(naming.SERVER) == "www" and b.running]
        secrets = [m.volume for b in serving for m in b.mounts if m.target == SECRETS_PATH][-1]
        return read_text(world.engine.volumes[secrets].files, "relay_password") in world.box("edge").memory["routes"]

    up.up(stack("One"))
    up.store(dict(up.secrets) | {address: vault.record(address, Secret("new"), NOW)})
    edge = up.starts()["edge"]
    failing = [o.id for o in up.make_plan(stack("Two")).operations if o.id.endswith(":www")]
    assert {"create:www", "start:www", "ready:www"} <= set(failing)
    for id_ in failing:
        world = up.copy()
        plan = world.make_plan(stack("Two"))
        assert not world.run(refused=the(plan, id_).action).ok
        assert known(world), id_
        assert world.up(stack("Two")).ok
        assert known(world)
        assert "new" in world.box("edge").memory["routes"]
        assert world.starts()["edge"] == edge
        assert not world.make_plan(stack("Two"))


def test_reloadable_files_of_a_failed_one_are_not_left_current() -> None:
    """The old one is started again with the files that it had."""
    world = World()

    def stack(memory: str, *pages: str) -> Any:
        servers = {p: {"kind": "page", "domains": [f"{p}.test"]} for p in pages}
        return resolved(
            {"stack": "shop", "servers": {"edge": {"kind": "gate", "resources": {"memory": memory}}} | servers}
        )

    world.up(stack("32M", "a"))
    routes = world.box("edge").memory["routes"]
    plan = world.make_plan(stack("48M", "a", "b"))
    wait = next(o.action for o in plan.operations if o.id == "ready:edge")
    assert not world.run(refused=wait).ok
    assert world.box("edge").memory["routes"] == routes
    assert world.up(stack("48M", "a", "b")).ok
    assert faults(world, stack("48M", "a", "b")) == []


def test_a_configuration_that_is_refused_is_a_failure_as_well() -> None:
    """It was told before the old one stopped: `history` tells it, and its files have gone."""
    world = World()
    stack = {"stack": "shop", "servers": {"db": {"kind": "depot"}}}
    world.up(resolved(stack))
    volumes = set(world.engine.volumes)
    plan = world.make_plan(resolved(stack | {"servers": {"db": {"kind": "depot", "depth": 2}}}))
    check = next(o.action for o in plan.operations if o.id == "check:db")
    assert not world.run(refused=check).ok
    assert [(g.number, g.result) for g in history(world.engine.observe("shop"))["db"]] == [
        (2, "failed"),
        (1, "running"),
    ]
    assert set(world.engine.volumes) == volumes
    assert world.make_plan(resolved(stack)).operations == ()


def test_what_a_failing_program_says_is_kept_short_and_without_secrets() -> None:
    """The record's label outlives the container: no value that the store knows is in it, nor in the report, nor a flood."""
    values: list[str] = []

    def loud(engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        if values and command == ("bash", "/config/check"):
            return 1, "\n".join(["x" * 100_000, *(f"login with {v}: denied" for v in values)])
        return programs(engine, box, command, stdin)

    world = World(MemoryEngine(loud))

    def stack(depth: int) -> Any:
        www = PAGE | {"storage": "db"}
        return resolved({"stack": "shop", "servers": {"db": {"kind": "depot", "depth": depth}, "www": www}})

    world.up(stack(1))
    key = "-----BEGIN KEY-----\n" + "k" * 64 + "\n-----END KEY-----\n"
    more = {n: vault.record(n, Secret(v), NOW) for n, v in (("a", "swordfish"), ("b", "swordfish2"), ("c", key))}
    world.store(dict(world.secrets) | more)
    world.make_plan(stack(2))
    values += [r.value.reveal() for r in world.secrets.values() if r.address != "c"] + ["k" * 64]
    report = world.run()
    (outcome,) = report.failed
    (box,) = [b for b in world.engine.boxes.values() if naming.RECORD in b.labels]
    assert not [v for v in values if v in box.labels[naming.RECORD] or v in "".join(outcome.log)]
    assert "login with <secret b>: denied" in outcome.log
    failed = history(world.engine.observe("shop"))["db"][0]
    assert "login with <secret c>: denied" in failed.log
    assert max(map(len, failed.log)) <= 300


def test_a_container_whose_image_has_gone_leaves_no_record() -> None:
    """Nothing can be made of an image that was removed by force: `up` replaces its server all the same."""
    world = World()
    world.up(site("One"))
    world.engine.stop(world.box("www").name, 0)
    world.engine.images.discard(world.box("www").image, used=False)
    report = world.up(site("Two"))
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    assert told(world) == [(2, "running")]
    assert world.make_plan(site("Two")).operations == ()
