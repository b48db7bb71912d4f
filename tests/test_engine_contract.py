"""What every engine does with containers, images and files: one suite for the real one and for the one in memory."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from docker.errors import APIError
from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import Image
from consolidate.diff.drift import IN_PLACE, expected
from consolidate.docker_engine import DockerEngine, connect
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.naming import BASE_IMAGE
from consolidate.resolved import Check, Limits
from tests.conftest import clear
from tests.contract_parts import (
    container,
    creation,
    link,
    members,
    mount,
    network,
    publish,
    seen,
    started,
    tar_of,
)
from tests.engine.support import free_port
from tests.engine.wire import dial, tcp_wire_to, wire_to
from tests.memory_engine import MemoryEngine


def owned(stack: str) -> dict[str, str]:
    return {naming.STACK: stack, naming.OF: "one"}


# Containers


def test_a_container_is_created_started_stopped_and_removed(engine: Engine, stack_name: str) -> None:
    """A container goes through created, running and exited, and then is not there any more."""
    made = creation(stack_name)
    engine.create(made)
    assert seen(engine, stack_name, made.name).state == "created"
    engine.start(made.name)
    assert engine.state(made.name).running
    engine.stop(made.name, 2)
    assert (engine.state(made.name).status, engine.state(made.name).exit_code) == ("exited", 143)
    engine.remove(made.name)
    assert engine.observe(stack_name).containers == ()


@pytest.mark.engine
@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_what_a_program_says_at_once_is_heard(docker_engine: DockerEngine, stack_name: str, way: str) -> None:
    """Also where that arrives together with the answer's head: on a machine that is busy, or by a network that collects."""
    made, there = creation(stack_name), (os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    docker_engine.create(made)
    docker_engine.start(made.name)
    with wire_to(there) if way == "unix" else tcp_wire_to(lambda: dial(there)) as wire:
        engine = connect(wire.url)
        wire.lag = 0.1
        say = ["sh", "-c", "echo first; sleep 0.3; echo last"]
        assert b"".join(engine.output(made.name, say)) == b"first\nlast\n"
        assert engine.run(made.name, say) == (0, "first\nlast\n")
        assert engine.feed(made.name, ["sh", "-c", "echo first; cat"], [b"last"]) == (0, "first\nlast")
        engine.client.close()


@pytest.mark.engine
def test_a_container_ends_in_its_own_time(docker_engine: DockerEngine, stack_name: str) -> None:
    """Where no grace is given the one that it was made with counts, and not the engine's ten seconds."""
    deaf = ("bash", "-c", "trap '' TERM; while true; do sleep 0.1; done")
    made = creation(stack_name, command=deaf, stop_grace=1.0)
    try:
        docker_engine.create(made)
        docker_engine.start(made.name)
        time.sleep(0.5)
        begun = time.monotonic()
        docker_engine.stop(made.name, None)
        assert time.monotonic() - begun < 5
        assert docker_engine.state(made.name).exit_code == 137
    finally:
        clear(docker_engine, stack_name)


def test_a_running_container_is_removed_too(engine: Engine, stack_name: str) -> None:
    """Removing does not ask whether the container runs."""
    engine.remove(started(engine, stack_name))
    assert engine.observe(stack_name).containers == ()


def test_stopping_and_removing_again_change_nothing(engine: Engine, stack_name: str) -> None:
    """Stop, remove and the removals of volumes and networks are done as well when there is nothing to do."""
    name = started(engine, stack_name)
    for _ in range(2):
        engine.stop(name, 1)
    for _ in range(2):
        engine.remove(name)
        engine.remove_volume(f"{stack_name}_none")
        engine.remove_network(f"{stack_name}_none")
    engine.stop(name, 1)
    assert engine.observe(stack_name).containers == ()


def test_starting_again_changes_nothing(engine: Engine, stack_name: str) -> None:
    """A start of what runs is no error, and no new start."""
    name = started(engine, stack_name)
    before = seen(engine, stack_name, name)
    engine.start(name)
    assert seen(engine, stack_name, name).id == before.id
    assert engine.state(name).restarts == 0


@pytest.mark.engine
def test_what_was_stopped_stays_so_until_it_is_started(docker_engine: DockerEngine, stack_name: str) -> None:
    """Also when the engine is killed and comes back: else it would start beside what has taken its place."""

    def policy() -> str:
        return str(docker_engine.client.inspect_container(name)["HostConfig"]["RestartPolicy"]["Name"])

    try:
        name = started(docker_engine, stack_name)
        assert policy() == "always"
        docker_engine.stop(name, 0)
        assert policy() == "unless-stopped"
        docker_engine.start(name)
        assert policy() == "always"
        assert docker_engine.state(name).running
    finally:
        clear(docker_engine, stack_name)


@pytest.mark.engine
def test_what_ends_by_itself_as_it_is_told_to_is_stopped(
    docker_engine: DockerEngine, stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine changes no container whose program has just ended, as that of one does that dies at each start."""
    client, refused = docker_engine.client, list[str]()

    def update(name: str, **words: Any) -> Any:
        if not refused:
            refused.append(name)
            raise APIError("Cannot update container: cannot update a stopped container: unknown")
        return real(name, **words)

    try:
        name = started(docker_engine, stack_name)
        real = client.update_container
        monkeypatch.setattr(client, "update_container", update)
        docker_engine.stop(name, 0)
        found = client.inspect_container(name)
        assert refused == [name] and not found["State"]["Running"]
        assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    finally:
        clear(docker_engine, stack_name)


def test_a_killed_container_tells_its_exit_code(engine: Engine, stack_name: str) -> None:
    """SIGKILL ends a container with 137, and the engine does not start it again."""
    name = started(engine, stack_name)
    engine.kill(name, "SIGKILL")
    deadline = time.monotonic() + 5
    while engine.state(name).status != "exited" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (engine.state(name).status, engine.state(name).exit_code) == ("exited", 137)


def test_a_restart_keeps_the_container(engine: Engine, stack_name: str) -> None:
    """A restarted container is the same one and runs."""
    name = started(engine, stack_name)
    before = seen(engine, stack_name, name).id
    engine.restart(name, 1)
    assert seen(engine, stack_name, name).id == before
    assert engine.state(name).running


@pytest.mark.parametrize("status", [0, 3])
def test_a_container_that_runs_once_is_let_be_when_it_has_ended(engine: Engine, stack_name: str, status: int) -> None:
    """It is not started again, whatever its exit status, which is kept with what it said until it is removed."""
    said = ("bash", "-c", f"echo these are its words; exit {status}")
    name = started(engine, stack_name, once=True, entrypoint=said[:1], command=said[1:])
    deadline = time.monotonic() + 5
    while engine.state(name).running and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    state = engine.state(name)
    assert (state.status, state.exit_code, state.restarts) == ("exited", status, 0)
    (line,) = engine.logs(name, tail=5, since=None, follow=False)
    assert b"these are its words" in line


def test_what_a_container_was_made_from_can_be_read_back(engine: Engine, stack_name: str) -> None:
    """Each field as it was asked for; what nobody asked for is its image's, and of what we never set nothing is told."""
    net, volume = network(engine, stack_name, "a", internal=False), f"{stack_name}_v"
    made = creation(
        stack_name,
        networks=(net,),
        entrypoint=("bash", "-c"),
        command=("sleep 1000",),
        working_dir="/tmp",
        capabilities=("CHOWN", "NET_BIND_SERVICE"),
        mounts=(mount(volume, "/data"), mount(f"{volume}2", "/config", read_only=True)),
        publish=(publish(free_port()), publish(free_port())),
        dns_options=("ndots:1",),
        stop_grace=2.5,
        limits=Limits(48 * 2**20, 64.0, 40),
    )
    engine.create(made)
    found = engine.details(made.name)
    assert dict(found.fields) == dict(found.defaults) | expected(made.container, engine.facts().cpus)
    assert found.aliases[net][:1] == ("one",)
    plain = creation(stack_name, "two", user=None, entrypoint=None, environment=(), health=None, publish=())
    engine.create(plain)
    found = engine.details(plain.name)
    assert dict(found.fields) == dict(found.defaults) | expected(plain.container, engine.facts().cpus)
    assert found.fields["restart"] == "always"


def test_limits_change_while_a_container_goes_on(engine: Engine, stack_name: str) -> None:
    """Memory, processors and processes are as they are asked for, and it is the same start of the same container."""
    name = started(engine, stack_name)
    before = seen(engine, stack_name, name).id
    for limits in (Limits(96 * 2**20, 0.25, 70), Limits(64 * 2**20, 0.5, 50)):
        engine.update(name, limits)
        wanted = expected(container(stack_name, limits=limits), engine.facts().cpus)
        found = engine.details(name).fields
        assert [found[f] for f in sorted(IN_PLACE & found.keys())] == [
            wanted[f] for f in sorted(IN_PLACE & wanted.keys())
        ]
    assert (seen(engine, stack_name, name).id, engine.state(name).restarts) == (before, 0)


def test_files_of_a_volume_are_seen_through_its_container(engine: Engine, stack_name: str) -> None:
    """By their paths in it: mode, owner and hash, of a link where it leads; also while it runs and the volume is read-only."""
    volume = f"{stack_name}_v"
    engine.create_helper(f"{stack_name}.w", owned(stack_name), {volume: "/write"})
    engine.put(f"{stack_name}.w", "/write", tar_of(("deep/er", b"x" * 300_000, 0o640, 33), ("empty", b"", 0o400, 0)))
    engine.put(f"{stack_name}.w", "/write", link("current", "deep"))
    name = started(engine, stack_name, mounts=(mount(volume, "/config", read_only=True),))
    found = engine.files(name, "/config")
    assert {p: (f.mode, f.uid, f.gid, f.link) for p, f in found.items() if f.link is None} == {
        "deep/er": (0o640, 33, 33, None),
        "empty": (0o400, 0, 0, None),
    }
    assert found["deep/er"].sha == hashlib.sha256(b"x" * 300_000).hexdigest()
    assert (found["current"].link, found["current"].sha) == ("deep", hashlib.sha256(b"-> deep").hexdigest())
    with pytest.raises(OperationFailed, match=r"(?i)could not find"):
        engine.files(name, "/none")


def paused(engine: Engine, name: str) -> None:
    """What `docker pause` does, which is no act of ours."""
    if isinstance(engine, DockerEngine):
        engine.client.pause(name)
    elif isinstance(engine, MemoryEngine):
        engine.boxes[name].state = "paused"


def test_a_paused_container_is_unpaused_and_not_started(engine: Engine, stack_name: str) -> None:
    """A start of what is paused is refused; unpaused it runs on, and unpausing what runs changes nothing."""
    name = started(engine, stack_name)
    paused(engine, name)
    assert seen(engine, stack_name, name).state == "paused"
    with pytest.raises(OperationFailed, match=r"try unpause|must be in Created or Stopped state"):
        engine.start(name)
    for _ in range(2):
        engine.unpause(name)
    assert engine.state(name).running


def test_a_paused_container_ends_when_it_is_asked_to(engine: Engine, stack_name: str) -> None:
    """A stop reaches the program of a paused container, which ends by itself."""
    name = started(engine, stack_name)
    paused(engine, name)
    engine.stop(name, 2)
    assert (engine.state(name).status, engine.state(name).exit_code) == ("exited", 143)


def test_a_renamed_container_goes_on_under_its_new_name(engine: Engine, stack_name: str) -> None:
    """A container keeps all but its name; a name that another has is refused."""
    name, other = started(engine, stack_name), started(engine, stack_name, "two")
    before = seen(engine, stack_name, name)
    engine.rename(name, f"{stack_name}-x")
    after = seen(engine, stack_name, f"{stack_name}-x")
    assert (after.id, after.state, after.own_name) == (before.id, "running", name)
    with pytest.raises(OperationFailed, match="already in use"):
        engine.rename(f"{stack_name}-x", other)


def test_state_has_the_health_check(engine: Engine, stack_name: str) -> None:
    """The command of a container's health check can be read back, and does the same; words may have blanks in them."""
    check = Check(("test", "a b", "=", "a b"), 30.0, 5.0, 3)
    name = started(engine, stack_name, health=check)
    assert engine.run(name, engine.state(name).test)[0] == 0
    words = engine.state(name).test
    assert (tuple(shlex.split(words[-1])) if "-c" in words else words) == check.command, words


@pytest.mark.parametrize("call", ["start", "state", "kill", "restart", "run"])
def test_an_unknown_container_is_refused_by_name(engine: Engine, stack_name: str, call: str) -> None:
    """What is asked of a container that isn't there fails with its name."""
    more = {"kill": ("SIGHUP",), "restart": (1,), "run": (["true"],)}.get(call, ())
    with pytest.raises(OperationFailed, match=f"(?i)(No such|no) container:? .*{stack_name}-none"):
        getattr(engine, call)(f"{stack_name}-none", *more)


def test_a_name_is_taken_once(engine: Engine, stack_name: str) -> None:
    """A second container of a running one's name is refused, and the first stays."""
    name = started(engine, stack_name)
    before = seen(engine, stack_name, name).id
    with pytest.raises(OperationFailed, match=f'"/?{name}" is already in use'):
        engine.create(creation(stack_name))
    assert seen(engine, stack_name, name).id == before


def test_a_container_that_never_started_makes_room(engine: Engine, stack_name: str) -> None:
    """What a killed run created and did not start is replaced by the next one of its name."""
    made = creation(stack_name)
    engine.create(made)
    before = seen(engine, stack_name, made.name).id
    engine.create(made)
    assert seen(engine, stack_name, made.name).id != before


def test_another_stacks_container_never_makes_room(engine: Engine, stack_name: str) -> None:
    """A name that another stack has is refused, even though its container never started."""
    theirs = creation(stack_name, "one-two")
    engine.create(theirs)
    ours = creation(f"{stack_name}-one", "two")
    assert ours.name == theirs.name
    with pytest.raises(OperationFailed, match="already in use"):
        engine.create(ours)
    assert [c.name for c in engine.observe(stack_name).containers] == [theirs.name]


def test_another_stacks_helper_never_makes_room(engine: Engine, stack_name: str) -> None:
    """A helper replaces an earlier one of its own stack only."""
    name = naming.helper(stack_name, "one-two", "live")
    engine.create_helper(name, {naming.STACK: stack_name, naming.HELPER: "live"}, {})
    with pytest.raises(OperationFailed, match="already in use"):
        engine.create_helper(name, {naming.STACK: f"{stack_name}-one", naming.HELPER: "live"}, {})
    assert [c.name for c in engine.observe(stack_name).containers] == [name]


def test_a_missing_image_is_named(engine: Engine, stack_name: str) -> None:
    """A container of an image that isn't there fails with the image's name, and leaves nothing."""
    with pytest.raises(OperationFailed, match=r"(?i)no such image: .*nowhere/none:1"):
        engine.create(creation(stack_name, image="nowhere/none:1"))
    assert engine.observe(stack_name).containers == ()
    assert not engine.has_image("nowhere/none:1")


def test_a_taken_port_fails_and_the_next_try_succeeds(engine: Engine, stack_name: str) -> None:
    """A port that another container has is refused by number, and nothing stands in the way once it is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    front = network(engine, stack_name, "front", internal=False)
    first = started(engine, stack_name, "one", networks=(front,), publish=(publish(port),))
    second = creation(stack_name, "two", networks=(front,), publish=(publish(port),))
    engine.create(second)
    with pytest.raises(OperationFailed, match=rf"{port}.*(port is already allocated|address already in use)"):
        engine.start(second.name)
    assert str(port) in engine.state(second.name).error
    engine.remove(first)
    engine.create(second)
    engine.start(second.name)
    assert seen(engine, stack_name, second.name).ports == (("127.0.0.1", port, "tcp"),)


# Images


def test_a_build_makes_an_image(engine: Engine, stack_name: str) -> None:
    """A built image is there under its tag, and what the build said was passed on."""
    said: list[str] = []
    image = Image(f"{stack_name}/thing:1", "build")
    text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}\n".encode()
    engine.build(image, tar_of(("Dockerfile", text, 0o444, 0)), said.append)
    assert engine.has_image(image.tag)
    assert engine.observe(stack_name).images[image.tag].startswith("sha256:")
    assert any("LABEL" in line for line in said)


@pytest.mark.engine
def test_who_builds_what_another_has_just_built_takes_that(docker_engine: DockerEngine, stack_name: str) -> None:
    """As with two stacks that come up at once: the name stays with who was first, and of the second build nothing is left."""
    image, first = Image(f"{stack_name}/thing:1", "build"), Image(f"{stack_name}/thing:first", "build")

    def build(made: Image, then: Callable[[str], None]) -> None:
        text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}\nLABEL made={made.tag}\n".encode()
        docker_engine.build(made, tar_of(("Dockerfile", text, 0o444, 0)), then)

    def overtaken(said: str) -> None:
        if "LABEL made" in said:
            build(first, lambda _: None)
            docker_engine.client.tag(first.tag, f"{stack_name}/thing", "1")

    try:
        build(image, overtaken)
        assert docker_engine.image(image.tag).labels["made"] == first.tag
        rows = docker_engine.client.images(filters={"label": f"of={stack_name}"})
        assert [row["Id"] for row in rows] == [docker_engine.image(first.tag).id]
        build(image, lambda _: None)
        assert docker_engine.image(image.tag).labels["made"] == image.tag, "what was there before gives way"
    finally:
        clear(docker_engine, stack_name)


def test_a_failing_build_carries_its_log(engine: Engine, stack_name: str) -> None:
    """A build that fails raises with its last lines and makes no image."""
    image = Image(f"{stack_name}/broken:1", "build")
    text = f"FROM {BASE_IMAGE}\nRUN false\n".encode()
    with pytest.raises(OperationFailed, match="the build of") as raised:
        engine.build(image, tar_of(("Dockerfile", text, 0o444, 0)), lambda _: None)
    assert any("RUN false" in line for line in raised.value.log)
    assert not engine.has_image(image.tag)


def test_an_image_shows_its_labels_its_layers_and_its_files(engine: Engine, stack_name: str) -> None:
    """Its first layers are those of its base; a helper of it holds its files, and is never started."""
    image = Image(f"{stack_name}/thing:1", "build")
    text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}\nCOPY list /srv/list\n".encode()
    engine.build(image, tar_of(("Dockerfile", text, 0o444, 0), ("list", b"one\n", 0o444, 0)), lambda _: None)
    found, base = engine.image(image.tag), engine.image(BASE_IMAGE)
    assert found.labels["of"] == stack_name
    assert found.id == engine.observe(stack_name).images[image.tag] != base.id
    assert found.layers[: len(base.layers)] == base.layers
    assert len(found.layers) > len(base.layers)
    helper = naming.helper(stack_name, "", "probe")
    engine.create_helper(helper, owned(stack_name), {}, image=image.tag)
    assert members(engine.get(helper, "/srv/list"))["list"][0] == b"one\n"
    assert seen(engine, stack_name, helper).state == "created"


def test_an_image_travels_without_the_layers_that_are_there(engine: Engine, stack_name: str) -> None:
    """Its archive brings the very same image back, and is smaller by what was left out; names it does not bring."""
    image = Image(f"{stack_name}/thing:1", "build")
    text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}\nCOPY list /list\nCOPY again /again\n".encode()
    files = [(name, f"{name} of {stack_name}\n".encode(), 0o444, 0) for name in ("list", "again")]
    engine.build(image, tar_of(("Dockerfile", text, 0o444, 0), *files), lambda _: None)
    found, base = engine.image(image.tag), engine.image(BASE_IMAGE)
    whole = sum(map(len, engine.save_image(found.id, 0)))
    thin = list(engine.save_image(found.id, len(base.layers)))
    assert whole > sum(map(len, thin)) + sum(engine.layer_sizes(found.id)[: len(base.layers)]) * 0.9
    assert len(engine.layer_sizes(found.id)) == len(found.layers)
    engine.remove_image(image.tag)
    assert found.id not in engine.observe(stack_name).images
    engine.load_image(thin, lambda _: None)
    images = engine.observe(stack_name).images
    assert (images.get(found.id), image.tag in images) == (found.id, False)
    assert engine.image(found.id).layers == found.layers
    assert found in engine.all_images()
    engine.load_image(engine.save_image(found.id, len(found.layers)), lambda _: None)  # all of it is there
    engine.remove_image(found.id)


def test_an_archive_that_lacks_what_is_not_there_is_refused(engine: Engine, stack_name: str) -> None:
    """With the engine's reason, and nothing is loaded. What is not there can't be saved."""
    image = Image(f"{stack_name}/thing:1", "build")
    text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}\nCOPY list /list\n".encode()
    own = ("list", f"of {stack_name}\n".encode(), 0o444, 0)
    engine.build(image, tar_of(("Dockerfile", text, 0o444, 0), own), lambda _: None)
    found = engine.image(image.tag)
    empty = list(engine.save_image(found.id, len(found.layers)))
    engine.remove_image(image.tag)
    with pytest.raises(OperationFailed, match="the image can't be loaded"):
        engine.load_image(empty, lambda _: None)
    with pytest.raises(OperationFailed, match=r"(?i)no such image"):
        list(engine.save_image(found.id, 0))
    assert not engine.has_image(found.id)


def test_an_archive_whose_making_fails_is_not_loaded(engine: Engine, stack_name: str) -> None:
    """What went wrong is raised, and the engine goes on."""
    base = engine.image(BASE_IMAGE)

    def broken() -> Iterator[bytes]:
        yield next(iter(engine.save_image(base.id, len(base.layers))))
        raise OperationFailed("it broke off")

    with pytest.raises(OperationFailed, match="it broke off"):
        engine.load_image(broken(), lambda _: None)
    assert engine.image(BASE_IMAGE) == base


def test_an_engine_tells_what_its_images_are_for(engine: Engine) -> None:
    """Which engine it is, for which system and processor, and that an archive may lack layers that are there."""
    found = engine.machine()
    assert (found.system, found.store) == ("linux", "layers")
    assert found.id
    assert found.architecture == engine.info()["Architecture"]


def test_a_command_runs_once_in_an_image(engine: Engine, stack_name: str) -> None:
    """Its status and its words come back, from both outputs and however soon it ends."""
    for code in range(3):
        assert engine.run_once(BASE_IMAGE, ["sh", "-c", f"echo {stack_name}; exit {code}"]) == (code, f"{stack_name}\n")
    code, said = engine.run_once(BASE_IMAGE, ["sh", "-c", "echo out; echo err >&2"])
    assert (code, sorted(said.split())) == (0, ["err", "out"])
    with pytest.raises(OperationFailed, match=f"{stack_name}/none"):
        engine.run_once(f"{stack_name}/none:1", ["true"])


@pytest.mark.engine
def test_what_runs_once_is_root_and_leaves_nothing(docker_engine: DockerEngine) -> None:
    """Also where its program is not there, which the engine refuses to start."""
    before = {c["Id"] for c in docker_engine.client.containers(all=True)}
    code, said = docker_engine.run_once(BASE_IMAGE, ["sh", "-c", "id -u; hostname"])
    assert (code, said.split()[0]) == (0, "0")
    mine = said.split()[1]
    with pytest.raises(OperationFailed, match="/no/such/program"):
        docker_engine.run_once(BASE_IMAGE, ["/no/such/program"])
    left = [c for c in docker_engine.client.containers(all=True) if c["Id"] not in before]
    assert not [c for c in left if c["Id"].startswith(mine) or c["Command"].startswith("/no/such")]


def test_a_container_is_of_the_image_that_its_creation_names(engine: Engine, stack_name: str) -> None:
    """A refresh takes the place of the image that the stack asks for, and the list says by its id which one it was."""
    tag, refreshed = f"{stack_name}/thing:1", f"{stack_name}/thing:1-20240501T120000"
    for name in (tag, refreshed):
        text = f"FROM {BASE_IMAGE}\nLABEL of={name}\n".encode()
        engine.build(Image(name, "build"), tar_of(("Dockerfile", text, 0o444, 0)), lambda _: None, cache=False)
    made = replace(creation(stack_name, image=tag), image=refreshed)
    engine.create(made)
    found = seen(engine, stack_name, made.name)
    images = engine.observe(stack_name).images
    assert (found.image, found.image_id) == (refreshed, images[refreshed])
    assert images[tag] != images[refreshed] == images[found.image_id]
    assert found.image_id in engine.observe("another").foreign_images


def test_an_image_is_removed_unless_a_container_is_of_it(engine: Engine, stack_name: str) -> None:
    """By its tag or, where it has none, by its id; one that isn't there is no error. A tag can be given back."""
    tag = f"{stack_name}/thing:1"

    def build(line: str) -> str:
        text = f"FROM {BASE_IMAGE}\nLABEL of={stack_name}{line}\n".encode()
        engine.build(Image(tag, "build"), tar_of(("Dockerfile", text, 0o444, 0)), lambda _: None)
        return engine.observe(stack_name).images[tag]

    old = build("old")
    made = creation(stack_name, image=tag)
    engine.create(made)
    engine.remove_image(tag)
    assert engine.has_image(tag)
    new = build("new")  # takes the tag
    assert seen(engine, stack_name, made.name).image == old
    engine.remove_image(old)
    assert engine.observe(stack_name).images.keys() >= {old, new}
    engine.tag_image(old, tag)  # and back
    assert seen(engine, stack_name, made.name).image == tag
    engine.remove_image(new)
    images = engine.observe(stack_name).images
    assert (images[tag], new in images) == (old, False)
    with pytest.raises(OperationFailed, match=r"(?i)no such image"):
        engine.tag_image(new, tag)
    engine.remove(made.name)
    engine.remove_image(tag)
    engine.remove_image(tag)
    assert old not in engine.observe(stack_name).images
    assert not engine.observe(stack_name).images.keys() & {old, new, tag}


# Inside


def test_run_gives_status_and_both_outputs(engine: Engine, stack_name: str) -> None:
    """A command's exit status comes back, and what it said on either output."""
    name = started(engine, stack_name)
    code, said = engine.run(name, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert code == 7
    assert sorted(said.split()) == ["err", "out"]


def test_what_a_command_says_comes_in_pieces(engine: Engine, stack_name: str) -> None:
    """All of it; that it failed is known at the end."""
    name = started(engine, stack_name)
    many = "for i in $(seq 20000); do echo line $i; done"
    said = b"".join(engine.output(name, ["sh", "-c", many]))
    assert said.splitlines()[::19999] == [b"line 1", b"line 20000"]
    pieces = engine.output(name, ["sh", "-c", "echo begun; exit 3"])
    assert next(pieces) == b"begun\n"
    with pytest.raises(OperationFailed, match="sh ended with exit status 3"):
        next(pieces)


@pytest.mark.engine
def test_what_a_command_complains_of_is_no_part_of_what_it_says(docker_engine: DockerEngine, stack_name: str) -> None:
    """A dump is its output alone; the other one tells why it failed."""
    name = started(docker_engine, stack_name)
    try:
        pieces = docker_engine.output(name, ["sh", "-c", "echo out; echo err >&2; exit 1"])
        assert next(pieces) == b"out\n"
        with pytest.raises(OperationFailed) as raised:
            next(pieces)
        assert raised.value.log == ("err",)
    finally:
        clear(docker_engine, stack_name)


def test_a_command_is_fed_piece_by_piece(engine: Engine, stack_name: str) -> None:
    """However much that is; what goes wrong while the pieces are made comes out."""
    name = started(engine, stack_name)
    pieces = [bytes([i]) * 100_000 for i in range(50)]
    digest = hashlib.sha256(b"".join(pieces)).hexdigest()
    assert engine.feed(name, ["sha256sum"], iter(pieces)) == (0, f"{digest}  -\n")
    assert engine.feed(name, ["sh", "-c", "head -c 1 > /dev/null; echo enough; exit 4"], iter(pieces)) == (
        4,
        "enough\n",
    )

    def broken() -> Iterator[bytes]:
        yield b"one"
        raise OperationFailed("the test breaks it off")

    with pytest.raises(OperationFailed, match="breaks it off"):
        engine.feed(name, ["cat"], broken())


def test_run_hands_over_its_input_to_the_end(engine: Engine, stack_name: str) -> None:
    """A command reads all of its input, sees its end, and its own output has room at the same time."""
    name = started(engine, stack_name)
    data = b"0123456789abcde\n" * 200_000
    code, said = engine.run(name, ["cat"], data)
    assert (code, len(said)) == (0, len(data))


def test_run_lives_with_a_command_that_ignores_its_input(engine: Engine, stack_name: str) -> None:
    """A command may end before it has read its input: its status counts."""
    name = started(engine, stack_name)
    assert engine.run(name, ["sh", "-c", "exit 3"], b"x" * 4_000_000)[0] == 3


def test_run_in_a_stopped_container_fails(engine: Engine, stack_name: str) -> None:
    """Nothing runs in a container that doesn't."""
    name = started(engine, stack_name)
    engine.stop(name, 1)
    with pytest.raises(OperationFailed, match=r"is not running|only .* on running containers"):
        engine.run(name, ["true"])


def test_files_survive_the_round_trip(engine: Engine, stack_name: str) -> None:
    """Files put through a helper come back with content, mode and owner, also in a volume's folders, also large ones."""
    big = bytes(range(256)) * 50_000
    engine.create_helper(f"{stack_name}.w", owned(stack_name), {f"{stack_name}_v": "/write"})
    archive = tar_of(("small", b"text", 0o440, 33), ("big", big, 0o444, 0))
    engine.put(f"{stack_name}.w", "/write", archive)
    assert members(engine.get(f"{stack_name}.w", "/write/small")) == {"small": (b"text", 0o440, 33)}
    assert members(engine.get(f"{stack_name}.w", "/write/big"))["big"][0] == big


def test_put_replaces_files_and_links(engine: Engine, stack_name: str) -> None:
    """A second archive replaces what the first brought: a file's content, a link's target."""
    name = f"{stack_name}.w"
    engine.create_helper(name, owned(stack_name), {f"{stack_name}_v": "/write"})
    for content, target in ((b"old", "a"), (b"new", "b")):
        engine.put(name, "/write", tar_of(("file", content, 0o444, 0)))
        engine.put(name, "/write", link("current", target))
    assert members(engine.get(name, "/write/file"))["file"][0] == b"new"
    assert members(engine.get(name, "/write/current"))["current"][0] == b"b"


def test_put_and_get_name_what_they_miss(engine: Engine, stack_name: str) -> None:
    """A path that isn't there fails with the path."""
    name = f"{stack_name}.w"
    engine.create_helper(name, owned(stack_name), {f"{stack_name}_v": "/write"})
    with pytest.raises(OperationFailed, match=r"(?i)could not find the file /write/none"):
        engine.get(name, "/write/none")
    with pytest.raises(OperationFailed, match=r"(?i)could not find the file /write/none"):
        engine.put(name, "/write/none", tar_of(("file", b"", 0o444, 0)))


def test_logs_of_a_silent_program_are_empty(engine: Engine, stack_name: str) -> None:
    """The log of a program that said nothing is no error."""
    assert list(engine.logs(started(engine, stack_name), tail=5, since=None, follow=False)) == []
