"""Servers with several replicas, by example, on the engine in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidate import naming, vault
from consolidate.actions import CreateContainer, NameOnNetwork, RemoveContainer, StopContainer, SwitchRoute
from consolidate.errors import UsageError
from consolidate.fit import host_problems, host_warnings
from consolidate.generations import history
from consolidate.lifecycle import down_plan, restart_plan
from consolidate.listing import log_lines, running_container, server_rows
from consolidate.observed import HostFacts
from consolidate.resolved import Resolved
from consolidate.secret import Secret
from consolidate.source import Source, load_stack
from tests.memory_engine import MemoryEngine
from tests.shop import the
from tests.world import NOW, World, faults, programs, resolved

ALL = ["www", "www.2", "www.3"]


def site(count: int, title: str = "One", *, edge: bool = True, **more: Any) -> Resolved:
    www = {"kind": "page", "title": title, "domains": ["www.test"], "storage": "db", "replicas": count, **more}
    servers: dict[str, Any] = {"edge": {"kind": "gate"}} if edge else {}
    return resolved({"stack": "shop", "servers": servers | {"db": {"kind": "depot"}, "www": www}})


@pytest.fixture
def world() -> World:
    world = World()
    assert world.up(site(3)).ok
    return world


def up(world: World, stack: Resolved, **more: Any) -> list[str]:
    """What an `up` did, by its operations; afterwards all is as it should be."""
    report = world.up(stack, **more)
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    assert faults(world, stack) == []
    assert not world.make_plan(stack)
    return [o.operation.id for o in report.outcomes]


def titles(world: World) -> dict[str, str]:
    """What each replica that runs shows."""
    found = {}
    for box in world.engine.boxes.values():
        if (name := naming.replica_of(box.labels)) and box.running and box.labels[naming.SERVER] == "www":
            config = next(m.volume for m in box.mounts if m.target == "/config")
            page = world.engine.volumes[config].files["page"].data.decode()
            found[name] = next(t for t in ("One", "Two", "13") if t in page)
    return found


def test_replicas_share_all_but_the_container(world: World) -> None:
    """They have one name on their networks, and names of their own for people, of one generation."""
    boxes = [b for b in world.engine.boxes.values() if b.labels.get(naming.SERVER) == "www"]
    assert sorted(b.name for b in boxes) == ["shop-www-1", "shop-www.2-1", "shop-www.3-1"]
    assert {tuple(b.networks.values()) for b in boxes} == {("www",) * len(boxes[0].networks)}
    assert len({b.mounts for b in boxes}) == 1


def test_the_first_start_is_one_of_all_at_once() -> None:
    """Where none serves yet nobody has to wait for another replica, and each has its name from the start."""
    world = World()
    plan = world.make_plan(site(3))
    assert not {n for r in ALL for n in world.plan_needs(f"create:{r}") if n.startswith(("ready:www", "create:www"))}
    assert not [o for o in plan.operations if isinstance(o.action, NameOnNetwork)]
    assert {f"ready:{r}" for r in ALL} <= set(the(plan, "routes:edge").needs)


def test_they_are_replaced_one_after_the_other(world: World) -> None:
    """A replica's turn comes when the one before it is new, serves, and its predecessor has stopped."""
    plan = world.make_plan(site(3, "Two"))
    for one, other in itertools.pairwise(ALL):
        done = {f"ready:{one}", f"switch:{one}", f"settle:{one}", f"stop:{naming.container('shop', one, 1)}"}
        assert done <= world.plan_needs(f"create:{other}")
    switched = the(plan, "switch:www.2").action
    assert isinstance(switched, SwitchRoute)
    assert switched.containers == ("shop-www.2-2", "shop-www-2", "shop-www.3-1"), "all that serve then"
    assert world.run().ok
    assert faults(world, site(3, "Two")) == []


@pytest.mark.parametrize("rolling", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [((3, "One"), (3, "Two")), ((1, "One"), (3, "Two")), ((3, "One"), (2, "Two"))]
)
def test_as_many_as_there_are_at_least_serve_meanwhile(before: Any, after: Any, rolling: bool) -> None:
    """At no moment fewer run than before or after, or one less where two generations must not run at once."""
    ran: list[int] = []

    def watched(engine: MemoryEngine, box: Any, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        ran.append(sum(b.running for b in engine.boxes.values() if b.labels.get(naming.SERVER) == "www"))
        return programs(engine, box, command, stdin)

    world = World(MemoryEngine(watched))
    up(world, site(*before, rolling=rolling))
    ran.clear()
    up(world, site(*after, rolling=rolling))
    assert min(ran) >= min(before[0], after[0]) - (not rolling)


def test_more_of_them_leave_those_that_are_there_alone(world: World) -> None:
    """What comes is told in words, has the others' generation, and its name once it is ready."""
    up(world, site(1))
    starts = world.starts()
    plan = world.make_plan(site(3))
    assert the(plan, "create:www.2").reason == "replica 2 of 3 is not there yet"
    made = the(plan, "create:www.2").action
    assert isinstance(made, CreateContainer) and made.name == "shop-www.2-1"
    assert set(made.nameless) == {"shop_route_www"}
    assert "ready:www.2" in world.plan_needs("name:www.2:shop_route_www")
    up(world, site(3))
    assert {n: s for n, s in world.starts().items() if n in starts} == starts


def test_fewer_of_them_are_drained_first(world: World) -> None:
    """What goes is told in words; it stops when requests go to the others, which are not touched."""
    starts = world.starts()
    plan = world.make_plan(site(1))
    assert the(plan, "stop:shop-www.3-1").reason == "the stack wants no more than one"
    leave = the(plan, "leave:www").action
    assert isinstance(leave, SwitchRoute) and leave.containers == ("shop-www-1",)
    assert "leave:www" in world.plan_needs("stop:shop-www.2-1") & world.plan_needs("stop:shop-www.3-1")
    up(world, site(1))
    assert world.starts() == {n: s for n, s in starts.items() if n not in ("www.2", "www.3")}


@pytest.mark.parametrize("rolling", [True, False])
def test_who_goes_has_gone_before_anything_else(rolling: bool) -> None:
    """Before another is replaced, and before the proxy hears of fewer: it might know none but those that go."""
    world = World()
    up(world, site(3, rolling=rolling))
    servers = {
        "edge": {"kind": "gate"},
        "db": {"kind": "depot"},
        "www": {
            "kind": "page",
            "title": "Two",
            "domains": ["www.test", "new.test"],
            "storage": "db",
            "rolling": rolling,
        },
    }
    stack = resolved({"stack": "shop", "servers": servers})
    world.make_plan(stack)
    assert "left:www" in world.plan_needs("live:edge") & world.plan_needs("create:www")
    up(world, stack)


def test_who_stays_has_to_be_there_before_others_go(world: World) -> None:
    """Where none of those that stay serves, one starts first."""
    for name in ("www", "www.2"):
        world.engine.stop(world.box(name).name, 1)
    world.make_plan(site(1))
    assert {"ready:www", "name:www:shop_route_www"} <= world.plan_needs("leave:www")
    up(world, site(1))


@pytest.mark.parametrize("title", ["One", "Two"])
def test_one_who_stays_is_enough_for_others_to_go(world: World, title: str) -> None:
    """Where none serves of two that stay, the second comes after those that are too many: that is when the proxy hears of it."""
    for name in ("www", "www.2"):
        world.engine.stop(world.box(name).name, 1)
    plan = world.make_plan(site(2, title))
    leave = the(plan, "leave:www").action
    assert isinstance(leave, SwitchRoute) and len(leave.containers) == 1
    assert {"ready:www", "name:www:shop_route_www"} <= world.plan_needs("leave:www")
    assert "left:www" in world.plan_needs("live:edge") & world.plan_needs(
        "create:www.2" if title == "Two" else "start:www.2"
    )
    up(world, site(2, title))


@pytest.mark.parametrize("title", ["One", "Two"])
@pytest.mark.parametrize(("before", "after"), [(3, 2), (3, 3), (2, 3)])
def test_they_get_their_first_domain_with_another_number(before: int, after: int, title: str) -> None:
    """The proxy has never had requests for those that are there, which it does not share a network with."""
    world = World()
    up(world, site(before, domains=[]))
    up(world, site(after, title), seed=before + after)


def test_the_one_who_stays_was_off_the_network_of_the_proxy(world: World) -> None:
    """It joins that before the others go."""
    world.engine.disconnect(world.box("www").name, "shop_route_www")
    world.make_plan(site(1))
    assert "connect:shop-www-1:shop_route_www" in world.plan_needs("leave:www")
    up(world, site(1))


numbers = st.sampled_from([1, 2, 3])
pages = st.fixed_dictionaries(
    {"title": st.sampled_from(["One", "Two"]), "replicas": numbers, "rolling": st.booleans(), "reads": st.booleans()}
    | {"relay": st.booleans(), "domain": st.booleans()}
)
sites = st.lists(pages, min_size=3, max_size=3)


@settings(max_examples=60)
@given(sites, sites, st.sets(st.integers(0, 8)), st.sets(st.sampled_from("abc")), st.integers(0, 2**16))
def test_whichever_of_them_serve_they_come_to_be_as_they_should(
    earlier: Any, later: Any, ended: Any, rotated: Any, order: int
) -> None:
    """Of pages that read each other, whose numbers change while some have ended, or have new passwords."""

    def stack(pages: list[dict[str, Any]]) -> Resolved:
        servers: dict[str, Any] = {"edge": {"kind": "gate"}}
        for name, page in zip("abc", pages, strict=True):
            reads = [r for r in servers if r != "edge"] if page["reads"] else []
            servers[name] = {k: page[k] for k in ("title", "replicas", "rolling")} | {"kind": "page", "reads": reads}
            servers[name] |= {"domains": [f"{name}.test"]} if page["domain"] else {}
            servers[name] |= {"relay": "edge"} if page["relay"] else {}
        return resolved({"stack": "shop", "servers": servers})

    world = World()
    assert world.up(stack(earlier)).ok
    boxes = [b for b in world.engine.boxes.values() if b.labels.get(naming.SERVER, "edge") != "edge"]
    for index, box in enumerate(boxes):
        if index in ended:
            box.end(1)
    new = {f"{n}/relay_password" for n in rotated} & world.secrets.keys()
    if new:
        world.store(dict(world.secrets) | {a: vault.record(a, Secret("new"), NOW) for a in new})
    report = world.up(stack(later), seed=order)
    assert [(o.operation.id, o.message) for o in report.failed] == []
    assert not world.make_plan(stack(later))


def test_who_stays_may_need_a_server_that_the_proxy_has_to_hear_of_first(world: World) -> None:
    """Where it starts only after the proxy has its new files, these do not wait for those that are too many to go."""

    def both(count: int, title: str) -> Resolved:
        words = {"kind": "page", "title": title, "domains": ["words.test"], "replicas": 2}
        www = {"kind": "page", "domains": ["www.test"], "reads": ["words"], "replicas": count}
        return resolved({"stack": "shop", "servers": {"edge": {"kind": "gate"}, "words": words, "www": www}})

    world = World()
    up(world, both(3, "One"))
    for name in ("www", "www.2"):
        world.engine.stop(world.box(name).name, 1)
    world.make_plan(both(2, "Two"))
    assert "live:edge" in world.plan_needs("left:www")
    up(world, both(2, "Two"))


@pytest.mark.parametrize("replica", ALL)
@pytest.mark.parametrize("gone", [True, False])
def test_one_that_is_not_there_comes_back_alone(world: World, replica: str, gone: bool) -> None:
    """A replica that somebody stopped or removed is repaired, and no other is touched."""
    starts = world.starts()
    name = world.box(replica).name
    world.engine.remove(name) if gone else world.engine.stop(name, 1)
    done = up(world, site(3))
    assert f"start:{replica}" in done
    assert {n: s for n, s in world.starts().items() if n != replica} == {
        n: s for n, s in starts.items() if n != replica
    }
    assert world.box(replica).name == naming.container("shop", replica, 1)


def test_a_failure_of_the_first_leaves_the_others_on_what_they_were(world: World) -> None:
    """Nothing is created for those whose turn has not come, and the way back is the undo of the one."""
    stack = site(3, "Two")
    plan = world.make_plan(stack)
    assert not world.run(refused=the(plan, "ready:www").action).ok
    assert titles(world) == dict.fromkeys(ALL, "One")
    assert {b.labels[naming.GENERATION] for b in world.engine.boxes.values() if naming.SERVER in b.labels} == {"1"}
    up(world, stack)
    assert titles(world) == dict.fromkeys(ALL, "Two")


def test_a_failure_of_the_second_leaves_the_first_as_it_is_new(world: World) -> None:
    """Both generations serve, each replica one; the next `up` goes on with the same generation."""
    stack = site(3, "Two")
    plan = world.make_plan(stack)
    assert not world.run(refused=the(plan, "ready:www.2").action).ok
    assert titles(world) == {"www": "Two", "www.2": "One", "www.3": "One"}
    known = [(g.number, g.result) for g in history(world.observe(stack))["www"]]
    assert known == [(2, "running"), (1, "replaced")]
    start = world.starts()["www"]
    up(world, stack)
    assert world.starts()["www"] == start
    assert {world.box(r).labels[naming.GENERATION] for r in ALL} == {"2"}


def test_one_that_could_not_be_named_is_named_by_the_next_up(world: World) -> None:
    """Nothing on the engine's lists tells that a running container lacks its name, so it is stopped."""
    up(world, site(1))
    plan = world.make_plan(site(2))
    assert not world.run(refused=the(plan, "name:www.2:shop_route_www").action).ok
    assert not world.box("www.2").running
    up(world, site(2))


def test_all_of_them_go_back(world: World) -> None:
    """A generation is the server's: one record of it, and one `rollback` for all its replicas, also for one that is newer."""
    up(world, site(2, "Two"))
    up(world, site(3, "Two"))
    known = history(world.observe(site(3)))
    assert [(g.number, g.result) for g in known["www"]] == [(2, "running"), (1, "replaced")]
    assert set(known) == {"edge", "db", "www"}
    world.roll_back(site(3, "Two"), "www")
    report = world.run()
    assert [(o.operation.id, o.message) for o in report.outcomes if o.status != "done"] == []
    assert titles(world) == dict.fromkeys(ALL, "One")
    assert {world.box(r).labels[naming.GENERATION] for r in ALL} == {"3"}
    up(world, site(3))


def test_the_last_up_is_taken_back_for_all_of_them(world: World) -> None:
    """Without a server as well."""
    up(world, site(3, "Two"))
    world.roll_back(site(3, "Two"))
    assert world.run().ok
    assert titles(world) == dict.fromkeys(ALL, "One")


def test_what_one_alone_can_have_does_not_come_back_to_several(world: World) -> None:
    """A port of the host is one container's."""
    up(world, site(1, "Two", publish=["9001:80"]))
    up(world, site(3))
    with pytest.raises(UsageError, match=r"was one container, which alone has 127\.0\.0\.1:9001"):
        world.roll_back(site(3), "www", 2)


def test_data_does_not_go_back_under_replicas(world: World) -> None:
    """The others would write to it meanwhile."""
    with pytest.raises(UsageError, match="www has several replicas"):
        world.roll_back(site(3), "www", with_data=True)


@pytest.mark.parametrize("refused", ["ready:www.2", "switch:www.3", "ready:db"])
def test_all_or_nothing_is_for_all_of_them(world: World, refused: str) -> None:
    """Whichever replica fails, the containers of before serve again, those that had been replaced as well."""
    ids = {r: world.box(r).id for r in ALL}
    stack = resolved(
        {
            "stack": "shop",
            "servers": {
                "edge": {"kind": "gate"},
                "db": {"kind": "depot", "depth": 2},
                "www": {"kind": "page", "title": "Two", "domains": ["www.test"], "storage": "db", "replicas": 3},
            },
        }
    )
    plan = world.make_plan(stack)
    report = world.together(stack, refused=the(plan, refused).action)
    assert report.back and report.back.ok
    assert {r: world.box(r).id for r in ALL} == ids
    assert titles(world) == dict.fromkeys(ALL, "One")
    assert faults(world, site(3)) == []


def test_with_all_or_nothing_what_is_too_many_goes_last(world: World) -> None:
    """Another server's failure leaves a replica that was to go in service, and in the proxy's."""
    stack = resolved(
        {
            "stack": "shop",
            "servers": {
                "edge": {"kind": "gate"},
                "db": {"kind": "depot", "depth": 2},
                "www": {"kind": "page", "domains": ["www.test"], "storage": "db", "replicas": 2},
            },
        }
    )
    plan = world.make_plan(stack)
    report = world.together(stack, refused=the(plan, "ready:db").action)
    assert report.back and report.back.ok
    assert world.box("www.3").running
    assert faults(world, site(3)) == []


def test_a_choice_of_servers_is_of_all_their_replicas(world: World) -> None:
    """With -s what of the server's replicas comes, changes and goes is done, and of others that the proxy hears of it."""
    plan = world.make_plan(site(2, "Two"), "www")
    assert {o.server for o in plan.operations} == {"www", "www.2", "www.3", "edge"}
    assert [o.id for o in plan.operations if o.server == "edge"] == ["live:edge"]
    assert world.run().ok
    assert titles(world) == {"www": "Two", "www.2": "Two"}
    world.make_plan(site(1, "One"), "db")
    assert not [o for o in world.plan.operations if isinstance(o.action, StopContainer)]


def test_a_replica_that_comes_along_with_a_choice_is_found_by_who_links_to_it() -> None:
    """The chosen one waits for a port, its holder for the replica: that one has all that it gets in a whole `up`."""
    world = World()

    def ports(first: str, second: str) -> Resolved:
        servers: dict[str, Any] = {"www": {"kind": "page"}, "one": {"kind": "page"}, "two": {"kind": "page"}}
        servers["two"] |= {"reads": ["www"], "publish": [f"{first}:80"]}
        if second:
            servers["www"]["replicas"] = 2
            servers["one"]["publish"] = [f"{second}:80"]
        return resolved({"stack": "shop", "servers": servers})

    assert world.up(ports("9003", "")).ok
    wanted = ports("9002", "9003")
    assert world.up(wanted, "one").ok
    assert "www.2" in {naming.replica_of(b.labels) for b in world.engine.boxes.values()}
    assert faults(world, wanted) == []
    assert not world.make_plan(wanted)


def test_the_others_need_no_proxy() -> None:
    """Without one they come, change and go all the same, in turn."""
    world = World()
    for count, title in ((2, "One"), (3, "Two"), (1, "Two"), (2, "One")):
        up(world, site(count, title, edge=False))


def test_who_links_to_them_starts_when_all_are_ready() -> None:
    """A name that several have is good once each of them answers."""
    servers = {"words": {"kind": "page", "replicas": 2}, "www": {"kind": "page", "reads": ["words"], "replicas": 2}}
    world = World()
    world.make_plan(resolved({"stack": "shop", "servers": servers}))
    for name in ("start:www", "start:www.2"):
        assert {"ready:words", "ready:words.2"} <= world.plan_needs(name)


def test_a_host_has_to_have_room_for_all_of_them(tmp_path: Path) -> None:
    """Limits are those of each container: memory and processors count as often as there are replicas."""
    file = tmp_path / "stack.yml"
    file.write_text(
        "stack: t\nservers:\n  b: {kind: web}\n  a: {kind: web, replicas: 3, resources: {memory: 1536M, cpus: 1}}\n"
    )
    stack = load_stack(Source(file))
    (problem,) = host_problems(stack, HostFacts("host", 4 * 2**30, 2), ())
    assert problem.what == "the memory limits add up to 4608M, and the host has 4096M for servers"
    assert problem.path == "servers.a.resources.memory"
    assert "the largest are a 3 x 1536M = 4608M;" in problem.hint
    (warning,) = host_warnings(stack, HostFacts("host", 8 * 2**30, 2))
    assert warning == "cpus add up to 3, the host has 2: they will share"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    file = tmp_path / "stack.yml"
    file.write_text("stack: shop\nservers:\n  www: {kind: web, replicas: 3}\n  other: {kind: web}\n")
    return Source(file)


def test_they_are_restarted_one_after_the_other(world: World) -> None:
    """A server's name stands for all of its replicas, a replica's for that one; each is restarted once."""
    observed = world.observe(site(3))
    plan = restart_plan(observed, ["www"])
    assert [o.id for o in plan.operations] == [f"{what}:{r}" for r in ALL for what in ("stop", "start", "ready")]
    for one, other in itertools.pairwise(ALL):
        assert f"ready:{one}" in the(plan, f"stop:{other}").needs
    assert {o.server for o in restart_plan(observed, ["www.2"]).operations} == {"www.2"}
    ids = [o.id for o in restart_plan(observed, ["www", "www.2", "edge"]).operations]
    assert len(ids) == len(set(ids)) == 12
    with pytest.raises(UsageError, match=r"the engine has no server 'www.4'"):
        restart_plan(observed, ["www.4"])


@pytest.mark.parametrize("names", [["www.2", "www"], ["www.3", "edge", "www.2"], ["www", "www.2"]])
def test_two_of_them_are_never_down_at_once(world: World, names: list[str]) -> None:
    """However they are named, each of a server's replicas waits until the one before it is ready."""
    world.plan = restart_plan(world.observe(site(3)), names)
    stops = [o.id for o in world.plan.operations if o.id.startswith("stop:www")]
    assert len(stops) > 1
    for one, other in itertools.pairwise(stops):
        assert one.replace("stop", "ready") in world.plan_needs(other)
    ran: list[int] = []
    stop = world.engine.stop

    def watched(name: str, grace: float | None) -> None:
        stop(name, grace)
        ran.append(sum(b.running for b in world.engine.boxes.values() if b.labels.get(naming.SERVER) == "www"))

    world.engine.stop = watched  # type: ignore[method-assign]
    assert world.run(seed=1).ok
    assert min(ran) == 2


def test_each_of_them_can_be_looked_at(world: World, source: Source) -> None:
    """`ps` has a row for each, also for one that is not there; `exec` goes into the first, or the one that is named."""
    world.engine.remove(world.box("www.3").name)
    stack = load_stack(source)
    rows = [(r["server"], r["replica"], r["state"]) for r in server_rows(stack, world.engine, ["www"])]
    assert rows == [("www", 1, "running"), ("www", 2, "running"), ("www", 3, "missing")]
    assert ["replica" in r for r in server_rows(stack, world.engine, ["other"])] == [False], "keys are stable"
    assert running_container(source, world.engine, "www") == "shop-www-1"
    assert running_container(source, world.engine, "www.2") == "shop-www.2-1"
    with pytest.raises(UsageError, match=r"the engine has no server 'www.3'"):
        running_container(source, world.engine, "www.3")


def test_each_of_them_says_what_it_says(world: World, source: Source) -> None:
    """The lines of a log tell whose they are; those of one alone can be had."""
    for name in ALL:
        world.box(name).log = [f"2026-01-31T12:00:0{len(name)}Z here is {name}"]
    lines = log_lines(source, world.engine, ["www"], follow=False, tail=None, since=None)
    assert [(li.server, li.text) for li in lines] == [(r, f"here is {r}") for r in ALL]
    lines = log_lines(source, world.engine, ["www.2"], follow=False, tail=None, since=None)
    assert [li.server for li in lines] == ["www.2"]


def test_all_of_them_go_down(world: World) -> None:
    """`down -s www` removes every replica, and no other server."""
    plan = down_plan(world.observe(site(3)), volumes=False, servers=["www"])
    removed = {o.action.name for o in plan.operations if isinstance(o.action, RemoveContainer)}
    assert {"shop-www-1", "shop-www.2-1", "shop-www.3-1"} <= removed
    assert not removed & {"shop-db-1", "shop-edge-1"}


def test_a_failure_of_the_second_is_no_failure_of_the_generation(world: World) -> None:
    """It serves at the first: there is no record that says it has failed, also once all are stopped."""
    plan = world.make_plan(site(3, "Two"))
    assert not world.run(refused=the(plan, "ready:www.2").action).ok
    for name in ALL:
        world.engine.stop(world.box(name).name, 1)
    assert [(g.number, g.result) for g in history(world.observe(site(3)))["www"]] == [(2, "exited"), (1, "replaced")]
    plan = world.make_plan(site(3, "13"))
    assert not world.run(refused=the(plan, "ready:www").action).ok
    assert history(world.observe(site(3)))["www"][0].result == "failed"
