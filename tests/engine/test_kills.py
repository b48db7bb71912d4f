"""`up` killed with -9 after whatever it has just done: the next one goes on from there, and nothing is left over."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import Stack, curl, environment, free_port

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
# With a check of its own, since one without has to run for a second before it counts as ready: in each of many runs.
WAITER = (
    "kind: container, image: 'debian:bookworm-slim', command: sleep 99999, user: '1000:1000', stop_signal: SIGKILL, "
    "healthcheck: {test: [CMD, 'true'], interval: 5s}"
)
BEFORE = f"""\
  edge: {{kind: proxy, http: PORT, tls: 'off'}}
  www: {{kind: web, domains: [www.test], content: ./site}}
  old: {{kind: web, domains: [old.test]}}
  db: {{kind: mysql}}
  app: {{{WAITER}, database: db, volumes: ['kept:/kept']}}
  gone: {{{WAITER}, database: db}}
"""
# Content, limits, an environment and a secret; one server and one link less, and one of each more.
AFTER = f"""\
  edge: {{kind: proxy, http: PORT, tls: 'off'}}
  www: {{kind: web, domains: [www.test], content: ./other}}
  db: {{kind: mysql, resources: {{memory: 420M}}}}
  app: {{{WAITER}, database: db, volumes: ['kept:/kept'], environment: {{A: b}}, secrets: {{token: {{}}}}}}
  gone: {{{WAITER}}}
  new: {{{WAITER}, database: db, volumes: ['more:/more']}}
"""


class Killing(Stack):
    """A stack whose `up` is killed."""

    port: int

    def become(self, servers: str) -> None:
        self.write(servers.replace("PORT", str(self.port)))

    def up_killed_at_each(self) -> None:
        """Run `up` again and again until it is done: it is killed after each operation once.

        These are those of the plan, and what only comes up when a run is to be finished.
        """
        planned = {c["id"] for c in self.run("plan", "--format", "json").json["changes"]}
        file = self.folder.parent / "killed"
        file.unlink(missing_ok=True)
        words = [sys.executable, "-m", "tests.engine.killed", str(file), "up", str(self.file), "--progress", "json"]
        ended = subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        lines = file.read_text().splitlines()
        killed = {operation for line in lines for operation in line.split()}
        rows = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
        assert {row["operation"] for row in rows if row["status"] == "done"} <= killed
        assert without_hashes(planned) <= without_hashes(killed)
        words = [row["detail"] for row in rows if row["status"] == "note"]
        assert all("has gone before it was done" in word for word in words)
        assert len(words) == len(lines), "who takes a dead one's lock says so"
        print(f"killed {len(lines)} times, after each of {len(planned)} planned operations, {len(killed)} in all")

    def up_killed_somewhere(self) -> bool:
        """Run `up`, and kill it at some event or a little later; whether it was."""
        left, killed, said = random.randint(1, 50), False, []
        with self.start("up", "--progress", "json") as process:
            for line in process.stderr or ():
                said.append(line)
                left -= 1
                if left == 0:
                    time.sleep(random.uniform(0, 0.05))
                    process.kill()
                    killed = True
        assert killed or process.returncode == 0, "".join(said)
        return killed

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


def test_up_killed_after_every_operation_is_finished_by_the_next(killing: Killing) -> None:
    """`up` gets there, whatever it was killed after: no data is lost, nothing left over.

    First a stack comes up from nothing and then most of it changes, each with a kill after every operation. Then it
    changes back, with several operations at a time and kills here and there.
    """
    killing.become(BEFORE)
    killing.up_killed_at_each()
    killing.check({"app", "gone"}, "edge", "www", "old", "db", "app", "gone")

    word = uuid.uuid4().hex
    assert killing.sql(f"CREATE TABLE app.kept (word TEXT); INSERT INTO app.kept VALUES ('{word}')")[0] == 0
    write = (
        "app",
        "sh",
        "-c",
        f"echo {word} > /kept/word",
    )  # the volume is root's, or, Podman gives it away, the server's
    assert any(killing.inside(*write, user=user)[0] == 0 for user in ("0", "1000"))
    secrets = killing.stored_secrets()
    assert killing.sql("SELECT 1", "gone") == (0, "1\n")

    killing.become(AFTER)
    killing.up_killed_at_each()
    killing.check({"app", "new"}, "edge", "www", "db", "app", "gone", "new")
    assert curl(f"http://www.test:{killing.port}/").body == "the second\n"
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

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    random.seed(seed)
    killing.become(BEFORE)
    kills = sum(killing.up_killed_somewhere() for _ in range(3))
    killing.up()
    killing.check({"app", "gone"}, "edge", "www", "old", "db", "app", "gone")
    assert curl(f"http://www.test:{killing.port}/").body == "the first\n"
    assert killing.sql("SELECT word FROM app.kept", "app") == (0, f"{word}\n")
    assert killing.inside("app", "cat", "/kept/word") == (0, f"{word}\n")
    print(f"killed {kills} times here and there")
