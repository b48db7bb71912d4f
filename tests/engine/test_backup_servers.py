"""Repositories on servers: each does what a folder does, nobody is believed who is not the server, and no secret shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.nas import Nas, address, nas, options, s3
from tests.engine.support import LABEL, Stack, on_host, programs, wait_until
from tests.engine.test_backup import VAULT, said, say
from tests.engine.test_drill import of_drill

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("nas")]


@pytest.fixture(scope="module")
def host(daemon: Any, token: str) -> Iterator[str]:
    with address(daemon, f"{token}-nas") as found:
        yield found


@pytest.fixture(scope="module")
def server(daemon: Any, token: str, host: str) -> Iterator[Nas]:
    with nas(daemon, f"{token}-nas", host) as made:
        yield made


def make(stack: Stack, backup: str) -> None:
    stack.put("kinds/vault/kind.yml", VAULT)
    stack.write(f"  vault: {{kind: vault}}\ntemplates: [kinds]\nbackup: {backup}\n")


def helpers(stack: Stack, *, running: bool = False) -> list[Any]:
    filters = {"label": [f"{LABEL}stack={stack.name}", f"{LABEL}helper=backup"]}
    found: list[Any] = stack.daemon.containers.list(all=not running, filters=filters)
    return found


def networks(stack: Stack) -> list[str]:
    return [
        n.name for n in stack.daemon.networks.list(filters={"label": f"{LABEL}helper=backup"}) if stack.name in n.name
    ]


def watched(stack: Stack, *words: str) -> tuple[Any, dict[str, Any], str]:
    """The result of a command, and meanwhile how its session's container is made, and its programs' command lines."""
    running = stack.start(*words)
    wait_until(
        lambda: any("restic" in programs(c) for c in helpers(stack, running=True)), "a session at work", within=150
    )
    (container,) = helpers(stack)
    made, seen = stack.daemon.api.inspect_container(container.id), programs(container)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    return json.loads(out), made, seen + str(err)


def rebuilt(stack: Stack, repository: str, passphrase: Path, given: Sequence[str], server: str = "vault") -> None:
    """The stack is destroyed with its data and its secrets, and is back from its repository."""
    stack.run("down", "--volumes", "--yes")
    stack.run(
        "backup", "files", "latest", "out", "--repository", repository, "--passphrase-file", str(passphrase), *given
    )
    assert (stack.folder / "out/stack.yml").read_text() == stack.file.read_text()
    stack.run("restore", "latest", "--passphrase-file", str(passphrase))
    assert said(stack, server) == "first"
    assert "nothing to change" in stack.run("up").out
    assert networks(stack) == [] == helpers(stack)


@pytest.mark.slow
@pytest.mark.long
def test_by_sftp(make_stack: StackFactory, server: Nas, tmp_path: Path) -> None:
    """Made, listed, checked, rebuilt from; with a server that is none and a key that is none."""
    stack, place = make_stack("sftp"), f"sftp://ada@{server.host}:{server.ssh}//srv/b"
    key, hosts, passphrase = tmp_path / "sftp/key", tmp_path / "hosts", tmp_path / "passphrase"
    backup = f"{{repository: '{place}', ssh_key: {{file: key}}, known_hosts: ['{server.known_host}']}}"
    make(stack, backup)
    key.write_text(server.key + "\n")
    hosts.write_text(server.known_host + "\n")
    stack.up()
    say(stack, "vault", "first")
    first, made, seen = watched(stack, "backup", "--format", "json", "--progress", "plain")
    (network,) = made["NetworkSettings"]["Networks"]
    assert network.startswith(f"{stack.name}_backup_") and not made["NetworkSettings"]["Ports"]
    passphrase.write_text(stack.secret("backup/passphrase"))
    secrets = [passphrase.read_text(), *server.key.splitlines()[1:3]]
    assert not [s for s in secrets if s in json.dumps(made) + seen]
    assert networks(stack) == [] and server.said("ls /srv/b") == stack.name
    assert server.said(f"grep -rlaF -e '{secrets[0]}' -e first /srv/b || true") == ""

    say(stack, "vault", "slow")
    cut = stack.start("backup", "--progress", "plain")
    locks = f"ls /srv/b/{stack.name}/locks"
    dumping = "the dump is under way"
    wait_until(
        lambda: any("dump" in programs(c) for c in helpers(stack, running=True)) and server.said(locks),
        dumping,
        within=60,
    )
    helpers(stack)[0].kill()  # as when the machine goes: restic has no time to take its lock away
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert server.said(locks) != ""
    say(stack, "vault", "later")
    second = stack.run("backup", "--format", "json").json
    assert [r["backup"] for r in stack.run("backup", "list", "--format", "json").json] == [
        second["backup"],
        first["backup"],
    ]
    assert "whole" in stack.run("backup", "check").out
    assert server.said(locks) == "" and networks(stack) == [] == helpers(stack)

    stack.run("restore", first["backup"], "--yes")
    assert said(stack, "vault") == "first"
    stack.run("backup")
    rebuilt(stack, f"{place}/{stack.name}", passphrase, options(ssh_key=key, known_hosts=hosts))

    make(stack, backup.replace(server.known_host[-20:], "A" * 20))
    assert "has none of the keys in known_hosts" in stack.run("backup", "list", status=1).err
    make(stack, backup)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    (tmp_path / "other").replace(key)
    assert "does not let us in as ada with backup/ssh_key" in stack.run("backup", status=1).err
    key.write_text(server.key + "\n")
    make(stack, backup.replace(f":{server.ssh}/", ":1/"))
    assert "can't be reached" in stack.run("backup", "list", status=1).err
    assert networks(stack) == [] == helpers(stack)


@pytest.mark.slow
@pytest.mark.long
def test_on_a_rest_server(make_stack: StackFactory, server: Nas, tmp_path: Path) -> None:
    """With HTTPS that no public authority has signed, and a password that a URL would misread."""
    stack, place = make_stack("rest"), f"rest:https://ada@{server.host}:{server.rest}"
    password, passphrase, ca = tmp_path / "rest/password", tmp_path / "passphrase", tmp_path / "rest/ca.pem"
    backup = f"{{repository: '{place}/', password: {{file: password}}, ca: {{file: ca.pem}}}}"
    make(stack, backup)
    password.write_text(server.password + "\n")
    ca.write_text(server.certificate + "\n")
    stack.up()
    say(stack, "vault", "first")
    _, made, seen = watched(stack, "backup", "--format", "json", "--progress", "plain")
    passphrase.write_text(stack.secret("backup/passphrase"))
    shown = json.dumps(made) + seen
    assert not [s for s in (server.password, "rest%2Fpass", passphrase.read_text()) if s in shown]
    assert server.said("ls /srv/rest") == stack.name
    assert "whole" in stack.run("backup", "check").out
    password.write_text("wrong")
    assert "does not let us in as ada with backup/password" in stack.run("backup", status=1).err
    password.write_text(server.password)
    make(stack, backup.replace(", ca: {file: ca.pem}", ""))
    assert "is not trusted" in stack.run("backup", "list", status=1).err
    make(stack, backup)
    assert stack.run("restore", "latest", "--drill", "--format", "json").json["proved"] is True
    assert of_drill(stack) == [] == networks(stack)
    rebuilt(stack, f"{place}/{stack.name}", passphrase, options(password=password, ca=ca))


@pytest.mark.slow
@pytest.mark.long
def test_in_a_remote_of_rclones(make_stack: StackFactory, server: Nas, tmp_path: Path) -> None:
    """One that rclone encrypts, within WebDAV. To a server that can't be asked a repository is not one that isn't there."""
    stack, place = make_stack("rclone"), "rclone:safe:backups"
    config, passphrase, ca = tmp_path / "rclone/rclone.conf", tmp_path / "passphrase", tmp_path / "rclone/ca.pem"
    make(stack, f"{{repository: '{place}', rclone_config: {{file: rclone.conf}}, ca: {{file: ca.pem}}}}")
    right = server.remote(server.password)
    config.write_text(right)
    ca.write_text(server.certificate + "\n")
    stack.up()
    say(stack, "vault", "first")
    _, made, seen = watched(stack, "backup", "--format", "json", "--progress", "plain")
    passphrase.write_text(stack.secret("backup/passphrase"))
    secrets = [passphrase.read_text(), server.password, *right.split("pass = ")[1].split()[:1]]
    assert not [s for s in secrets if s in json.dumps(made) + seen]
    assert "whole" in stack.run("backup", "check").out
    assert server.said("ls /srv/dav/safe") != "" and server.said(f"grep -rl {stack.name} /srv/dav || true") == ""
    for text, told in (
        (server.remote("wrong"), "rclone's remote safe does not let us in with backup/rclone_config"),
        (right.replace(f":{server.dav}", ":1"), "rclone's remote safe can't be reached"),
    ):
        config.write_text(text)
        assert told in stack.run("backup", "list", status=1).err
    config.write_text("[safe]\ntype = crypt\nremote = /srv\n")
    assert "which is no REMOTE:FOLDER" in stack.run("backup", status=64).err
    config.write_text(right)
    kept = tmp_path / "rclone.conf"
    kept.write_text(right)
    rebuilt(stack, f"{place}/{stack.name}", passphrase, options(rclone_config=kept, ca=ca))


@pytest.mark.slow
@pytest.mark.long
def test_in_s3(make_stack: StackFactory, host: str, tmp_path: Path) -> None:
    """Its keys are set by hand, so they are in the store alone; a wrong one is told from a server that has nothing."""
    stack, passphrase = make_stack("s3"), tmp_path / "passphrase"
    with s3(host, tmp_path) as (url, access, secret):
        make(stack, f"{{repository: 's3:{url}/bucket'}}")
        stack.up()
        say(stack, "vault", "first")
        missing = stack.run("backup", status=64)
        assert "needs the secret backup/access_key" in missing.err
        stack.run("secret", "set", "backup/access_key", stdin=access)
        stack.run("secret", "set", "backup/secret_key", stdin="wrong")
        assert "with backup/access_key and backup/secret_key" in stack.run("backup", status=1).err
        stack.run("secret", "set", "backup/secret_key", stdin=secret)
        _, made, seen = watched(stack, "backup", "--format", "json", "--progress", "plain")
        passphrase.write_text(stack.secret("backup/passphrase"))
        assert not [s for s in (access, secret, passphrase.read_text()) if s in json.dumps(made) + seen]
        assert "whole" in stack.run("backup", "check").out
        keys = tmp_path / "access", tmp_path / "secret"
        keys[0].write_text(access)
        keys[1].write_text(secret)
        given = options(access_key=keys[0], secret_key=keys[1])
        stack.run("down", "--volumes", "--yes")
        stack.run("restore", "latest", "--passphrase-file", str(passphrase), *given)
        assert said(stack, "vault") == "first" and stack.secret("backup/secret_key") == secret
        rebuilt_files = stack.run(
            "backup", "files", "latest", "out", "--repository", f"s3:{url}/bucket/{stack.name}",
            "--passphrase-file", str(passphrase), *given,
        )  # fmt: skip
        assert stack.name in rebuilt_files.out
        assert networks(stack) == [] == helpers(stack)


@pytest.mark.slow
@pytest.mark.long
def test_a_passphrase_is_changed_in_the_repository_too(make_stack: StackFactory, daemon: Any, tmp_path: Path) -> None:
    """The new one opens it and the old one no more; a new stack that meets an old repository says so, and takes it up again."""
    stack = make_stack("phrase")
    old, new = tmp_path / "old", tmp_path / "phrase/new"
    make(stack, f"{{repository: {tmp_path}/repositories}}")
    stack.up()
    say(stack, "vault", "first")
    try:
        stack.run("backup")
        old.write_text(stack.secret("backup/passphrase"))
        stack.run("secret", "rotate", "backup/passphrase")
        new.write_text(stack.secret("backup/passphrase"))
        assert new.read_text() != old.read_text()
        refused = stack.run("backup", "list", "--passphrase-file", str(old), status=1)
        assert f"the repository {tmp_path}/repositories/{stack.name} was made with another passphrase" in refused.err
        assert len(stack.run("backup", "list", "--format", "json").json) == 1
        new.write_text("a third")
        make(stack, f"{{repository: {tmp_path}/repositories, passphrase: {{file: new}}}}")
        stack.run("backup")
        assert stack.secret("backup/passphrase") == "a third"
        keys = on_host(daemon, tmp_path, f"ls /host/repositories/{stack.name}/keys")
        assert len(keys.split()) == 1

        stack.run("down", "--volumes", "--yes")
        make(stack, f"{{repository: {tmp_path}/repositories}}")
        stack.up()
        refused = stack.run("backup", status=1)
        assert "was made with another passphrase" in refused.err and "--passphrase-file" in refused.err
        stack.run("backup", "--passphrase-file", str(new))
        assert stack.secret("backup/passphrase") == "a third"
        assert len(stack.run("backup", "list", "--format", "json").json) == 3
    finally:
        on_host(daemon, tmp_path, "rm -rf /host/repositories")
