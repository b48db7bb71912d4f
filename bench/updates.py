"""Updates under load: what visitors and clients of a database notice, under us and under Compose."""

from __future__ import annotations

import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from common import CACHE, CONSOLIDATE, PAGE, ROOT, Stack, from_pypi, run, webs, write_compose

sys.path.insert(0, str(ROOT))  # the visitors are those of the tests

Rows = list[dict[str, Any]]
# What begins it, changes it to a version, brings the change up, and ends it.
Side = tuple[Callable[[], None], Callable[[int], None], Callable[[], None], Callable[[], None]]
PORT, DATABASE_PORT = 18482, 18483
SITE = "web-1"
PAUSE = 0.02  # seconds between an answer and the next request of a visitor, or a query and the next
VISITORS = 4  # that keep their connection, and as many that make a new one for each request
SETTLE = 2.0  # seconds after an update in which the load goes on
SHORT, LARGE = 1.0, 20_000  # seconds for a connection to the database; rows in it


def median(values: list[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def _changed(stack: Stack, version: int, server: str, words: Mapping[str, Any]) -> None:
    """The Compose file with a new generation of one server: new folders for it, all else as it was."""
    before = json.loads(stack.compose_file.read_text())
    write_compose(stack, below=f"compose-{version}", **words)
    after = json.loads(stack.compose_file.read_text())
    before["services"][server] = after["services"][server]
    stack.compose_file.write_text(json.dumps(before, indent=1))


# A site


class Sightings:
    """When each version of the page was seen first and last."""

    def __init__(self) -> None:
        self.first: dict[int, float] = {}
        self.lock = threading.Lock()

    def see(self, answer: bytes, _: bytes) -> bool:
        found = re.search(rb"version (\d+)", answer)
        if found is None:
            return False
        with self.lock:
            self.first.setdefault(int(found[1]), time.monotonic())
        return True


def _page(stack: Stack, version: int) -> None:
    (stack.file.parent / "site/index.html").write_text(PAGE.format(name=f"version {version}"))


# What stands before Compose's containers as a rule: an nginx that asks for the name again each second.
NGINX = """\
daemon off;
pid /tmp/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 80;
        resolver 127.0.0.11 valid=1s;
        location / { set $site SITE; proxy_pass http://$site; proxy_set_header Host $host; }
    }
}
"""


def _behind_nginx(stack: Stack) -> None:
    """The Compose file with an nginx in place of our proxy."""
    project = json.loads(stack.compose_file.read_text())
    folder = stack.file.parent / "nginx"
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(NGINX.replace("SITE", SITE))
    alike = ("image", "user", "tmpfs", "read_only", "init", "restart", "logging", "stop_signal")
    project["services"]["edge"] = {k: v for k, v in project["services"][SITE].items() if k in alike} | {
        "command": ["nginx", "-e", "stderr", "-c", "/proxy/nginx.conf"],
        "volumes": [f"{folder}:/proxy:ro"],
        "ports": project["services"]["edge"]["ports"],
    }
    stack.compose_file.write_text(json.dumps(project, indent=1))


def rolling(repeat: int = 10) -> Rows:
    """A site's page changes `repeat` times while visitors ask for it through the proxy."""
    checks = {"interval": 1.0, "network": True}
    stack = webs("bench-rolling", 1, proxy_port=PORT)
    _page(stack, 0)
    stack.up()  # builds what isn't built

    def compose_change(version: int) -> None:
        _page(stack, version)
        _changed(stack, version, SITE, checks)

    def compose_begin() -> None:
        write_compose(stack, below="compose-0", **checks)
        stack.compose_up()

    def nginx_begin() -> None:
        write_compose(stack, below="compose-0", **checks)
        _behind_nginx(stack)
        stack.compose_up()

    compose = (compose_change, lambda: stack.compose("up", "-d"), stack.compose_down)
    sides: dict[str, Side] = {
        "compose, our proxy": (compose_begin, *compose),
        "compose, nginx": (nginx_begin, *compose),
        "consolidate": (stack.up, lambda version: _page(stack, version), stack.up, stack.down),
    }
    rows = []
    try:
        stack.down(data=False)  # the secrets are both sides'
        for side, (begin, change, up, end) in sides.items():
            _page(stack, 0)
            begin()
            try:
                rows.append(_visited(side, repeat, change, up))
            finally:
                end()
    finally:
        stack.down()
    return rows


def _visited(side: str, repeat: int, change: Callable[[int], None], up: Callable[[], None]) -> dict[str, Any]:
    from tests.load import Visitor, visitors

    seen = Sightings()
    them = [
        Visitor(f"{'kept' if keep else 'new'} {n}", f"{SITE}.bench.test", PORT, keep=keep, pause=PAUSE, expect=seen.see)
        for n in range(VISITORS)
        for keep in (True, False)
    ]
    begun, took, serving = {}, [], []
    with visitors(*them) as load:
        load.another_round()
        assert not load.failures, load.failed()[:3]  # nothing changes yet
        calm, load.longest = load.longest, 0.0
        for version in range(1, repeat + 1):
            change(version)
            begun[version] = time.monotonic()
            up()
            took.append(time.monotonic() - begun[version])
            time.sleep(SETTLE)
            if version in seen.first:
                serving.append(seen.first[version] - begun[version])
            print(f"  {side}: update {version}, {len(load.failures)} failed so far", file=sys.stderr)
        load.another_round()
    words = [re.sub(r".*s: |\d{3,}", "", f)[:90] for f in load.failed()]
    return {
        "what": "a page changes under load",
        "side": side,
        "updates": repeat,
        "requests": sum(load.asked.values()),
        "failed": len(load.failures),
        "longest_wait_s": round(load.longest, 2),
        "calm_wait_s": round(calm, 2),
        "new_version_s": median(serving),
        "command_s": median(took),
        "spread_new_version": [round(x, 2) for x in sorted(serving)],
        "how": {w: words.count(w) for w in dict.fromkeys(words)},
    }


# A database


def database(repeat: int = 5) -> Rows:
    """A database gets more memory `repeat` times while a client connects and asks again and again."""
    from_pypi("PyMySQL==1.1.1", "pymysql")
    folder = CACHE / "stacks/bench-database"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code/index.php").write_text("<?php echo 'here';\n")
    stack = Stack(folder / "stack.yml")

    def write(version: int) -> None:
        stack.file.write_text(
            "stack: bench-database\n"
            "servers:\n"
            f"  db: {{kind: mysql, publish: ['{DATABASE_PORT}:3306'], resources: {{memory: {384 + 16 * version}M}}}}\n"
            "  app: {kind: php, content: ./code, database: db}\n"
        )

    checks = {"interval": 1.0, "network": True, "grants": True}

    def compose_change(version: int) -> None:
        write(version)
        _changed(stack, version, "db", checks)

    write(0)
    stack.up()
    password = run(CONSOLIDATE, "secret", "show", "-f", stack.file, "app/database_password").stdout.strip()
    sides: dict[str, Side] = {
        "compose": (stack.compose_up, compose_change, lambda: stack.compose("up", "-d"), stack.compose_down),
        "consolidate": (stack.up, write, stack.up, stack.down),
    }
    rows = []
    try:
        stack.down(data=False)  # the secrets are both sides'
        write_compose(stack, below="compose-0", **checks)
        for side, (begin, change, up, end) in sides.items():
            write(0)
            begin()
            try:
                rows.append(_queried(side, repeat, password, change, up))
            finally:
                end()
    finally:
        stack.down()
    return rows


class Client:
    """Connects and asks every `PAUSE` seconds; `gaps` are the times from its last answer to its next, where one failed between."""

    def __init__(self, password: str) -> None:
        site = next((CACHE / "venv").glob("lib/*/site-packages/pymysql")).parent
        if str(site) not in sys.path:
            sys.path.append(str(site))
        self.password = password
        self.asked = self.failed = 0
        self.gaps: list[float] = []
        self.versions: list[tuple[float, int]] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def connect(self) -> Any:
        import pymysql

        return pymysql.connect(
            host="127.0.0.1",
            port=DATABASE_PORT,
            user="app",
            password=self.password,
            database="app",
            connect_timeout=SHORT,
            read_timeout=SHORT,
            autocommit=True,
        )

    def fill(self) -> None:
        """Rows, so that there is something to write down at a stop and to read at a start."""
        end = time.monotonic() + 30
        while True:
            try:
                connection = self.connect()
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS book (id INT PRIMARY KEY, page VARCHAR(400))")
            cursor.execute(f"REPLACE INTO book SELECT seq, REPEAT('x', 400) FROM seq_1_to_{LARGE}")

    def _run(self) -> None:
        import pymysql

        good, bad = time.monotonic(), False
        while not self.stopping.is_set():
            self.asked += 1
            try:
                with self.connect() as connection, connection.cursor() as cursor:
                    cursor.execute("SELECT @@innodb_buffer_pool_size")
                    size = int(cursor.fetchone()[0])
                now = time.monotonic()
                if not self.versions or self.versions[-1][1] != size:
                    self.versions.append((now, size))
                if bad:
                    self.gaps.append(now - good)
                good, bad = now, False
            except (pymysql.MySQLError, OSError):
                self.failed, bad = self.failed + 1, True
            self.stopping.wait(PAUSE)


def _queried(
    side: str, repeat: int, password: str, change: Callable[[int], None], up: Callable[[], None]
) -> dict[str, Any]:
    client = Client(password)
    client.fill()
    client.thread.start()
    begun, took = [], []
    try:
        for version in range(1, repeat + 1):
            change(version)
            begun.append(time.monotonic())
            up()
            took.append(time.monotonic() - begun[-1])
            time.sleep(SETTLE)
            print(f"  {side}: update {version}, away {client.gaps[-1:]}", file=sys.stderr)
    finally:
        client.stopping.set()
        client.thread.join()
    seen = [at for at, _ in client.versions[1:]]
    serving = [next(s for s in seen if s > b) - b for b in begun if any(s > b for s in seen)]
    return {
        "what": "a database gets more memory",
        "side": side,
        "updates": repeat,
        "queries": client.asked,
        "failed": client.failed,
        "away_s": median(client.gaps),
        "longest_away_s": round(max(client.gaps, default=0.0), 2),
        "new_version_s": median(serving),
        "command_s": median(took),
        "gaps": [round(g, 2) for g in client.gaps],
    }


__all__ = ["database", "rolling"]
