"""Data is dumped before an update, by example: what is dumped, how long it is kept, and what a dump that fails stops."""

from __future__ import annotations

import json
import tarfile
import zlib
from typing import Any

import pytest

from consolidate import naming
from consolidate.actions import DumpData, LoadData, RestoreVolumes, WaitReady
from consolidate.diff import Refresh
from consolidate.errors import OperationFailed, UsageError
from consolidate.generations import FAILED, check_restored, history
from consolidate.lifecycle import down_plan, restart_plan
from consolidate.plan import Plan
from consolidate.resolved import Resolved
from tests.memory_parts import Entry, Killed, Store
from tests.shop import the
from tests.world import World, faults, in_order, resolved

STAMPS = "20240501T120000", "20240601T120000", "20240701T120000"


def shop(generations: int = 3, **changes: Any) -> Resolved:
    servers = {"www": {"kind": "page", "domains": ["www.test"], "storage": "db"}, "db": {"kind": "depot"} | changes}
    return resolved({"stack": "shop", "generations": generations, "servers": servers})


@pytest.fixture
def up() -> World:
    world = World()
    world.up(shop())
    return world


def update(world: World, stamp: str = STAMPS[0], stack: Resolved | None = None) -> Plan:
    """The plan of an update that has found something new for the database."""
    assert world.desired is not None
    tag = naming.refreshed_image(world.desired.servers["db"].container.image, stamp)
    world.engine.images.add(tag)
    return world.make_plan(stack or shop(), refreshes={"db": Refresh(tag, "new")})


def dumps(world: World) -> dict[str, Store]:
    return {n: v for n, v in world.engine.volumes.items() if v.labels.get(naming.ROLE) == "dump"}


def text(dump: Store) -> str:
    """A dump's text; its last file tells how many parts it has."""
    told = json.loads(dump.files["complete"].data)
    packed = b"".join(dump.files[f"{part:06d}.gz"].data for part in range(told["parts"]))
    found = zlib.decompress(packed, wbits=31)
    assert len(found) == told["size"]
    return found.decode()


def holders(world: World) -> dict[str, set[str]]:
    """Each dump, and the records that hold it."""
    records = [b for b in world.engine.boxes.values() if b.labels.get(naming.HELPER) == "generation"]
    return {n: {b.name for b in records if n in {m.volume for m in b.mounts}} for n in dumps(world)}


def test_the_data_is_dumped_before_anything_else_is_done_to_its_server(up: World) -> None:
    """All of it, by the server's own program; the record of the generation that it is of holds it."""
    update(up)
    assert {"dump:db"} <= up.plan_needs("create:db") & up.plan_needs("stop:shop-db-1")
    assert up.run().ok
    (dump,) = dumps(up).values()
    assert dump.labels[naming.GENERATION] == "1"
    account, password = text(dump).splitlines()[0].split()
    assert (account, text(dump).splitlines()[1:]) == ("www_storage", ["end of"])
    assert password == up.secrets["www/storage_password"].value.reveal()
    assert holders(up) == {"shop_db_dump_2": {naming.record("shop", "db", 1)}}
    assert faults(up, shop()) == []
    assert not up.make_plan(shop())


def test_a_dump_that_fails_leaves_its_server_alone(up: World) -> None:
    """Also one that seems to have worked but does not end as it should; nothing of it is left."""
    before = up.starts()
    for code, said in ((1, "end of it\n"), (0, "www_storage x\n"), (0, "")):
        plan = update(up)
        ends = {("bash", "/config/dump"): (code, said)}
        up.engine.program = lambda _, __, command, ___, ends=ends: ends.get(command, (0, ""))
        report = up.run()
        assert [o.operation.id for o in report.failed] == ["dump:db"]
        assert {"create:db", "stop:shop-db-1"} <= {o.operation.id for o in report.skipped}
        assert (up.starts(), dumps(up)) == (before, {})
        assert plan.operations


def test_a_generation_that_fails_leaves_the_dump_with_its_record(up: World) -> None:
    """The old one, which serves again, may not like what the new one has done to its data."""
    plan = update(up)
    assert not up.run(refused=the(plan, "ready:db").action).ok
    assert holders(up) == {"shop_db_dump_2": {naming.record("shop", "db", 2)}}
    assert not up.make_plan(shop())
    update(up, STAMPS[1])
    assert up.run().ok
    assert holders(up) == {
        "shop_db_dump_2": {naming.record("shop", "db", 1), naming.record("shop", "db", 2)},
        "shop_db_dump_3": {naming.record("shop", "db", 1)},
    }
    assert faults(up, shop()) == []


def test_a_dump_goes_with_the_last_record_that_holds_it(up: World) -> None:
    """As many are kept as generations."""
    for stamp in STAMPS:
        update(up, stamp, shop(1))
        assert up.run().ok
        assert not up.make_plan(shop(1))
    assert holders(up) == {"shop_db_dump_4": {naming.record("shop", "db", 3)}}


def test_what_does_not_run_is_dumped_as_it_lies(up: World) -> None:
    """Its program can't be asked: the volumes are copied."""
    up.engine.boxes["shop-db-1"].end(1)
    action = the(update(up), "dump:db").action
    assert isinstance(action, DumpData)
    assert (action.container, action.data) == ("", (("shop_db_data", "data"),))
    assert up.run().ok
    (dump,) = dumps(up).values()
    assert json.loads(dump.files["complete"].data) == {"volumes": ["data"]}
    assert dump.files.keys() == {"data.tar.gz", "complete"}
    assert faults(up, shop()) == []


def test_without_a_way_back_there_is_no_dump(up: World) -> None:
    """Where no generation is kept, in any other change than an update, and of servers that have no data."""
    assert "dump:db" not in {o.id for o in update(up, STAMPS[0], shop(0)).operations}
    changed = up.make_plan(shop(resources={"memory": "48M"}))
    assert {"create:db", "dump:db"} & {o.id for o in changed.operations} == {"create:db"}
    page = up.make_plan(shop(), refreshes={"www": Refresh("debian:bookworm-slim", "new")})
    assert [o.id for o in page.operations if isinstance(o.action, DumpData)] == []


def test_a_kill_loses_no_dump_of_a_generation_that_has_gone(up: World) -> None:
    """Wherever: after the next `up` there is a dump of the old data, or the old one serves; and none belongs to nobody."""
    plan = update(up)
    whole = up.copy()
    whole.plan, whole.secrets = plan, up.secrets
    before = len(whole.engine.writes)
    assert whole.run().ok
    count = len(whole.engine.writes) - before
    assert count > 10
    for writes in range(count):
        world = up.copy()
        world.plan, world.secrets = plan, up.secrets
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        world.up(shop())
        assert faults(world, shop()) == []
        assert not world.make_plan(shop())
        held = holders(world)
        assert all(held.values()), held
        assert held or world.box("db").name == "shop-db-1"


# The way back


def accounts(world: World) -> dict[str, str]:
    """What the database holds."""
    return {n: e.data.decode() for n, e in world.engine.volumes["shop_db_data"].files.items()}


def write(world: World, name: str, value: str) -> None:
    world.engine.volumes["shop_db_data"].files[name] = Entry(tarfile.REGTYPE, 0o644, 0, 0, value.encode())


@pytest.fixture
def updated(up: World) -> World:
    """The database has a new image, and has been written to since."""
    write(up, "note", "old")
    update(up)
    assert up.run().ok
    write(up, "note", "new")
    write(up, "later", "x")
    return up


@pytest.fixture(params=["by its program", "as it lies"])
def dumped(request: pytest.FixtureRequest, up: World) -> World:
    """The same, with the dump made in either way."""
    if request.param == "as it lies":
        up.engine.boxes["shop-db-1"].end(1)
    request.getfixturevalue("updated")
    return up


def test_a_rollback_brings_the_data_of_then_back(dumped: World) -> None:
    """With the image of then; who needs it is told to it anew. What was there since is dumped, and can be had again."""
    old = dumped.engine.images[next(i for i in dumped.engine.images if i.startswith("consolidate/depot:"))]
    password = accounts(dumped)["www_storage"]
    prepared = dumped.roll_back(shop(), "db", with_data=True)
    assert {"dump:db", "create:db"} <= dumped.plan_needs("restore:db")
    assert {"stop:shop-db-2", "begin-restore:db"} <= dumped.plan_needs("restore:db")
    assert "restore:db" in dumped.plan_needs("start:db")
    assert [o.server for o in prepared.plan.operations if o.server != "db"] == []
    assert dumped.run().ok
    assert accounts(dumped) == {"www_storage": password, "note": "old"}
    assert dumped.box("db").image_id == old
    assert faults(dumped, shop()) == []
    assert not dumped.make_plan(shop())
    dumped.roll_back(shop(), "db", 2, with_data=True)
    assert dumped.run().ok
    assert accounts(dumped) == {"www_storage": password, "note": "new", "later": "x"}
    assert faults(dumped, shop()) == []


def test_a_rollback_that_fails_leaves_the_data_as_it_was(dumped: World) -> None:
    """Whatever fails, after the data was touched or before."""
    before = accounts(dumped)
    operations = dumped.roll_back(shop(), "db", with_data=True).plan.operations
    for operation in operations:
        if operation.id.startswith(("restore", "start", "first", "load", "ready", "dump", "create")):
            world = dumped.copy()
            prepared = world.roll_back(shop(), "db", with_data=True)
            assert not world.run(refused=the(prepared.plan, operation.id).action).ok
            assert accounts(world) == before, operation.id
            assert world.box("db").name == "shop-db-2"
            assert world.up(shop()).ok
            assert faults(world, shop()) == []


def test_a_rollback_may_be_killed_anywhere(dumped: World) -> None:
    """Where its data may not be whole nothing else is done until it is finished; else the next `up` is enough."""
    old, new = {"note": "old"}, {"note": "new", "later": "x"}
    whole = dumped.copy()
    whole.roll_back(shop(), "db", with_data=True)
    before = len(whole.engine.writes)
    assert whole.run().ok
    count, cut_off = len(whole.engine.writes) - before, 0
    for writes in range(count):
        world = dumped.copy()
        world.roll_back(shop(), "db", with_data=True)
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        try:
            check_restored(world.engine.observe("shop"))
        except OperationFailed as error:
            cut_off += 1
            assert "consolidate rollback db 1 --with-data" in str(error)
            world.roll_back(shop(), "db", with_data=True)
            assert world.run().ok
            check_restored(world.engine.observe("shop"))
        assert world.up(shop()).ok
        assert faults(world, shop()) == []
        assert not world.make_plan(shop())
        found = {n: v for n, v in accounts(world).items() if n != "www_storage"}
        assert found == old or (found == new and world.box("db").name == "shop-db-2")
    assert 5 < cut_off < count


def test_a_rollback_that_was_cut_off_goes_on_with_the_same_dump(up: World) -> None:
    """After an update that failed, what is there belongs to the same generation, and its dump is the newer one."""
    write(up, "note", "old")
    plan = update(up)
    assert not up.run(refused=the(plan, "ready:db").action).ok
    write(up, "note", "broken")
    whole = up.copy()
    whole.roll_back(shop(), "db", with_data=True)
    before = len(whole.engine.writes)
    assert whole.run().ok
    assert accounts(whole)["note"] == "old"
    cut_off = 0
    for writes in range(len(whole.engine.writes) - before):
        world = up.copy()
        world.roll_back(shop(), "db", with_data=True)
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        if world.observe(shop()).helper("shop-db.restore"):
            cut_off += 1
            world.roll_back(shop(), "db", with_data=True)
            assert world.run().ok
            assert accounts(world)["note"] == "old", writes
            assert world.up(shop()).ok
            assert faults(world, shop()) == []
    assert cut_off > 5


def test_a_dump_that_nothing_holds_is_none(up: World) -> None:
    """It was left by a killed run, and may not be whole."""
    write(up, "note", "old")
    update(up)
    up.engine.fail_on(lambda name, args: name == "put" and up.engine.kill_after(0) is None)
    with pytest.raises(Killed):
        up.run()
    up.engine.revive()
    assert holders(up) == {"shop_db_dump_2": set()}
    with pytest.raises(UsageError, match="no dump of the data of db"):
        up.roll_back(shop(), "db", with_data=True)
    write(up, "note", "new")
    update(up)
    assert up.run().ok
    assert holders(up) == {"shop_db_dump_3": {naming.record("shop", "db", 1)}}
    assert "note new" in text(dumps(up)["shop_db_dump_3"])


def test_an_undo_that_is_interrupted_leaves_word_of_the_data(dumped: World) -> None:
    """Wherever it was: the old server is not started on data that is half there."""
    prepared = dumped.roll_back(shop(), "db", with_data=True)
    ready = the(prepared.plan, "ready:db")
    for kind in (RestoreVolumes, WaitReady, LoadData):
        if not any(isinstance(a, kind) for a in ready.undo):
            continue
        world = dumped.copy()
        world.roll_back(shop(), "db", with_data=True)
        executor = world.executor()
        executor.refused, executor.interrupted = the(world.plan, "ready:db").action, kind
        with in_order():
            assert not executor.run(world.plan).ok
        assert world.observe(shop()).helper("shop-db.restore"), kind
        if kind is RestoreVolumes:
            assert not world.engine.boxes["shop-db-2"].running
        world.roll_back(shop(), "db", with_data=True)
        assert world.run().ok
        assert accounts(world)["note"] == "old"


def test_what_a_killed_restore_has_left_goes_before_the_next(dumped: World) -> None:
    """It may still be at work on the same volumes, and has the helper's name."""
    dumped.roll_back(shop(), "db", with_data=True)
    dumped.engine.fail_on(lambda name, args: name == "start" and dumped.engine.kill_after(0) is None)
    with pytest.raises(Killed):
        dumped.run()
    dumped.engine.revive()
    dumped.engine.create_helper(
        "shop-db.dump", {"io.consolidate.stack": "shop", naming.HELPER: "dump", naming.OF: "db"}, {}
    )
    dumped.roll_back(shop(), "db", with_data=True)
    assert "remove:shop-db.dump" in dumped.plan_needs("restore:db")
    assert dumped.run().ok


def test_a_container_that_cannot_be_created_leaves_a_record_and_nothing_else(up: World) -> None:
    """Also in an update with a dump, whose data nobody has touched."""
    plan = update(up)
    assert not up.run(refused=the(plan, "create:db").action).ok
    assert dumps(up) == {}
    assert [(g.number, g.result) for g in history(up.observe(shop()))["db"]] == [(2, FAILED), (1, "running")]
    assert not up.make_plan(shop())
    assert faults(up, shop()) == []


@pytest.fixture
def cut_off(updated: World) -> World:
    """A way back with data was killed when the data was half there."""
    updated.roll_back(shop(), "db", with_data=True)
    updated.engine.fail_on(lambda name, _: name == "start" and updated.engine.kill_after(0) is None)
    with pytest.raises(Killed):
        updated.run()
    updated.engine.revive()
    assert updated.observe(shop()).helper("shop-db.restore")
    return updated


def test_while_data_is_not_whole_nothing_else_is_done(cut_off: World) -> None:
    """No way back of another server, which would start this one, no restart, and no `down` that keeps what is there."""
    for server, with_data in (("www", True), ("www", False), ("db", False), (None, False)):
        with pytest.raises(OperationFailed, match="the data of db is not whole"):
            cut_off.roll_back(shop(), server, with_data=with_data)
    for server in ("db", "www"):
        with pytest.raises(OperationFailed, match="the data of db is not whole"):
            restart_plan(cut_off.observe(shop()), [server])
    for servers in ([], ["db"]):
        with pytest.raises(OperationFailed, match="the data of db is not whole"):
            down_plan(cut_off.observe(shop()), volumes=False, servers=servers)
    assert down_plan(cut_off.observe(shop()), volumes=False, servers=["www"])
    cut_off.plan = down_plan(cut_off.observe(shop()), volumes=True)
    assert cut_off.run().ok
    assert [n for n, b in cut_off.engine.boxes.items() if b.labels.get(naming.HELPER) != "lock"] == []
    assert cut_off.engine.volumes == {}


def test_a_dump_outlives_down(dumped: World) -> None:
    """With the record that holds it, so that there is the way back to it, also if the next `up` is without its server."""
    for _ in range(2):
        dumped.plan = down_plan(dumped.observe(shop()), volumes=False)
        assert dumped.run().ok
        assert holders(dumped) == {"shop_db_dump_2": {naming.record("shop", "db", 1)}}
    gone = resolved({"stack": "shop", "servers": {"www": {"kind": "page", "domains": ["www.test"]}}})
    assert dumped.up(gone).ok
    assert not dumped.make_plan(gone)
    assert dumped.up(shop()).ok
    assert not dumped.make_plan(shop())
    assert holders(dumped) == {"shop_db_dump_2": {naming.record("shop", "db", 1)}}
    dumped.roll_back(shop(), "db", with_data=True)
    assert dumped.run().ok
    assert accounts(dumped)["note"] == "old"
    dumped.plan = down_plan(dumped.observe(shop()), volumes=True)
    assert dumped.run().ok
    assert dumped.engine.volumes == {}


@pytest.mark.parametrize("how", ["down", "without its server"])
def test_the_dump_of_an_update_that_failed_outlives_its_server(up: World, how: str) -> None:
    """What it is of was never replaced: a record is left of it, and there is the way back, with the image of then."""
    write(up, "note", "old")
    plan = update(up)
    assert not up.run(refused=the(plan, "ready:db").action).ok
    write(up, "note", "broken")
    image = up.box("db").image_id
    if how == "down":
        up.plan = down_plan(up.observe(shop()), volumes=False)
        assert up.run().ok
        assert not down_plan(up.observe(shop()), volumes=False)
    else:
        gone = resolved({"stack": "shop", "servers": {"www": {"kind": "page", "domains": ["www.test"]}}})
        assert up.up(gone).ok
        assert not up.make_plan(gone)
    assert [(g.number, g.result) for g in history(up.observe(shop()))["db"]] == [(2, "failed"), (1, "stopped")]
    prepared = up.roll_back(shop(), "db", with_data=True)
    assert [n for n in prepared.plan.notes if "does not come back" in n] == []
    assert up.run().ok
    assert (accounts(up)["note"], up.box("db").image_id) == ("old", image)
    assert up.up(shop()).ok
    assert faults(up, shop()) == []
    up.plan = down_plan(up.observe(shop()), volumes=True)
    assert up.run().ok
    assert up.engine.volumes == {}


@pytest.mark.parametrize("fault", ["no packing", "cut short", "no list", "another list"])
def test_a_damaged_dump_is_told_and_what_was_there_comes_back(updated: World, fault: str) -> None:
    files = updated.engine.volumes["shop_db_dump_2"].files
    part, told = files["000000.gz"], files["complete"]
    match fault:
        case "no packing":
            part.data = b"no gzip"
        case "cut short":
            part.data = part.data[:-10]
        case "no list":
            told.data = b"{"
        case _:
            told.data = b"{}"
    before = accounts(updated)
    updated.roll_back(shop(), "db", with_data=True)
    report = updated.run()
    assert [o.operation.id for o in report.failed] == ["load:db"]
    assert "the dump of db in the volume shop_db_dump_2 is damaged" in report.failed[0].message
    assert accounts(updated) == before
    assert updated.box("db").name == "shop-db-2"


def test_there_must_be_a_dump(up: World) -> None:
    """Without an update there is none; of several servers none is meant."""
    with pytest.raises(UsageError, match="no dump of the data of db"):
        up.roll_back(shop(), "db", with_data=True)
    with pytest.raises(UsageError, match="for one server"):
        up.roll_back(shop(), None, with_data=True)
