"""Every verb on engines elsewhere: by ssh, by TLS, by Docker's contexts. Servers are looked at without our code."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import yaml

from consolidate.desire.content import packaged_image
from consolidate.docker_engine import connect
from consolidate.files import archive
from consolidate.kinds import data_folder
from tests import registry
from tests.certificates import ADDRESS, Authority
from tests.engine.conftest import StackFactory
from tests.engine.support import (
    LABEL,
    Done,
    Stack,
    carry_images,
    client_of,
    command,
    curl,
    free_port,
    on_host,
    run,
    wait_until,
)
from tests.engine.terminal import at_terminal
from tests.engine.wire import tcp_wire_to
from tests.second_engine import SecondEngine, second_engine
from tests.sshd import ALIAS, Sshd, sshd
from tests.verbs import verbs

pytestmark = pytest.mark.engine

PORT = 2376
QUIET = 12.0  # seconds; an engine with much to do may be silent for five in the middle of an answer
BOX = """\
  box:
    kind: container
    build: ./box
    command: [bash, -c, "trap 'exit 0' TERM; echo begun; while sleep 0.1; do :; done"]
    volumes: ['data:/data']
    secrets: {token: {}}
    healthcheck: {test: [CMD, 'true']}
"""
NEVER = "  never: {kind: container, image: 'debian:bookworm-slim', command: [sh, -c, 'echo on; exec sleep 99999'], healthcheck: {test: [CMD, 'false']}}\n"
NO_SOCKETS = "AllowStreamLocalForwarding no\n"


def servers(port: int) -> str:
    return f"  www: {{kind: web, content: ./site, publish: ['{port}:80']}}\n" + BOX


def fill(stack: Stack, port: int, folder: Path) -> None:
    stack.write(servers(port))
    with stack.file.open("a") as file:
        file.write(f"backup: {{repository: {folder}/repositories}}\n")
    stack.put("site/index.html", "first\n")
    stack.put("box/Dockerfile", "FROM debian:bookworm-slim\nCOPY told /told\n")
    stack.put("box/told", "sent with the build\n")


def context(folder: Path, name: str, url: str, certificates: Path | None = None, *, current: bool = False) -> Path:
    """A folder of Docker's configuration, made by its own client."""
    given = f"host={url}"
    if certificates:
        given += "".join(f",{k}={certificates}/{f}.pem" for k, f in (("ca", "ca"), ("cert", "cert"), ("key", "key")))
    docker_ = ["docker", "--config", str(folder), "context"]
    subprocess.run([*docker_, "create", name, "--docker", given], check=True, capture_output=True)
    if current:
        subprocess.run([*docker_, "use", name], check=True, capture_output=True)
    return folder


@dataclass
class Elsewhere:
    """The second engine, which listens at 127.0.0.1:2376 of its own network by TLS, and what to reach it with."""

    machine: SecondEngine
    authority: Authority
    certificates: Path
    client: Any
    daemon: Any  # the first engine

    def stack(self, folder: Path, name: str, env: dict[str, str], *, inside: bool = False) -> Stack:
        folder.mkdir(exist_ok=True)
        before = ["nsenter", f"--net=/run/netns/{self.machine.network}"] if inside else []
        return Stack(folder, name, self.client, env=env, before=before)

    def page(self) -> str:
        return self.machine.inside("curl", "--silent", "http://127.0.0.1:8080/").stdout


@pytest.fixture(scope="module")
def elsewhere(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """With the images of a stack, and of backups."""
    folder, ours = tmp_path_factory.mktemp("elsewhere"), Authority("the engine's")
    own, shown = ours.give(folder / "server", server=True), ours.give(folder / "client", server=False)
    tls = [f"--tls{n}={own}/{f}.pem" for n, f in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))]
    with second_engine(folder, 4 * 2**30, "-H", f"tcp://{ADDRESS}:{PORT}", "--tlsverify", *tls) as machine:
        client = client_of(machine.url)
        made = Elsewhere(machine, ours, shown, client, daemon)
        web = made.stack(folder / "images", f"{token}-images", {"DOCKER_HOST": machine.url})
        web.write("  www: {kind: web, content: .}\n")
        carry_images(web, machine, daemon)
        restic = packaged_image(data_folder("tools") / "restic")
        if not daemon.api.images(restic.tag):
            engine = connect()
            with archive(restic.context.files, lambda _: "") as context:
                engine.build(restic, context, lambda _: None)
            engine.client.close()
        machine.load(restic.tag, "debian:bookworm-slim")
        yield made
        client.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    """This machine by ssh, with the first engine."""
    with sshd(tmp_path / "sshd", free_port()) as made:
        yield made


@contextlib.contextmanager
def reached_by(host: Sshd, *stacks: Stack) -> Iterator[None]:
    """Commands reach the engine of these stacks by a host, as long as that is there."""
    before = [dict(s.env) for s in stacks]
    for stack in stacks:
        stack.env |= {"DOCKER_HOST": host.url, **host.env}
    yield
    for stack, env in zip(stacks, before, strict=True):
        stack.env = env


def mounted_from_hosts(stack: Stack) -> list[str]:
    """What containers of the stack have of a host's folders."""
    rows = stack.daemon.api.containers(all=True, filters={"label": f"{LABEL}stack={stack.name}"})
    mounts = [m for r in rows for m in stack.daemon.api.inspect_container(r["Id"])["Mounts"]]
    assert {m["Type"] for m in mounts} >= {"volume"}
    return [m["Source"] for m in mounts if m["Type"] not in ("volume", "tmpfs")]


def talk(stack: Stack, page: Callable[[], str]) -> None:
    """What lasts, and goes both ways: lines as they come, an input with its end, a terminal."""
    follower = stack.start("logs", "--follow", "-n", "0")
    try:
        wait_until(lambda: (page(), select.select([follower.stdout], [], [], 0.1)[0])[1], "a line is followed")
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate()
    said = stack.run("exec", "box", "--", "bash", "-c", "cat; echo $?; exit 7", stdin="typed\n", status=7).out
    assert said == "typed\n0\n"
    words = [*stack.before, *command("exec", "box", "bash", "-c", "tty; exit 3")]
    shown = at_terminal(words, cwd=stack.folder, env=stack.env)
    assert (shown.status, shown.text.strip()) == (3, "/dev/pts/0")


def save_and_restore(stack: Stack) -> None:
    stack.inside("box", "sh", "-c", "echo kept > /data/it", user="0")
    stack.run("backup")
    stack.inside("box", "sh", "-c", "echo lost > /data/it", user="0")
    stack.run("restore", "latest", "--yes")
    assert stack.inside("box", "cat", "/data/it") == (0, "kept\n")


@dataclass
class Walker(Stack):
    """A stack that knows which verbs have been carried out on it."""

    walked: set[str] = field(default_factory=set, kw_only=True)

    def run(self, *words: str | Path, **more: Any) -> Done:
        done = super().run(*words, **more)
        self.walked.add(max((v for v in verbs() if v.split() == [*map(str, words)][: len(v.split())]), key=len))
        return done


NOT_FAR = {
    "init": "writes a stack file",
    **dict.fromkeys(("kinds", "kinds list", "kinds show", "kinds schema"), "tells of kinds, which lie here"),
    "backup schedule": "is of this machine's scheduler, see test_schedule.py",
}


@pytest.mark.slow
@pytest.mark.long
def test_every_verb_by_ssh(
    make_stack: StackFactory, host: Sshd, elsewhere: Elsewhere, daemon: Any, token: str, tmp_path: Path
) -> None:
    """By a name that only ~/.ssh/config knows, through the engine's socket, which ssh carries. Each verb in an order that it
    can say something in; what it did is seen on the engine. One that is new has to be walked as well, or to stand in NOT_FAR.
    """
    empty, port = make_stack("ssh"), free_port()
    stack = Walker(empty.folder, empty.name, daemon, env={"DOCKER_HOST": host.url, **host.env})
    prod = elsewhere.stack(empty.folder, f"{empty.name}-prod", stack.env)
    far = f"ssh://root@{ALIAS}{elsewhere.machine.url.removeprefix('unix://')}"
    fill(stack, port, tmp_path)
    stack.put("stack.prod.yml", "servers: {app: {environment: {PLACE: prod}}}\n")
    (tmp_path / "registry").mkdir()
    with registry.running(tmp_path / "registry") as there:

        def push(version: int) -> str:
            mine = f"consolidate-tests/{token}:far"
            text = f"FROM debian:bookworm-slim\nLABEL version={version}\n"
            daemon.images.build(fileobj=io.BytesIO(text.encode()), tag=mine, rm=True)
            name = there.push(daemon, mine, "far:1")
            daemon.api.remove_image(mine)
            return name

        image = push(1)
        stack.edit("  box:\n", APP.format(image=image) + "  box:\n")
        try:
            begins_and_changes(stack, lambda: curl(f"http://localhost:{port}/").body)
            goes_to_prod(stack, prod, far)
            is_locked_and_updated(stack, lambda: push(2))
            goes_to_prod(stack, prod, far)  # which had an image: the lock has moved it
            differs_in_its_overlay(stack, far)
            is_saved_and_comes_back(stack, tmp_path)
            stack.run("down", "--volumes", "--yes")
            assert stack.left() == []
        finally:
            prod.purge()
            stack.purge()
            with contextlib.suppress(docker.errors.ImageNotFound):
                daemon.api.remove_image(image)
            on_host(daemon, tmp_path, "rm -rf /host/repositories")
    assert stack.walked == verbs().keys() - NOT_FAR.keys()
    assert "dial-stdio" not in host.log


APP = "  app: {{kind: container, image: '{image}', command: [sleep, infinity], secrets: {{key: {{}}}}, stop_grace_period: 1s}}\n"


def begins_and_changes(stack: Stack, page: Callable[[], str]) -> None:
    """From nothing to a stack that has had a change, and a way back; with a secret of ours, and another one."""
    stack.run("render", "--out", "rendered")
    assert list((stack.folder / "rendered").rglob("*nginx*"))
    checks = {c["check"]: c["status"] for c in stack.run("doctor", "--format", "json", status=None).json}
    assert checks["engine"] == "ok"
    stack.up()
    assert page() == "first\n" and mounted_from_hosts(stack) == []
    assert stack.run("plan", "--detailed-exitcode").status == 0
    rows = {r["server"]: (r["state"], r["health"]) for r in stack.run("ps", "--format", "json").json}
    assert rows == dict.fromkeys(("www", "box"), ("running", "ready")) | {"app": ("running", "none")}
    assert "begun" in stack.run("logs", "box").out
    talk(stack, page)
    before = stack.identities()
    stack.run("restart", "box")
    assert stack.identities()["box"][0] == before["box"][0] and stack.identities()["box"] != before["box"]

    stack.put("site/index.html", "second\n")
    stack.run("secret", "set", "box/token", stdin="ours\n")
    assert {r["secret"] for r in stack.run("secret", "list", "--format", "json").json} >= {"box/token", "app/key"}
    stack.up()
    assert page() == "second\n" and stack.inside("box", "cat", "/run/secrets/token") == (0, "ours")
    assert len(stack.run("history", "www", "--format", "json").json) == 2
    stack.run("rollback", "www")
    assert page() == "first\n"
    stack.run("secret", "rotate", "box/token")
    assert stack.secret("box/token") == stack.stored_secrets()["box/token"] != "ours"


def is_locked_and_updated(stack: Stack, push: Callable[[], object]) -> None:
    """The lock says what runs, and moves with an update, which brings what its tag has now."""
    stack.run("lock")
    assert locked(stack) == {s: c["Image"] for s, c in stack.containers().items()}
    stack.run("lock", "--check")
    stack.run("validate")
    before = stack.containers()
    push()
    stack.run("update", "-s", "app")
    after = stack.containers()
    assert stack.daemon.images.get(after["app"]["Image"]).labels["version"] == "2"
    assert locked(stack) == {s: c["Image"] for s, c in (before | {"app": after["app"]}).items()}
    assert {s for s in before if before[s]["Id"] != after[s]["Id"]} == {"app"}


def locked(stack: Stack) -> dict[str, str]:
    """The id of each server's image in the lock."""
    data = yaml.safe_load((stack.folder / "stack.lock.yml").read_text())
    return {server: data["images"][name]["id"] for server, name in data["servers"].items()}


def goes_to_prod(stack: Stack, prod: Stack, far: str) -> None:
    """From one engine by ssh to another by ssh: prod runs the image that runs here."""
    stack.run("ship", "-e", "prod", "-s", "app", "--to", far)
    stack.run("up", "-e", "prod", "-s", "app", "-H", far)
    assert prod.containers()["app"]["Image"] == stack.containers()["app"]["Image"]


def differs_in_its_overlay(stack: Stack, far: str) -> None:
    """Prod, there or here, from what runs here: in a value, and in its own secret."""
    found = stack.run("diff", "dev", "prod", "-s", "app", "--right-host", far, "--format", "json").json
    assert [(row["path"], row["right"]["value"]) for row in found["settings"]] == [
        ("servers.app.environment.PLACE", "prod")
    ]
    assert found["secrets"] == [{"secret": "app/key", "state": "different"}] and found["images"] == []
    here = stack.run("diff", "dev", "prod", "-s", "app", "--format", "json", "--detailed-exitcode", status=2).json
    assert here["settings"] == found["settings"] and here["secrets"] != found["secrets"]


def is_saved_and_comes_back(stack: Stack, folder: Path) -> None:
    """A backup is whole, is proved by a drill, and comes back, to a server with the secret of now; so do the files, from the
    repository alone.
    """
    stack.inside("box", "sh", "-c", "echo kept > /data/it", user="0")
    made = stack.run("backup", "--format", "json").json["backup"]
    assert [(r["backup"], r["state"]) for r in stack.run("backup", "list", "--format", "json").json] == [
        (made, "whole")
    ]
    assert "whole" in stack.run("backup", "check").out
    stack.inside("box", "sh", "-c", "echo lost > /data/it", user="0")
    assert stack.run("restore", made, "--drill", "-s", "box", "--format", "json").json
    assert stack.inside("box", "cat", "/data/it") == (0, "lost\n")
    stack.run("restore", made, "-s", "box", "--yes")
    assert stack.inside("box", "cat", "/data/it") == (0, "kept\n")
    assert stack.inside("box", "cat", "/run/secrets/token") == (0, stack.stored_secrets()["box/token"])
    keys = folder / "passphrase"
    keys.write_text(stack.stored_secrets()["backup/passphrase"])
    words = ["backup", "files", made, "back", "--repository", f"{folder}/repositories/{stack.name}"]
    stack.run(*words, "--passphrase-file", str(keys))
    for name in ("stack.yml", "stack.prod.yml", "stack.lock.yml", "site/index.html", "box/told"):
        assert (stack.folder / "back" / name).read_bytes() == (stack.folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.long
def test_what_lasts_by_sessions_of_ssh(elsewhere: Elsewhere, token: str, tmp_path: Path) -> None:
    """Where sshd forwards no socket, and gives two sessions to a connection; by a context, and by an address with a user.
    The engine has other folders than this machine, so nothing is mounted from here: neither content, nor builds, nor backups.
    """
    config = f"{NO_SOCKETS}MaxSessions 2\nSetEnv DOCKER_HOST={elsewhere.machine.url}\n"
    with sshd(tmp_path / "sshd", free_port(), config) as host:
        env = {"DOCKER_CONFIG": str(context(tmp_path / "docker", "far", host.url)), "DOCKER_CONTEXT": "far", **host.env}
        stack = elsewhere.stack(tmp_path / "stack", f"{token}-sessions", env)
        fill(stack, 8080, Path("/run"))
        try:
            stack.up()
            assert elsewhere.page() == "first\n" and mounted_from_hosts(stack) == []
            for way in (("--context", "far"), ("-H", f"ssh://root@{ALIAS}")):
                done = stack.run("exec", *way, "box", "--", "cat", "/told", env={"DOCKER_CONTEXT": "default"})
                assert done.out == "sent with the build\n"
            assert stack.inside("box", "cat", "/told") == (0, "sent with the build\n")
            talk(stack, elsewhere.page)
            save_and_restore(stack)
            stack.run("down", "--volumes", "--yes")
            assert stack.left() == []
        finally:
            stack.purge()


@pytest.mark.slow
@pytest.mark.long
def test_a_stack_by_tls(elsewhere: Elsewhere, token: str, tmp_path: Path) -> None:
    """With certificates of the current context, on both sides; what a build, a change, the way
    back, a stream, a terminal, a secret and a backup need."""
    config = context(tmp_path / "docker", "safe", f"tcp://{ADDRESS}:{PORT}", elsewhere.certificates, current=True)
    stack = elsewhere.stack(tmp_path / "stack", f"{token}-tls", {"DOCKER_CONFIG": str(config)}, inside=True)
    fill(stack, 8080, Path("/run"))
    try:
        stack.up()
        assert elsewhere.page() == "first\n" and mounted_from_hosts(stack) == []
        rows = {r["server"]: (r["state"], r["health"]) for r in stack.run("ps", "--format", "json").json}
        assert rows == {"www": ("running", "ready"), "box": ("running", "ready")}
        assert stack.inside("box", "cat", "/told") == (0, "sent with the build\n")
        talk(stack, elsewhere.page)
        stack.put("site/index.html", "second\n")
        stack.up()
        assert elsewhere.page() == "second\n"
        stack.run("rollback", "www")
        assert elsewhere.page() == "first\n"
        value = stack.secret("box/token")
        assert stack.inside("box", "cat", "/run/secrets/token") == (0, value)
        save_and_restore(stack)
        states = [r["state"] for r in stack.run("backup", "list", "--format", "json").json]
        assert states == ["whole"] * 2  # what was asked for, and what the restore replaced
        stack.run("down", "--volumes", "--yes")
        assert stack.left() == []
    finally:
        stack.purge()


@pytest.mark.slow
def test_a_lock_that_is_cut_off_by_tls_ends_the_run(elsewhere: Elsewhere, token: str, tmp_path: Path) -> None:
    """By TLS each connection can break alone, also that which holds the lock, while all others go on. The run ends with one
    clear message and 69, since another machine may be at work by then; the next `up` gets there, and nothing is left over.
    """
    with tcp_wire_to(lambda: elsewhere.machine.dial(PORT)) as wire:
        env = {"DOCKER_HOST": wire.url, "DOCKER_CERT_PATH": str(elsewhere.certificates)}
        stack = elsewhere.stack(tmp_path / "stack", f"{token}-cut", env)
        stack.write(NEVER)
        works = [stack.start("up", "--progress", "plain", "--wait-timeout", "90")]
        try:
            wait_until(lambda: state_of_lock(stack) == "running", "the lock runs", within=40)
            since = time.monotonic()
            time.sleep(QUIET)  # over what it asks whether the server is ready something goes every two seconds
            there = len(wire.connections)
            assert 0 < wire.cut(silent=time.monotonic() - since) < there
            said = works[0].communicate(timeout=30)[1]
            assert works[0].returncode == 69, said
            assert said.count("this run has lost the stack's lock") == 2, said  # of the operation, and of the run
            assert "`up` goes on from here" in said and "Traceback" not in said
            wait_until(lambda: state_of_lock(stack) == "exited", "the engine lets go of the lock")
            stack.edit("test: [CMD, 'false']", "test: [CMD, 'true']")
            assert "has gone before it was done" in stack.up().err
            assert stack.orphans() == []

            works += [
                stack.start("exec", "never", "--", "sh", "-c", "echo on; sleep 99"),
                stack.start("logs", "--follow"),
            ]
            for work in works[1:]:
                assert work.stdout is not None and work.stdout.readline().endswith("on\n")
            wire.cut()
            for work in works[1:]:
                said = work.communicate(timeout=30)[1]
                assert work.returncode == 69 and "has closed the connection" in said, (work.args, work.returncode, said)
        finally:
            for work in works:
                work.kill()
                work.communicate()
            stack.purge()


def test_certificates_that_do_not_fit(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Of another authority, or none: one clear message and 69; those of DOCKER_CERT_PATH that do are enough for -H."""
    before = ["nsenter", f"--net=/run/netns/{elsewhere.machine.network}"]
    url = f"tcp://{ADDRESS}:{PORT}"
    tmp_path.joinpath("stack.yml").write_text("stack: none\nservers: {www: {kind: web}}\n")

    def ps(folder: Path | None, status: int) -> str:
        env = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)} if folder else {}
        return run("ps", "-H", url, cwd=tmp_path, env=env, before=before, status=status).err

    ps(elsewhere.certificates, 0)
    other = Authority("another").give(tmp_path / "other", server=False)
    assert f"the engine's certificate at {url} is not trusted" in ps(other, 69)
    mixed = Authority("another").give(tmp_path / "mixed", server=False)
    (mixed / "ca.pem").write_bytes((elsewhere.certificates / "ca.pem").read_bytes())
    assert f"the engine at {url} refuses our certificate" in ps(mixed, 69)
    for name in ("cert.pem", "key.pem"):
        (mixed / name).unlink()
    assert f"the engine at {url} refuses a client without a certificate" in ps(mixed, 69)
    assert "wants TLS" in ps(None, 69)


def test_hosts_that_ssh_does_not_reach(host: Sshd, tmp_path: Path) -> None:
    """An unknown key, a key that is not let in, a port that nobody listens at, no Docker there: each is told with what to do."""
    tmp_path.joinpath("stack.yml").write_text("stack: none\nservers: {www: {kind: web}}\n")

    def ps(url: str) -> str:
        done = run("ps", "-H", url, cwd=tmp_path, env=host.env, status=69, before=["setsid", "--wait"])
        assert done.out == ""
        return done.err

    assert "Connection refused" in ps(f"ssh://root@127.0.0.1:{free_port()}")
    host.forget()
    said = ps(host.url)
    assert "Host key verification failed" in said and "`ssh elsewhere` once" in said and "ssh-keyscan" in said
    with sshd(tmp_path / "bare", free_port(), "SetEnv PATH=/nowhere\n") as bare:
        done = run("ps", "-H", bare.url, cwd=tmp_path, env=bare.env, status=69)
        assert "not found" in done.err and "Docker's client is needed there" in done.err
        (bare.folder / "key.pub").write_text("")
        done = run("ps", "-H", bare.url, cwd=tmp_path, env=bare.env, status=69, before=["setsid", "--wait"])
        assert "Permission denied (publickey" in done.err and "by a key in an agent" in done.err


@pytest.mark.parametrize("config", ["", f"{NO_SOCKETS}MaxSessions 10\n"], ids=["socket", "sessions"])
@pytest.mark.slow
@pytest.mark.long
def test_more_streams_than_sessions(make_stack: StackFactory, tmp_path: Path, config: str) -> None:
    """`logs --follow` of more servers than sshd gives sessions: all of them are heard, and another command works meanwhile."""
    stack = make_stack("many")
    box = "{{kind: container, image: 'debian:bookworm-slim', command: [sh, -c, 'while :; do echo it is {0}; sleep 0.2; done'], stop_signal: SIGKILL, healthcheck: {{test: [CMD, 'true']}}}}"
    names = [f"n{i}" for i in range(14)]
    stack.write("".join(f"  {n}: {box.format(n)}\n" for n in names))
    with sshd(tmp_path / "sshd", free_port(), config) as host, reached_by(host, stack):
        stack.up()
        follower = stack.start("logs", "--follow", "-n", "0")
        heard: set[str] = set()
        try:
            assert follower.stdout is not None
            end = time.monotonic() + 60
            while len(heard) < len(names) and time.monotonic() < end:
                heard.add(follower.stdout.readline().rpartition(" ")[2].strip())
            assert heard == set(names)
            assert stack.run("exec", "n0", "--", "echo", "still here").out == "still here\n"
            stack.run("restart", "n1")
            assert follower.poll() is None
        finally:
            follower.kill()
            follower.communicate()


@pytest.mark.slow
def test_a_holder_that_is_killed_loses_its_lock_over_ssh(make_stack: StackFactory, tmp_path: Path) -> None:
    """The lock of an `up` that works for long runs at the other end, and ends with the killed process; so does its ssh."""
    stacks = [make_stack(n) for n in ("a", "b")]
    hosts = [sshd(tmp_path / f"sshd{n}", free_port(), config) for n, config in enumerate(("", NO_SOCKETS))]
    with hosts[0] as first, hosts[1] as second, reached_by(first, stacks[0]), reached_by(second, stacks[1]):
        works = []
        for stack in stacks:
            stack.write(NEVER)
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            works.append(stack.start("up", "--progress", "plain", "--wait-timeout", "60", **silent))
        for stack, work in zip(stacks, works, strict=True):
            wait_until(lambda s=stack: state_of_lock(s) == "running", "the lock runs", within=40)
            work.kill()
            work.wait()
            wait_until(lambda s=stack: state_of_lock(s) == "exited", "the lock has ended", within=5)
        wait_until(lambda: not first.connections() + second.connections(), "no ssh is left", within=15)
        for stack in stacks:
            stack.write("  www: {kind: web}\n")
            assert "has gone before it was done" in stack.up().err
            assert stack.orphans() == []


def state_of_lock(stack: Stack) -> str:
    rows = stack.daemon.api.containers(
        all=True, filters={"label": [f"{LABEL}stack={stack.name}", f"{LABEL}helper=lock"]}
    )
    return rows[0]["State"] if rows else ""


@pytest.mark.parametrize("config", ["", NO_SOCKETS], ids=["socket", "sessions"])
@pytest.mark.slow
@pytest.mark.long
def test_a_connection_that_is_cut_in_the_middle_of_up(make_stack: StackFactory, tmp_path: Path, config: str) -> None:
    """One clear message and 69; the next `up` gets there, and nothing is left over."""
    stack, port = make_stack("cut"), free_port()
    fill(stack, port, tmp_path)
    with sshd(tmp_path / "sshd", free_port(), config) as host, reached_by(host, stack):
        for moment in ("files:", "ready:"):
            stack.put("site/index.html", f"{moment}\n")
            events, rest = [], ""
            with stack.start("up", "--progress", "json") as process:
                for line in process.stderr or ():
                    if not line.startswith("{"):
                        rest += line
                        continue
                    events.append(json.loads(line))
                    if events[-1]["operation"].startswith(moment) and events[-1]["status"] == "started":
                        host.cut()
            assert process.returncode == 69, (moment, rest, events)
            assert "the ssh connection to elsewhere has broken off" in rest, rest
            assert "`up` goes on from here" in rest and "Traceback" not in rest
            stack.up()
            assert curl(f"http://localhost:{port}/").body == f"{moment}\n"
            assert stack.run("plan", "--detailed-exitcode").status == 0
            assert stack.orphans() == []


MB = 2**20


@pytest.mark.slow
@pytest.mark.long
def test_large_content_is_not_held_in_memory(
    make_stack: StackFactory, host: Sshd, elsewhere: Elsewhere, token: str, tmp_path: Path
) -> None:
    """A page of 200 MB, a build of as much, a backup with both and their way back take no more memory than small ones; by
    the socket, by ssh and by TLS. What arrives is what was sent.
    """
    stack = make_stack("large")
    stack.write(f"  www: {{kind: web, content: ./site}}\n{BOX}backup: {{repository: {tmp_path}/repositories}}\n")
    stack.put("box/Dockerfile", "FROM debian:bookworm-slim\n")
    tls = {"DOCKER_HOST": f"tcp://{ADDRESS}:{PORT}", "DOCKER_CERT_PATH": str(elsewhere.certificates)}
    far = elsewhere.stack(tmp_path / "far", f"{token}-large", tls, inside=True)
    far.write("  www: {kind: web, content: ./site}\n")
    ways = {"socket": (stack, {}), "ssh": (stack, {"DOCKER_HOST": host.url, **host.env}), "tls": (far, {})}
    peaks: dict[tuple[str, str], list[int]] = {}
    try:
        for size in (1000, 200 * MB):
            for number, (way, (it, env)) in enumerate(ways.items()):
                for path in ("site/it", "box/it")[: 2 if way == "ssh" else 1]:
                    write_random(it.folder / path, size, number)
                peaks.setdefault((way, "up"), []).append(peak(it, "up", "--progress", "plain", env=env))
                got = it.inside("www", "sha256sum", "/config/content/it")[1].split()[0]
                assert got == digest(it.folder / "site/it")
        env, back, keys = ways["ssh"][1], tmp_path / "back", tmp_path / "passphrase"
        small = peaks["ssh", "up"][0]
        peaks["ssh", "backup"] = [small, peak(stack, "backup", env=env)]
        keys.write_text(stack.secret("backup/passphrase"))
        words = ["backup", "files", "latest", str(back), "--repository", f"{tmp_path}/repositories/{stack.name}"]
        peaks["ssh", "files"] = [small, peak(stack, *words, "--passphrase-file", str(keys), env=env)]
        assert digest(back / "site/it") == digest(stack.folder / "site/it")
    finally:
        far.purge()
        on_host(stack.daemon, tmp_path, "rm -rf /host/repositories")  # it is root's
    print({" ".join(k): [f"{p / MB:.0f} MB" for p in v] for k, v in peaks.items()})
    assert {k: (v[1] - v[0]) / MB for k, v in peaks.items() if v[1] - v[0] > 40 * MB} == {}


def write_random(file: Path, size: int, seed: int) -> None:
    """Nothing of it can be packed, and each seed's is another."""
    file.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(MB)
    with file.open("wb") as out:
        for number in range(0, size, MB):
            out.write((number + seed).to_bytes(8, "big") + block[8 : min(MB, size - number)])


def digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# A small process: what is measured begins with what its parent has.
WATCH = """\
import os, sys
child = os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as out:
    out.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(stack: Stack, *words: str, env: dict[str, str]) -> int:
    """The most memory that a command of ours has had, in bytes."""
    before, told = stack.before, stack.folder.parent / "peak"
    stack.before = [sys.executable, "-S", "-c", WATCH, str(told), *before]
    try:
        stack.run(*words, env=env, timeout=250)
    finally:
        stack.before = before
    return int(told.read_text()) * 1024
