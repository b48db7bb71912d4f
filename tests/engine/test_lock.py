"""A lock: what was tested is what runs, here and on another engine; or it is told what no longer is to be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from consolidate.docker_engine import HELPER_IMAGE
from consolidate.naming import BASE_IMAGE
from tests.engine.mirror import Mirror
from tests.engine.support import Stack, client_of
from tests.engine.test_update import TinyFactory, base, kind_images, labels, make_tiny, mirror, pulled, versions
from tests.second_engine import second_engine

__all__ = ["base", "make_tiny", "mirror", "pulled"]  # fixtures
pytestmark = pytest.mark.engine

TWO = "  www: {kind: KIND}\n  blog: {kind: KIND}\n"
MIB = 2**20
ALL = "${Package} ${Version}\\n"  # of each package


def lock(stack: Stack) -> dict[str, Any]:
    """The lock's image of each server."""
    data = yaml.safe_load((stack.folder / "stack.lock.yml").read_text())
    return {server: data["images"][name] for server, name in data["servers"].items()}


def images(stack: Stack) -> dict[str, str]:
    """The id of the image that each server is made of, as the engine says."""
    return {server: container["Image"] for server, container in stack.containers().items()}


def forget(stack: Stack) -> None:
    """The engine is as if the stack had never been there."""
    stack.destroy()
    for tag in kind_images(stack):
        stack.daemon.api.remove_image(tag, force=True)


def test_what_was_locked_is_built_again_with_its_versions_or_told_to_be_gone(
    make_tiny: TinyFactory, mirror: Mirror
) -> None:
    """Two servers of one kind with different packages; newer ones are there, then the old ones no longer."""
    tiny = make_tiny(TWO, "tiny")
    tiny.run("lock")
    assert {s: i["packages"]["tiny"] for s, i in lock(tiny).items()} == {"www": "1.0", "blog": "1.0"}
    assert {s: i["id"] for s, i in lock(tiny).items()} == images(tiny)
    every = dict(line.split() for line in tiny.inside("www", "dpkg-query", "-Wf", ALL)[1].splitlines())
    assert len(every) > 50 and lock(tiny)["www"]["packages"] == every
    assert "nothing to change" in tiny.run("up").out
    mirror.publish("1.1", beside=True)
    tiny.run("update", "-s", "www")
    assert {s: i["packages"]["tiny"] for s, i in lock(tiny).items()} == {"www": "1.1", "blog": "1.0"}
    assert {s: i["id"] for s, i in lock(tiny).items()} == images(tiny)
    assert "nothing to change" in tiny.run("up").out
    tiny.run("lock", "--check")
    file, whole = tiny.folder / "stack.lock.yml", versions(tiny)

    forget(tiny)
    locked = file.read_text().replace(
        lock(tiny)["www"]["base"]["id"], f"sha256:{'f' * 64}"
    )  # the base of then has gone
    file.write_text(locked)
    mirror.publish("1.2", beside=True)
    tiny.up()
    assert versions(tiny) == whole
    assert "nothing to change" in tiny.run("up").out
    tiny.run("lock", "--check")
    tiny.run("lock")
    assert file.read_text() == locked  # what runs is as it says
    told = tiny.run("update", "-s", "www", "-s", "blog", "--check", "--format", "json").json["changes"]
    assert {(c["server"], c["new"]) for c in told} == {("www", "1.2"), ("blog", "1.2")}  # the versions hold nobody

    forget(tiny)
    mirror.publish("2.0")
    failed = tiny.up(status=1)
    assert "1 package is no longer to be had in that version" in failed.err
    assert ["tiny", "1.1", "2.0"] in [line.strip(" |").split() for line in failed.err.splitlines()]
    assert kind_images(tiny) == []
    tiny.run("lock", "-s", "www", "-s", "blog")
    tiny.up()
    assert versions(tiny) == {"www": "2.0", "blog": "2.0"}
    assert {s: i["id"] for s, i in lock(tiny).items()} == images(tiny)


@pytest.mark.long
def test_a_tag_that_has_moved_moves_nobody_until_an_update(pulled: tuple[Stack, Callable[..., str]]) -> None:
    """Also where nothing is left of the image that was locked: it is pulled by its digest. The update moves the lock."""
    stack, push = pulled
    first = images(stack)
    stack.run("lock")
    image = push(2)
    stack.destroy()
    stack.daemon.api.remove_image(image, force=True)
    stack.up()
    assert images(stack) == first
    assert labels(stack) == {"www": "1", "blog": "1"}
    assert "nothing to change" in stack.run("up").out

    before = lock(stack)
    stack.run("update", "--check")
    assert lock(stack) == before
    stack.run("update", "-s", "www")
    assert labels(stack) == {"www": "2", "blog": "1"}
    assert {s: i["id"] for s, i in lock(stack).items()} == images(stack)
    assert lock(stack)["blog"] == before["blog"]
    assert "nothing to change" in stack.run("up").out

    (stack.folder / "stack.lock.yml").write_text((stack.folder / "stack.lock.yml").read_text().replace("www: ", "#: "))
    refused = stack.run("up", status=65)
    assert "the lock has no server 'www'" in refused.err
    assert stack.run("lock", "--check", "--format", "json", status=2).json[0]["server"] == "www"
    stack.run("lock")
    assert "nothing to change" in stack.run("up").out
    stack.run("update")
    assert labels(stack) == {"www": "2", "blog": "2"}
    assert first["blog"] not in {i["Id"] for i in stack.daemon.api.images(all=True)}


def test_an_image_that_its_registry_no_longer_has_is_told_and_nothing_is_made_of_another(
    pulled: tuple[Stack, Callable[..., str]], tmp_path: Path
) -> None:
    """Its tag is there, and means another one by now."""
    stack, push = pulled
    stack.run("lock")
    locked, image = lock(stack)["www"], push(2)
    stack.destroy()
    stack.daemon.api.remove_image(image, force=True)
    (tmp_path / "registry" / locked["digest"].partition("@")[2]).unlink()
    failed = stack.up(status=1)
    assert f"the image of the lock, {image} with the id {locked['id'][:19]}, is not on this engine" in failed.err
    assert f"{locked['digest']} can't be pulled" in failed.err and "`consolidate lock -s " in failed.err
    assert images(stack) == {}


def test_an_update_that_fails_leaves_the_lock_as_it_was(pulled: tuple[Stack, Callable[..., str]]) -> None:
    stack, push = pulled
    stack.run("lock")
    before = (stack.folder / "stack.lock.yml").read_text()
    push(0, 'ENTRYPOINT ["/nowhere"]\n')
    assert "/nowhere" in stack.run("update", status=1).err
    assert (stack.folder / "stack.lock.yml").read_text() == before
    assert "nothing to change" in stack.run("up").out


def test_an_image_that_was_brought_to_another_engine_is_what_runs_there(
    make_stack: Callable[[str], Stack], daemon: Any, tmp_path: Path
) -> None:
    """By its id: it has no tag there, and the engine reaches neither a registry nor a mirror. What is built has to be
    locked again once it is written otherwise."""
    stack = make_stack("brought")
    stack.put("app/Dockerfile", f"FROM {BASE_IMAGE}\nLABEL one=1\n")
    stack.write("  app: {kind: container, build: ./app, command: [sleep, infinity], stop_grace_period: 1s}\n")
    stack.run("lock")  # before anything is up: it is built for that
    built = lock(stack)["app"]
    assert daemon.images.get(built["id"]).labels["one"] == "1"
    assert built["base"]["id"] == daemon.images.get(BASE_IMAGE).id
    stack.up()
    assert images(stack) == {"app": built["id"]}

    stack.put("app/Dockerfile", f"FROM {BASE_IMAGE}\nLABEL one=2\n")
    refused = stack.run("up", status=65)
    assert "stack.lock.yml:5:3: servers.app: what it is built from has changed since it was locked" in refused.err
    assert "`consolidate lock -s app`" in refused.err
    assert images(stack) == {"app": built["id"]}
    stack.run("lock", "-s", "app")
    stack.up()
    assert images(stack) == {"app": lock(stack)["app"]["id"]} != {"app": built["id"]}

    with second_engine(tmp_path, 1000 * MIB) as machine:
        client = client_of(machine.url)
        machine.load(BASE_IMAGE, HELPER_IMAGE, lock(stack)["app"]["id"])
        there = Stack(stack.folder, stack.name, client, env={"DOCKER_HOST": machine.url})
        there.up()
        assert images(there) == images(stack)
        assert "nothing to change" in there.run("up").out
        there.destroy()
        client.close()
