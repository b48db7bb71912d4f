"""Servers that are stopped for their successor: what must be good before the stop, and how long they are away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from consolidate import naming, vault
from consolidate.actions import Action, CheckConfiguration, RemoveContainer, StartContainer, StopContainer, WaitReady
from consolidate.desire import desire
from consolidate.desired import DesiredServer
from consolidate.kinds import Catalogue, data_folder
from consolidate.loader import load
from consolidate.plan import Operation
from consolidate.report import Event
from consolidate.resolve import resolve
from consolidate.secret import Secret
from tests.planned import KIND, Planned
from tests.plans import READY, Programs, an_engine, create, run
from tests.shop import PAGE, acts, shop, the
from tests.world import NOW, World, faults

DEEP = {"kind": "depot", "depth": 13}
DEEPER = {"kind": "depot", "depth": 14}


@pytest.fixture
def world() -> World:
    """The shop, up."""
    world = World()
    assert world.up(shop()).ok
    return world


def of(server: str, id_: str, action: Action, needs: Sequence[str] = (), undo: Sequence[Action] = ()) -> Operation:
    return Operation(id_, action, server, "a test", tuple(needs), undo=tuple(undo))


# The check before the stop


def test_a_configuration_is_checked_before_anything_of_the_old_one_is_touched(world: World) -> None:
    """The stop, the new container and the reloadable files, which the old one reads too, all wait for the check."""
    plan = world.make_plan(shop(edge={"kind": "gate", "motto": "x"}, new={"kind": "page", "domains": ["n.test"]}))
    for id_ in ("create:edge", "live:edge", "stop:shop-edge-1"):
        assert "check:edge" in world.plan_needs(id_), id_
    check = the(plan, "check:edge").action
    assert isinstance(check, CheckConfiguration)
    assert f"files:{check.files}" in the(plan, "check:edge").needs
    assert world.run().ok
    assert "n.test new:8000" in world.box("edge").memory["routes"]


def test_the_check_has_the_configuration_and_nothing_else(world: World) -> None:
    """No data, no network, no port, no name of a server; user, limits and hardening are those of the server."""
    plan = world.make_plan(shop(db=DEEPER | {"publish": ["9001:80"]}))
    action = the(plan, "check:db").action
    assert isinstance(action, CheckConfiguration)
    made, server = action.creation, world.desired.servers["db"].container  # type: ignore[union-attr]
    assert {m.target for m in made.container.mounts} == {"/config", "/run/secrets"}
    assert all(m.read_only for m in made.container.mounts)
    assert (made.networks, made.container.publish, made.once) == ((), (), True)
    assert naming.SERVER not in dict(made.labels)
    same = ("image", "user", "capabilities", "read_only", "tmpfs", "limits", "environment", "init")
    assert [getattr(made.container, n) for n in same] == [getattr(server, n) for n in same]


def test_a_refused_configuration_stops_nothing(world: World) -> None:
    """No container is stopped or started, and nothing is left of the try but its record for `history`."""
    before = world.starts()
    boxes, volumes = set(world.engine.boxes), set(world.engine.volumes)
    report = world.up(shop(db=DEEP))
    assert [o.operation.id for o in report.failed] == ["check:db"]
    assert report.failed[0].log == ("thirteen is too deep",)
    assert "db refuses its new configuration" in report.failed[0].message
    assert world.starts() == before
    assert set(world.engine.boxes) - boxes == {naming.record("shop", "db", 2)}
    assert set(world.engine.volumes) == volumes
    assert not world.make_plan(shop())
    assert world.up(shop(db=DEEPER)).ok
    assert faults(world, shop(db=DEEPER)) == []


@pytest.mark.parametrize("servers", [{"db": {"kind": "depot"}}, {"db": None, "www": {"kind": "page"}}])
def test_nothing_is_checked_where_nothing_is_stopped(world: World, servers: dict[str, object]) -> None:
    """No first start, no start of what had stopped and no removal costs a check."""
    assert "check" not in acts(World().make_plan(shop()))
    world.box("db").end(1)
    assert "check" not in acts(world.make_plan(shop(**servers)))


def test_a_check_that_a_killed_run_has_left_is_removed(world: World) -> None:
    """Its container and its volume go with the next `up`, whether or not that checks anything."""
    for wanted in (shop(), shop(edge={"kind": "gate", "motto": "x"})):
        attempt = world.copy()
        attempt.make_plan(shop(edge={"kind": "gate", "motto": "x"}))
        attempt.engine.fail_on(lambda name, args: name == "remove" and args[0] == "shop-edge.check")
        attempt.run()
        attempt.engine.revive()
        assert "shop-edge.check" in attempt.engine.boxes
        assert attempt.up(wanted).ok
        assert faults(attempt, wanted) == []


# How long it was away


def test_the_time_away_is_told_from_the_stop_until_it_is_ready() -> None:
    """It counts the stop, the start and the probes, for the server that was stopped alone."""
    engine = an_engine(Programs(new=3), "old")
    stop, made = engine.stop, time.monotonic()

    def slow(container: str, grace: float | None) -> None:
        time.sleep(0.2)
        stop(container, grace)

    engine.stop = slow  # type: ignore[method-assign]
    events: list[Event] = []
    report = run(
        engine,
        of("db", "create", create("new")),
        of("db", "stop", StopContainer("old", 1), ["create"]),
        of("db", "start", StartContainer("new"), ["stop"]),
        of("db", "ready", WaitReady("new", READY), ["start"]),
        events=events,
    )
    away = {o.operation.id: o.away for o in report.outcomes if o.away is not None}
    assert set(away) == {"ready"}
    assert 0.2 < away["ready"] < time.monotonic() - made
    told = [e.to_json()["away"] for e in events if e.operation.id == "ready" and e.status == "done"]
    assert told == [round(away["ready"], 3)]
    assert report.replaced == {"db"}


def test_what_is_brought_back_is_told_with_its_time_away() -> None:
    """The old one is seen to be ready after the failure, with a time of its own, and that ends the time away."""
    engine = an_engine(Programs(new=1000), "old")
    back = (RemoveContainer("new"), StartContainer("old"), WaitReady("old", None))
    report = run(
        engine,
        of("db", "create", create("new")),
        of("db", "stop", StopContainer("old", 1), ["create"]),
        of("db", "start", StartContainer("new"), ["stop"], back),
        of("db", "ready", WaitReady("new", READY), ["start"], back),
        timeout=0.3,
    )
    (failed,) = report.failed
    assert failed.undone == ("remove new", "start old", "wait old")
    assert failed.away
    assert failed.away > 0.3
    assert engine.boxes["old"].running


def test_who_never_stops_is_never_away(world: World) -> None:
    """A first start and a rolling update tell no time, though the rolled one is stopped in the end."""
    first = World()
    reports = [first.up(shop(www=PAGE | {"rolling": True}))]
    reports.append(first.up(shop(www=PAGE | {"rolling": True, "title": "New"})))
    assert [o.operation.id for r in reports for o in r.outcomes if o.away is not None] == []
    again = world.up(shop(db=DEEPER))
    assert [o.operation.id for o in again.outcomes if o.away is not None] == ["ready:db"]


# Reloaded, where a replacement would be a stop


def test_files_are_reloaded_where_the_manifest_says_so_of_what_publishes(tmp_path: Path) -> None:
    """A word of a manifest sees what the stack publishes; the server without it is replaced as ever."""
    planned = Planned(tmp_path)
    manifest = KIND.replace("reload: true", 'reload: "{{ publish != [] }}"')
    planned.put("kinds/mine/kind.yml", f"{manifest}update: rolling\nreload: {{signal: SIGHUP}}\n")
    planned.put("kinds/mine/files/settings.j2", "the same\n")
    for publish, done in (("", {"create", "start", "remove"}), (", publish: ['9001:80']", {"write live files"})):
        planned.stack(publish)
        planned.up()
        planned.stack(f"{publish}, words: good evening")
        plan = planned.up().plan
        assert {"create", "start", "remove", "write live files"} & set(acts(plan)) == done


SETTINGS: dict[str, dict[str, Any]] = {
    "web": {
        "spa": True,
        "not_found": "/lost.html",
        "redirects": {"/old": "/new"},
        "listing": True,
        "cache": "1h",
        "charset": "iso-8859-1",
    },
    "php": {
        "root": "public",
        "front_controller": "index.php",
        "writable": ["uploads"],
        "memory_limit": "99M",
        "upload_max": "3M",
        "time_limit": "9s",
        "workers": 3,
        "ini": {"date.timezone": "Europe/Berlin"},
    },
}


@pytest.mark.parametrize(("kind", "setting"), [(k, s) for k, settings in SETTINGS.items() for s in settings])
def test_a_setting_of_a_published_site_changes_reloadable_files_alone(kind: str, setting: str, tmp_path: Path) -> None:
    """One that is routed keeps its files in the volume of its generation, and has no live one."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("here")

    def desired(**more: Any) -> DesiredServer:
        server = {"kind": kind, "content": "./site", **more}
        (tmp_path / "stack.yml").write_text(yaml.safe_dump({"stack": "t", "servers": {"www": server}}))
        found = resolve(load(tmp_path / "stack.yml"), Catalogue([data_folder("templates")]), tmp_path)
        records = {a: vault.record(a, Secret("x"), NOW) for a in vault.needed(found)}
        return desire(found, records).servers["www"]

    change = {setting: SETTINGS[kind][setting]}
    before, after = desired(publish=["9001:80"]), desired(publish=["9001:80"], **change)
    assert before.container.fingerprint == after.container.fingerprint
    assert before.live
    assert after.live
    assert before.live.applied != after.live.applied
    assert before.trial
    assert not before.rolling
    before, after = desired(), desired(**change)
    assert before.container.fingerprint != after.container.fingerprint
    assert before.live is after.live is None
