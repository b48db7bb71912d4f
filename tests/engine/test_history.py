"""Earlier generations: what is kept of them, and the way back, by what clients and the engine say."""

from __future__ import annotations

import shutil
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
    stack, port = make_stack("pages"), free_port()
    url = f"http://localhost:{port}/"
    stack.write(f"  www: {{kind: web, content: ./site, publish: ['{port}:80']}}\n")
    volumes = []
    for text in ("one", "two", "three", "four"):
        page(stack, text)
        stack.up()
        volumes.append(stack.containers()["www"]["Mounts"][0]["Name"])
    rows = stack.run("history", "--format", "json").json
    assert [(r["generation"], r["result"]) for r in rows] == [
        (4, "running"),
        (3, "replaced"),
        (2, "replaced"),
        (1, "replaced"),
    ]
    assert rows[0]["reason"] == "content changed"
    assert "@" in rows[0]["by"]
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
