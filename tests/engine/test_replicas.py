"""Replicas under load: they come, go, and are replaced one after the other, and no visitor notices."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, curl, free_port, wait_until
from tests.load import Load, Visitor, saying, visitors

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAGE = "<?php echo 'first by ', gethostname(), ' of '; sleep((int) ($_GET['slow'] ?? 0)); echo 'app';"


def replicas(stack: Stack) -> dict[int, Any]:
    """The rows of the containers of `app`, as the engine lists them, by their numbers."""
    rows = stack.daemon.api.containers(
        all=True, filters={"label": [f"{LABEL}stack={stack.name}", f"{LABEL}server=app"]}
    )
    found = {int(r["Labels"].get(f"{LABEL}replica", "1")): r for r in rows}
    assert len(found) == len(rows), "one container for each"
    return found


def answering(port: int) -> set[str]:
    """Who answers, of those that are asked next: host names are replicas' names."""
    return {name for _ in range(4) for name in re.findall(r"by (\S+)", curl(f"http://app.test:{port}/").body)}


def all_answer(port: int, count: int) -> None:
    """Requests go to so many; others ask meanwhile, so that those of ours may all come to the same."""
    found: set[str] = set()
    wait_until(lambda: found.update(answering(port)) or len(found) == count, f"{count} replicas that answer")


def test_replicas_come_go_and_are_replaced_while_no_request_fails(make_stack: StackFactory) -> None:
    """From one to three, all of them replaced, a failure, to two, and one that had ended: each by one `up`, under load."""
    stack, port = make_stack("three"), free_port()
    stack.put("site/index.php", PAGE)
    stack.write(
        f"  edge: {{kind: proxy, http: {port}, tls: 'off'}}\n"
        "  app: {kind: php, domains: [app.test], content: ./site, replicas: 1}\n"
    )
    stack.up()
    app: dict[str, Any] = {"host": "app.test", "port": port, "expect": saying("app")}
    first = replicas(stack)[1]["Id"]
    with visitors(
        Visitor("kept", pause=0.05, **app),
        Visitor("new", pause=0.05, keep=False, **app),
        Visitor("slow", path="/?slow=1", pause=0.0, **app),
    ) as load:
        added(stack, load, first, port)
        replaced(stack, load)
        failed(stack)
        removed(stack, load, port)
    assert load.failed() == []
    assert min(load.answers.values()) > 5


@contextlib.contextmanager
def happening(stack: Stack) -> Iterator[list[Any]]:
    """Starts and ends of the replicas, as the engine tells them, from here to the end of the block."""
    wanted = {"label": [f"{LABEL}stack={stack.name}", f"{LABEL}server=app"], "event": ["start", "die"]}
    events, found = stack.daemon.events(filters=wanted, decode=True), []
    reader = threading.Thread(target=lambda: found.extend(events), daemon=True)
    reader.start()
    try:
        yield found
    finally:
        time.sleep(0.2)
        events.close()
        reader.join(5)


def added(stack: Stack, load: Load, first: str, port: int) -> None:
    """Two more come, and the one that is there goes on; requests go to all of them."""
    stack.edit("replicas: 1", "replicas: 3")
    said = stack.up().err
    assert "replica 2 of 3 is not there yet" in said and "replica 3 of 3 is not there yet" in said
    there = replicas(stack)
    assert sorted(there) == [1, 2, 3] and there[1]["Id"] == first
    assert {int(r["Labels"][f"{LABEL}generation"]) for r in there.values()} == {1}, "of the same generation"
    all_answer(port, 3)
    load.another_round()


def replaced(stack: Stack, load: Load) -> None:
    """All get the new content, one after the other: each new one runs before the old one ends."""
    before = replicas(stack)
    stack.put("site/index.php", PAGE.replace("first", "second"))
    with happening(stack) as events:
        stack.up()
    after = replicas(stack)
    assert not {r["Id"] for r in before.values()} & {r["Id"] for r in after.values()}
    assert {int(r["Labels"][f"{LABEL}generation"]) for r in after.values()} == {2}
    names = {r["Id"]: f"{n}{age}" for age, each in (("-", before), ("+", after)) for n, r in each.items()}
    told = [f"{e['Action']} {names[e['id']]}" for e in events]
    assert told == [w for n in "123" for w in (f"start {n}+", f"die {n}-")]
    rows = [r for r in stack.run("history", "--format", "json").json if r["server"] == "app"]
    assert [(r["generation"], r["result"]) for r in rows] == [(2, "running"), (1, "replaced")]
    load.another_round()


def failed(stack: Stack) -> None:
    """What the first can't do is tried with no other: all serve on as they are."""
    before, text = replicas(stack), stack.file.read_text()
    stack.edit("replicas: 3", "replicas: 3, health: {test: [CMD, 'false']}")
    said = stack.up("--wait-timeout", "1", status=1).err
    assert "failed: wait app: " in said and "not done, since what they need failed: app, app.2, app.3" in said
    assert {n: (r["Id"], r["State"]) for n, r in replicas(stack).items()} == {
        n: (r["Id"], "running") for n, r in before.items()
    }
    stack.file.write_text(text)


def removed(stack: Stack, load: Load, port: int) -> None:
    """One goes, and of the others none is touched; one that was killed is started alone."""
    before = replicas(stack)
    stack.edit("replicas: 3", "replicas: 2")
    assert "the stack wants 2 replicas" in stack.up().err
    assert {n: r["Id"] for n, r in replicas(stack).items()} == {n: before[n]["Id"] for n in (1, 2)}
    load.another_round()
    stack.daemon.containers.get(before[2]["Id"]).stop(timeout=10)
    wait_until(lambda: len(answering(port)) == 1, "the proxy goes on with the other one")
    rows = stack.up("--format", "json").json
    assert {n: (r["Id"], r["State"]) for n, r in replicas(stack).items()} == {
        n: (before[n]["Id"], "running") for n in (1, 2)
    }
    assert Counter((r["server"], r["replica"], r["health"]) for r in rows if r["server"] == "app") == {
        ("app", 1, "ready"): 1,
        ("app", 2, "ready"): 1,
    }
    all_answer(port, 2)
