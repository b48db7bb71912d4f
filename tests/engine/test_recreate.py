"""Servers that are stopped for their successor: nothing is stopped in vain, and for no longer than is told."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from consolidate.kinds import data_folder
from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, curl, free_port, wait_until

pytestmark = pytest.mark.engine

SQL = ("mariadb", "--user=mysql", "--protocol=socket", "-Ne")
# What each program does not take, at the end of which file of its kind.
BROKEN = {
    "db": ("mysql", "my.cnf.j2", "no_such_variable = 1\n", "unknown variable 'no_such_variable=1'"),
    "mail": ("mail", "main.cf.j2", "message_size_limit = plenty\n", "message_size_limit"),
    "edge": ("proxy", "haproxy.cfg.j2", "nonsense on\n", "unknown keyword 'nonsense'"),
    "www": ("web", "nginx.conf.j2", "no_such_directive on;\n", 'unknown directive "no_such_directive"'),
    "app": ("php", "php-fpm.conf.j2", "no_such_entry = 1\n", "unknown entry 'no_such_entry'"),
}


def helpers(stack: Stack) -> list[str]:
    rows = stack.daemon.api.containers(
        all=True, filters={"label": [f"{LABEL}stack={stack.name}", f"{LABEL}helper=check"]}
    )
    return [r["Names"][0] for r in rows]


def test_a_configuration_that_a_program_refuses_stops_nobody(make_stack: StackFactory) -> None:
    """Each program says itself what it does not take, and every container is the same, never stopped one as before."""
    stack = make_stack("refused")
    ports = [free_port() for _ in range(3)]
    stack.write(
        f"  edge: {{kind: proxy, http: {ports[0]}, tls: 'off'}}\n  db: {{kind: mysql}}\n"
        "  mail: {kind: mail, domains: [acme.test], mailboxes: {ada@acme.test: {}}}\n"
        f"  www: {{kind: web, publish: ['{ports[1]}:80']}}\n"
        f"  app: {{kind: php, content: ./site, publish: ['{ports[2]}:80'], database: db}}\n",
        site__index_dot_php="<?php echo 'hello';\n",
    )
    text = stack.file.read_text()
    stack.file.write_text(text.replace("servers:\n", "templates: [./kinds]\nservers:\n", 1))
    for kind, *_ in BROKEN.values():
        shutil.copytree(data_folder("templates") / kind, stack.folder / "kinds" / kind)
    stack.up()
    before = stack.identities()
    originals = {}
    for kind, file, more, _ in BROKEN.values():
        path = stack.folder / "kinds" / kind / "files" / file
        originals[path] = path.read_text()
        path.write_text(originals[path] + more)
    stack.edit("tls: 'off'", "tls: 'off', resources: {memory: 200M}")
    stack.edit("domains: [acme.test]", "domains: [acme.test], resources: {memory: 500M}")
    stack.edit("kind: web,", "kind: web, resources: {memory: 60M},")  # or it would be reloaded, as the proxy would
    stack.edit("kind: php,", "kind: php, resources: {memory: 250M},")

    done = stack.up(status=1)
    for server, (*_, complaint) in BROKEN.items():
        told = re.search(rf"failed: check {server}: .*\n((?:  .*\n)+)", done.err)
        assert told, done.err
        assert complaint in told[1]
    assert stack.identities() == before
    assert helpers(stack) == []
    failed = [g for g in stack.run("history", "db", "--format", "json").json if g["result"] == "failed"]
    assert [BROKEN["db"][3] in str(g) or "refuses its new configuration" in str(g) for g in failed] == [True]

    for path, original in originals.items():
        path.write_text(original)
    stack.up()
    after = stack.identities()
    assert {s for s in after if after[s] != before[s]} == {"edge", "mail", "www", "app"}, (
        "their new memory alone was left to do"
    )
    stack.up()
    assert stack.identities() == after
    assert stack.run("plan", "--detailed-exitcode").status == 0


def test_an_image_that_is_nowhere_and_a_check_that_hangs_stop_nobody(make_stack: StackFactory) -> None:
    """The image comes before the stop; an interrupt takes the check away at once. The server serves on in both cases."""
    stack = make_stack("hangs")
    stack.write("  app: {kind: container, image: 'debian:bookworm-slim', command: sleep 999, user: '1000:1000'}\n")
    stack.up()
    before = stack.identities()
    stack.edit("debian:bookworm-slim", "127.0.0.1:9/nothing:1")
    assert "127.0.0.1:9/nothing:1 can't be pulled" in stack.up(status=1).err
    assert stack.identities() == before
    stack.edit("127.0.0.1:9/nothing:1", "debian:bookworm-slim")
    stack.edit("command: sleep 999", "command: sleep 998, check: [sleep, '600']")
    process = stack.start("up", "--progress", "plain")
    while not helpers(stack):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(2)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert helpers(stack) == []
    assert stack.identities() == before


def test_the_report_tells_the_seconds_without_an_answer(make_stack: StackFactory) -> None:
    """It is no less than the engine saw no program, and no more than a visitor got no answer."""
    stack = make_stack("away")
    port = free_port()
    stack.write(f"  www: {{kind: web, publish: ['{port}:80'], environment: {{A: b}}}}\n")
    stack.up()
    old, begun = stack.containers()["www"]["Id"], int(time.time())
    stack.edit(", environment: {A: b}", "")
    answers, over = [], threading.Event()

    def visit() -> None:
        while not over.is_set():
            begun = time.monotonic()
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=0.2)) as connection,
            ):
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    answers.append((begun, time.monotonic()))
            time.sleep(0.01)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        done = stack.run("up", "--progress", "json")
    finally:
        over.set()
        visitor.join()
    events = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    (away,) = [e["away"] for e in events if e["away"] is not None]
    longest = max(later[1] - earlier[1] for earlier, later in pairwise(answers))
    asked = {"container": old, "event": "die"}
    (died,) = stack.daemon.api.events(since=begun, until=int(time.time()) + 1, filters=asked, decode=True)
    started = datetime.fromisoformat(stack.containers()["www"]["State"]["StartedAt"][:26] + "+00:00").timestamp()
    assert started - died["timeNano"] / 1e9 < away < longest + 1
    stack.edit("kind: web", "kind: web, resources: {pids: 30}")
    told = re.search(r"www: replaced, away for ([0-9.]+) s", stack.up().err)
    assert told
    assert float(told[1]) < 10


@pytest.fixture(scope="module")
def blog(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A blog behind the proxy; its port stands in `http`."""
    folder = tmp_path_factory.mktemp("blog") / "blog"
    folder.mkdir()
    stack = Stack(folder, f"{token}-blog", daemon)
    port = free_port()
    stack.write(
        f"  edge: {{kind: proxy, http: {port}, tls: 'off'}}\n  db: {{kind: mysql, resources: {{memory: 384M}}}}\n"
        "  blog: {kind: wordpress, domains: [blog.test], database: db, admin: {email: ada@blog.test}, workers: 4}\n"
    )
    stack.http = port  # type: ignore[attr-defined]
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
        stack.purge()


Row = tuple[float, float, int, bool]


def during(work: Callable[[], Any], port: int, readers: int = 4) -> list[Row]:
    """What readers of the blog got while `work` was done: begun, ended, status, whether the page was whole."""
    over = threading.Event()

    def read() -> list[Row]:
        rows: list[Row] = []
        while not over.is_set():
            begun = time.time()
            answer = curl(f"http://blog.test:{port}/", "--max-time", "60")
            whole = "Hello world!" in answer.body and "</html>" in answer.body
            rows.append((begun, time.time(), answer.status, whole))
        return rows

    with ThreadPoolExecutor(readers) as pool:
        reading = [pool.submit(read) for _ in range(readers)]
        try:
            time.sleep(0.5)
            work()
            time.sleep(0.5)
        finally:
            over.set()
        return [row for each in reading for row in each.result()]


def test_a_blog_fails_for_no_longer_than_its_database_is_away(blog: Stack) -> None:
    """Its readers wait for a database that is being replaced; what fails at all was asked for while it was away."""
    other = "400M" if "384M" in blog.file.read_text() else "384M"
    blog.file.write_text(re.sub(r"memory: \d+M", f"memory: {other}", blog.file.read_text()))
    before, events = blog.identities(), []

    def up() -> None:
        events.extend(json.loads(e) for e in blog.run("up", "--progress", "json").err.splitlines() if e[:1] == "{")

    rows = during(up, blog.http)  # type: ignore[attr-defined]
    (ready,) = [e for e in events if e["away"] is not None]
    assert ready["server"] == "db"
    back = _epoch(ready["time"])
    gone = back - ready["away"]
    failed = [r for r in rows if r[2] != 200 or not r[3]]
    assert [r for r in failed if r[1] < gone or r[0] > back] == []
    waited = [r for r in rows if r[0] < back and r[1] > back and r not in failed]
    assert waited, "readers that came while it was away got their page in the end"
    after = blog.identities()
    assert {s for s in after if after[s] != before[s]} == {"db"}


def test_a_blog_does_not_wait_for_ever(blog: Stack) -> None:
    """An absence is waited for once, as a whole: after that pages fail at once, until the database is there again."""
    container = blog.containers()["db"]["Id"]
    blog.inside("blog", "sh", "-c", "echo 1 > /run/wordpress/database-away", user="33")
    blog.daemon.api.stop(container)
    try:
        begun = time.monotonic()
        assert curl(f"http://blog.test:{blog.http}/").status == 500  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 10
        assert "requests fail now" in blog.run("logs", "blog").out
    finally:
        blog.daemon.api.start(container)
    blog.up()
    assert "Hello world!" in curl(f"http://blog.test:{blog.http}/").body  # type: ignore[attr-defined]
    assert "the database answers again" in blog.run("logs", "blog").out


def test_a_database_that_takes_a_setting_while_it_runs_drops_no_connection(blog: Stack) -> None:
    """More connections, and a log of slow queries: the same process, an open connection that goes on, kept for later."""

    def sql(statement: str) -> list[str]:
        status, said = blog.inside("db", *SQL, statement)
        assert status == 0, said
        return said.split()

    long = "SELECT SLEEP(55)"
    blog.daemon.containers.get(blog.containers()["db"]["Id"]).exec_run([*SQL, long], detach=True)
    asked = f"SELECT ID FROM information_schema.PROCESSLIST WHERE INFO = '{long}'"
    (session,) = wait_until(lambda: sql(asked), "the open connection")
    before, more = blog.identities(), int(sql("SELECT @@max_connections")[0]) + 7
    text = blog.file.read_text().replace("kind: mysql, ", "kind: mysql, slow_query: 2s, ")
    text = re.sub(r"max_connections: \d+, ", "", text).replace("slow_query: 2s, slow_query: 2s", "slow_query: 2s")
    blog.file.write_text(text.replace("kind: mysql, ", f"kind: mysql, max_connections: {more}, "))
    blog.up()
    assert blog.identities() == before
    wanted = [str(more), "1", "2.000000"]
    values = "SELECT @@max_connections, @@slow_query_log, @@global.long_query_time"
    assert sql(values) == wanted
    assert sql(asked) == [session]
    assert "nothing to change" in blog.run("plan").out
    sql(f"KILL {session}")
    blog.run("restart", "db")
    assert sql(values) == wanted


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
