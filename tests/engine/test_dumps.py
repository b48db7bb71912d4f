"""Data before an update and after it: dumped while its server runs, whole, and brought back with the image of then."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import STACKS, Stack, tags

pytestmark = pytest.mark.engine

TEMPLATES = STACKS.parent / "templates"
NO_SOURCES = "RUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*\n"  # apt asks nobody, and has nothing newer
# Its check takes the configuration, and its server runs; but it never answers.
MUTE = """\
RUN printf '#!/bin/sh\\necho it is on strike >&2; exit 1\\n' > /usr/bin/mariadb.new \\
 && chmod 755 /usr/bin/mariadb.new && mv /usr/bin/mariadb.new /usr/bin/mariadb
"""
NEWER = "FROM {tag}\nRUN sed -i '/^Package: tzdata$/,/^$/s/^Version: .*/&+newer/' /var/lib/dpkg/status\n"
STORE = """\
summary: Files, for tests.
user: "33:33"
command: [sleep, infinity]
volumes: {data: {target: /srv/data}}
resources: {memory: 16M, cpus: 1, pids: 10}
stop: {grace: 1s}
"""
STORE_IMAGE = "FROM {{ base }}\nRUN install -d -o 33 -g 33 -m 0750 /srv/data\n"


@pytest.fixture
def stores(make_stack: StackFactory, daemon: Any) -> Iterator[Stack]:
    """A database and a server with files, whose images are of kinds of their own; up."""
    stack = make_stack("data")
    db, files = (f"{stack.name}-{k}" for k in ("db", "files"))
    shutil.copytree(TEMPLATES / "mysql", stack.folder / "kinds" / db)
    with (stack.folder / "kinds" / db / "Dockerfile.j2").open("a") as dockerfile:
        dockerfile.write(NO_SOURCES)
    stack.put(f"kinds/{files}/kind.yml", STORE)
    stack.put(f"kinds/{files}/Dockerfile.j2", STORE_IMAGE + NO_SOURCES)
    stack.write(f"  db: {{kind: {db}}}\n  files: {{kind: {files}}}\ntemplates: [kinds]\n")
    stack.up()
    yield stack
    stack.destroy()
    for tag in images(stack):
        daemon.api.remove_image(tag, force=True)


def images(stack: Stack) -> list[str]:
    return tags(stack.daemon, f"consolidate/{stack.name}-")


def sql(stack: Stack, statement: str) -> str:
    status, said = stack.inside("db", "mariadb", "--user=mysql", "--protocol=socket", "-Ne", statement)
    assert status == 0, said
    return said.strip()


def shell(stack: Stack, script: str) -> str:
    status, said = stack.inside("files", "sh", "-c", script)
    assert status == 0, said
    return said.strip()


def newer(stack: Stack, tag: str, stamp: str, more: str = "") -> str:
    """What `update` builds where a distribution has something newer."""
    text = (NEWER.format(tag=tag) + more).encode()
    stack.daemon.images.build(fileobj=io.BytesIO(text), tag=f"{tag}-{stamp}", rm=True, forcerm=True)
    return f"{tag}-{stamp}"


def test_an_update_can_be_taken_back_with_the_data(stores: Stack) -> None:
    """One that fails by itself, and a good one when asked to: a database by its own dump, accounts included; files with
    their owners. What is written since is kept in a dump."""
    rows = "SELECT GROUP_CONCAT(n ORDER BY n) FROM shop.things"
    sql(stores, "CREATE DATABASE shop; CREATE TABLE shop.things (n INT, b LONGBLOB) ENGINE=InnoDB")
    sql(stores, "INSERT INTO shop.things VALUES (1, REPEAT(CHAR(0, 255, 10, 39), 1500000)), (2, NULL)")
    sql(stores, "CREATE USER ada@'%' IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO ada@'%'")
    digest = "SELECT SHA2(b, 256) FROM shop.things WHERE n = 1"
    known = sql(stores, digest)
    shell(stores, "umask 077; echo old > /srv/data/note; mkdir /srv/data/box; ln -s ../note /srv/data/box/link")
    first = {s: c["Image"] for s, c in stores.containers().items()}
    plain, before = images(stores), stores.containers()["db"]
    mute = newer(stores, next(t for t in plain if "-db:" in t), "20240401T120000", MUTE)
    failed = stores.run("update", "-s", "db", "--wait-timeout", "4", status=1)
    assert "it is on strike" in failed.err
    after = stores.containers()["db"]
    assert (after["Id"], after["Image"]) == (before["Id"], first["db"])
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    assert (sql(stores, rows), sql(stores, digest)) == ("1,2", known)
    dumped = stores.daemon.api.inspect_volume(f"{stores.name}_db_dump_2")["CreatedAt"]
    assert dumped[:19] <= after["State"]["FinishedAt"][:19]
    told = stores.run("history", "db", "--format", "json").json
    assert [(g["generation"], g["result"]) for g in told] == [(2, "failed"), (1, "running")]
    assert "it is on strike" in told[0]["detail"]
    assert "nothing to change" in stores.run("up").out

    stores.daemon.api.remove_image(mute)  # as `update` does with what it has built itself
    for tag in plain:
        newer(stores, tag, "20240501T120000")
    done = stores.run("update", "-s", "db", "-s", "files", "--format", "json")
    assert {(c["server"], c["package"]) for c in done.json["changes"]} == {("db", "tzdata"), ("files", "tzdata")}
    assert {s for s, c in stores.containers().items() if c["Image"] != first[s]} == {"db", "files"}
    assert {f"{stores.name}_db_dump_3", f"{stores.name}_files_dump_2"} <= stores.volumes()
    assert "nothing to change" in stores.run("up").out

    sql(stores, "INSERT INTO shop.things VALUES (3, NULL); DELETE FROM shop.things WHERE n = 1; DROP USER ada@'%'")
    shell(stores, "echo new > /srv/data/note; rm -r /srv/data/box; touch /srv/data/later")
    refused = stores.run("rollback", "db", "--with-data", status=64)
    assert "there is no terminal to ask on" in refused.err
    assert sql(stores, rows) == "2,3"

    stores.run("rollback", "db", "--with-data", "--yes")
    assert (sql(stores, rows), sql(stores, digest)) == ("1,2", known)
    assert "GRANT SELECT ON `shop`.* TO `ada`@`%`" in sql(stores, "SHOW GRANTS FOR ada@'%'")
    assert stores.containers()["db"]["Image"] == first["db"]
    assert shell(stores, "cat /srv/data/note") == "new"  # the other server is left alone
    stores.run("rollback", "files", "--with-data", "--yes")
    assert shell(
        stores, "cat /srv/data/box/link; ls -A /srv/data; stat -c '%u %a' /srv/data /srv/data/note"
    ).split() == [*("old", "box", "note", "33", "750", "33", "600")]
    assert "nothing to change" in stores.run("up").out

    stores.run("rollback", "db", "3", "--with-data", "--yes")
    assert sql(stores, rows) == "2,3"
    assert stores.containers()["db"]["Image"] != first["db"]
