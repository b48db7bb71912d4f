"""Drills on a real engine: what a backup brings back is proved, what it lacks is found, and nobody notices."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consolidate import naming
from consolidate.docker_engine import connect
from consolidate.execute import mending, proving
from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, free_port, on_host, restic, restic_name, wait_until
from tests.engine.test_backup import VAULT, said, say
from tests.engine.test_backup_rebuilt import LISTED, ODD, in_volume, sql, with_python

pytestmark = pytest.mark.engine

# For Bash, with no Python beside it. Of the links, those to what is no UTF-8 come from restic as others.
ODD_FILES = r"""
umask 022
for name in 'with space' $'new\nline' $'\xff\xfe not UTF-8' $'back\\slash: "$(id)`\'?' -rf '*'; do printf x > "$name"; done
for mode in 4711 2755 1644 0 7777; do printf x > "mode $mode"; chown 1234:4321 "mode $mode"; chmod "$mode" "mode $mode"; done
mkdir empty locked sticky; chmod 0 locked; chown 33:4321 sticky; chmod 3770 sticky
ln -- -rf hard; mkfifo -m 640 pipe; mknod device c 1 3
ln -s /nowhere dangling; ln -s $'a\nb' line; ln -s $'\xff\xfe' raw; ln -s $'/\x80\n' $'\xfe: \\\n\t\x01'; chown -h 1234:4321 raw
truncate -s 1M sparse; printf data | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
touch -d @-1.000000001 'mode 1644'; touch -h -d @-0.5 raw; touch -d '2001-02-03 04:05:06.789012345Z' sparse; touch -d @1 empty
"""
TABLES = """\
CREATE TABLE site.words (id INT PRIMARY KEY, t TEXT);
INSERT INTO site.words VALUES (1, 'one\\n(2, ''no row'')'), (2, 'two'), (3, 'three'), (4, NULL), (5, 'INSERT INTO `x` VALUES');
CREATE TABLE site.`odd``name` (id INT) PARTITION BY HASH (id) PARTITIONS 2;
INSERT INTO site.`odd``name` SELECT seq FROM site.seq_1_to_2000;
CREATE TABLE site.empty (id INT);
CREATE VIEW site.seen AS SELECT id FROM site.words;
CREATE PROCEDURE site.more() INSERT INTO site.words VALUES
(9, 'of a program'),
(10, 'of a program');
"""
WORDS = 5
DELIVERED = """\
umask 077; cd /var/vmail; for u in ada gone; do box=acme.test/$u/Maildir; mkdir -p $box/new $box/cur $box/tmp $box/.Sent/cur
for i in 1 2 3; do printf 'Subject: %s\\n\\nHello\\n' $i > $box/new/$i.M1.old; done
printf 'Subject: sent\\n\\nHello\\n' > $box/.Sent/cur/4.M1.old:2,S; done; chown -R 5000:5000 acme.test
"""
SITE = """\
  db: {kind: mysql}
  site: {kind: php, content: ./site, database: db, egress: true, publish: ['PORT:80']}
  mail: {kind: mail, domains: [acme.test], mailboxes: {ada@acme.test: {}, bob@acme.test: {}}}
"""
PAGE = "<?php new mysqli($_SERVER['DATABASE_HOST'], $_SERVER['DATABASE_USER'], trim(file_get_contents($_SERVER['DATABASE_PASSWORD_FILE'])));\n"


@pytest.fixture
def drilled(make_stack: StackFactory, daemon: Any, tmp_path: Path) -> Iterator[Stack]:
    """An empty stack whose repository is its own, and what its drill leaves goes with it."""
    stack = make_stack("tried")
    beside = Stack(tmp_path, f"{stack.name}.drill", daemon)
    yield stack
    beside.purge()
    on_host(daemon, tmp_path, "rm -rf /host/repositories")  # it is root's


def of_drill(stack: Stack) -> list[str]:
    """All that is there of its drill, by label or by name."""
    api, name = stack.daemon.api, f"{stack.name}.drill"
    rows = api.containers(all=True)
    found = [r["Names"][0] for r in rows if r["Labels"].get(f"{LABEL}stack") == name]
    named = [r["Names"][0][1:] for r in rows] + [
        r["Name"] for r in (*api.networks(), *(api.volumes()["Volumes"] or ()))
    ]
    return found + [n for n in named if re.match(rf"{re.escape(name)}([-._]|$)", n)]


def running(stack: Stack, server: str) -> bool:
    mine = {"label": [f"{LABEL}stack={stack.name}.drill", f"{LABEL}server={server}"]}
    return bool(stack.daemon.api.containers(filters=mine))


def doctor(stack: Stack) -> dict[str, str]:
    """What `doctor` says of backups and drills."""
    rows = stack.run("doctor", "stack.yml", "--format", "json", status=None).json
    return {r["check"]: r["status"] for r in rows if r["check"] in ("backups", "drills")}


def checks(found: Any, server: str, check: str) -> dict[str, tuple[Any, Any, bool]]:
    return {
        c["what"]: (c["backup"], c["restored"], c["ok"])
        for c in found["checks"]
        if (c["server"], c["check"]) == (server, check)
    }


def test_all_that_a_backup_has_is_proved_while_the_stack_goes_on(
    drilled: Stack, python_image: str, tmp_path: Path
) -> None:
    """Against what the backup says, since the data itself has moved on. The drill's servers have no way out and no port.

    And what was proved comes back: over data that has moved on, and that is saved before.
    """
    stack, port = drilled, free_port()
    stack.write(
        SITE.replace("PORT", str(port)) + f"backup: {{repository: {tmp_path}/repositories}}\n",
        site__index_dot_php=PAGE,
    )
    stack.up()
    assert doctor(stack) == {"backups": "warn"}
    sql(stack, TABLES)
    in_volume(stack, "mail_mail", "/var/vmail", DELIVERED)
    with_python(stack, python_image, ODD)
    listed = with_python(stack, python_image, LISTED)
    stack.run("backup")
    sql(stack, "DELETE FROM site.words; DROP TABLE site.`odd``name`")
    in_volume(stack, "mail_mail", "/var/vmail", "rm /var/vmail/acme.test/ada/Maildir/new/*")
    in_volume(stack, "site_data", "/data", "rm -rf /data/*")
    before = {
        s: (c["Id"], c["State"]["StartedAt"], sorted(c["NetworkSettings"]["Networks"]))
        for s, c in stack.containers().items()
    }

    drill = stack.start("restore", "latest", "--drill", "--format", "json", "--progress", "quiet")
    ways_out, inside, joined, ports, seen = set[str](), {"none"}, set[str](), set[int](), set[str]()
    api, mine = stack.daemon.api, {"label": f"{LABEL}stack={stack.name}.drill"}
    while drill.poll() is None:
        for network in api.networks(filters=mine):
            (inside if network["Internal"] else ways_out).add(network["Name"])
        for row in api.containers(filters=mine):
            seen.add(row["Labels"].get(f"{LABEL}server"))
            joined |= (row["NetworkSettings"]["Networks"] or {}).keys()  # null by Podman where there is none
            ports |= {p["PublicPort"] for p in row["Ports"] if "PublicPort" in p}
        time.sleep(0.2)
    out, err = drill.communicate()
    assert drill.returncode == 0, f"{out}\n{err}"
    assert {"db", "site", "mail"} <= seen and (ways_out, ports) == (set(), set())
    link = naming.link_network(f"{stack.name}.drill", "site", "database")
    assert {link} <= joined <= inside  # neither the engine's own, nor those of the stack
    assert of_drill(stack) == []
    after = {
        s: (c["Id"], c["State"]["StartedAt"], sorted(c["NetworkSettings"]["Networks"]))
        for s, c in stack.containers().items()
    }
    assert after == before

    found = json.loads(out)
    assert (
        found["proved"] is True and found["stack"] == stack.name and sorted(found["servers"]) == ["db", "mail", "site"]
    )
    assert checks(found, "db", "rows") == {
        "site.words": (WORDS, WORDS, True),
        "site.odd``name": (2000, 2000, True),
        "site.empty": (0, 0, True),
    }
    assert checks(found, "mail", "messages") == {"ada@acme.test": (4, 4, True), "gone@acme.test": (4, 4, True)}
    files = checks(found, "site", "files")["data"]
    assert files[2] and files[0] == files[1] > 8
    assert checks(found, "site", "bytes")["data"][1] > 2 * 64 << 20  # sparse files are read whole
    assert list(checks(found, "site", "page").values()) == [(None, "status 200", True)]
    assert {s for s in ("db", "mail", "site") if checks(found, s, "ready") == {"": (None, "yes", True)}} == {
        "db",
        "mail",
        "site",
    }
    steps = {s["step"]: s["seconds"] for s in found["steps"]}
    assert all(seconds >= 0 for seconds in steps.values()) and abs(found["seconds"] - sum(steps.values())) < 0.1

    rows = {r["server"]: r for r in stack.run("ps", "--format", "json").json}
    assert all(rows[s]["backup"] and rows[s]["drill"] for s in ("db", "mail", "site"))
    assert doctor(stack) == {"backups": "ok", "drills": "ok"}
    assert [r for r in stack.orphans() if "drill" in r] == []

    sql(stack, "CREATE DATABASE later")
    stack.run("restore", "latest", "--yes")
    assert (
        sql(stack, "SELECT COUNT(*) FROM site.words UNION ALL SELECT COUNT(*) FROM site.`odd``name`")
        == f"{WORDS}\n2000"
    )
    assert "later" not in sql(stack, "SHOW DATABASES").split()
    assert in_volume(stack, "mail_mail", "/var/vmail", "find /var/vmail -type f -name '*.old*'").count("\n") == 8
    assert with_python(stack, python_image, LISTED) == listed
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        assert answer.status == 200  # which it isn't where the site can't log in to its database
    reasons = [r["reason"] for r in stack.run("backup", "list", "--format", "json").json]
    assert reasons == ["before a restore", "asked for"]


# Not ready while its file says ill, and saved as it is.
WARD = (
    VAULT.partition("backup:")[0]
    + """\
ready: {command: [sh, -c, "! grep -q ill /srv/data/it"], timeout: 11s}
backup: {}
"""
)


def ages(stack: Stack) -> list[tuple[Any, Any]]:
    return [(r["backup"], r["drill"]) for r in stack.run("ps", "--format", "json").json]


@pytest.mark.slow
@pytest.mark.long
def test_data_on_which_a_server_does_not_get_ready_is_not_proved_and_does_not_replace_what_is_there(
    drilled: Stack,
) -> None:
    """The ages stay those of the last backup that is whole, and of the last drill that has proved one."""
    stack = drilled
    stack.put("kinds/ward/kind.yml", WARD)
    stack.write(
        f"  ward: {{kind: ward}}\ntemplates: [kinds]\nbackup: {{repository: {stack.folder.parent}/repositories}}\n"
    )
    stack.up()
    assert ages(stack) == [(None, None)]
    say(stack, "ward", "well")
    made = stack.run("backup", "--format", "json").json["backup"]
    ((saved, _),) = ages(stack)
    began = datetime.strptime(made[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    assert abs(datetime.fromisoformat(saved) - began) <= timedelta(seconds=1)
    begun = datetime.now(UTC).replace(microsecond=0)
    stack.run("restore", "latest", "--drill")
    ((still, proved),) = ages(stack)
    assert still == saved and begun <= datetime.fromisoformat(proved) <= datetime.now(UTC)

    say(stack, "ward", "ill")
    stack.run("backup")
    ((saved, _),) = ages(stack)
    assert saved > still
    bad = stack.run("restore", "latest", "--drill", "--format", "json", "--progress", "quiet", status=1)
    assert bad.json["proved"] is False
    assert [(c["server"], c["check"]) for c in bad.json["checks"] if not c["ok"]] == [("ward", "ready")]
    assert ages(stack) == [(saved, proved)] and of_drill(stack) == []

    say(stack, "ward", "later")
    refused = stack.run("restore", "latest", "--yes", status=1)
    assert "what was there before is back" in refused.err and said(stack, "ward") == "later"
    assert "nothing to change" in stack.run("up").out
    stack.run("restore", made, "--yes")
    assert said(stack, "ward") == "well"


LOSE = r"""
restic() { command restic --no-cache --quiet "$@"; }
now() { restic snapshots --json --tag "server=$1" | grep -o '"id":"[0-9a-f]*"' | cut -d '"' -f 4; }
restic dump $DB /dump/db | sed '/^(3,/d' > /it
restic restore $MAIL --target /
rm /data/mail/mail/acme.test/ada/Maildir/new/2.*
restic restore $MANIFEST --target /
restic forget $DB $MAIL $MANIFEST
restic backup "${DB_TAGS[@]}" --stdin --stdin-filename /dump/db < /it
restic backup "${MAIL_TAGS[@]}" /data/mail
sed -i "s/$DB/$(now db)/; s/$MAIL/$(now mail)/" /private/manifest.json
! grep -e $DB -e $MAIL /private/manifest.json
restic backup "${MANIFEST_TAGS[@]}" /private /stack
"""


def lose(stack: Stack, folder: Path) -> None:
    """Make a backup of the one in the repository that has lost a row and a message: whole to restic, and to its own lists."""
    rows = json.loads(restic(stack, folder, "restic --no-cache snapshots --json"))
    words = []
    for name, tag in (("DB", "server=db"), ("MAIL", "server=mail"), ("MANIFEST", "manifest")):
        (row,) = (r for r in rows if tag in r["tags"])
        tags = shlex.join(w for t in row["tags"] for w in ("--tag", t))
        words += [f"{name}={row['id']}", f"{name}_TAGS=(--host {stack.name} {tags})"]
    restic(stack, folder, "\n".join(words) + LOSE)


@pytest.mark.long
def test_a_row_and_a_message_that_a_backup_has_lost_are_found_and_whatever_ends_a_drill_nothing_of_it_stays(
    drilled: Stack, tmp_path: Path
) -> None:
    """By what was counted as it was made. The stack needn't even be there. What a killed one leaves goes with the next."""
    stack = drilled
    stack.write(
        "  db: {kind: mysql}\n  mail: {kind: mail, domains: [acme.test], mailboxes: {ada@acme.test: {}}}\n"
        f"backup: {{repository: {tmp_path}/repositories}}\n"
    )
    stack.up()
    sql(stack, "CREATE DATABASE site; " + TABLES)
    in_volume(stack, "mail_mail", "/var/vmail", DELIVERED)
    stack.run("backup")
    stack.run("down")

    killed = stack.start("restore", "latest", "--drill", "--progress", "quiet", "-s", "db")
    wait_until(lambda: running(stack, "db"), "its database has started", pause=0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert running(stack, "db")

    lose(stack, tmp_path)
    bad = stack.run("restore", "latest", "--drill", "--format", "json", "--progress", "quiet", status=1)
    wrong = [
        (c["server"], c["check"], c["what"], c["backup"], c["restored"]) for c in bad.json["checks"] if not c["ok"]
    ]
    assert wrong == [("db", "rows", "site.words", WORDS, WORDS - 1), ("mail", "messages", "ada@acme.test", 4, 3)]
    assert bad.json["proved"] is False
    for told in (
        "NOT proved",
        "db rows site.words: backup 5, restored 4",
        "mail messages ada@acme.test: backup 4, restored 3",
    ):
        assert told in bad.err
    assert of_drill(stack) == []

    interrupted = stack.start("restore", "latest", "--drill", "--progress", "quiet", "-s", "db")
    wait_until(lambda: running(stack, "db"), "its database has started", pause=0.05)
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate()
    assert interrupted.returncode == 130 and of_drill(stack) == []


def test_each_way_in_which_files_can_differ_from_a_snapshot_is_found(
    daemon: Any, drilled: Stack, tmp_path: Path
) -> None:
    """Bytes of the same length and time, a mode, an owner, a link, one that is gone, one too many; what is the same is not."""
    stack = drilled
    stack.write(
        "  files: {kind: container, image: debian:bookworm-slim, volumes: ['data:/srv'], command: [sleep, '1000']}\n"
        f"backup: {{repository: {tmp_path}/repositories}}\n"
    )
    stack.up()
    stack.run("backup")  # so that its program's image is there
    name = f"{stack.name}.backup.test"
    container = daemon.containers.run(
        restic_name(stack),
        ["sleep", "100"],
        name=name,
        detach=True,
        labels={f"{LABEL}stack": stack.name, f"{LABEL}helper": "backup"},
        environment={"RESTIC_REPOSITORY": "/r", "RESTIC_PASSWORD": "x"},
        network_mode="none",
    )

    def inside(script: str) -> str:
        code, said = container.exec_run(["bash", "-euc", script])
        assert code == 0, said.decode()
        return str(said.decode().strip())

    engine, folder = connect(), "/data/w/d"
    inside(f"mkdir -p /data/w/d /data/w/other {Path(mending.LISTED).parent}; cd /data/w/d; {ODD_FILES}")
    inside(
        "cd /data/w/d; for f in bytes mode owner gone time; do echo same > $f; done; ln -s one link; mkdir folder; touch ../other/x"
    )
    mending.list_to_mend(engine, name, [folder, "/data/w/other"])
    save = "restic --no-cache --json backup {} | grep -o '\"snapshot_id\":\"[0-9a-f]*' | cut -d '\"' -f 4"
    snapshot = inside(f"restic --no-cache -q init; {save.format('/data/w/d /data/w/other')}")
    manifest = inside(save.format(mending.LISTED))
    stored = proving.stored_files(engine, name, snapshot, [folder])
    assert len(stored) > 25 and not any(p.startswith("/data/w/other") for p in stored)
    assert proving.found_files(engine, name, [folder]) == stored
    assert proving.differing_bytes(engine, name, snapshot, folder, manifest) == []
    inside(
        "cd /data/w/d; touch -r bytes /tmp/t; echo sane > bytes; touch -r /tmp/t bytes; chmod 600 mode; chown 7 owner; rm gone;"
        "echo new > more; rm link; ln -s two link; touch -d 2001-01-01 time folder;"
        "rm raw; ln -s $'\\xef\\xbf\\xbd\\xef\\xbf\\xbd' raw"  # as restic has it
    )
    found = proving.found_files(engine, name, [folder])
    different = {p.rpartition("/")[2] for p in stored.keys() | found.keys() if stored.get(p) != found.get(p)}
    assert different == {"mode", "owner", "gone", "more", "link", "time", "folder", "raw"}
    said = "\n".join(proving.differing_bytes(engine, name, snapshot, folder, manifest))
    assert "w/d/bytes: Contents differ" in said and "w/d/link: Symlink differs" in said and "w/d/gone" in said
    assert said.count("w/d/raw: Symlink differs") == 1 and said.count("Symlink differs") == 2
    assert all(quiet not in said for quiet in ("sparse", "hard", "w/d/mode", "w/d/time"))
    engine.client.close()
