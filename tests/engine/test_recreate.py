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


@contextlib.contextmanager
def watched(daemon: Any) -> Iterator[list[dict[str, Any]]]:
    """What the engine tells meanwhile of containers, of who mounts volumes and of who joins networks."""
    told: list[dict[str, Any]] = []
    events = daemon.api.events(decode=True, filters={"type": ["container", "volume", "network"]})
    listener = threading.Thread(target=lambda: told.extend(iter(events)), daemon=True)
    listener.start()
    try:
        yield told
        time.sleep(0.5)
    finally:
        events.close()
        listener.join(5)


def test_a_configuration_that_a_program_refuses_stops_nobody(make_stack: StackFactory) -> None:
    """Each program says itself what it does not take, and every container is the same, never stopped one as before.

    It is asked in a container that has no network and no data, by what the engine tells.
    """
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

    with watched(stack.daemon) as told_by_engine:
        done = stack.up(status=1)
    checks = {
        e["id"]: e["Actor"]["Attributes"][f"{LABEL}of"]
        for e in told_by_engine
        if (e["Type"], e["Action"]) == ("container", "create")
        and e["Actor"]["Attributes"].get(f"{LABEL}helper") == "check"
        and e["Actor"]["Attributes"][f"{LABEL}stack"] == stack.name
    }
    assert set(checks.values()) == set(BROKEN)
    for event in told_by_engine:
        of, about = event["Actor"]["ID"], event["Actor"]["Attributes"]
        server = checks.get(about.get("container", ""))
        if server and event["Action"] == "mount":
            assert re.match(rf"{stack.name}_{server}_(config|secrets|check)_", of), event
            assert about["read/write"] == "false"
        if server and event["Action"] == "connect":
            assert about["name"] == "none"
    seen = {(e["Type"], e["Action"]) for e in told_by_engine if e["Actor"]["Attributes"].get("container") in checks}
    assert {("volume", "mount"), ("network", "connect")} <= seen
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

    # Nor does an image that can't be had.
    dockerfile = stack.folder / "kinds" / "mysql" / "Dockerfile.j2"
    recipe = dockerfile.read_text()
    dockerfile.write_text(f"{recipe}RUN echo the mirror has burnt down >&2; exit 3\n")
    failed = stack.up(status=1).err
    assert re.search(r"failed: image db: the build of consolidate/mysql:\w+ failed", failed)
    assert "the mirror has burnt down" in failed
    dockerfile.write_text(recipe)
    stack.edit("kind: mysql", "kind: mysql, image: '127.0.0.1:9/nothing:1'")
    assert "127.0.0.1:9/nothing:1 can't be pulled" in stack.up(status=1).err
    assert stack.identities() == after


def test_a_check_that_hangs_serves_nobody_and_stops_nobody(make_stack: StackFactory) -> None:
    """Meanwhile it has no network, no data and no port; it goes with an interrupt, and with the `up` after a kill."""
    stack, port = make_stack("hangs"), free_port()
    stack.write(
        "  app: {kind: container, image: 'debian:bookworm-slim', command: sleep 999, user: '1000:1000',"
        f" volumes: ['data:/srv'], publish: ['{port}:80'], secrets: {{token: {{}}}}}}\n"
    )
    stack.up()
    before, good = stack.identities(), stack.file.read_text()
    stack.edit("command: sleep 999", "command: sleep 998, check: [sleep, '600']")
    for signal, status in ((2, 130), (9, -9)):
        process = stack.start("up", "--progress", "plain")
        (check,) = wait_until(lambda process=process: helpers(stack) or process.poll(), "the check")
        made = wait_until(
            lambda check=check: (i := stack.daemon.api.inspect_container(check))["State"]["Running"] and i, "its start"
        )
        assert (made["HostConfig"]["NetworkMode"], made["NetworkSettings"]["Ports"]) == ("none", {})
        assert {n: e["IPAddress"] for n, e in made["NetworkSettings"]["Networks"].items()} == {"none": ""}
        assert {(m["Destination"], m["RW"]) for m in made["Mounts"]} == {("/run/secrets", False)}
        process.send_signal(signal)
        process.communicate(timeout=15)
        assert process.returncode == status
        assert bool(helpers(stack)) == (signal == 9)
        assert stack.identities() == before
    stack.file.write_text(good)
    stack.up()
    assert (helpers(stack), stack.identities()) == ([], before)


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


def test_a_change_that_fails_takes_a_new_password_back(blog: Stack) -> None:
    """Without an image or never ready, the blog serves on and logs in with what it has; a good `up` brings the new one.

    Meanwhile nobody can rotate it once more.
    """
    address, good, port = "blog/database_password", blog.file.read_text(), blog.http  # type: ignore[attr-defined]
    old, before = blog.secret(address), blog.identities()

    def logs_in(password: str) -> bool:
        login = ("mariadb", "--host=127.0.0.1", "--user=blog", f"--password={password}", "-e", "SELECT 1")
        return blog.inside("db", *login)[0] == 0

    def as_before() -> None:
        assert blog.identities() == before
        assert blog.inside("blog", "cat", "/run/secrets/database_password") == (0, old)
        assert (logs_in(old), logs_in(blog.secret(address))) == (True, False)
        assert "Hello world!" in curl(f"http://blog.test:{port}/").body

    blog.run("secret", "set", address, stdin="correct horse")
    blog.edit("kind: wordpress, ", "kind: wordpress, image: '127.0.0.1:9/nothing:1', ")
    assert "can't be pulled" in blog.up(status=1).err
    as_before()

    blog.run("secret", "rotate", address)
    new, never = blog.secret(address), "health: {test: [CMD-SHELL, 'echo not today; exit 1']}, "
    blog.edit("image: '127.0.0.1:9/nothing:1', ", never)
    process = blog.start("up", "--progress", "plain", "--wait-timeout", "4")
    wait_until(lambda: blog.containers()["blog"]["Id"] != before["blog"][0], "the new one")
    assert blog.run("secret", "rotate", address, status=75)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "not today" in said
    assert blog.secret(address) == new
    as_before()

    blog.file.write_text(good)
    blog.up()
    assert blog.inside("blog", "cat", "/run/secrets/database_password") == (0, new)
    assert (logs_in(old), logs_in(new)) == (False, True)
    assert "Hello world!" in curl(f"http://blog.test:{port}/").body
    after = blog.identities()
    assert {s for s in after if after[s] != before[s]} == {"blog"}


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
