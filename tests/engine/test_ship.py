"""`ship`: images from the engine of the tests to another one of its own, which reaches no registry and no mirror."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from consolidate.naming import BASE_IMAGE
from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, environment, free_port, wait_until
from tests.engine.test_elsewhere import peak, write_random
from tests.engine.wire import Wire, wire_to
from tests.second_engine import SecondEngine, second_engine
from tests.sshd import ALIAS, sshd

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MB = 10**6
PARTS = 3  # servers of the stack, each with an image of its own
SIZE = 4 * MB  # of the large file in each
# All of them by name: else what makes backups would go as well, where other tests have brought it.
SERVERS = [word for number in range(PARTS) for word in ("-s", f"part{number}")]


@dataclass
class Parts(Stack):
    """A stack of three servers, whose images have files and nothing else, so that none of them runs."""

    ids: dict[str, str] = field(default_factory=dict, kw_only=True)  # of each server's image

    def make(self, number: int, *steps: str) -> None:
        """The folder that an image is built from; the small file is another one each time."""
        folder = self.folder / f"part{number}"
        folder.mkdir(exist_ok=True)
        (folder / "small").write_bytes(os.urandom(1000))
        if not (folder / "large").exists():
            (folder / "large").write_bytes(os.urandom(SIZE))
        (folder / "Dockerfile").write_text("\n".join(("FROM scratch", "COPY large /", *steps)))

    def build(self) -> None:
        """Build what an `up` would."""
        for change in self.run("plan", "--format", "json").json["changes"]:
            tag, server = change["id"].removeprefix("image:"), change["server"]
            if tag.startswith(f"consolidate/{self.name}-"):
                self.ids[server] = self.daemon.images.build(path=str(self.folder / server), tag=tag, rm=True)[0].id

    def ship(self, to: str, *words: str) -> dict[str, Any]:
        return dict(self.run("ship", "--to", to, *SERVERS, "--format", "json", "--progress", "quiet", *words).json)


@pytest.fixture(scope="module")
def there(daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondEngine]:
    """The other engine. It has the base image, as one has that is shipped to for the second time."""
    with second_engine(tmp_path_factory.mktemp("there"), 2 * 2**30) as machine:
        machine.load(BASE_IMAGE)
        yield machine


@pytest.fixture
def wire(there: SecondEngine) -> Iterator[Wire]:
    with wire_to(there.url) as made:
        yield made


@pytest.fixture
def parts(make_stack: StackFactory) -> Parts:
    """The stack, built: each image has a large layer and above it a small one."""
    found = make_stack("ship")
    stack = Parts(found.folder, found.name, found.daemon)
    lines = ""
    for number in range(PARTS):
        stack.make(number, "COPY small /")
        lines += f"  part{number}: {{kind: container, build: ./part{number}}}\n"
    stack.write(lines)
    stack.build()
    return stack


def images(machine: SecondEngine, *more: str) -> dict[str, str]:
    """What the engine lists: names and ids."""
    rows = machine.docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", *more)
    return dict(row.split() for row in rows.splitlines())


def arrived(machine: SecondEngine, stack: Parts) -> set[str]:
    """The images of servers that are there."""
    return set(stack.ids.values()) & set(images(machine, "--all").values())


@contextlib.contextmanager
def held(stack: Stack, wire: Wire, at: int, to: str = "") -> Iterator[subprocess.Popen[str]]:
    """A `ship` that has sent so many bytes, and waits for the other engine to take more; `to` is another way to the wire."""
    wire.measure()
    wire.hold_at = at
    process = stack.start("ship", "--to", to or wire.url, *SERVERS, "--progress", "plain")
    try:
        wait_until(lambda: wire.holding or process.poll() is not None, "half is sent", within=60)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        wire.hold_at = None
        wire.free.set()


def test_up_on_the_other_engine_runs_the_very_images_that_ran_here(
    make_stack: StackFactory, daemon: Any, tmp_path: Path
) -> None:
    """It builds nothing and pulls nothing, though that engine has had nothing at all: a kind's image, one that the stack
    builds, and a pulled one. The way there is ssh.
    """
    stack = make_stack("whole")
    pulled = f"{stack.name}/pulled:1"
    (stack.folder / "own").mkdir()
    (stack.folder / "own" / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nLABEL of={stack.name}\n")
    daemon.images.build(fileobj=io.BytesIO(f"FROM {BASE_IMAGE}\nLABEL is={stack.name}\n".encode()), tag=pulled, rm=True)
    try:
        stack.write(
            "  www: {kind: web}\n"
            "  own: {kind: container, build: ./own, command: sleep 99999}\n"
            f"  cache: {{kind: container, image: '{pulled}', command: sleep 99999}}\n"
        )
        stack.up()
        with second_engine(tmp_path, 2 * 2**30) as machine, sshd(tmp_path / "sshd", free_port()) as host:
            far = f"ssh://root@{ALIAS}{machine.url.removeprefix('unix://')}"
            stack.env |= host.env
            stack.run("ship", "--to", far, "--progress", "plain")
            changes = stack.run("plan", "-H", far, "--format", "json").json["changes"]
            assert "image" not in {c["action"] for c in changes}
            before = images(machine)
            stack.run("up", "-H", far)
            rows = machine.docker("ps", "--quiet", "--filter", f"label=io.consolidate.stack={stack.name}").split()
            run = {
                c["Config"]["Labels"]["io.consolidate.server"]: c["Image"]
                for c in json.loads(machine.docker("inspect", *rows))
            }
            assert run == {server: c["Image"] for server, c in stack.containers().items()}
            assert {n: i for n, i in images(machine).items() if "/helper:" not in n} == before
            assert {r["state"] for r in stack.run("ship", "--to", far, "--format", "json").json["images"]} == {"there"}
    finally:
        stack.destroy()
        daemon.api.remove_image(pulled, force=True)


def test_only_what_it_lacks_goes_over(parts: Parts, there: SecondEngine, wire: Wire) -> None:
    """Of new images all; nothing the second time; of a changed one the layers from the change on."""
    first = parts.ship(wire.url)
    sent = wire.measure()
    assert PARTS * SIZE < sent < PARTS * SIZE * 1.05
    assert sum(row["bytes_sent"] for row in first["images"]) == pytest.approx(sent, rel=0.02)
    assert {row["state"] for row in first["images"] if row["servers"]} == {"sent"}
    assert arrived(there, parts) == set(parts.ids.values())

    assert {row["state"] for row in parts.ship(wire.url)["images"]} == {"there"}
    assert wire.measure() < MB / 10

    parts.make(1, "COPY small /")
    parts.build()
    told = parts.ship(wire.url, "--check")
    assert [row["layers_to_send"] for row in told["images"] if row["state"] == "to send"] == [1]
    assert arrived(there, parts) == set(parts.ids.values()) - {parts.ids["part1"]}
    parts.ship(wire.url)
    assert wire.measure() < MB / 10
    assert arrived(there, parts) == set(parts.ids.values())


def test_by_ssh_where_no_socket_is_forwarded(parts: Parts, there: SecondEngine, tmp_path: Path) -> None:
    """By Docker's client on the other machine. What arrives are the very images; nothing of them goes over again."""
    config = f"AllowStreamLocalForwarding no\nSetEnv DOCKER_HOST={there.url}\n"
    with sshd(tmp_path / "sshd", free_port(), config) as host:
        parts.env |= host.env
        sent = parts.ship(f"ssh://root@{ALIAS}")
        assert {row["state"] for row in sent["images"] if row["servers"]} == {"sent"}
        assert arrived(there, parts) == set(parts.ids.values())
        assert {row["state"] for row in parts.ship(host.url)["images"]} == {"there"}


@pytest.mark.slow
@pytest.mark.long
def test_layers_that_are_alike_arrive_where_they_belong(parts: Parts, there: SecondEngine, wire: Wire) -> None:
    """An image of which all layers are there goes over without them; one with the same files twice arrives whole."""
    parts.ship(wire.url)
    parts.make(0, "COPY small /")
    parts.build()
    parts.ship(wire.url)
    parts.make(0, "COPY small /", f"LABEL of={parts.name}")
    (parts.folder / "part1" / "Dockerfile").write_text("FROM scratch\nCOPY large /\nCOPY small /\nCOPY large /\n")
    parts.build()
    wire.measure()
    parts.ship(wire.url)
    assert wire.measure() < SIZE * 1.1
    assert arrived(there, parts) == set(parts.ids.values())
    client = docker.APIClient(there.url)
    made = client.create_container(parts.ids["part1"], "none")["Id"]
    packed = io.BytesIO(b"".join(client.get_archive(made, "/large")[0]))
    client.remove_container(made)
    client.close()
    with tarfile.open(fileobj=packed) as tar:
        content = tar.extractfile("large")
        assert content is not None
        large = (parts.folder / "part1" / "large").read_bytes()
        assert hashlib.sha256(content.read()).digest() == hashlib.sha256(large).digest()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_cut_off_in_the_middle_the_next_one_goes_on(
    parts: Parts, there: SecondEngine, wire: Wire, how: signal.Signals
) -> None:
    """What has arrived is not sent again, and of the image that was under way nothing is left."""
    before = set(images(there, "--all").values())
    with held(parts, wire, SIZE * 3 // 2) as process:
        process.send_signal(how)
        if how == signal.SIGINT:
            wire.free.set()  # else what is under way gets ten seconds to end
        _, said = process.communicate(timeout=30)
    if how == signal.SIGINT:
        assert process.returncode == 130, said
        assert "2 of 4 images are there, about 8.0 MB are left" in said
        assert "the next `ship` goes on from here" in said
    assert len(arrived(there, parts)) == 1
    expected = before | arrived(there, parts)
    wait_until(lambda: set(images(there, "--all").values()) == expected, "nothing else is there")
    wire.measure()
    parts.ship(wire.url)
    assert wire.measure() < (PARTS - 1) * SIZE * 1.05
    assert arrived(there, parts) == set(parts.ids.values())


def test_a_connection_that_breaks_off_in_the_middle_is_told_and_the_next_one_goes_on(
    parts: Parts, there: SecondEngine, wire: Wire, tmp_path: Path
) -> None:
    """By ssh. Of the image that was under way nothing is left."""
    with sshd(tmp_path / "sshd", free_port()) as host:
        parts.env |= host.env
        far = f"ssh://root@{ALIAS}{wire.url.removeprefix('unix://')}"
        before = set(images(there, "--all").values())
        with held(parts, wire, SIZE * 3 // 2, far) as process:
            host.cut()
            wire.free.set()
            _, said = process.communicate(timeout=60)
        assert process.returncode == 69, said
        assert "Traceback" not in said and "`ship` goes on: 2 of 4 images are there" in said
        expected = before | arrived(there, parts)
        wait_until(lambda: set(images(there, "--all").values()) == expected, "nothing else is there")
        wire.measure()
        assert {r["state"] for r in parts.ship(far)["images"]} == {"there", "sent"}
        assert wire.measure() < (PARTS - 1) * SIZE * 1.05
        assert arrived(there, parts) == set(parts.ids.values())


@pytest.mark.slow
@pytest.mark.long
def test_a_large_image_is_not_held_in_memory(parts: Parts, there: SecondEngine) -> None:
    """What goes over is not kept in our process."""
    peaks = []
    for size in (1000, 200 * MB):
        write_random(parts.folder / "part0" / "large", size, 0)
        parts.build()
        words = ("ship", "--to", there.url, "-s", "part0", "--progress", "json")
        peaks.append(peak(parts, *words, env={}) / MB)
        assert parts.ids["part0"] in arrived(there, parts)
    assert peaks[1] - peaks[0] < 40, f"peaks in MB: {peaks}"


@pytest.mark.slow
@pytest.mark.long
def test_an_engine_that_is_killed_is_named_and_the_next_one_goes_on(
    parts: Parts, there: SecondEngine, wire: Wire
) -> None:
    with held(parts, wire, SIZE * 3 // 2) as process:
        there.kill()
        wire.free.set()
        _, said = process.communicate(timeout=60)
    there.start()
    assert process.returncode == 69, said
    assert f"consolidate: {wire.url}: " in said
    assert "once it answers again, `ship` goes on: 2 of 4 images are there" in said
    wire.measure()
    parts.ship(wire.url)
    assert wire.measure() < (PARTS - 1) * SIZE * 1.05
    assert arrived(there, parts) == set(parts.ids.values())


def test_a_disk_that_is_too_small_is_told_before_anything_is_sent(parts: Parts, there: SecondEngine) -> None:
    there.fill(leave=SIZE)
    try:
        done = parts.run("ship", "--to", there.url, *SERVERS, status=1)
    finally:
        there.empty()
    assert "MB free, and this takes about 16.0 MB" in done.err
    assert arrived(there, parts) == set()


@pytest.mark.slow
@pytest.mark.long
def test_a_disk_that_gets_full_is_told_in_the_engines_words(parts: Parts, tmp_path: Path) -> None:
    """Where that can't be told before: the engine has nothing that could be asked. What fits is sent."""
    with second_engine(tmp_path, 64 * 2**20) as machine:
        done = parts.run("ship", "--to", machine.url, *SERVERS, "--progress", "quiet", status=1)
        assert f"failed: {BASE_IMAGE}: " in done.err
        assert "no space left on device" in done.err
        assert arrived(machine, parts) == set(parts.ids.values()) == set(images(machine, "--all").values())


def test_where_to_is_an_address_or_a_context(parts: Parts, there: SecondEngine, tmp_path: Path) -> None:
    """And no engine ships to itself."""
    (tmp_path / "config.json").write_text("{}")
    env = {"DOCKER_CONFIG": str(tmp_path)}
    words = ["docker", "context", "create", "there", "--docker", f"host={there.url}"]
    subprocess.run(words, env=environment(**env), check=True, capture_output=True)
    told = parts.run("ship", "--to", "there", *SERVERS, "--check", "--format", "json", env=env).json
    assert [row["state"] for row in told["images"]].count("to send") == PARTS
    assert "no Docker context 'nowhere'" in parts.run("ship", "--to", "nowhere", status=64).err
    assert "this very engine" in parts.run("ship", "--to", "unix:///var/run/docker.sock", status=64).err
    assert "no engine answers" in parts.run("ship", "--to", "tcp://127.0.0.1:9", status=69).err


def test_progress_tells_bytes(parts: Parts, there: SecondEngine) -> None:
    """A line of JSON for each moment, on standard error; the rows of the end are on standard output."""
    done = parts.run("ship", "--to", there.url, *SERVERS, "--progress", "json", "--format", "json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert {e["operation"] for e in events if e["status"] == "done"} == {
        f"ship:{row['image']}" for row in done.json["images"] if row["state"] == "sent"
    }
    assert {e["operation"] for e in events if "4.0 MB sent" in e["detail"]} == {
        f"ship:{row['image']}" for row in done.json["images"] if row["servers"]
    }
