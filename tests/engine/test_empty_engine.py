"""An engine that has nothing but images, and a repository: a stack is rebuilt there, and outlives the engine's own death."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consolidate.desire.content import packaged_image
from consolidate.docker_engine import HELPER_IMAGE
from consolidate.kinds import data_folder
from consolidate.naming import BASE_IMAGE
from tests.engine.support import Done, Stack, client_of, free_port, on_host, run, tags, wait_until
from tests.engine.test_backup import VAULT, said, say
from tests.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MIB = 2**20
SERVERS = """\
  www: {kind: web, content: ./site, publish: ["${PORT}:80"]}
  vault: {kind: vault}
  brew: {kind: brew}
templates: [own]
"""
# Of the stack's own kinds, where that of the vault is of another folder's.
BREW = """\
summary: Something that is built, for tests.
user: "0:0"
command: [sleep, infinity]
volumes: {data: /srv/data}
resources: {memory: 16M, cpus: 1, pids: 20}
stop: {grace: 1s}
backup: {}
"""
OVERLAY = "servers: {www: {environment: {PLACE: '${PLACE:?}'}}}\n"
FILES = ("stack.yml", "stack.prod.yml", "stack.lock.yml", ".env", "site/index.html", "own/brew/kind.yml")


@dataclass
class Rebuilt:
    """A stack on the second engine, which has come there by its backup alone, and how it was on the first."""

    stack: Stack
    machine: SecondEngine
    words: list[str | Path]  # of each command: the environment, and the folder of kinds
    backup: str
    containers: dict[str, Any]
    secrets: dict[str, str]
    files: dict[str, bytes]
    restored: Done

    def run(self, verb: str, *words: str, **more: Any) -> Done:
        return self.stack.run(verb, *words, *self.words, **more)


@pytest.fixture(scope="module")
def rebuilt(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilt]:
    """Of the first engine's stack nothing is left, and of its files neither."""
    folder = tmp_path_factory.mktemp("rebuilt")
    (folder / "stack").mkdir()
    first = Stack(folder / "stack", f"{token}-empty-prod", daemon)
    first.write(SERVERS, site__index_dot_html="as it was\n")
    first.edit("-prod", "")
    first.file.write_text(f"{first.file.read_text()}backup: {{repository: {folder}/repositories}}\n")
    first.put("stack.prod.yml", OVERLAY)
    first.put("own/brew/kind.yml", BREW)
    first.put("own/brew/Dockerfile.j2", "FROM {{ base }}\nRUN mkdir -p /srv/data && echo brewed > /made\n")
    first.put(".env", f"PORT={free_port()}\nPLACE=of .env\n")
    kinds, keys, back = folder / "mine/kinds", folder / "passphrase", folder / "back"
    (kinds / "vault").mkdir(parents=True)
    (kinds / "vault/kind.yml").write_text(VAULT + "secrets: {key: {help: Its own.}}\n")
    words: list[str | Path] = ["-e", "prod", "--templates", kinds]
    try:
        first.run("up", *words)
        first.run("lock", *words)
        say(first, "vault", "kept")
        say(first, "brew", "kept")
        saved = first.run("backup", "--format", "json", *words).json["backup"]
        containers, secrets = first.containers(), first.stored_secrets()
        files = {f: (first.folder / f).read_bytes() for f in FILES}
        keys.write_text(secrets.pop("backup/passphrase"))
        first.run("down", "--volumes", "--yes", *words)
        assert first.left() == []
        shutil.rmtree(first.folder)
        shutil.rmtree(kinds.parent)
        with second_engine(folder, 1000 * MIB) as machine:
            restic = packaged_image(data_folder("tools") / "restic").tag
            machine.load(BASE_IMAGE, HELPER_IMAGE, restic, containers["www"]["Image"])
            client = client_of(machine.url)
            here = {"DOCKER_HOST": machine.url}
            opens = ["--passphrase-file", str(keys)]
            repository = ["--repository", f"{folder}/repositories/{first.name}"]
            run("backup", "files", "latest", back, *repository, *opens, env=here)
            words = ["-e", "prod", "--templates", back / "templates.0/kinds"]
            stack = Stack(back, first.name, client, env=here)
            done = stack.run("restore", "latest", *opens, *words)
            yield Rebuilt(stack, machine, words, saved, containers, secrets, files, done)
            client.close()
    finally:
        first.purge()
        on_host(daemon, folder, "rm -rf /host/repositories")  # it is root's
        for tag in tags(daemon, "consolidate/brew:"):
            daemon.api.remove_image(tag, force=True)


def test_the_repository_and_its_passphrase_are_enough(rebuilt: Rebuilt) -> None:
    """The files come with the backup: the overlay, .env, the lock, and kinds of --templates. What runs is what ran: data,
    secrets, variables, and the image of www, which nobody here could build and which only the lock knows the id of.
    """
    stack, www = rebuilt.stack, rebuilt.stack.containers()["www"]
    assert {f: (stack.folder / f).read_bytes() for f in FILES} == rebuilt.files
    assert said(stack, "vault") == "kept"
    assert {a: v for a, v in stack.stored_secrets().items() if a in rebuilt.secrets} == rebuilt.secrets
    assert "vault/key" in rebuilt.secrets
    assert "PLACE=of .env" in www["Config"]["Env"]
    (port,) = www["HostConfig"]["PortBindings"]["80/tcp"]
    page = rebuilt.machine.inside("curl", "--silent", f"http://127.0.0.1:{port['HostPort']}/").stdout
    assert page == "as it was\n"
    images, now = ({s: c["Image"] for s, c in each.items()} for each in (rebuilt.containers, stack.containers()))
    assert images.pop("brew") != now.pop("brew")  # nobody has brought it: it was built again, of the stack's own kind
    assert stack.inside("brew", "cat", "/made", "/srv/data/it") == (0, "brewed\nkept\n")
    assert now == images
    (told,) = re.findall("not made of the images of then: (.*)", rebuilt.restored.err)
    assert images.keys() == {"www", "vault"} and re.findall(r"(\w+) \(", told) == ["brew"]
    assert "nothing to change" in rebuilt.run("up").out


def test_an_engine_that_is_killed_in_the_middle_of_a_backup_leaves_none_that_is_not_whole(rebuilt: Rebuilt) -> None:
    """Once it is back the backups of before are there, and the next one is whole."""
    stack = rebuilt.stack
    before = listed(rebuilt)
    say(stack, "vault", "slow")
    cut = stack.start("backup", "--progress", "plain", *map(str, rebuilt.words))
    try:
        wait_until(lambda: stack.containers()["vault"]["ExecIDs"], "the dump is under way", within=60)
        rebuilt.machine.kill()
        wrong = cut.communicate(timeout=60)[1]
    finally:
        cut.kill()
        cut.communicate()
        rebuilt.machine.start()
    assert cut.returncode == 69 and "no engine answers" in wrong and "Traceback" not in wrong, wrong
    wait_until(lambda: all(c["State"]["Running"] for c in stack.containers().values()), "the servers are back")
    assert {b: state for b, state in listed(rebuilt).items() if state == "whole"} == before
    say(stack, "vault", "kept")
    made = rebuilt.run("backup", "--format", "json").json["backup"]
    assert listed(rebuilt) == before | {made: "whole"}
    assert "whole" in rebuilt.run("backup", "check").out
    assert stack.orphans() == []


def listed(rebuilt: Rebuilt) -> dict[str, str]:
    """The state of each backup."""
    return {r["backup"]: r["state"] for r in rebuilt.run("backup", "list", "--format", "json").json}


def test_an_image_that_is_not_that_of_then_is_told(rebuilt: Rebuilt) -> None:
    """Where no lock holds it, and its tag means another image by now. The data comes back all the same."""
    stack, machine = rebuilt.stack, rebuilt.machine
    then = rebuilt.containers["vault"]["Image"]
    rebuilt.run("down", "-s", "vault")
    (stack.folder / "stack.lock.yml").unlink()
    machine.docker("tag", BASE_IMAGE, "kept:1")
    machine.docker("create", "--name", "other", BASE_IMAGE)
    now = machine.docker("commit", "other", BASE_IMAGE).strip()
    try:
        told = rebuilt.run("restore", rebuilt.backup, "-s", "vault", "--yes").err
        assert f"note: not made of the images of then: vault ({now[7:19]}, then {then[7:19]})" in told
        assert stack.containers()["vault"]["Image"] == now and said(stack, "vault") == "kept"
    finally:
        machine.docker("rm", "other")
        machine.docker("tag", "kept:1", BASE_IMAGE)
        (stack.folder / "stack.lock.yml").write_bytes(rebuilt.files["stack.lock.yml"])
        rebuilt.run("up")
