"""`update`: newer packages come to the servers that have old ones, and to nobody else. With a distribution of our own."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from consolidate import base_image
from consolidate.__main__ import main
from consolidate.desire.content import packaged_image
from consolidate.docker_engine import DockerEngine
from consolidate.kinds import data_folder
from consolidate.naming import BASE, BASE_IMAGE
from tests import registry
from tests.engine.conftest import StackFactory
from tests.engine.mirror import ENDS, Mirror
from tests.engine.support import Stack, free_port, tags
from tests.load import Visitor, saying, visitors

pytestmark = pytest.mark.engine

WEB = data_folder("templates") / "web"
MIRROR = "RUN rm -f /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] {url} ./' > /etc/apt/sources.list\n"
INSTALL = "RUN apt-get update && apt-get install -y {package} && rm -rf /var/lib/apt/lists/*\n"
MIB = 2**20
DPKG = ("dpkg-query", "-W", "-f", "${Version}", "tiny")


@pytest.fixture(scope="module")
def mirror(daemon: Any, python_image: str, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    made = Mirror.start(daemon, python_image, f"{token}-mirror", tmp_path_factory.mktemp("mirror"))
    yield made
    made.container.remove(force=True)


@pytest.fixture(scope="module")
def base(daemon: Any, mirror: Mirror, token: str) -> Iterator[str]:
    """An image with a web server, which knows no distribution but ours."""
    tag = f"consolidate-tests/{token}:base"
    text = (WEB / "Dockerfile.j2").read_text().replace("{{ base }}", BASE_IMAGE) + MIRROR.format(url=mirror.url)
    daemon.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, forcerm=True)
    yield tag
    daemon.api.remove_image(tag, force=True)


TinyFactory = Callable[[str, str], Stack]


@pytest.fixture
def make_tiny(make_stack: StackFactory, base: str, mirror: Mirror) -> Iterator[TinyFactory]:
    """Stacks with these servers, of a kind like `web` whose program comes with `package`; up with its version 1.0."""
    made = []

    def make(servers: str, package: str) -> Stack:
        stack = make_stack("tiny")
        folder = stack.folder / "kinds" / kind_of(stack)
        shutil.copytree(WEB, folder)
        (folder / "Dockerfile.j2").write_text(f"FROM {base}\n{INSTALL.format(package=package)}")
        manifest = (WEB / "kind.yml").read_text()
        assert "command: [nginx, " in manifest
        (folder / "kind.yml").write_text(manifest.replace("command: [nginx, ", "command: [tiny, "))
        stack.put("www/index.html", "<h1>Here</h1>\n")
        stack.put("www/large.bin", "x" * 4 * MIB)
        stack.write(f"{servers.replace('KIND', kind_of(stack))}templates: [kinds]\ngenerations: 0\n")
        mirror.publish("1.0")
        made.append(stack)
        stack.up()
        return stack

    yield make
    for stack in made:
        stack.destroy()
        for tag in kind_images(stack):
            stack.daemon.api.remove_image(tag, force=True)


def build(daemon: Any, tag: str, dockerfile: str) -> None:
    daemon.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, forcerm=True, nocache=True)


def kind_of(stack: Stack) -> str:
    return f"{stack.name}-kind"


def kind_images(stack: Stack) -> list[str]:
    """The images of the stack's kind, the oldest first."""
    return tags(stack.daemon, f"consolidate/{kind_of(stack)}:")


def versions(stack: Stack) -> dict[str, str]:
    """What each server has installed, as its own dpkg says."""
    return {s: stack.inside(s, *DPKG)[1] for s in ("www", "blog")}


def test_newer_packages_come_to_the_servers_that_are_named_and_to_nobody_else(
    make_tiny: TinyFactory, mirror: Mirror
) -> None:
    """From nothing new over a security update to a version that does not run, which is taken back. Of the one that is
    behind a proxy no request fails meanwhile."""
    port, both = free_port(), ("-s", "www", "-s", "blog")
    proxy = f"  edge: {{kind: proxy, http: {port}, tls: 'off'}}\n"
    tiny = make_tiny(proxy + "  www: {kind: KIND, domains: [www.test], content: ./www}\n  blog: {kind: KIND}\n", "tiny")
    kept = Visitor("kept", "www.test", port, expect=saying("Here"))
    slow = Visitor("slow", "www.test", port, "/large.bin", reading=2, expect=lambda got, _: len(got) == 4 * MIB)
    with visitors(kept, slow, replace(kept, name="new", keep=False)) as load:
        load.another_round()
        (plain,), first = kind_images(tiny), tiny.identities()
        assert "nothing to update" in tiny.run("update", *both).out
        assert (kind_images(tiny), tiny.identities()) == ([plain], first)

        mirror.publish("1.1", security=True)
        row = {"package": "tiny", "old": "1.0", "new": "1.1", "security": True}
        told = tiny.run("update", *both, "--check", "--detailed-exitcode", "--format", "json", status=2).json
        assert told["changes"] == [{"server": s, **row} for s in ("www", "blog")]
        assert (kind_images(tiny), tiny.identities()) == ([plain], first)

        told = tiny.run("update", "-s", "www", "--format", "json").json
        assert told["changes"] == [{"server": "www", **row}]
        assert versions(tiny) == {"www": "1.1", "blog": "1.0"}
        assert tiny.identities()["blog"] == first["blog"]
        assert "nothing to change" in tiny.run("up").out
        known, refreshed = kind_images(tiny)
        assert known == plain

        tiny.edit(f"blog: {{kind: {kind_of(tiny)}}}", f"blog: {{kind: {kind_of(tiny)}, resources: {{memory: 65M}}}}")
        refused = tiny.run("update", *both, status=1)
        assert "blog: not as the stack file says" in refused.err
        tiny.up()
        assert versions(tiny) == {"www": "1.1", "blog": "1.0"}  # replaced for another reason

        www = tiny.identities()["www"]
        assert [c["server"] for c in tiny.run("update", *both, "--format", "json").json["changes"]] == ["blog"]
        assert versions(tiny) == {"www": "1.1", "blog": "1.1"}
        assert tiny.identities()["www"] == www
        assert kind_images(tiny) == [refreshed]  # there was no need to build another, and the old one serves nobody
        assert "nothing to change" in tiny.run("up").out

        mirror.publish("2.0", does=ENDS)
        before = tiny.identities()
        failed = tiny.run("update", *both, "--wait-timeout", "5", status=1)
        assert "ended with exit status 1 instead of getting ready" in failed.err
        assert (tiny.identities(), kind_images(tiny)) == (before, [refreshed])
        told = tiny.run("update", *both, "--check", "--detailed-exitcode", "--format", "json", status=2).json["changes"]
        assert {(c["new"], c["security"]) for c in told} == {("2.0", False)}
        load.another_round()
    assert load.failed() == []


def test_a_build_with_the_same_packages_is_no_change(make_tiny: TinyFactory, mirror: Mirror) -> None:
    """Where the Dockerfile asks for an old version no newer one comes, and nothing is left of the build; nor of one that
    fails."""
    tiny = make_tiny("  www: {kind: KIND}\n", "tiny=1.0")
    before = tiny.identities(), kind_images(tiny)
    mirror.publish("1.1", beside=True)
    told = tiny.run("update", "-s", "www", "--format", "json").json
    assert told["changes"] == []
    assert told["notes"] == ["www: its distribution has tiny 1.1, but a new build has not"]
    assert (tiny.identities(), kind_images(tiny)) == before
    mirror.publish("1.2")
    failed = tiny.run("update", "-s", "www", status=1)
    assert "Version '1.0' for 'tiny' was not found" in failed.err
    assert (tiny.identities(), kind_images(tiny)) == before


def test_the_image_that_backups_are_made_with_gets_todays_packages(
    make_tiny: TinyFactory,
    mirror: Mirror,
    base: str,
    daemon: Any,
    docker_engine: DockerEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the older one goes. Where servers are named, and where there is nothing newer, it stays as it is."""
    dockerfile = f"FROM {base}\n{INSTALL.format(package='tiny')}"
    (tmp_path / "tools" / "restic").mkdir(parents=True)
    (tmp_path / "tools" / "restic" / "Dockerfile.j2").write_text(dockerfile)
    monkeypatch.setattr("consolidate.desire.content.data_folder", lambda _: tmp_path / "tools")
    tiny = make_tiny("  www: {kind: KIND}\n", "tiny")
    tag = packaged_image(tmp_path / "tools" / "restic").tag

    def update(*words: str) -> dict[str, tuple[str, str]]:
        capsys.readouterr()
        assert main(["update", "-f", str(tiny.file), "--format", "json", *words]) == 0
        return {c["server"]: (c["old"], c["new"]) for c in json.loads(capsys.readouterr().out)["changes"]}

    build(tiny.daemon, tag, dockerfile)
    try:
        mirror.publish("1.1")
        news = ("1.0", "1.1")
        assert update("--check") == {"www": news, "(backups)": news}
        assert (update("-s", "www"), tags(daemon, tag)) == ({"www": news}, [tag])
        assert update() == {"(backups)": news}
        (refreshed,) = tags(daemon, tag)
        assert refreshed != tag and docker_engine.run_once(refreshed, DPKG) == (0, "1.1")
        assert (update(), tags(daemon, tag)) == ({}, [refreshed])
    finally:
        for name in tags(daemon, tag):
            tiny.daemon.api.remove_image(name, force=True)


def test_the_base_image_is_upgraded_in_one_layer(
    daemon: Any, docker_engine: DockerEngine, mirror: Mirror, base: str
) -> None:
    """However often: each upgrade starts from the image that was there first. With nothing newer nothing is built."""
    mirror.publish("1.0")
    tag = f"{base}-old"
    # One that is built on an upgraded base says from what that was made: this is not its own origin.
    inherited = f"LABEL {BASE}={daemon.images.get(BASE_IMAGE).id}\n"
    build(daemon, tag, f"FROM {base}\n{inherited}{INSTALL.format(package='tiny')}")
    first = daemon.images.get(tag)
    layers, found = len(first.attrs["RootFS"]["Layers"]), {first.id}
    try:
        for version in ("1.0", "1.1", "1.2"):
            mirror.publish(version)
            base_image.refresh(docker_engine, lambda _: None, tag=tag)
            image = daemon.images.get(tag)
            found.add(image.id)
            assert docker_engine.run_once(tag, DPKG) == (0, version)
            assert len(image.attrs["RootFS"]["Layers"]) == layers + (version != "1.0")
        assert len(found) == 3
        left = {i["Id"] for i in daemon.api.images(all=True)} & found
        assert left == {first.id, image.id}
    finally:
        daemon.api.remove_image(tag, force=True)


@pytest.fixture
def pulled(
    make_stack: StackFactory, daemon: Any, token: str, tmp_path: Path
) -> Iterator[tuple[Stack, Callable[..., str]]]:
    """Two servers of an image that was pulled, and what pushes another version of it under the same tag."""
    stack = make_stack("pulled")
    (tmp_path / "registry").mkdir()
    with registry.running(tmp_path / "registry") as there:

        def push(version: int, more: str = "") -> str:
            mine = f"consolidate-tests/{token}:pushed"
            build(daemon, mine, f"FROM debian:bookworm-slim\nLABEL version={version}\n{more}")
            name = there.push(daemon, mine, "site:1")
            daemon.api.remove_image(mine, force=True)
            return name

        image = push(1)
        server = f"{{kind: container, image: '{image}', command: [sleep, infinity], stop_grace_period: 1s}}"
        stack.write(f"  www: {server}\n  blog: {server}\ngenerations: 0\n")
        stack.up()
        yield stack, push
        stack.destroy()
        with contextlib.suppress(docker.errors.ImageNotFound):
            daemon.api.remove_image(image, force=True)


def labels(stack: Stack) -> dict[str, str]:
    return {s: stack.daemon.images.get(c["Image"]).labels["version"] for s, c in stack.containers().items()}


@pytest.mark.slow
@pytest.mark.long
def test_a_tag_that_has_moved_is_pulled_for_the_servers_that_are_named(
    pulled: tuple[Stack, Callable[..., str]],
) -> None:
    """The others keep the image that they have, also when they are replaced; it goes with the last of them. What does not
    run gets no server and not the tag either."""
    stack, push = pulled
    both = ("-s", "www", "-s", "blog")  # the distribution may have news for the image of backups
    before, first = stack.identities(), stack.containers()["www"]["Image"]
    assert "nothing to update" in stack.run("update", *both).out
    image = push(0, 'ENTRYPOINT ["/nowhere"]\n')
    assert "/nowhere" in stack.run("update", *both, status=1).err
    assert {s: c["Id"] for s, c in stack.containers().items()} == {s: id_ for s, (id_, _) in before.items()}
    assert stack.daemon.images.get(image).id == first
    assert "nothing to change" in stack.run("up").out
    assert "0" not in {(i["Labels"] or {}).get("version") for i in stack.daemon.api.images(all=True)}
    before = stack.identities()

    push(2)
    told = stack.run("update", *both, "--check", "--detailed-exitcode", "--format", "json", status=2).json["changes"]
    assert [(c["server"], c["package"], c["security"]) for c in told] == [("www", image, None), ("blog", image, None)]
    assert {len(c[k]) for c in told for k in ("old", "new")} == {12}
    assert all(c["old"] != c["new"] for c in told)
    assert (labels(stack), stack.identities()) == ({"www": "1", "blog": "1"}, before)

    stack.run("update", "-s", "www")
    assert labels(stack) == {"www": "2", "blog": "1"}
    assert stack.identities()["blog"] == before["blog"]
    assert "nothing to change" in stack.run("up").out
    stack.edit("  blog: {", "  blog: {resources: {memory: 40M}, ")
    stack.up()
    assert labels(stack) == {"www": "2", "blog": "1"}

    www = stack.identities()["www"]
    told = stack.run("update", *both, "--format", "json").json["changes"]
    assert [c["server"] for c in told] == ["blog"]
    assert labels(stack) == {"www": "2", "blog": "2"}
    assert stack.identities()["www"] == www
    assert first not in {i["Id"] for i in stack.daemon.api.images(all=True)}
    assert "nothing to update" in stack.run("update", *both, "--check").out
