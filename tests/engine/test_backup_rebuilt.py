"""A host that is lost is rebuilt from its repository and the passphrase: every row, message and file of one moment."""

from __future__ import annotations

import contextlib
import json
import shutil
import smtplib
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, free_port, wait_until
from tests.engine.test_backup import on_host

pytestmark = pytest.mark.engine

ROWS, MESSAGES, BALANCE = 50_000, 2_000, 100
# Each call writes a file and then the row that tells of it.
PAGE = """\
<?php
if (!$_SERVER['QUERY_STRING']) {
    exit('ready');
}
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$db = new mysqli($_SERVER['DATABASE_HOST'], $_SERVER['DATABASE_USER'],
    trim(file_get_contents($_SERVER['DATABASE_PASSWORD_FILE'])), $_SERVER['DATABASE_NAME']);
if (isset($_GET['upload'])) {
    $name = (int) $_GET['upload'];
    file_put_contents("/data/uploads/$name", str_repeat("$name\\n", 5000));
    $db->query("INSERT INTO uploads VALUES ($name)");
}
echo json_encode([
    'rows' => array_map('intval', array_column($db->query('SELECT id FROM uploads ORDER BY id')->fetch_all(), 0)),
    'files' => array_map('basename', glob('/data/uploads/*')),
]);
"""
TABLES = f"""
CREATE TABLE site.accounts (id INT PRIMARY KEY, balance INT) ENGINE=InnoDB;
INSERT INTO site.accounts SELECT seq, {BALANCE} FROM site.seq_1_to_{ROWS};
CREATE TABLE site.log (id INT PRIMARY KEY) ENGINE=InnoDB;
CREATE TABLE site.uploads (id INT PRIMARY KEY) ENGINE=InnoDB;
"""
TRANSFERS = f"""
i=0
while [ ! -e /tmp/stop ]; do
    i=$((i + 1)) one=$((RANDOM % {ROWS} + 1)) other=$((RANDOM * 2 % {ROWS} + 1))
    echo "START TRANSACTION; UPDATE site.accounts SET balance = balance - 1 WHERE id = $one;
        UPDATE site.accounts SET balance = balance + 1 WHERE id = $other; INSERT INTO site.log VALUES ($i); COMMIT;"
done | mariadb --user=mysql --protocol=socket --unbuffered
"""
MAILDIR = "/var/vmail/acme.test/ada/Maildir"
DELIVERED = f"""
umask 077; cd /var/vmail; mkdir -p acme.test/ada/Maildir/new acme.test/ada/Maildir/cur acme.test/ada/Maildir/tmp
for i in $(seq {MESSAGES}); do printf 'Subject: old %s\\n\\nHello\\n' $i > {MAILDIR}/new/$i.M1.old; done
chown -R 5000:5000 acme.test
"""
# What an IMAP server does as somebody looks at his mail.
SEEN = f"cd {MAILDIR}/new; for f in *.old; do mv $f ../cur/$f:2,S; done"
ODD = """\
cd /data; umask 022; mkdir -p 'odd names' uploads; chown 33:33 uploads
printf x > 'odd names/with space'; printf y > "odd names/new
line"; printf z > 'odd names/-rf'; printf u > 'odd names/ü"$(id)`'; chmod 4711 'odd names/-rf'; chmod 0 'odd names/with space'
chown 1234:4321 'odd names/-rf'; ln 'odd names/-rf' hard; ln -s /nowhere dangling; mkfifo pipe; chmod 3770 'odd names'
truncate -s 200M sparse; printf data | dd of=sparse bs=1 seek=100000000 conv=notrunc 2>/dev/null
touch -d '2001-02-03 04:05:06.789' sparse 'odd names/with space'; touch -hd '2002-02-03' dangling; touch -d 2003-01-01 'odd names'
"""
LISTED = """\
cd /data; find . -path ./uploads/\\* -prune -o -path . -o -printf '%P|%y|%m|%U:%G|%n|%T@|%l|' \\( -type d -printf d -o -printf %s \\) \\
    -printf '\\0' | grep -zv '^uploads|' | sort -z | tr '\\0' '\\1'; find . -type f ! -path './uploads/*' -print0 | sort -z | xargs -0 sha256sum
[ "$(du -k sparse | cut -f1)" -lt 1000 ]
"""


def in_volume(stack: Stack, volume: str, target: str, script: str) -> str:
    """A script as root, with a volume of the stack."""
    volumes = {f"{stack.name}_{volume}": {"bind": target, "mode": "rw"}}
    said: bytes = stack.daemon.containers.run(
        "debian:bookworm-slim", ["bash", "-ec", script], volumes=volumes, remove=True
    )
    return said.decode()


def sql(stack: Stack, statement: str) -> str:
    status, said = stack.inside("db", "mariadb", "--user=mysql", "--protocol=socket", "-Ne", statement)
    assert status == 0, said
    return said.strip()


def page(port: int, query: str = "") -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{query}", timeout=30) as answer:
        return json.load(answer)


@contextlib.contextmanager
def meanwhile(*works: Callable[[threading.Event], object]) -> Iterator[None]:
    """Have others at work while the block goes on. What goes wrong there is raised at its end."""
    stop, wrong = threading.Event(), list[BaseException]()

    def run(work: Callable[[threading.Event], object]) -> None:
        try:
            work(stop)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(w,)) for w in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong


def test_a_lost_host_is_rebuilt_from_its_repository_alone(make_stack: StackFactory, tmp_path: Path) -> None:
    """Everything goes on while it is saved. Afterwards each thing is as it was at one moment, wherever it came from."""
    stack = make_stack("lost")
    web, smtp = free_port(), free_port()
    stack.write(
        "  db: {kind: mysql}\n"
        f"  site: {{kind: php, content: ./site, database: db, publish: ['{web}:80']}}\n"
        f"  mail: {{kind: mail, domains: [acme.test], mailboxes: {{ada@acme.test: {{}}}}, publish: ['{smtp}:25']}}\n"
        f"backup: {{repository: {tmp_path}/repositories}}\n",
        site__index_dot_php=PAGE,
    )
    stack.up()
    sql(stack, TABLES)
    in_volume(stack, "mail_mail", "/var/vmail", DELIVERED)
    in_volume(stack, "site_data", "/data", ODD)
    listed = in_volume(stack, "site_data", "/data", LISTED)
    before, accepted, uploaded = stack.identities(), list[int](), list[int]()

    def transfers(stop: threading.Event) -> None:
        stack.inside("db", "bash", "-c", TRANSFERS)

    def until_stopped(stop: threading.Event) -> None:
        stop.wait()
        stack.inside("db", "touch", "/tmp/stop")

    def seen(stop: threading.Event) -> None:
        stack.inside("mail", "bash", "-c", SEEN, user="5000:5000")

    def upload(stop: threading.Event) -> None:
        while not stop.is_set():
            page(web, f"?upload={len(uploaded) + 1}")
            uploaded.append(len(uploaded) + 1)

    def send(stop: threading.Event) -> None:
        while not stop.is_set():
            with smtplib.SMTP("127.0.0.1", smtp, timeout=30) as client:
                text = f"Subject: arrived {len(accepted) + 1}\r\n\r\nHello\r\n"
                client.sendmail("bob@example.org", ["ada@acme.test"], text)
                accepted.append(len(accepted) + 1)
            stop.wait(0.1)

    with meanwhile(transfers, until_stopped, seen, upload, send):
        wait_until(lambda: len(accepted) > 3 and len(uploaded) > 10, "they are at work")
        sent, written = len(accepted), len(uploaded)
        stack.run("backup")
        assert len(accepted) > sent and len(uploaded) > written  # nobody was sent away
    assert stack.identities() == before
    last, passphrase = int(sql(stack, "SELECT MAX(id) FROM site.log")), tmp_path / "passphrase"
    passphrase.write_text(stack.secret("backup/passphrase"))
    mailbox = stack.secret("mail/ada@acme.test")

    stack.run("down", "--volumes", "--yes")
    shutil.rmtree(stack.folder / "site")
    assert stack.left() == []
    rebuilt = tmp_path / "rebuilt"
    keys = ("--passphrase-file", str(passphrase))
    stack.run("backup", "files", "latest", rebuilt, "--repository", f"{tmp_path}/repositories/{stack.name}", *keys)
    assert (rebuilt / "stack.yml").read_text() == stack.file.read_text()
    assert (rebuilt / "site" / "index.php").read_text() == PAGE
    back = Stack(rebuilt, stack.name, stack.daemon, is_up=True)
    back.run("restore", "latest", *keys)

    assert sql(stack, "SELECT COUNT(*), SUM(balance) FROM site.accounts") == f"{ROWS}\t{ROWS * BALANCE}"
    count, first, highest = map(int, sql(stack, "SELECT COUNT(*), MIN(id), MAX(id) FROM site.log").split())
    assert (first, count) == (1, highest) and 0 < highest < last  # none is missing in between
    told = page(web, "?all")  # it logs in with a password that came back
    rows, files = told["rows"], sorted(int(f) for f in told["files"])
    assert rows == list(range(1, len(rows) + 1)) and len(rows) >= written
    assert files[: len(rows)] == rows and len(files) - len(rows) <= 1  # one may have been on its way
    assert in_volume(stack, "site_data", "/data", LISTED) == listed
    assert back.secret("mail/ada@acme.test") == mailbox

    def arrived() -> bool:
        text = in_volume(stack, "mail_mail", "/var/vmail", f"grep -rh '^Subject: ' {MAILDIR}/new {MAILDIR}/cur")
        have = {tuple(line.split()[1:]) for line in text.splitlines()}
        old = {("old", str(n)) for n in range(1, MESSAGES + 1)}
        return {*old, *(("arrived", str(n)) for n in range(1, sent + 1))} <= have

    wait_until(arrived, "each message that was accepted is in the mailbox, or on its way there", within=30, pause=1)
    again = back.run("up")
    assert "nothing to change" in again.out
    row, *_ = back.run("backup", "list", "--format", "json").json
    assert (row["servers"], row["state"]) == (["db", "mail", "site"], "whole")
    on_host(stack.daemon, tmp_path, "rm -rf /host/repositories")  # it is root's
