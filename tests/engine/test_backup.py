"""Backups on a real engine, with the real restic: whole or not there, brought back or left as it was, damage named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from consolidate.execute.freezing import STAND_STILL
from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Done, Stack, command, on_host, programs, restic, wait_until
from tests.engine.terminal import at_terminal

pytestmark = pytest.mark.engine

# Its dump is a file of its data. It takes long where that says slow, says nothing more where that says stuck, and does not
# take back what it calls poison.
VAULT = """\
summary: A file with a dump, for tests.
image: debian:bookworm-slim
user: "0:0"
command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
volumes: {data: /srv/data}
tmpfs: {/tmp: {size: 1M}}
resources: {memory: 16M, cpus: 1, pids: 20}
stop: {grace: 1s}
backup:
  dump: [sh, -c, "cat /srv/data/it; ! grep -q slow /srv/data/it || for i in $(seq 600); do echo; sleep 0.1; done; ! grep -q stuck /srv/data/it || sleep 60; echo; echo the end"]
  load: [sh, -c, "cat > /tmp/it; ! grep poison /tmp/it && grep -v 'the end' /tmp/it > /srv/data/it"]
  complete: the end
"""


@pytest.fixture
def kept(make_stack: StackFactory, daemon: Any, tmp_path: Path) -> Iterator[Stack]:
    """A server with a dump, and one with files that stands still, up; with a repository of their own."""
    stack = make_stack("kept")
    stack.put("kinds/vault/kind.yml", VAULT)
    stack.write(
        "  vault: {kind: vault}\n"
        "  files:\n    kind: container\n    image: debian:bookworm-slim\n    volumes: ['data:/srv/data']\n"
        "    command: [sh, -c, 'while :; do date +%s%N > /tmp/now; sleep 0.05; done']\n    tmpfs: [/tmp]\n"
        f"templates: [kinds]\nbackup: {{repository: {tmp_path}/repositories}}\n"
    )
    stack.up()
    say(stack, "vault", "first")
    say(stack, "files", "first")
    yield stack
    on_host(daemon, tmp_path, "rm -rf /host/repositories")  # it is root's


def say(stack: Stack, server: str, text: str) -> None:
    status, said = stack.inside(server, "sh", "-c", f"echo {text} > /srv/data/it", user="0")
    assert status == 0, said


def said(stack: Stack, server: str) -> str:
    status, text = stack.inside(server, "cat", "/srv/data/it")
    assert status == 0, text
    return text.strip()


def beats(stack: Stack) -> str:
    """What the program of `files` has last written, a while from now."""
    time.sleep(0.3)
    return stack.inside("files", "cat", "/tmp/now")[1]


def names(stack: Stack) -> list[tuple[str, str, str]]:
    return [
        (row["backup"], row["reason"], row["state"]) for row in stack.run("backup", "list", "--format", "json").json
    ]


def test_a_backup_is_whole_or_none_and_a_restore_is_done_or_taken_back(kept: Stack, tmp_path: Path) -> None:
    """A run that is killed leaves nothing that `restore` would take; one that fails leaves the data as it was."""
    before = kept.identities()
    first = kept.run("backup", "--format", "json").json
    assert first["servers"] == ["files", "vault"] and first["new_passphrase"] is True
    passphrase = kept.secret("backup/passphrase")
    stored = on_host(kept.daemon, tmp_path, f"grep -rlaF -e first -e '{passphrase}' /host/repositories || true")
    assert stored == ""  # nothing is readable there

    say(kept, "vault", "slow")
    cut = kept.start("backup", "--progress", "plain")
    helpers = {"label": [f"{LABEL}stack={kept.name}", f"{LABEL}helper=backup"]}
    wait_until(
        lambda: any("dump" in programs(c) for c in kept.daemon.containers.list(filters=helpers)),
        "the dump is under way",
    )
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert kept.daemon.containers.list(filters=helpers)  # as a machine leaves it that has gone
    say(kept, "vault", "poison")
    second = kept.run("backup", "--format", "json").json
    assert (second["new_passphrase"], kept.identities()) == (False, before)
    assert [r[0] for r in names(kept)] == [second["backup"], first["backup"]]  # and what was cut off has been removed
    assert not kept.daemon.containers.list(all=True, filters=helpers)
    head, _, *rows = kept.run("backup", "list").out.splitlines()
    assert head.split() == ["BACKUP", "AGE", "SERVERS", "REASON", "STATE"]
    assert [re.split(r" {2,}", r.strip()) for r in rows] == [
        [one["backup"], ANY, "files, vault", "asked for", "whole"] for one in (second, first)
    ]

    say(kept, "vault", "good")
    say(kept, "files", "later")
    asked = kept.run("restore", first["backup"], status=64)
    assert "there is no terminal to ask on" in asked.err and said(kept, "files") == "later"
    declined = at_terminal(command("restore", first["backup"]), cwd=kept.folder, typed="no\n")
    assert declined.status == 64 and "is saved before" in declined.text and said(kept, "files") == "later"
    refused = kept.run("restore", "latest", "--yes", "--progress", "plain", status=1)
    assert "what was there before is back" in refused.err and "poison" in refused.err
    assert (said(kept, "vault"), said(kept, "files")) == ("good", "later")
    assert "nothing to change" in kept.run("up").out
    assert [reason for _, reason, _ in names(kept)] == ["before a restore", "asked for", "asked for"]

    kept.run("down", "-s", "files")
    kept.daemon.volumes.get(f"{kept.name}_files_data").remove()
    assert "before is back" in kept.run("restore", second["backup"], "--yes", status=1).err
    kept.up()  # nobody's data is called broken: this server had none, and has none again
    assert (said(kept, "vault"), kept.inside("files", "ls", "/srv/data")) == ("good", (0, ""))


def killed_at(operation: str, command: subprocess.Popen[str]) -> None:
    """Kill a command, whose progress is JSON, as an operation begins."""
    assert command.stderr is not None
    for line in command.stderr:
        if line.startswith("{") and (event := json.loads(line))["operation"].startswith(operation):
            assert event["status"] == "started"
            os.kill(command.pid, signal.SIGKILL)
            break
    command.communicate()
    assert command.returncode == -signal.SIGKILL, f"it did not come to {operation}"


def way_on(refused: Done) -> str:
    """What a command that is refused tells to give to `restore`, so that one that was cut off is finished."""
    (told,) = re.findall(r"finish it: consolidate restore (.+?);", refused.err)
    return str(told)


def dumping(stack: Stack) -> list[Any]:
    """The session in which a dump comes in, once there is one."""
    import docker.errors

    filters = {"label": [f"{LABEL}stack={stack.name}", f"{LABEL}helper=backup"]}
    found = []
    for container in stack.daemon.containers.list(filters=filters):
        with contextlib.suppress(docker.errors.APIError):  # what a killed run has left goes meanwhile
            found += [container] if "dump" in programs(container) else []
    return found


@pytest.mark.slow
@pytest.mark.long
def test_whatever_ends_in_the_middle_no_backup_is_left_that_is_not_whole(kept: Stack, tmp_path: Path) -> None:
    """Neither where we are killed, wherever that is, nor where restic is: the backups of before are there, and the next is.

    As days go by, those stay that `keep` has a place for.
    """
    whole = [kept.run("backup", "--format", "json").json["backup"]]
    for operation in ("open:", "read:", "save:", "complete:"):
        killed_at(operation, kept.start("backup", "--progress", "json"))
        assert [b for b, _, state in names(kept) if state == "whole"] == whole, operation
    say(kept, "vault", "slow")
    cut = kept.start("backup", "--progress", "plain")
    (session,) = wait_until(lambda: dumping(kept), "the dump is under way")
    session.kill()
    said_, wrong = cut.communicate(timeout=60)
    assert cut.returncode == 1 and "Traceback" not in wrong, said_ + wrong
    assert [b for b, _, state in names(kept) if state == "whole"] == whole
    say(kept, "vault", "good")
    whole.insert(0, kept.run("backup", "--format", "json").json["backup"])
    assert [b for b, _, _ in names(kept)] == whole
    assert "whole" in kept.run("backup", "check").out
    assert kept.orphans() == []

    aged = [
        f"{datetime.now(UTC) - timedelta(days=d):%Y%m%dT%H%M%S}{run[15:]}" for d, run in ((3, whole[0]), (4, whole[1]))
    ]
    renamed = zip(whole, aged, strict=True)
    restic(kept, tmp_path, ";".join(f"restic tag --tag run={o} --remove run={o} --add run={n}" for o, n in renamed))
    assert [b for b, _, _ in names(kept)] == aged
    kept.edit("repositories}", "repositories, keep: {daily: 2, weekly: 0, monthly: 0}}")
    last = kept.run("backup", "--format", "json").json["backup"]
    assert [b for b, _, _ in names(kept)] == [last, aged[0]]
    listed = json.loads(restic(kept, tmp_path, "restic snapshots --json"))
    assert {t for row in listed for t in row["tags"] if t.startswith("run=")} == {f"run={last}", f"run={aged[0]}"}


def large(stack: Stack) -> str:
    """A file of `files` that fills most of a pack of the repository's; its checksum."""
    script = "head -c 1000000 /dev/urandom > /srv/data/large && sha256sum /srv/data/large"
    status, told = stack.inside("files", "sh", "-c", script, user="0")
    assert status == 0, told
    return told


def test_what_is_damaged_or_locked_away_is_named(kept: Stack, daemon: Any, tmp_path: Path) -> None:
    """A flipped byte is found, and what can't be read is not restored by halves; a wrong passphrase is told as such, and so is a
    repository that isn't there."""
    missing = kept.run("backup", "list", status=64)
    assert "does not have the passphrase" in missing.err
    large(kept)
    first = kept.run("backup", "--format", "json").json["backup"]
    alone = kept.run("backup", "-s", "vault", "--format", "json").json
    listed = {r["backup"]: r["servers"] for r in kept.run("backup", "list", "--format", "json").json}
    assert alone["servers"] == ["vault"] and listed == {alone["backup"]: ["vault"], first: ["files", "vault"]}
    whole = kept.run("backup", "check", "--format", "json")
    assert whole.json == {"repository": f"{tmp_path}/repositories/{kept.name}", "backups": 2}
    assert "reading all of " in whole.err and "100.00% of the data has been read" in whole.err
    on_host(daemon, tmp_path, f"mv /host/repositories/{kept.name} /host/away")  # as while its disk isn't mounted
    assert "is it mounted?" in kept.run("backup", status=1).err
    on_host(daemon, tmp_path, f"touch /host/repositories/{kept.name}")  # nobody has made a folder there
    assert "can't be used as a folder of the engine's host" in kept.run("backup", "list", status=1).err
    on_host(daemon, tmp_path, f"rm /host/repositories/{kept.name}; mv /host/away /host/repositories/{kept.name}")
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    refused = kept.run("restore", "latest", "--yes", "--passphrase-file", str(wrong), status=1)
    assert "was made with another passphrase" in refused.err
    elsewhere = kept.run(
        "backup",
        "files",
        "latest",
        "out",
        "--repository",
        f"{tmp_path}/none",
        "--passphrase-file",
        str(wrong),
        status=1,
    )
    assert "there is no repository" in elsewhere.err and not (tmp_path / "none").exists()

    flip = (
        f"cd /host/repositories/{kept.name}/data; pack=$(find . -type f -size +0 -printf '%s %p\\n' | sort -n | tail -1);"
        "pack=${pack#* }; byte=$(dd if=$pack bs=1 skip=40 count=1 2>/dev/null | od -An -tu1);"
        'printf "\\\\$(printf %o $((byte ^ 1)))" | dd of=$pack bs=1 seek=40 conv=notrunc 2>/dev/null; basename $pack'
    )
    pack = on_host(daemon, tmp_path, flip)
    found = kept.run("backup", "check", status=1)
    assert "is damaged" in found.err and pack[:8] in found.err
    assert re.search(r"hash|mismatch|ID does not match|error", found.err)

    say(kept, "files", "later")
    there = large(kept)
    failed = kept.run("restore", first, "-s", "files", "--yes", status=1)
    assert "what was there before is back" in failed.err
    assert said(kept, "files") == "later"
    assert kept.inside("files", "sha256sum", "/srv/data/large") == (0, there)
    assert "nothing to change" in kept.run("up").out


def test_a_restore_that_is_cut_off_keeps_everybody_away_from_the_data(kept: Stack) -> None:
    """Nothing else is done with the stack until it has been finished, which the error says how to do."""
    frozen = f"{kept.name}-files.freeze"  # as a run leaves it that was killed just then
    kept.daemon.containers.run(
        "debian:bookworm-slim",
        ["bash", "-c", STAND_STILL],
        name=frozen,
        detach=True,
        pid_mode=f"container:{kept.containers()['files']['Id']}",
        cap_add=["KILL"],
        labels={f"{LABEL}stack": kept.name, f"{LABEL}helper": "freeze", f"{LABEL}of": "files"},
    )
    wait_until(lambda: b"frozen" in kept.daemon.containers.get(frozen).logs(), "it stands still")
    assert beats(kept) == beats(kept)
    kept.run("backup")
    assert beats(kept) != beats(kept)
    assert f"container {frozen}" not in kept.left()
    say(kept, "vault", "slow")
    say(kept, "files", "later")
    word = f"{kept.name}-vault.restore"
    killed_at("restore:", kept.start("restore", "latest", "-s", "files", "--yes", "--progress", "json"))
    assert word not in kept.left()
    refused = kept.run("up", status=1)
    assert "the data of files is not whole: a restore was cut off" in refused.err
    checks = {c["check"]: c for c in kept.run("doctor", "-f", "stack.yml", "--format", "json", status=None).json}
    assert checks["data"]["status"] == "warn" and way_on(refused) in checks["data"]["hint"]
    other = kept.run("restore", "latest", "-s", "vault", "--yes", status=1)
    assert "the data of files is not whole" in other.err and said(kept, "vault") == "slow"
    agreed = at_terminal(command("restore", *way_on(refused).split()), cwd=kept.folder, typed=f"{kept.name}\n")
    assert agreed.status == 0 and "It is not saved" in agreed.text, agreed.text
    assert (said(kept, "files"), said(kept, "vault")) == ("first", "slow")
    assert "nothing to change" in kept.run("up").out
    assert kept.orphans() == []
