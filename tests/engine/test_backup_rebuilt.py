"""A host that is lost is rebuilt from its repository and the passphrase: every row, message and file of one moment."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import smtplib
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, free_port, in_container, on_host, restic, wait_until

pytestmark = pytest.mark.engine

ROWS, MESSAGES, BALANCE = 50_000, 2_000, 100
RESTIC = "restic --no-cache --quiet"
MEANWHILE = 200  # messages that arrive at the least while all is saved
SENDERS, PAUSE = 6, 0.02  # connections on which messages arrive, and seconds between two on one, as between two uploads
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
# A dump takes tables by their names: one comes before the accounts, one after them, and a transaction writes to all three.
TABLES = f"""
CREATE TABLE site.a_counter (n INT) ENGINE=InnoDB;
INSERT INTO site.a_counter VALUES (0);
CREATE TABLE site.accounts (id INT PRIMARY KEY, balance INT) ENGINE=InnoDB;
INSERT INTO site.accounts SELECT seq, {BALANCE} FROM site.seq_1_to_{ROWS};
CREATE TABLE site.log (id INT PRIMARY KEY) ENGINE=InnoDB;
CREATE TABLE site.uploads (id INT PRIMARY KEY) ENGINE=InnoDB;
"""
TRANSFERS = f"""
i=0
while [ ! -e /tmp/stop ]; do
    i=$((i + 1)) one=$((RANDOM % {ROWS} + 1)) other=$((RANDOM * 2 % {ROWS} + 1))
    echo "START TRANSACTION; UPDATE site.a_counter SET n = n + 1; UPDATE site.accounts SET balance = balance - 1 WHERE id = $one;
        UPDATE site.accounts SET balance = balance + 1 WHERE id = $other; INSERT INTO site.log VALUES ($i); COMMIT; DO SLEEP(0.005);"
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
# What a volume may hold. Python's, since no shell takes such names.
ODD = r"""
import contextlib, errno, os, struct
os.umask(0o022)
os.chdir(b'/data')

def write(name, text=b'x', owner=(0, 0), mode=0o644):
    with open(name, 'wb') as file:
        file.write(text)
    os.chown(name, *owner)
    os.chmod(name, mode)

def attribute(path, name, value):
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(path, name, value)

os.mkdir('uploads')
os.chown('uploads', 33, 33)
os.mkdir('odd')
names = (b'with space', b'new\nline', b'-rf', b'--help', b' ', b'\xc3\xbc"$(id)`\'', b'\xff\xfe not UTF-8', b'\x01\x1b[31m\x7f', b'*', b'[a]?{b,c}',
    b'back\\slash\\', b'$HOME', b'.hidden', b'..two', b'trailing.', b'x' * 255)
for name in names:
    write(b'odd/' + name, name)
deep = os.path.join(b'odd', *[b'deep' * 50] * 8)  # longer than a name may be, as a whole
os.makedirs(deep)
write(deep + b'/end')
for mode in (0o4711, 0o2755, 0o1644, 0, 0o7777):
    write(f'odd/mode {mode:o}', owner=(1234, 4321), mode=mode)
for name, mode in (('empty', 0o755), ('locked', 0), ('odd/sticky', 0o3770), (b'odd/\xff empty\n', 0o700)):
    os.mkdir(name)
    os.chmod(name, mode)
os.chown('odd/sticky', 33, 4321)
os.link('odd/-rf', 'hard')
os.link('odd/-rf', b'odd/hard \xff')
os.mkfifo('pipe', 0o640)
for name, target in (('dangling', '/nowhere'), ('absolute', '/etc/passwd'), ('relative', '../data/hard'), ('odd/up', '../empty'), ('line', 'a\nb'),
        (b'odd/bytes', b'\xff\xfe'), (b'odd/lone', b'\xed\xa0\x80'), (b'odd/\xfe\n', b'/\x80\n')):
    os.symlink(target, name)
for name in ('dangling', 'odd/bytes'):
    os.lchown(name, 1234, 4321)
for name in (b'sparse', b'odd/sparse \xff\n'):
    write(name, b'', owner=(1234, 4321), mode=0o640)
    with open(name, 'r+b') as file:
        file.truncate(64 * 2**20)
        file.seek(10_000_000)
        file.write(b'data')
write('zeros', bytes(2**20))
write('attributes')
attribute('attributes', 'user.comment', b'\x00\xff\n')
attribute('empty', 'user.folder', b'of a folder')
attribute('attributes', 'security.capability', struct.pack('<5I', 0x02000001, 1 << 10, 0, 0, 0))
for name, when in (('sparse', 981173106_789012345), ('odd/mode 0', -1_000_000_001), ('dangling', 1_000_000_000), ('odd/bytes', 981173106_789012345), ('pipe', 2**32 * 10**9),
        ('empty', 1), ('odd', 1_000_000_000_000_000_000)):
    os.utime(name, ns=(when, when), follow_symlinks=False)
"""
LISTED = r"""
import hashlib, os, stat
os.chdir(b'/data')
first = {}
paths = [b'.']
for folder, folders, names in os.walk(b'.'):
    folders[:] = [f for f in folders if (folder, f) != (b'.', b'uploads')]
    paths += [os.path.join(folder, name) for name in folders + names]
for path in sorted(paths):
    s = os.lstat(path)
    told = [path, oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns]
    told += [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))]
    if stat.S_ISLNK(s.st_mode):
        told.append(os.readlink(path))
    if stat.S_ISREG(s.st_mode):
        with open(path, 'rb') as file:
            told.append(hashlib.file_digest(file, 'sha256').hexdigest())
        told += [s.st_size, s.st_blocks * 512 < s.st_size, s.st_nlink, first.setdefault(s.st_ino, path)]
    print(*told, sep=' | ')
"""


def in_volume(stack: Stack, volume: str, target: str, script: str) -> str:
    """A script as root, with a volume of the stack."""
    volumes = {f"{stack.name}_{volume}": {"bind": target, "mode": "rw"}}
    return in_container(stack.daemon, "debian:bookworm-slim", ["bash", "-ec", script], volumes=volumes)


def with_python(stack: Stack, image: str, script: str) -> str:
    """A script of Python's as root, with the data of the site at /data."""
    volumes = {f"{stack.name}_site_data": {"bind": "/data", "mode": "rw"}}
    return in_container(stack.daemon, image, ["python3", "-c", script], volumes=volumes)


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


class Post:
    """Messages that arrive over some connections at once, `least` of them and until it is told to stop."""

    def __init__(self, port: int, least: int) -> None:
        self.port, self.least, self.numbers = port, least, itertools.count(1)
        self.begun, self.accepted = dict[int, float](), dict[int, float]()  # when

    def send(self, stop: threading.Event) -> None:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            for number in self.numbers:
                if stop.is_set() and number > self.least:
                    return
                self.begun[number] = time.time()
                client.sendmail("bob@example.org", ["ada@acme.test"], f"Subject: arrived {number}\r\n\r\nHello\r\n")
                self.accepted[number] = time.time()
                time.sleep(PAUSE)


@contextlib.contextmanager
def stillness(stack: Stack, server: str) -> Iterator[dict[str, float]]:
    """When the programs of a server last began to stand still (`start`) and went on (`die`), at the most; by what the engine
    sees, and as it does: it remembers 256 events, and other tests make more meanwhile."""
    stream = stack.daemon.api.events(decode=True, filters={"container": f"{stack.name}-{server}.freeze"})
    at: dict[str, float] = {}

    def watch() -> None:
        for event in stream:
            at[event["Action"]] = event["timeNano"] / 1e9

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield at
        wait_until(lambda: at.get("die", 0.0) > at.get("start", float("inf")), "the programs stood still, and went on")
    finally:
        stream.close()
        thread.join()


@pytest.mark.slow
@pytest.mark.long
def test_a_lost_host_is_rebuilt_from_its_repository_alone(
    make_stack: StackFactory, python_image: str, tmp_path: Path
) -> None:
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
    with_python(stack, python_image, ODD)
    listed = with_python(stack, python_image, LISTED)
    before, uploaded, post = stack.identities(), list[int](), Post(smtp, MESSAGES)

    def transfers(stop: threading.Event) -> None:
        stack.inside("db", "bash", "-c", TRANSFERS)

    def until_stopped(stop: threading.Event) -> None:
        stop.wait()
        stack.inside("db", "touch", "/tmp/stop")

    def seen(stop: threading.Event) -> None:
        stack.inside("mail", "bash", "-c", SEEN, user="5000:5000")

    def upload(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                page(web, f"?upload={len(uploaded) + 1}")
            except urllib.error.HTTPError as error:
                raise AssertionError(stack.run("logs", "site", "--tail", "20").out) from error
            uploaded.append(len(uploaded) + 1)
            time.sleep(PAUSE)

    with stillness(stack, "mail") as moment, meanwhile(transfers, until_stopped, seen, upload, *[post.send] * SENDERS):
        wait_until(lambda: len(post.accepted) > 20 and len(uploaded) > 10, "they are at work")
        written, posted = len(uploaded), len(post.accepted)
        stack.run("backup")
        assert len(uploaded) > written  # nobody was sent away
        posted = len(post.accepted) - posted
    assert posted >= MEANWHILE
    assert stack.identities() == before
    still, again = moment["start"], moment["die"]
    sent = {n for n, when in post.accepted.items() if when < still}
    late = {n for n, when in post.begun.items() if when > again}
    assert sent and late and len(post.accepted) >= MESSAGES
    last, passphrase = int(sql(stack, "SELECT MAX(id) FROM site.log")), tmp_path / "passphrase"
    passphrase.write_text(stack.secret("backup/passphrase"))
    manifest = json.loads(restic(stack, tmp_path, f"{RESTIC} dump --tag manifest latest /private/manifest.json; echo"))
    mail = manifest["parts"]["mail"]
    listed_there = restic(stack, tmp_path, f"{RESTIC} ls {mail['snapshot']} | grep -cE '/Maildir/(new|cur)/'")
    assert mail["records"] == {"ada@acme.test": int(listed_there)}  # counted beside restic, in that moment
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
    assert sql(stack, "SELECT n FROM site.a_counter") == str(count)
    told = page(web, "?all")  # it logs in with a password that came back
    rows, files = told["rows"], sorted(int(f) for f in told["files"])
    assert rows == list(range(1, len(rows) + 1)) and len(rows) >= written
    assert files[: len(rows)] == rows and len(files) - len(rows) <= 1  # one may have been on its way
    assert with_python(stack, python_image, LISTED) == listed
    assert back.secret("mail/ada@acme.test") == mailbox

    def queued() -> str:
        return stack.inside("mail", "postqueue", "-j")[1].strip()

    wait_until(lambda: not queued(), "what was in the queue is delivered", within=100, pause=1)
    text = in_volume(stack, "mail_mail", "/var/vmail", f"grep -rh '^Subject: ' {MAILDIR}/new {MAILDIR}/cur")
    found = Counter((words[1], int(words[2])) for words in map(str.split, text.splitlines()))
    assert [m for m, times in found.items() if times > 1] == []
    old, arrived = ({n for kind, n in found if kind == which} for which in ("old", "arrived"))
    assert old == set(range(1, MESSAGES + 1))
    assert sent <= arrived and not arrived & late
    assert "nothing to change" in back.run("up").out
    row, *_ = back.run("backup", "list", "--format", "json").json
    assert (row["servers"], row["state"]) == (["db", "mail", "site"], "whole")
    on_host(stack.daemon, tmp_path, "rm -rf /host/repositories")  # it is root's
