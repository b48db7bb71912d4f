"""An engine that is killed while `up` works on it, and a host that is switched off: on an engine of the tests' own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import Stack, carry_images, client_of, wait_until
from tests.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SERVERS = """\
  edge: {kind: proxy, http: 8080, tls: 'off'}
  www: {kind: web, domains: [www.test], content: ./site}
  db: {kind: mysql, resources: {memory: MEMORY}}
  app: {kind: php, domains: [app.test], content: ./php, database: db}
"""
# A host with a bit of everything, behind TLS.
ALL = """\
  edge: {kind: proxy, http: 8080, https: 8443, tls: internal}
  www: {kind: web, domains: [www.test], content: ./site}
  db: {kind: mysql}
  app: {kind: php, domains: [app.test], content: ./php, database: db}
  blog: {kind: wordpress, domains: [blog.test], database: db, relay: mail, title: Far, admin: {user: ada, email: ada@far.test}}
  mail: {kind: mail, domains: [far.test], mailboxes: {ada@far.test: {}}, publish: ['587:587', '993:993']}
"""
COUNTER = """\
<?php
$where = 'mysql:host=' . getenv('DATABASE_HOST') . ';dbname=' . getenv('DATABASE_NAME');
$db = new PDO($where, getenv('DATABASE_USER'), file_get_contents(getenv('DATABASE_PASSWORD_FILE')));
$db->exec('CREATE TABLE IF NOT EXISTS seen (path VARCHAR(200))');
$db->prepare('INSERT INTO seen VALUES (?)')->execute([$_SERVER['REQUEST_URI']]);
echo 'seen ', $db->query('SELECT COUNT(*) FROM seen')->fetchColumn();
"""


class Far(Stack):
    """A stack on the second engine. Its page says `version`; with each version the database has other limits, too."""

    machine: SecondEngine
    first: Any  # the main engine, as the tests' client sees it

    def become(self, version: int) -> None:
        self.write(SERVERS.replace("MEMORY", f"{400 + 10 * version}M"))
        self.put("site/index.html", f"version {version}")

    def page(self, host: str) -> str:
        return self.curl("--header", f"Host: {host}", "http://127.0.0.1:8080/")

    def curl(self, *words: str) -> str:
        return self.machine.inside("curl", "--silent", "--max-time", "5", *words).stdout

    def up_until(self, operation: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run `up` and kill the engine once such an operation has begun: status, events, and what is no event."""
        events, rest = [], ""
        with self.start("up", "--progress", "json") as process:
            for line in process.stderr or ():
                if not line.startswith("{"):
                    rest += line
                    continue
                events.append(json.loads(line))
                begun = [e for e in events if e["operation"].startswith(operation) and e["status"] == "started"]
                if begun == events[-1:]:
                    if operation.startswith("start:"):
                        self.half_started(operation.removeprefix("start:"))
                    self.machine.kill()
        return process.returncode, events, rest

    def half_started(self, server: str) -> None:
        """Wait until the engine is about to start a server's container: its keeper is there, its program is not."""
        keeper = f"-id\0{self.containers()[server]['Id']}\0".encode()

        def there() -> bool:
            for words in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if keeper in words.read_bytes():
                        return True
            return False

        wait_until(there, f"{server} is being started", pause=0.005)

    def check(self, *more: str) -> None:
        """Nothing is left to do; one container of each server runs, and nothing of an earlier generation is left."""
        left = [(c["id"], c["reason"]) for c in self.run("plan", "--format", "json").json["changes"]]
        assert left == []
        assert self.orphans() == []
        assert sorted(self.containers()) == sorted(["app", "db", "edge", "www", *more])


@pytest.fixture(scope="module")
def far(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """Not up yet; the images are there."""
    folder = tmp_path_factory.mktemp("far")
    (folder / "stack").mkdir()
    with second_engine(folder, 3 * 2**30) as machine:
        client = client_of(machine.url)
        stack = Far(folder / "stack", f"{token}-far", client, env={"DOCKER_HOST": machine.url})
        stack.machine, stack.first = machine, daemon
        stack.put("php/index.php", COUNTER)
        stack.become(0)
        carry_images(stack, machine, daemon)
        yield stack
        client.close()


@pytest.mark.long
def test_the_engine_killed_in_the_middle_of_up(far: Far) -> None:
    """`up` ends with one clear message; once the engine is back, the next one gets there, with no data lost."""
    seen = 0
    moments = ["network:", "ready:db", "start:www", f"stop:{far.name}-db-"]
    for version, moment in enumerate(moments):
        far.become(version)
        status, events, rest = far.up_until(moment)
        assert status == 69, (moment, events, rest)
        assert rest.count("no engine answers; it did before") == 1
        assert "`up` goes on from here" in rest
        assert "Traceback" not in rest
        assert "no engine answers" in {e["detail"] for e in events if e["status"] == "failed"}
        far.machine.start()
        done = far.run("up", "--progress", "plain")
        assert "has gone before it was done" in done.err
        far.check()
        assert far.page("www.test") == f"version {version}"
        before, seen = seen, int(far.page("app.test").removeprefix("seen "))
        assert seen > before


def test_after_the_host_was_switched_off_all_servers_come_back_by_themselves(far: Far, tmp_path: Path) -> None:
    """Without an `up`, in whatever order the engine starts them, and with other addresses than before: the pages, the blog
    and the mail answer, with the data that was there.
    """
    far.become(0)
    far.write(ALL)
    carry_images(far, far.machine, far.first)
    far.up()
    authority, password = tmp_path / "authority.pem", far.secret("mail/ada@far.test")
    authority.write_text(far.secret("edge/authority"))
    trust = ["--cacert", str(authority), "--user", f"ada@far.test:{password}"]

    def site(host: str) -> str:
        return far.curl(*trust[:2], "--resolve", f"{host}:8443:127.0.0.1", f"https://{host}:8443/")

    def send(number: int) -> str:
        mail = tmp_path / "mail"
        mail.write_text(f"Subject: number {number}\r\nFrom: ada@far.test\r\nTo: ada@far.test\r\n\r\nHello.\r\n")
        words = ["--ssl-reqd", "--mail-from", "ada@far.test", "--mail-rcpt", "ada@far.test", "--upload-file", str(mail)]
        words += ["--resolve", "mail.far.test:587:127.0.0.1", "--write-out", "%{response_code}"]
        return far.curl(*trust, *words, "smtp://mail.far.test:587/")

    def read(number: int) -> bool:
        inbox = f"imaps://mail.far.test:993/INBOX;MAILINDEX={number}"
        return f"Subject: number {number}" in far.curl(*trust, "--resolve", "mail.far.test:993:127.0.0.1", inbox)

    def addresses() -> dict[tuple[str, str], str]:
        rows = far.containers().items()
        return {(s, n): e["IPAddress"] for s, c in rows for n, e in c["NetworkSettings"]["Networks"].items()}

    assert send(1) == "250"
    wait_until(lambda: read(1), "the mail is there")
    before, containers = int(site("app.test").removeprefix("seen ")), far.containers()
    # Others on all the networks, so that addresses are given in another order.
    networks = {n for c in containers.values() for n in c["NetworkSettings"]["Networks"]}
    for name in ("one", "two", "three"):
        words = ["--name", name, "--restart", "always", "--entrypoint", "sleep", containers["www"]["Config"]["Image"]]
        far.machine.docker("create", *words, "999")
        for network in networks:
            far.machine.docker("network", "connect", network, name)
    known = addresses()
    routed = [(s, f"{far.name}_route_{s}") for s in ("www", "app", "blog")]
    while all(addresses()[each] == known[each] for each in routed):
        far.machine.power_off()
        far.machine.boot()
        wait_until(lambda: all(addresses().get(each) for each in known), "all have addresses", within=60)

    wait_until(lambda: site("www.test") == "version 0", "the page is back", within=40)
    wait_until(lambda: site("app.test").startswith("seen "), "the one with the database is back", within=40)
    wait_until(lambda: "<title>Far</title>" in site("blog.test"), "the blog is back", within=40)
    wait_until(lambda: read(1), "the mail is there", within=40)
    assert send(2) == "250"
    wait_until(lambda: read(2), "mail arrives")
    assert int(site("app.test").removeprefix("seen ")) > before
    assert {s: c["Id"] for s, c in far.containers().items()} == {s: c["Id"] for s, c in containers.items()}
    assert all(c["State"]["Running"] for c in far.containers().values())
    far.check("blog", "mail")
