"""Planning grows with the number of servers, and not with its square. Counted in lines that Python runs, which no load changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from consolidate import naming
from consolidate.execute import Executor
from consolidate.observed import HostFacts
from consolidate.pipeline import Prepared, narrowed, prepare
from consolidate.rollback import returned
from consolidate.source import Source
from tests.memory_engine import MemoryEngine
from tests.world import World, in_order, programs, resolved

Made = TypeVar("Made")
SIZES = (2, 4, 8)  # groups of five servers, each twice the last


class Vast(MemoryEngine):
    """An engine whose host carries any number of servers, with programs that say yes."""

    def __init__(self) -> None:
        super().__init__(lambda *_: (0, ""))

    def facts(self) -> HostFacts:
        return HostFacts(name="vast", memory=2**50, cpus=2**10)


def write(folder: Path, groups: int, page: str = "One") -> Source:
    """A stack of `groups` sites with all that they link to, behind one proxy and beside one mail server."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/index.php").write_text(page)
    each = f"for: {{i: 1..{groups}}}"
    (folder / "stack.yml").write_text(
        "stack: large\n"
        "servers:\n"
        '  edge: {kind: proxy, http: 8080, tls: "off"}\n'
        "  mail: {kind: mail, domains: [a.test], mailboxes: {ada@a.test: {}}}\n"
        f'  web-{{i}}: {{{each}, kind: web, domains: ["web-{{i}}.test"], content: ./site}}\n'
        f'  one-{{i}}: {{{each}, kind: container, image: "redis:7", publish: ["1{{i}}:1"], healthcheck: {{test: ["true"]}}}}\n'
        f"  db-{{i}}: {{{each}, kind: mysql}}\n"
        f'  php-{{i}}: {{{each}, kind: php, domains: ["php-{{i}}.test"], content: ./site, database: "db-{{i}}"}}\n'
        f'  blog-{{i}}: {{{each}, kind: wordpress, domains: ["blog-{{i}}.test"], database: "db-{{i}}", relay: mail,'
        " admin: {email: ada@a.test}}\n"
    )
    return Source(folder / "stack.yml")


def lines(action: Callable[[], Made]) -> tuple[Made, int]:
    """What `action` gives, and how many lines of Python it runs."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return action(), count
    finally:
        sys.settrace(before)


def up(prepared: Prepared, engine: MemoryEngine) -> None:
    def make_base(_: Callable[[str], None]) -> None:
        engine.import_image(None, naming.BASE_IMAGE)  # type: ignore[arg-type]

    with in_order():
        done = Executor(engine, prepared.secrets, lambda _: None, make_base, wait_timeout=1).run(prepared.plan)
    assert done.ok, done.failed


@pytest.mark.parametrize("there", ["nothing", "twice as many, with another page"])
def test_a_plan_costs_the_same_for_each_server(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether servers are made, replaced or removed, those that double a stack cost what the others do, within 3 %."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr("bcrypt.hashpw", lambda *_: b"hashed")  # slow on purpose, and no part of a plan
    taken = []
    for groups in (1, *SIZES):  # what is imported and made once doesn't count
        engine = Vast()
        if there != "nothing":
            for page in ("One", "Two"):  # so that there are records of earlier generations
                up(prepare(write(tmp_path, 2 * groups, page), engine), engine)
        made, count = lines(partial(prepare, write(tmp_path, groups, "Three"), engine))
        taken.append(count)
        changes = {o.server for o in made.plan.operations}
        assert len(changes) > 5 * groups, changes
    _, small, middle, large = taken
    assert large - middle < 1.03 * 2 * (middle - small), [middle - small, large - middle]


class VastPages(Vast):
    """The same for the kinds of tests/kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.program = programs


@pytest.mark.parametrize("verb", ["rollback", "up -s"])
def test_a_way_back_and_a_choice_of_servers_cost_the_same_for_each(verb: str) -> None:
    """Also where all servers are meant, each of which is rolled and has generations to look up."""
    taken = []
    for count in (2, 10, 20, 40):
        pages = {f"www-{i}": {"kind": "page", "domains": [f"www-{i}.test"]} for i in range(count)}

        def site(title: str, pages: dict[str, Any] = pages) -> Any:
            servers = {"edge": {"kind": "gate"}} | {n: p | {"title": title} for n, p in pages.items()}
            return resolved({"stack": "large", "servers": servers})

        world = World(VastPages())
        for title in ("One", "Two"):
            assert world.up(site(title)).ok
        wanted = site("Three")
        plan = world.make_plan(wanted)
        if verb == "rollback":
            assert world.desired
            prepared = Prepared(wanted, world.desired, world.observe(wanted), world.secrets, {})
            made, cost = lines(lambda p=prepared: returned(p, None).plan)  # type: ignore[misc]
        else:
            made, cost = lines(partial(narrowed, plan, wanted, tuple(pages)))
        assert {o.server for o in made.operations if o.verb == "create"} == pages.keys()
        taken.append(cost)
    _, small, middle, large = taken
    assert large - middle < 1.05 * 2 * (middle - small), [middle - small, large - middle]
