"""Images of a stack brought to another engine: which, in what order, what goes over, and what a cut leaves. In memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from consolidate import lock_file, naming
from consolidate.actions import ProvideImage
from consolidate.cli import app, options
from consolidate.engine import Machine
from consolidate.errors import EngineUnavailable, OperationFailed, UsageError
from consolidate.locked import Lock, LockedImage, named
from consolidate.naming import BASE_IMAGE
from consolidate.pinned import asked
from consolidate.pipeline import prepare
from consolidate.runner import Runner
from consolidate.shipping import work
from consolidate.shipping.work import Sent, Shipment
from consolidate.source import Source, described
from tests.memory_engine import MemoryEngine
from tests.memory_host import LAYER
from tests.memory_parts import Box, Killed
from tests.world import programs

KINDS = Path(__file__).parent / "kinds"
PAGES: dict[str, Any] = {
    "edge": {"kind": "gate"},
    "www": {"kind": "page", "domains": ["www.test"]},
    "blog": {"kind": "page", "domains": ["blog.test"]},
}
READY = ["start"]
STAMP = "20240501T120000"


class Two:
    """An engine `here` with a stack, and another `there`, whose images have other ids."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, Source(folder / "stack.yml", None, (KINDS,))
        self.here, self.there = MemoryEngine(programs), MemoryEngine(programs)
        self.here.images.add(BASE_IMAGE)
        self.there.name, self.there.images.made = "there", 10**6
        self.write(PAGES)

    def write(self, servers: dict[str, Any], environment: str = "") -> None:
        """The stack file, or an environment's overlay."""
        data = {"servers": servers} | ({} if environment else {"stack": "two"})
        name = f"stack.{environment}.yml" if environment else "stack.yml"
        (self.folder / name).write_text(yaml.safe_dump(data, sort_keys=False))

    def up(self, engine: MemoryEngine | None = None, environment: str | None = None) -> None:
        engine, source = engine or self.here, replace(self.source, environment=environment)
        prepared = prepare(source, engine)
        runner = Runner(engine, lambda _: None, lambda _: None, print, 0.01)
        assert runner.apply(prepared, lambda: prepared, lambda _: None).ok

    def look(self, *servers: str, environment: str | None = None) -> Shipment:
        return work.look(self.here, self.there, replace(self.source, environment=environment), servers, "there")

    def ship(self, *servers: str, environment: str | None = None) -> Sent:
        found = self.look(*servers, environment=environment)
        return work.send(found, self.here, self.there, lambda _: None, lambda _: None)

    def running(self, engine: MemoryEngine, stack: str = "two") -> dict[str, str]:
        """The id of each server's image."""
        observed = engine.observe(stack)
        return {s: c[0].image_id for s, c in observed.servers.items()}

    def refresh(self, server: str) -> str:
        """What `update` builds: the image of a server again."""
        label = self.here.observe("two").servers[server][0].labels[naming.IMAGE]
        tag = naming.refreshed_image(label, STAMP)
        self.here.images.add(tag)
        return tag

    def lock(self) -> None:
        """What `lock` writes: each server's image as it runs here."""
        desired, runs = described(self.source), self.running(self.here)
        servers = {
            server: {words: LockedImage(words, runs[server], context=words.rpartition(":")[2])}
            for server, words in asked(desired.resolved, desired.images).items()
        }
        lock_file.write(self.source.lock, Lock(servers, keys=named(servers, {})), self.source.file.name)

    def lacks(self, environment: str | None = None) -> list[str]:
        """The images that an `up` there would build or pull."""
        plan = prepare(replace(self.source, environment=environment), self.there).plan
        return [o.id for o in plan.operations if isinstance(o.action, ProvideImage)]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "stack").mkdir()
    return Two(tmp_path / "stack")


def bytes_of(sent: Sent) -> int:
    return sum(sent.carried.values())


def test_what_was_tested_here_is_what_runs_there(two: Two) -> None:
    """An `up` there builds and pulls nothing, and its containers are made of the very images."""
    two.up()
    assert two.lacks()
    sent = two.ship()
    assert sent.report.ok
    assert two.lacks() == []
    two.up(two.there)
    assert two.running(two.there) == two.running(two.here)
    assert {r["state"] for r in sent.to_json()["images"]} == {"sent"}


def test_a_second_time_there_is_nothing_to_send(two: Two) -> None:
    two.up()
    two.ship()
    found = two.look()
    assert not found.plan
    assert found.left == 0
    assert {r["state"] for r in found.to_json()["images"]} == {"there"}


def test_a_layer_that_several_images_have_goes_over_once(two: Two) -> None:
    """The base comes first, of the others its layers are left out: as many go over as there are different ones."""
    two.up()
    found = two.look()
    assert found.loads[0].choice.names == (BASE_IMAGE,)
    assert [(li.have, li.layers) for li in found.loads] == [(0, 1), (1, 2), (1, 2)]
    assert found.left == 3 * LAYER
    sent = work.send(found, two.here, two.there, lambda _: None, lambda _: None)
    assert 3 * LAYER <= bytes_of(sent) < 4 * LAYER


def test_an_engine_that_wants_whole_archives_gets_them(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.up()
    monkeypatch.setattr(two.there, "machine", lambda: Machine("other", "linux", "x86_64", "podman"))
    assert [li.have for li in two.look().loads] == [0, 0, 0]
    assert bytes_of(two.ship()) >= 5 * LAYER


def test_the_image_that_runs_is_sent_and_not_the_newest(two: Two) -> None:
    """One that nobody has run yet stays here."""
    two.up()
    newer = two.refresh("www")
    assert two.here.images[newer] not in {li.choice.image for li in two.look().loads}


def test_a_refresh_has_its_own_name_there(two: Two) -> None:
    """So `up` there takes it, as it is the newest."""
    two.up()
    tag = two.refresh("www")
    plain = tag.removesuffix(f"-{STAMP}")
    for server in ("www", "blog"):
        two.here.boxes[f"two-{server}-1"].image_id = two.here.images[tag]
    two.ship()
    assert two.there.images.get(tag) == two.here.images[tag]
    assert plain not in two.there.images
    assert two.lacks() == []
    two.up(two.there)
    assert two.running(two.there) == two.running(two.here)


def test_servers_of_one_kind_with_different_images_are_told_of(two: Two) -> None:
    """Both images go over; a server that is new there gets the newer, which is said."""
    two.up()
    tag = two.refresh("www")
    two.here.boxes["two-www-1"].image_id = two.here.images[tag]
    found = two.look()
    assert {li.choice.servers for li in found.loads} == {(), ("edge",), ("www",), ("blog",)}
    assert [n.partition(":")[0] for n in found.notes] == ["blog"]
    assert "newer than what is shipped" in found.notes[0]


def test_a_server_that_keeps_another_image_there_is_told_of(two: Two) -> None:
    """`up` leaves it as it is."""
    two.up()
    two.ship()
    two.up(two.there)
    tag = two.refresh("www")
    for server in ("www", "blog"):
        two.here.boxes[f"two-{server}-1"].image_id = two.here.images[tag]
    sent = two.ship()
    assert [r["image"] for r in sent.to_json()["images"] if r["state"] == "sent"] == [tag]
    assert [n for n in sent.shipment.notes if "www" in n and "`update`" in n]


def test_a_pulled_image_whose_tag_has_moved_on_is_sent_by_its_tag(two: Two) -> None:
    """What runs was tested, not what the tag means by now."""
    two.write({"cache": {"kind": "page", "image": "redis:7"}})
    two.up()
    ran = two.here.images["redis:7"]
    two.here.images.add("redis:7")
    two.ship()
    assert two.there.images["redis:7"] == ran
    assert two.lacks() == []


def test_of_two_images_of_one_tag_the_one_is_sent_that_has_it(two: Two) -> None:
    """By nothing else could `up` there find the other, which is said."""
    cache = {"kind": "page", "image": "redis:7"}
    two.write({"old": cache})
    two.up()
    two.here.images.add("redis:7")
    two.write({"old": cache, "new": cache})
    two.here.boxes["two-old-1"].image_id = "sha256:older"
    two.here.images["sha256:older"] = "sha256:older"
    two.up()
    two.here.boxes["two-new-1"].image_id = two.here.images["redis:7"]
    sent = two.ship()
    assert two.there.images["redis:7"] == two.here.images["redis:7"]
    assert [n.partition(":")[0] for n in sent.shipment.notes] == ["old"]


def test_an_image_named_by_its_digest_is_left_to_its_registry(two: Two) -> None:
    """No archive brings a digest along, so that is said, and all else is sent."""
    name = f"redis@sha256:{'1' * 64}"
    two.write({"cache": {"kind": "page", "image": name}})
    two.up()
    found = two.look()
    assert [li.choice.why for li in found.loads] == ["base"]
    assert [n for n in found.notes if name in n and "pulls it itself" in n]
    two.there.images.add(name)
    assert not two.look().notes


def test_what_never_ran_is_sent_as_up_would_take_it(two: Two) -> None:
    """The newest that is here, which is said; where there is none that is an error that names the servers."""
    two.up()
    two.here.boxes.clear()
    found = two.look()
    assert [n for n in found.notes if n.startswith("not running here: edge, www, blog")]
    assert {li.choice.why for li in found.loads} == {"newest", "base"}
    two.write(PAGES | {"db": {"kind": "depot"}})
    with pytest.raises(OperationFailed, match=r"the image of db \(consolidate/depot:"):
        two.look()
    assert {s for li in two.look("www").loads for s in li.choice.servers} == {"www"}


def test_a_server_that_the_stack_does_not_have_is_a_mistake(two: Two) -> None:
    two.up()
    with pytest.raises(UsageError, match="no server 'wwww'"):
        two.look("wwww")


def test_production_gets_what_development_ran(two: Two) -> None:
    """Under the names that its own environment asks for."""
    (two.folder / "app").mkdir()
    (two.folder / "app" / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\n")
    two.write(PAGES | {"app": {"kind": "container", "build": "./app", "healthcheck": {"test": ["CMD", *READY]}}})
    two.write({"www": {"domains": ["www.prod.test"]}}, "prod")
    two.write({"www": {"domains": ["www.dev.test"]}}, "dev")
    two.up(environment="dev")
    sent = two.ship(environment="prod")
    assert {r["why"] for r in sent.to_json()["images"]} == {"runs", "base"}
    assert two.lacks("prod") == []
    two.up(two.there, "prod")
    assert two.running(two.there, "two-prod") == two.running(two.here, "two-dev")


def test_what_its_own_environment_runs_counts_more(two: Two) -> None:
    """Where both run here, with different images of the same."""
    two.write({"www": {"kind": "page"}})
    two.write({"www": {"title": "Prod"}}, "prod")
    two.up(environment="prod")
    first = two.running(two.here, "two-prod")["www"]
    two.up()
    tag = naming.refreshed_image(two.here.observe("two").servers["www"][0].labels[naming.IMAGE], STAMP)
    two.here.images.add(tag)
    two.here.boxes["two-www-1"].image_id = two.here.images[tag]
    assert [li.choice.image for li in two.look(environment="prod").loads if "www" in li.choice.servers] == [first]
    assert [li.choice.image for li in two.look().loads if "www" in li.choice.servers] == [two.here.images[tag]]


def test_with_a_lock_its_images_are_sent(two: Two) -> None:
    """Whatever runs by now; and `up` there takes them, also where that engine has newer ones by itself."""
    two.up()
    tested = two.running(two.here)
    two.lock()
    tag = two.refresh("www")
    two.here.boxes["two-www-1"].image_id = two.here.images[tag]
    two.there.images.add(tag)
    sent = two.ship()
    assert {r["why"] for r in sent.to_json()["images"]} == {"locked", "base"}
    assert not sent.shipment.notes
    assert two.lacks() == []
    two.up(two.there)
    assert two.running(two.there) == tested


def test_an_image_of_the_lock_that_lost_its_name_here_gets_one_there(two: Two) -> None:
    """`up` finds it by its id; without a name whoever tidies up would take it away."""
    two.up()
    page = two.running(two.here)["www"]
    two.lock()
    tag = next(t for t, i in two.here.images.items() if i == page and t != page)
    two.here.images.add(tag)
    two.ship()
    assert [t.partition("-lock-")[0] for t in two.there.images.tags(page)] == [tag]
    two.up(two.there)
    assert two.running(two.there)["www"] == page


def test_an_image_of_the_lock_that_is_not_here_is_named(two: Two) -> None:
    two.up()
    page = two.running(two.here)["www"]
    two.lock()
    for name in [*two.here.images.tags(page), page]:
        del two.here.images[name]
    with pytest.raises(OperationFailed, match=r"the image of www \(page:\w+ of the lock, sha256:0+\), blog"):
        two.look()


def test_a_base_of_its_own_is_left_to_the_other_engine(two: Two) -> None:
    """The layers of ours go with the first image that is built on it."""
    two.up()
    two.there.images.add(BASE_IMAGE)
    own = two.there.images[BASE_IMAGE]
    found = two.look()
    assert [(li.choice.why, li.todo, li.have) for li in found.loads] == [
        ("base", False, 0),
        ("runs", True, 0),
        ("runs", True, 1),
    ]
    assert two.ship().report.ok
    assert two.there.images[BASE_IMAGE] == own
    assert two.lacks() == []


def test_a_name_that_is_missing_there_is_given_without_a_byte(two: Two) -> None:
    two.up()
    two.ship()
    tag = next(t for t in two.there.images if t.startswith("consolidate/page"))
    del two.there.images[tag]
    sent = two.ship()
    assert bytes_of(sent) == 0
    assert two.there.images[tag] == two.here.images[tag]
    assert [r["state"] for r in sent.to_json()["images"]].count("named") == 1


def test_killed_at_any_moment_the_next_run_sends_what_is_missing(two: Two) -> None:
    """Whatever was loaded is not sent again, by the bytes that go over."""
    two.up()
    total = two.look().left
    for writes in range(6):
        two.there = MemoryEngine(programs)
        two.there.images.made = 10**6
        two.there.name = "there"
        two.there.kill_after(writes)
        with pytest.raises(Killed):
            two.ship()
        two.there.revive()
        brought = sum(i == n for n, i in two.there.images.items())
        left = two.look().left
        assert left == total - brought * LAYER
        sent = two.ship()
        assert left <= bytes_of(sent) < left + LAYER
        assert two.lacks() == []


def test_one_that_fails_keeps_none_of_the_others_back(two: Two) -> None:
    """It is told with its reason, and the next run sends it alone."""
    two.up()
    page = two.running(two.here)["www"]
    two.there.fail_on(lambda name, args: name == "_load" and args[0].id == page)
    sent = two.ship()
    assert not sent.report.ok
    states = {r["id"]: (r["state"], r["detail"]) for r in sent.to_json()["images"]}
    assert states.pop(page) == ("failed", "the test lets _load fail")
    assert {s for s, _ in states.values()} == {"sent"}
    two.there.revive()
    assert [o.server for o in two.look().plan.operations] == ["www, blog"]


@pytest.mark.parametrize("amiss", ["nothing", "another", "its name"])
def test_an_image_that_is_not_the_same_there_has_failed_and_so_has_ship(
    two: Two, amiss: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an engine says of a load counts for nothing, its ids do: it stores none, another, or its name means another."""
    two.up()
    page, load, tag = two.running(two.here)["www"], two.there.load_image, two.there.tag_image
    name = next(t for t, i in two.here.images.items() if i == page != t)

    def loading(archive: Iterable[bytes], progress: Callable[[str], None]) -> None:
        head, *rest = archive
        if amiss == "its name" or page.encode() not in head:
            load([head, *rest], progress)
        elif amiss == "another":
            two.there.images.add("sha256:another")

    def tagging(image: str, to: str) -> None:
        tag(BASE_IMAGE if (amiss, to) == ("its name", name) else image, to)

    monkeypatch.setattr(two.there, "load_image", loading)
    monkeypatch.setattr(two.there, "tag_image", tagging)
    monkeypatch.setattr(options, "engine", lambda host, context: two.there if host else two.here)
    words = ["ship", "--to", "tcp://there", "-f", str(two.source.file), "--templates", str(KINDS)]
    assert app.run([*words, "--format", "json", "--progress", "quiet"]) == 1
    said = capsys.readouterr()
    told = {r["image"]: (r["state"], r["detail"]) for r in json.loads(said.out)["images"]}
    why = (
        f"{name} is another image there than {page}"
        if amiss == "its name"
        else f"{page} is not there, though the engine took it"
    )
    assert told.pop(name) == ("failed", why) and f"failed: {name}: {why}" in said.err
    assert {state for state, _ in told.values()} == {"sent"}


@pytest.mark.parametrize("whose", ["here", "there"])
def test_an_engine_that_goes_is_named_with_what_is_left(two: Two, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two.up()
    found, calls, engine = two.look(), 0, getattr(two, whose)
    method = {"here": "save_image", "there": "load_image"}[whose]
    real: Callable[..., Any] = getattr(engine, method)

    def gone_by_now(*_: Any) -> Any:
        raise EngineUnavailable("no engine answers", hint="start it")

    def going(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return gone_by_now() if calls == 2 else real(*args)

    monkeypatch.setattr(engine, method, going)
    monkeypatch.setattr(engine, "machine", gone_by_now)
    with pytest.raises(EngineUnavailable) as gone:
        work.send(found, two.here, two.there, lambda _: None, lambda _: None)
    assert gone.value.what.startswith({"here": "the engine that images come from", "there": "there"}[whose])
    assert "`ship` goes on: 1 of 3 images are there, about 2.0 kB are left" in gone.value.hint


def test_what_would_have_found_layers_of_one_that_failed_brings_them_itself(two: Two) -> None:
    two.up()
    base = two.here.images[BASE_IMAGE]
    two.there.fail_on(lambda name, args: name == "_load" and args[0].id == base)
    sent = two.ship()
    states = {r["id"]: r["state"] for r in sent.to_json()["images"]}
    assert states.pop(base) == "failed"
    assert set(states.values()) == {"sent"}


def test_an_engine_that_breaks_off_but_answers_has_refused_that_image(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ssh its reason is lost with the connection. The others are sent."""
    two.up()
    page, real = two.running(two.here)["www"], two.there.load_image

    def breaking(archive: Iterable[bytes], progress: Callable[[str], None]) -> None:
        first, *rest = archive
        if page.encode() in first:
            raise EngineUnavailable("no engine answers")
        real([first, *rest], progress)

    monkeypatch.setattr(two.there, "load_image", breaking)
    sent = two.ship()
    assert [(o.operation.server, o.message.partition("\n")[0]) for o in sent.report.failed] == [
        ("www, blog", "the engine there broke off while it took the image")
    ]
    assert sum(o.status == "done" for o in sent.report.outcomes) == 2


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(two: Two) -> None:
    """Where the base image is there to ask with; a disk is needed for an archive and for what is unpacked from it."""
    two.up()
    two.there.images.add(BASE_IMAGE)
    found = two.look()
    free = found.most - 1

    def df(engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        return 0, f"Avail\n{free}\n" if command[0] == "df" else ""

    two.there.program = df
    with pytest.raises(OperationFailed, match=r"has \d.* free, and this takes about"):
        two.ship()
    assert set(two.there.images) == {BASE_IMAGE, two.there.images[BASE_IMAGE]}
    free += 1
    assert two.ship().report.ok


def test_engines_that_do_not_go_together_are_told_apart() -> None:
    """One and the same, another processor, another way to call images: each is refused before anything is looked for."""
    one = Machine("one", "linux", "x86_64")
    with pytest.raises(UsageError, match="this very engine"):
        work.check_kin(one, one, "there")
    with pytest.raises(EngineUnavailable, match="linux on aarch64"):
        work.check_kin(one, Machine("two", "linux", "aarch64"), "there")
    with pytest.raises(EngineUnavailable, match="another id"):
        work.check_kin(one, Machine("two", "linux", "x86_64", "containerd"), "there")
    work.check_kin(one, Machine("two", "linux", "x86_64", "podman"), "there")
    work.check_kin(Machine("", "linux", "x86_64"), Machine("", "linux", "x86_64"), "there")
