"""Backups on a real engine where something takes too long: programs go on, nothing of it is left, memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consolidate.__main__ import main
from consolidate.execute import freezing, saving
from consolidate.execute.restic import save
from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, command, environment, on_host, programs, restic
from tests.engine.test_backup import beats, kept, names, say
from tests.engine.test_backup_rebuilt import RESTIC, sql

pytestmark = pytest.mark.engine
__all__ = ["kept"]

MIB = 2**20
GOODS = """
CREATE DATABASE shop;
CREATE TABLE shop.first (id INT PRIMARY KEY, t TEXT) ENGINE=InnoDB;
CREATE TABLE shop.goods LIKE shop.first;
CREATE TABLE shop.last LIKE shop.first;
INSERT INTO shop.first VALUES (1, 'early');
INSERT INTO shop.goods SELECT seq, IF(seq = 1, 'early', REPEAT('x', 1000)) FROM shop.seq_1_to_50000;
INSERT INTO shop.last VALUES (1, 'early');
"""
READING = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT%FROM _goods_'"
SIGNAL = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2> /dev/null)" != mariadb-dump ] || kill -{} ${{p#/proc/}}; done'
# The dump stands still where it is: with one table read, in the middle of the next, and one yet to come.
STOP = f"""
until [ "$(mariadb --user=mysql --protocol=socket -Ne "{READING}")" = 1 ]; do :; done
{SIGNAL.format("STOP")}
"""


@pytest.fixture
def repositories(daemon: Any, tmp_path: Path) -> Iterator[None]:
    yield
    on_host(daemon, tmp_path, "rm -rf /host/repositories")  # it is root's


def backup(stack: Stack) -> int:
    """In this process, where its limits can be others."""
    return main(["backup", "-f", str(stack.file), "--progress", "plain"])


def helpers(stack: Stack) -> list[str]:
    """Containers of the stack that serve a backup."""
    return [e for e in stack.left() if e.endswith((".freeze", ".end")) or ".backup." in e]


def test_a_dump_that_hangs_is_given_up_and_leaves_nothing(
    kept: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not its own processes in the server, nor restic, nor a program that stands still; the next backup is whole."""
    monkeypatch.setattr(saving, "STALL", 1.0)
    monkeypatch.setattr(saving, "GIVE_UP", 0.2)
    say(kept, "vault", "stuck")
    assert backup(kept) == 1
    assert "the dump of vault has not come on for 1 s" in capsys.readouterr().err
    server = kept.daemon.containers.get(kept.containers()["vault"]["Id"])
    assert "sleep 60" not in programs(server) and "trap" in programs(server)  # its own program goes on
    assert helpers(kept) == []
    assert beats(kept) != beats(kept)
    say(kept, "vault", "good")
    kept.run("backup")
    assert [state for _, _, state in names(kept)] == ["whole"]


@pytest.mark.usefixtures("repositories")
def test_a_dump_keeps_nobody_waiting_and_has_nothing_of_what_came_after_it_began(
    make_stack: StackFactory, tmp_path: Path
) -> None:
    """Somebody writes to every table while it stands still in the middle of one, and is done at once."""
    stack = make_stack("busy")
    stack.write(f"  db: {{kind: mysql}}\nbackup: {{repository: {tmp_path}/repositories}}\n")
    stack.up()
    sql(stack, GOODS)
    running = stack.start("backup", "--progress", "quiet")
    try:
        status, said = stack.inside("db", "timeout", "60", "bash", "-c", STOP)
        assert status == 0, said
        for table in ("first", "goods", "last"):
            sql(stack, f"SET lock_wait_timeout = 3; INSERT INTO shop.{table} VALUES (0, 'too late')")
            changed = f"UPDATE shop.{table} SET t = 'too late' WHERE id = 1"
            sql(stack, f"SET lock_wait_timeout = 3, innodb_lock_wait_timeout = 3; {changed}")
        assert sql(stack, READING) == "1" and running.poll() is None
        status, said = stack.inside("db", "bash", "-c", SIGNAL.format("CONT"))
        assert status == 0, said
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0, said
    manifest = json.loads(restic(stack, tmp_path, f"{RESTIC} dump --tag manifest latest /private/manifest.json; echo"))
    dump = f"{RESTIC} dump {manifest['parts']['db']['snapshot']} /dump/db > /it"
    count = """for text in "'early'" "'too late'"; do { grep -oF "$text" /it || true; } | wc -l; done"""
    assert restic(stack, tmp_path, f"{dump}; {count}").split() == ["3", "0"]


@pytest.mark.long
def test_programs_go_on_by_themselves_and_the_backup_tries_again(
    kept: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """restic is slow to start: they stand still for no longer than the limit. Of one moment, or no backup."""
    monkeypatch.setattr(freezing, "STAND_STILL", freezing.STAND_STILL.replace(f"sleep {freezing.LIMIT} ", "sleep 4 "))
    moved: list[bool] = []
    slow = 1

    def late(engine: Any, session: str, words: Any, **more: Any) -> str:
        if saving.WITH_PARENT in words and len(moved) < slow:
            first = beats(kept)  # they may stand still by now
            moved.append(any(beats(kept) != first for _ in range(20)))
        return save(engine, session, words, **more)

    monkeypatch.setattr(saving.restic, "save", late)
    assert backup(kept) == 0
    assert moved == [True]
    assert [state for _, _, state in names(kept)] == ["whole"]
    slow = 1 + saving.TRIES
    assert backup(kept) == 1
    assert moved == [True] * slow and "files" in capsys.readouterr().err
    assert [state for _, _, state in names(kept) if state == "whole"] == ["whole"]
    assert helpers(kept) == [] and beats(kept) != beats(kept)


@pytest.mark.slow
@pytest.mark.long
def test_a_large_dump_is_held_by_nobody(kept: Stack, tmp_path: Path) -> None:
    """What goes through our process is not kept in it: its memory is the same whatever passes."""
    peaks = []
    for size in (1, 100):
        script = f"seq 1000000000 9999999999 | head -c {size * MIB} > /srv/data/it"
        assert kept.inside("vault", "sh", "-c", script, user="0")[0] == 0
        with (tmp_path / "said").open("wb") as said:
            started = subprocess.Popen(
                command("backup", "--progress", "quiet", "-s", "vault"),
                cwd=kept.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            _, status, used = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        assert status == 0, (tmp_path / "said").read_text()
        peaks.append(used.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 40, f"peaks in MiB: {peaks}"
    labelled = {"label": [f"{LABEL}stack={kept.name}", f"{LABEL}helper=backup"]}
    assert not kept.daemon.containers.list(all=True, filters=labelled)
