"""What a plan says, by example. The kinds are those of tests/kinds: pages, depots that they may link to, a gate."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming, vault
from consolidate.actions import CreateContainer, ProvideImage, RemoveContainer, WriteLive
from consolidate.secret import Secret
from tests.implied import implied
from tests.shop import PAGE, acts, shop, the
from tests.world import NOW, World, faults, resolved


def test_first_up_makes_everything() -> None:
    """On an empty engine all is new: image, network, volume, files, container, start; nothing goes down for it."""
    plan = World().make_plan(resolved({"stack": "one", "servers": {"www": {"kind": "page", "publish": ["9001:80"]}}}))
    assert sorted(acts(plan)) == sorted(["image", "image", "create network", "write files", "create", "start", "wait"])
    assert {o.impact for o in plan.operations} == {"none"}
    assert the(plan, "create:www").reason == "not there yet"


def test_a_consumer_starts_once_its_provider_knows_it() -> None:
    """A link orders the start: the provider is ready, then it is told of the consumer, then the consumer starts."""
    plan = World().make_plan(shop())
    grant = the(plan, "grant:db:www:storage")
    assert grant.id in the(plan, "start:www").needs
    assert "ready:db" in grant.needs
    assert grant.reason == "www needs its storage"


def test_the_same_stack_again_is_nothing_to_change(world: World) -> None:
    """The second plan is empty, and making it costs as many reads as for any stack, and no write."""
    world.engine.writes.clear()
    world.engine.reads.clear()
    assert not world.make_plan(shop())
    assert world.engine.reads == {"observe": 1, "get": 1}
    assert not world.engine.writes


def test_a_changed_file_replaces_the_server_and_is_named(world: World) -> None:
    """The reason names the file that differs; only this server is touched, with its old configuration at the end."""
    plan = world.make_plan(shop(www=PAGE | {"title": "New"}))
    assert the(plan, "create:www").reason == "file page changed"
    assert acts(plan, "www") == ["write files", "create", "stop", "start", "wait", "keep", "remove"]
    assert set(acts(plan, "edge")) <= {"switch route"}
    assert acts(plan, "db") == []
    assert the(plan, "start:www").impact == "restart"
    assert "until the new one is ready" in the(plan, "start:www").downtime


def test_a_changed_limit_says_from_what_to_what(world: World) -> None:
    """A limit's old and new value stand in the reason."""
    plan = world.make_plan(shop(db={"kind": "depot", "resources": {"memory": "512M"}}))
    assert the(plan, "create:db").reason == "memory 32M → 512M"
    assert the(plan, "create:db").to_json()["fields"] == [{"field": "memory", "old": "32M", "new": "512M"}]


def test_a_rolling_server_is_replaced_before_it_stops(world: World) -> None:
    """Where the kind allows it the new one is ready before the old one stops, and no downtime is expected."""
    world.up(shop(www=PAGE | {"rolling": True}))
    plan = world.make_plan(shop(www=PAGE | {"rolling": True, "title": "New"}))
    start, stop = the(plan, "start:www"), the(plan, f"stop:{world.box('www').name}")
    assert start.impact == "rolling"
    assert stop.id not in start.needs
    assert "ready:www" in world.plan_needs(stop.id)


def test_whoever_links_to_a_rolling_server_finds_it_once_it_is_ready(world: World) -> None:
    """Until then it has its name on no network on which others look for it, and the old one keeps its own."""
    stack = {"www": PAGE | {"rolling": True}, "reader": {"kind": "page", "reads": ["www"]}}
    world.up(shop(**stack))
    plan = world.make_plan(shop(**stack | {"www": PAGE | {"rolling": True, "title": "New"}}))
    shared = {"shop_route_www", "shop_link_reader_reads.www"}
    create = the(plan, "create:www").action
    assert isinstance(create, CreateContainer)
    assert set(create.nameless) == shared
    for network in shared:
        assert "ready:www" in world.plan_needs(f"name:www:{network}")
        assert f"name:www:{network}" in world.plan_needs(f"stop:{world.box('www').name}")


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("moment", ["probe", "switch"])
def test_the_proxy_has_to_reach_a_new_generation(moment: str, checked: bool, world: World) -> None:
    """Else it would get requests that don't reach it, whatever its own check says: where it isn't reached, before it has its
    name or after that, it goes and the old one serves on."""
    page = PAGE | {"rolling": True, "checked": checked}
    world.up(shop(www=page))
    old = world.box("www").name
    plan = world.make_plan(shop(www=page | {"title": "New"}))
    refused = the(plan, f"{moment}:www")
    assert "probe:www" in world.plan_needs("name:www:shop_route_www")
    create = the(plan, "create:www").action
    assert isinstance(create, CreateContainer)
    assert RemoveContainer(create.name) in refused.undo
    assert not world.run(refused=refused.action).ok
    assert world.box("www").name == old


def test_the_proxy_joins_the_network_of_a_new_generation_before_it_asks(world: World) -> None:
    """Also with the first domain of a server that alone is chosen."""
    page = PAGE | {"rolling": True}
    world.up(shop(www=page | {"domains": []}))
    world.make_plan(shop(www=page | {"title": "New"}), "www")
    assert f"connect:{world.box('edge').name}:shop_route_www" in world.plan_needs("probe:www")


def test_files_with_a_new_password_wait_until_the_proxy_reaches_who_has_it(world: World) -> None:
    """Should it not, the old one serves on, whose password they still have."""
    page = PAGE | {"rolling": True, "relay": "edge"}
    world.up(shop(www=page))
    world.store(dict(world.secrets) | {"www/relay_password": vault.record("www/relay_password", Secret("new"), NOW)})
    plan = world.make_plan(shop(www=page))
    assert "probe:www" in world.plan_needs("live:edge")
    before = world.box("edge").memory["routes"]
    assert not world.run(refused=the(plan, "probe:www").action).ok
    assert world.box("edge").memory["routes"] == before


def test_a_server_at_another_port_is_not_rolled(world: World) -> None:
    """The proxy knows one port of it, and two generations would listen on two."""
    world.up(shop(www=PAGE | {"rolling": True}))
    plan = world.make_plan(shop(www=PAGE | {"rolling": True, "port": 9000, "title": "New"}))
    assert "port for the proxy 8000 → 9000" in the(plan, "create:www").reason
    assert f"stop:{world.box('www').name}" in the(plan, "start:www").needs


def test_a_server_that_publishes_is_never_rolled(world: World) -> None:
    """Two generations can't have the same port of the host."""
    published = PAGE | {"rolling": True, "publish": ["9001:80"]}
    world.up(shop(www=published))
    plan = world.make_plan(shop(www=published | {"title": "New"}))
    assert f"stop:{world.box('www').name}" in the(plan, "start:www").needs


def test_a_new_site_only_reloads_the_gate(world: World) -> None:
    """The gate joins the site's network and takes its new routes while it runs; no other server is touched."""
    before = world.starts()
    plan = world.make_plan(shop(new={"kind": "page", "domains": ["new.test"]}))
    assert sorted(set(acts(plan, "edge")) - {"switch route"}) == ["connect", "write live files"]
    assert the(plan, "live:edge").impact == "reload"
    assert world.run().ok
    assert {n: world.starts()[n] for n in before} == before
    assert "new.test new:8000" in world.box("edge").memory["routes"]


def test_a_removed_server_goes_and_its_data_stays(world: World) -> None:
    """A server that is no longer in the file is removed with its network; its data is kept, and the plan says so."""
    plan = world.make_plan(shop(db=None, www={"kind": "page", "domains": ["www.test"]}))
    assert acts(plan, "db")[:2] == ["stop", "remove"]
    assert the(plan, "stop:shop-db-1").reason == "it is no longer in the stack"
    assert plan.notes == ("db: its data is kept in the volume shop_db_data",)
    assert world.run().ok
    assert "shop_db_data" in world.engine.volumes
    assert "www_storage" in world.engine.volumes["shop_db_data"].files


def test_a_removed_consumer_is_forgotten_by_its_provider(world: World) -> None:
    """The provider runs its command for it, and nothing of the link is left on the engine."""
    plan = world.make_plan(shop(www=None))
    assert "revoke" in acts(plan, "db")
    assert world.run().ok
    assert "www_storage" not in world.engine.volumes["shop_db_data"].files
    assert faults(world, shop(www=None)) == []


def test_a_provider_that_became_something_else_is_not_asked(world: World) -> None:
    """A server of another kind knows no command of the old one: only the receipt of its grant goes."""
    changed = shop(db={"kind": "page"}, www={"kind": "page"})
    assert world.up(changed).ok
    assert faults(world, changed) == []


def test_a_rotated_secret_replaces_its_reader_and_repeats_the_grant(world: World) -> None:
    """A new password reaches the provider first, then the consumer in a new container; both others go on."""
    before = world.starts()
    stored = dict(world.secrets)
    stored["www/storage_password"] = vault.record("www/storage_password", Secret("changed"), NOW)
    world.store(stored)
    plan = world.make_plan(shop())
    assert the(plan, "create:www").reason == "secret www/storage_password changed"
    assert the(plan, "grant:db:www:storage").reason == "its account changed"
    assert "grant:db:www:storage" in the(plan, "start:www").needs
    assert world.run().ok
    assert world.starts()["db"] == before["db"]
    assert faults(world, shop()) == []


def test_a_plan_holds_no_secret(world: World) -> None:
    """Neither a plan's text nor its JSON has a password in it."""
    plan = World().make_plan(shop())
    passwords = [s.value.reveal() for s in world.secrets.values()]
    text = repr(plan) + str(plan.to_json())
    assert not [p for p in passwords if p in text]


def test_a_port_passes_from_one_server_to_another() -> None:
    """The one that gives it up stops before the one that gets it starts, also when two swap."""

    def stack(first: int, second: int) -> Any:
        servers = {
            "a": {"kind": "page", "publish": [f"{first}:80"], "storage": "b"},
            "b": {"kind": "depot", "publish": [f"{second}:80"]},
        }
        return resolved({"stack": "shop", "servers": servers})

    world = World()
    world.up(stack(9001, 9002))
    plan = world.make_plan(stack(9002, 9001))
    assert "stop:shop-b-1" in the(plan, "start:a").needs
    assert "stop:shop-a-1" in the(plan, "start:b").needs
    assert world.run().ok
    assert faults(world, stack(9002, 9001)) == []


def test_a_way_out_comes_with_a_network_of_its_own(world: World) -> None:
    """A network can't be changed: a server that may now reach the outside gets another one."""
    world.up(shop(db={"kind": "depot", "publish": ["9001:80"]}))
    world.up(shop(db={"kind": "depot", "publish": ["9001:80"], "egress": True}))
    assert faults(world, shop(db={"kind": "depot", "publish": ["9001:80"], "egress": True})) == []


def test_a_generations_name_is_never_anothers() -> None:
    """`shop-a` and `b` make the names that `shop` and `a-b` make: the next free number is taken."""
    world = World()
    world.up(resolved({"stack": "shop-a", "servers": {"b": {"kind": "page"}}}))
    plan = world.make_plan(resolved({"stack": "shop", "servers": {"a-b": {"kind": "page"}}}))
    (create,) = [o.action for o in plan.operations if isinstance(o.action, CreateContainer)]
    assert create.name == "shop-a-b-2"
    assert world.run().ok


def test_the_gate_is_told_again_when_its_successor_failed(world: World) -> None:
    """Routes written for a new gate that failed are unknown to the old one, which serves on: the next plan tells it."""
    both = shop(edge={"kind": "gate", "motto": "x"}, new={"kind": "page", "domains": ["new.test"]})
    plan = world.make_plan(both)
    world.run(refused=the(plan, "start:edge").action)
    plan = world.make_plan(shop(new={"kind": "page", "domains": ["new.test"]}))
    live = the(plan, "live:edge").action
    assert isinstance(live, WriteLive)
    assert live.container == "shop-edge-1"


@pytest.mark.parametrize(
    "name", ["thing", "docker.io/library/thing:1", "docker.io/me/thing:1", f"thing:1@sha256:{'a' * 64}"]
)
def test_an_image_that_is_there_is_not_pulled_again(name: str) -> None:
    """However a stack names an image, the engine's own name for it is known."""
    stack = resolved({"stack": "shop", "servers": {"www": {"kind": "page", "image": name}}})
    world = World()
    assert "pull" in {
        o.action.image.how for o in world.make_plan(stack).operations if isinstance(o.action, ProvideImage)
    }
    assert world.run().ok
    assert not world.make_plan(stack)


def test_a_choice_of_servers_narrows_the_plan(world: World) -> None:
    """With -s only these servers and what they need are changed."""
    changed = shop(www=PAGE | {"title": "New"}, db={"kind": "depot", "depth": 2}, edge={"kind": "gate", "motto": "x"})
    assert {o.server for o in world.make_plan(changed, "edge").operations} == {"edge"}
    assert {o.server for o in world.make_plan(changed, "www").operations} == {"www", "db"}  # www needs db


def test_a_choice_of_servers_brings_the_base_image(world: World) -> None:
    """The lock is a container of it: somebody who removed it hinders nobody. Where there is nothing to do it is no reason."""
    world.engine.images.discard(naming.BASE_IMAGE, used=False)
    plan = world.make_plan(shop(www=PAGE | {"title": "New"}), "www")
    assert f"image:{naming.BASE_IMAGE}" in {o.id for o in plan.operations}
    assert world.make_plan(shop(), "www").operations == ()


def test_a_choice_of_servers_leaves_no_other_one_down() -> None:
    """A server that has to give up its port for a chosen one is changed to its end as well."""
    first = {"a": {"kind": "page", "publish": ["9001:80"]}, "b": {"kind": "page"}}
    later = {"a": {"kind": "page", "publish": ["9002:80"]}, "b": {"kind": "page", "publish": ["9001:80"]}}
    world = World()
    world.up(resolved({"stack": "shop", "servers": first}))
    assert world.up(resolved({"stack": "shop", "servers": later}), "b").ok
    assert world.box("a").running
    assert world.box("b").running


def test_a_plan_is_stale_once_what_it_rests_on_has_changed(world: World) -> None:
    """What another run applies meanwhile counts, though no name and no state tells of it; a lock doesn't count."""
    before = world.observe(shop()).essence
    with world.engine.lock("shop", "ada", print):
        assert world.observe(shop()).essence == before
    world.up(shop(new={"kind": "page", "domains": ["new.test"]}))
    world.up(shop())
    assert world.observe(shop()).essence == before
    world.engine.boxes["shop-edge.live"].labels[naming.APPLIED] = "of another run"
    assert world.observe(shop()).essence != before


def test_a_kept_part_of_a_plan_counts_the_rest_as_done(world: World) -> None:
    """`only` keeps the operations asked for, whose other needs then hold already."""
    plan = World().make_plan(shop())
    part = plan.only(["create:www"])
    assert [o.id for o in part.operations] == ["create:www"]
    assert implied(part) == {("create", "shop-www-1"): 1}
