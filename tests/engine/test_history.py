"""Earlier generations: what is kept of them, and the way back, by what clients and the engine say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, curl, free_port, run

pytestmark = pytest.mark.engine


def page(stack: Stack, text: str) -> None:
    stack.put("site/index.html", f"{text}\n")


def records(stack: Stack) -> dict[str, str]:
    """Records on the engine: name → the state of the container."""
    of_stack = {"label": [f"{LABEL}stack={stack.name}", f"{LABEL}helper=generation"]}
    return {c["Names"][0][1:]: c["State"] for c in stack.daemon.api.containers(all=True, filters=of_stack)}


def test_a_page_goes_back_and_the_fourth_before_is_gone(make_stack: StackFactory, tmp_path: Path) -> None:
    """By default to the last good one, by number to another; also from another machine; `up` brings the file's again."""
    stack, port, begun = make_stack("pages"), free_port(), datetime.now(UTC).replace(microsecond=0)
    url = f"http://localhost:{port}/"
    stack.write(f"  www: {{kind: web, content: ./site, publish: ['{port}:80']}}\n")
    volumes = []
    for text in ("one", "two", "three", "four"):
        page(stack, text)
        stack.up()
        mounts = {m["Destination"]: m["Name"] for m in stack.containers()["www"]["Mounts"] if m["Type"] == "volume"}
        volumes.append(mounts["/config"])
    rows = stack.run("history", "--format", "json").json
    assert [(r["generation"], r["result"]) for r in rows] == [
        (4, "running"),
        (3, "replaced"),
        (2, "replaced"),
        (1, "replaced"),
    ]
    assert rows[0]["reason"] == "content changed"
    assert "@" in rows[0]["by"]
    image = stack.containers()["www"]["Image"]
    assert {r["image_id"] for r in rows} == {image}
    assert all(r["image"].startswith("consolidate/web:") for r in rows)
    times = [datetime.fromisoformat(r["when"]) for r in rows]
    assert begun <= times[3] <= times[2] <= times[1] <= times[0] <= datetime.now(UTC)
    assert rows[0]["fields"][0]["field"] == "content"
    assert records(stack) == {f"{stack.name}-www.gen.{n}": "created" for n in (1, 2, 3)}

    done = stack.run("rollback", "www", "--progress", "plain")
    assert curl(url).body == "three\n"
    assert "back to generation 3: content changed" in done.err
    assert "the next `consolidate up` does what the file says again" in done.err
    assert stack.containers()["www"]["Config"]["Labels"][f"{LABEL}generation"] == "5"
    assert volumes[0] not in stack.volumes(), "the fourth before has gone"
    assert set(volumes[1:]) <= stack.volumes()
    assert set(records(stack)) == {f"{stack.name}-www.gen.{n}" for n in (2, 3, 4)}

    other = tmp_path / "elsewhere"
    shutil.copytree(stack.folder, other)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "USER": "bob", "LOGNAME": "bob"}
    run("rollback", "www", "2", "--progress", "plain", cwd=other, env=env)
    assert curl(url).body == "two\n"
    rows = stack.run("history", "www", "--format", "json").json
    assert [(r["generation"], r["result"]) for r in rows] == [
        (6, "running"),
        (5, "rolled back"),
        (4, "rolled back"),
        (3, "replaced"),
    ]
    assert rows[0]["by"].startswith("bob@")
    assert "content changed" in stack.run("plan").out
    stack.up()
    assert curl(url).body == "four\n"

    missing = stack.run("rollback", "www", "1", status=64)
    assert "www has no generation 1 that is kept" in missing.err
    assert "there are: 6, 5, 4" in missing.err
    assert "did you mean 'www'" in stack.run("rollback", "wwww", status=64).err

    stack.edit("servers:", "generations: 1\nservers:")
    stack.up()
    assert set(records(stack)) == {f"{stack.name}-www.gen.6"}, "how many are kept is a setting"


def test_a_database_goes_back_with_its_data(make_stack: StackFactory) -> None:
    """Its limits are those of then, what was written since is there; a failure shows in `history` with its reason."""
    stack = make_stack("base")
    stack.write("  db: {kind: mysql, resources: {memory: 384M}}\n")
    stack.up()
    stack.edit("384M", "400M")
    stack.up()
    sql = "create database shop; create table shop.items (name text); insert into shop.items values ('kept')"
    assert stack.inside("db", "mariadb", "-e", sql)[0] == 0
    done = stack.run("rollback", "db", "--progress", "plain")
    db = stack.containers()["db"]
    assert db["HostConfig"]["Memory"] == 384 * 2**20
    assert db["Config"]["Labels"][f"{LABEL}generation"] == "3"
    assert stack.inside("db", "mariadb", "-N", "-e", "select name from shop.items") == (0, "kept\n")
    assert "its data stays as it is" in done.err
    assert "db: replaced, away for" in done.err

    stack.edit("memory: 400M}", "memory: 384M}, health: {test: [CMD-SHELL, 'echo not today; exit 1']}")
    stack.up("--wait-timeout", "3", status=1)
    assert stack.containers()["db"]["Id"] == db["Id"]
    assert stack.inside("db", "mariadb", "-N", "-e", "select name from shop.items") == (0, "kept\n")
    failed = stack.run("history", "db", "--format", "json").json[0]
    assert (failed["generation"], failed["result"]) == (4, "failed")
    assert "not today" in failed["detail"]
    assert "not today" in stack.run("history").out


def test_all_or_nothing(make_stack: StackFactory) -> None:
    """One that fails takes back the one that was fine, to the very container, and the new one with all but its data."""
    stack, port = make_stack("both"), free_port()
    stack.write(
        f"  good: {{kind: web, content: ./site, publish: ['{port}:80']}}\n"
        "  bad: {kind: container, image: 'debian:bookworm-slim', command: sleep 99999}\n"
    )
    page(stack, "one")
    stack.up()
    before, left = {s: c["Id"] for s, c in stack.containers().items()}, set(stack.left())
    page(stack, "two")
    stack.edit("sleep 99999}", "'false'}\n  new: {kind: mysql}")
    done = stack.up("--all-or-nothing", "--wait-timeout", "30", status=1)
    assert {s: c["Id"] for s, c in stack.containers().items()} == before
    assert all(c["State"]["Running"] for c in stack.containers().values())
    assert curl(f"http://localhost:{port}/").body == "one\n"
    assert "bad failed: what has been done for the others is taken back" in done.err
    assert "taken back: bad, good" in done.err or "taken back: good" in done.err
    new = {e.split()[1] for e in set(stack.left()) - left}
    data = {n for n in new if "_new_" in n}
    assert data == {f"{stack.name}_new_data"}, "data alone is kept of what was new"
    rows = stack.run("history", "--format", "json").json
    assert [(r["generation"], r["result"]) for r in rows if r["server"] == "good"] == [
        (2, "rolled back"),
        (1, "running"),
    ]
    stack.edit("'false'}\n  new: {kind: mysql}", "sleep 99999}")
    page(stack, "one")
    assert "nothing to change" in stack.up().out


def test_without_a_server_all_that_the_last_up_changed_goes_back(make_stack: StackFactory) -> None:
    """Both to what they were, and the one that it left alone stays alone."""
    stack, port = make_stack("all"), free_port()
    stack.write(
        f"  www: {{kind: web, content: ./site, publish: ['{port}:80']}}\n"
        "  app: {kind: container, image: 'debian:bookworm-slim', command: sleep 99999}\n"
        "  calm: {kind: container, image: 'debian:bookworm-slim', command: sleep 77777}\n"
    )
    page(stack, "one")
    stack.up()
    calm = stack.identities()["calm"]
    page(stack, "two")
    stack.edit("sleep 99999", "sleep 88888")
    stack.up()
    stack.run("rollback")
    assert curl(f"http://localhost:{port}/").body == "one\n"
    assert stack.containers()["app"]["Config"]["Cmd"] == ["sleep", "99999"]
    assert stack.identities()["calm"] == calm
