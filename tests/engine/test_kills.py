"""`up` killed with -9 after whatever it has just done: the next one goes on from there, and nothing is left over."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import Stack, curl, free_port

pytestmark = [pytest.mark.engine, pytest.mark.slow]

WAITER = "kind: container, image: 'debian:bookworm-slim', command: sleep 99999, user: '1000:1000', stop_signal: SIGKILL"
BEFORE = f"""\
  edge: {{kind: proxy, http: PORT, tls: 'off'}}
  www: {{kind: web, domains: [www.test], content: ./site}}
  old: {{kind: web, domains: [old.test]}}
  db: {{kind: mysql}}
  app: {{{WAITER}, database: db, volumes: ['kept:/kept']}}
  gone: {{{WAITER}, database: db}}
"""
# Content, limits, an environment and a secret; one server and one link less, two servers and one link more.
AFTER = f"""\
  edge: {{kind: proxy, http: PORT, tls: 'off'}}
  www: {{kind: web, domains: [www.test], content: ./other}}
  shop: {{kind: web, domains: [shop.test]}}
  db: {{kind: mysql, resources: {{memory: 420M}}}}
  app: {{{WAITER}, database: db, volumes: ['kept:/kept'], environment: {{A: b}}, secrets: {{token: {{}}}}}}
  gone: {{{WAITER}}}
  new: {{{WAITER}, database: db, volumes: ['more:/more']}}
"""


class Killing(Stack):
    """A stack whose `up` is killed."""

    port: int
    kills = words = 0
    lag = 0.0  # seconds from the event to the kill, at most

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begun: set[str] = set()

    def become(self, servers: str) -> None:
        self.write(servers.replace("PORT", str(self.port)))

    def up_until(self, kill: Callable[[str, str], bool]) -> bool:
        """Run `up`, and kill it at the first event that `kill` says; whether it came to its end instead."""
        said, killed = [], False
        with self.start("up", "--progress", "json") as process:
            for line in process.stderr or ():
                said.append(line)
                row = json.loads(line)
                self.begun.add(row["operation"])
                if row["status"] == "note":
                    assert "has gone before it was done" in row["detail"]
                    self.words += 1
                elif not killed and kill(row["operation"], row["status"]):
                    time.sleep(random.uniform(0, self.lag))
                    process.kill()
                    killed = True
        self.kills += killed
        assert killed or process.returncode == 0, "".join(said)
        return not killed

    def sql(self, statement: str, account: str = "") -> tuple[int, str]:
        """What the database says to its administrator, or to a server's account."""
        if not account:
            return self.inside("db", "mariadb", "--user=mysql", "--protocol=socket", "-Ne", statement)
        words = [
            "mariadb",
            "--host=db",
            f"--user={account}",
            f"--password={self.secret(f'{account}/database_password')}",
        ]
        return self.inside("db", *words, "-Ne", statement)

    def check(self, grants: set[str], *servers: str) -> None:
        """Nothing is left to do; one container of each server runs, the receipts are right, nothing else is there."""
        assert self.run("plan", "--detailed-exitcode").out.endswith("nothing to change\n")
        assert self.orphans() == []
        assert sorted(self.containers()) == sorted(servers)
        receipts = {e.partition(".grant.")[2] for e in self.left() if ".grant." in e}
        assert receipts == {f"{consumer}.database" for consumer in grants}


@pytest.fixture(scope="module")
def killing(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    folder = Path(tmp_path_factory.mktemp("kills")) / "kills"
    folder.mkdir()
    stack = Killing(folder, f"{token}-kills", daemon)
    stack.port = free_port()
    stack.put("site/index.html", "the first\n")
    stack.put("other/index.html", "the second\n")
    try:
        yield stack
    finally:
        stack.destroy()
        stack.purge()


def without_hashes(names: Iterable[str]) -> set[str]:
    return {re.sub(r"_[0-9a-f]{12}$", "_", name) for name in names}


def somewhere() -> Callable[[str, str], bool]:
    """Some event or other."""
    left = random.randint(1, 60)

    def now(operation: str, status: str) -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    return now


def test_up_killed_after_every_operation_is_finished_by_the_next(killing: Killing) -> None:
    """Killed as each operation ends, and as one of each sort begins, `up` gets there: no data is lost, nothing left over.

    First a stack comes up from nothing and is killed here and there, then most of it changes with a kill at each such
    event that was not seen before, then it changes back, again with kills here and there.
    """
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    random.seed(seed)
    killing.become(BEFORE)
    for _ in range(3):
        killing.up_until(somewhere())
    assert killing.up_until(lambda operation, status: False)
    killing.check({"app", "gone"}, "edge", "www", "old", "db", "app", "gone")

    word = uuid.uuid4().hex
    assert killing.sql(f"CREATE TABLE app.kept (word TEXT); INSERT INTO app.kept VALUES ('{word}')")[0] == 0
    assert killing.inside("app", "sh", "-c", f"echo {word} > /kept/word", user="0")[0] == 0
    secrets = killing.stored_secrets()
    assert killing.sql("SELECT 1", "gone") == (0, "1\n")

    killing.become(AFTER)
    killing.begun.clear()
    planned = {c["id"] for c in killing.run("plan", "--format", "json").json["changes"]}
    seen: set[tuple[str, str]] = set()

    def new(operation: str, status: str) -> bool:
        event = (operation if status == "done" else operation.partition(":")[0], status)
        fresh = event not in seen
        seen.add(event)
        return fresh

    while not killing.up_until(new):
        pass
    assert without_hashes(planned) <= without_hashes(killing.begun)
    assert len(seen) > len(planned) / 2, "others came to their end while the command was killed"
    killing.check({"app", "new"}, "edge", "www", "shop", "db", "app", "gone", "new")
    assert curl(f"http://www.test:{killing.port}/").body == "the second\n"
    assert curl(f"http://shop.test:{killing.port}/").status == 200
    assert curl(f"http://old.test:{killing.port}/").status != 200
    assert killing.sql("SELECT word FROM app.kept", "app") == (0, f"{word}\n")
    assert killing.inside("app", "cat", "/kept/word") == (0, f"{word}\n")
    assert killing.sql("SELECT 1", "new") == (0, "1\n")
    assert killing.sql("SELECT count(*) FROM mysql.global_priv WHERE User = 'gone' AND Priv LIKE '%lock%'") != (
        0,
        "0\n",
    )
    now = killing.stored_secrets()
    assert {a: now[a] for a in secrets if a in now} == {a: v for a, v in secrets.items() if a in now}
    assert {a for a in secrets if a not in now} <= {"gone/database_password"}

    killing.become(BEFORE)
    killing.lag = 0.05
    for _ in range(5):
        killing.up_until(somewhere())
    assert killing.up_until(lambda operation, status: False)
    killing.check({"app", "gone"}, "edge", "www", "old", "db", "app", "gone")
    assert curl(f"http://www.test:{killing.port}/").body == "the first\n"
    assert killing.sql("SELECT word FROM app.kept", "app") == (0, f"{word}\n")
    print(f"{killing.kills} kills, {killing.words} words about them")
    assert killing.kills - 5 <= killing.words <= killing.kills, "who takes a dead one's lock says so"
