"""A host whose disk is full: what does not fit fails with a message that says so, what served serves on, the rest goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import STACKS, Stack, carry_images, client_of
from tests.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MB = 2**20
FULL = "no space left on device"
SERVERS = "  www: {kind: web, content: ./site, publish: ['8080:80']}\n  db: {kind: KIND}\n"
MORE = "  large: {kind: web, content: ./large}\n  little: {kind: web, content: ./little}\n"
# Nothing is newer than such an image, since apt asks nobody; but for what has been built from it.
DEPOT = "FROM {tag}\nRUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*\n"
NEWER = "FROM {tag}\nRUN sed -i '/^Package: tzdata$/,/^$/s/^Version: .*/&+newer/' /var/lib/dpkg/status\n"
# 32 MiB that nothing can squeeze.
ROWS = [
    "CREATE DATABASE shop; CREATE TABLE shop.things (n INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)",
    "INSERT INTO shop.things (b) VALUES (RANDOM_BYTES(1024))",
    *["INSERT INTO shop.things (b) SELECT RANDOM_BYTES(1024) FROM shop.things"] * 15,
]
WHOLE = "SELECT COUNT(*), BIT_XOR(CRC32(b)) FROM shop.things"


class Small(Stack):
    """A stack on an engine of its own with a small disk."""

    machine: SecondEngine

    def page(self) -> str:
        return self.machine.inside("curl", "--silent", "--max-time", "5", "http://127.0.0.1:8080/").stdout

    def sql(self, *statements: str) -> str:
        status, said = self.inside("db", "mariadb", "-Ne", "; ".join(statements))
        assert status == 0, said
        return said


@pytest.fixture
def small(daemon: Any, token: str, tmp_path: Path) -> Iterator[Small]:
    """A page and a database, up, whose image has a newer build."""
    (tmp_path / "stack").mkdir()
    with second_engine(tmp_path, 1500 * MB) as machine:
        client = client_of(machine.url)
        stack = Small(tmp_path / "stack", f"{token}-small", client, env={"DOCKER_HOST": machine.url})
        stack.machine = machine
        stack.put("site/index.html", "first")
        stack.write(SERVERS.replace("KIND", "mysql"))
        carry_images(stack, machine, daemon)
        mysql = next(t for row in client.api.images() for t in row["RepoTags"] or [] if "/mysql:" in t)
        shutil.copytree(STACKS.parent / "templates" / "mysql", stack.folder / "kinds" / "depot")
        stack.put("kinds/depot/Dockerfile.j2", DEPOT.format(tag=mysql))
        stack.write(SERVERS.replace("KIND", "depot") + "templates: [kinds]\n")
        stack.up()
        tag = stack.containers()["db"]["Config"]["Image"]
        machine.docker("build", "--tag", f"{tag}-20240501T120000", "-", stdin=NEWER.format(tag=tag).encode())
        yield stack
        client.close()


def test_on_a_full_disk_what_does_not_fit_fails_and_what_served_serves_on(small: Small) -> None:
    """A new server, a page and a database that are replaced, a dump before an update; with room again all is done."""
    small.sql(*ROWS)
    whole, before = small.sql(WHOLE), small.identities()

    def all_as_before() -> None:
        assert {s: i for s, i in small.identities().items() if s in before} == before
        assert small.page() == "first"
        assert small.sql(WHOLE) == whole

    small.machine.fill(leave=24 * MB)
    done = small.run("update", "--server", "db", "--progress", "plain", status=1)
    assert FULL in done.err
    assert "failed: dump db: " in done.err
    assert not [v for v in small.volumes() if "dump" in v]
    all_as_before()

    small.put("little/index.html", "little")
    for path in ("large/data", "site/data"):
        small.put(path, "x" * 40 * MB)
    small.edit("templates:", f"{MORE}templates:")
    done = small.up(status=1)
    assert done.err.count("failed: write files ") == done.err.count(FULL) / 2 == 2, done.err
    assert {s for s, c in small.containers().items() if c["State"]["Running"]} == {"www", "db", "little"}
    all_as_before()

    small.machine.fill(leave=0)
    small.edit("kind: depot", "kind: depot, resources: {memory: 400M}")
    assert FULL in small.up(status=1).err
    all_as_before()

    small.machine.empty()
    small.up()
    small.run("update", "--server", "db")
    assert small.run("plan", "--detailed-exitcode").status == 0
    assert small.containers()["db"]["HostConfig"]["Memory"] == 400 * MB
    assert small.sql(WHOLE) == whole
    assert [v for v in small.volumes() if "dump" in v] == [f"{small.name}_db_dump_3"]
    assert sorted(small.containers()) == ["db", "large", "little", "www"]
    assert small.orphans() == []
