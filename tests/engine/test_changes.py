"""A change to one server leaves every other container as it was, and the plan says what differs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.engine.conftest import PYTHON_IMAGE
from tests.engine.support import Stack, curl, free_port

pytestmark = pytest.mark.engine

Servers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def several(daemon: Any, token: str, python_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that the tests of this module change again and again; none relies on what another left."""
    folder = tmp_path_factory.mktemp("several") / "several"
    folder.mkdir()
    stack = Stack(folder, f"{token}-several", daemon)
    stack.port = free_port()  # type: ignore[attr-defined]
    stack.write(
        f"  edge: {{kind: proxy, http: {stack.port}, tls: 'off'}}\n"  # type: ignore[attr-defined]
        "  www: {kind: web, domains: [www.test], content: ./site}\n"
        "  shop: {kind: web, domains: [shop.test]}\n"
        "  db: {kind: mysql}\n"
        "  app:\n    kind: container\n    image: debian:bookworm-slim\n    command: sleep 99999\n"
        "    user: '1000:1000'\n    database: db\n    environment: {COLOUR: red}\n"
        "    resources: {memory: 64M, pids: 50}\n    secrets: {token: {}}\n",
        site__index_dot_html="hello\n",
    )
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
        stack.purge()


def change(stack: Stack, make: Callable[[Servers], object]) -> None:
    """Change the servers in the stack file."""
    data = yaml.safe_load(stack.file.read_text())
    make(data["servers"])
    stack.file.write_text(yaml.safe_dump(data, sort_keys=False))


def flip(*values: Any) -> Callable[[Any], Any]:
    """The other one of two values: the tests may run in any order, and again."""
    return lambda value: values[1] if value == values[0] else values[0]


def content(stack: Stack) -> None:
    stack.put("site/index.html", f"{uuid.uuid4()}\n")


def renamed(stack: Stack) -> None:
    for old in (stack.folder / "site").glob("page-*"):
        old.unlink()
    stack.put(f"site/page-{uuid.uuid4()}.html", "the same\n")


def setting(server: str, *path: str, to: Callable[[Any], Any]) -> Callable[[Stack], None]:
    def apply(servers: Servers) -> None:
        place: Any = servers[server]
        for step in path[:-1]:
            place = place.setdefault(step, {})
        value = to(place.get(path[-1]))
        if value is None:
            place.pop(path[-1], None)
        else:
            place[path[-1]] = value

    return lambda stack: change(stack, apply)


def rotate(stack: Stack) -> None:
    stack.run("secret", "rotate", "app/token")


CHANGES = {
    "content": (content, "www", "content changed"),
    "a file's name": (renamed, "www", "content changed"),
    "a setting": (setting("www", "spa", to=flip(True, None)), "www", "file nginx.conf changed"),
    "environment": (
        setting("app", "environment", "COLOUR", to=flip("blue", "red")),
        "app",
        r"environment COLOUR \w+ → \w+",
    ),
    "memory": (setting("app", "resources", "memory", to=flip("96M", "64M")), "app", r"memory \d+M → \d+M"),
    "cpus": (setting("shop", "resources", "cpus", to=flip(0.5, 0.25)), "shop", r"cpus [\d.]+ → [\d.]+"),
    "pids": (setting("app", "resources", "pids", to=flip(60, 50)), "app", r"pids \d+ → \d+"),
    "image": (setting("app", "image", to=flip(PYTHON_IMAGE, "debian:bookworm-slim")), "app", r"image \S+ → \S+"),
    "command": (
        setting("app", "command", to=flip("sleep 88888", "sleep 99999")),
        "app",
        r"command sleep \d+ → sleep \d+",
    ),
    "secret": (rotate, "app", "secret app/token changed"),
    "a writable place": (
        setting("app", "tmpfs", to=flip(["/tmp"], ["/run"])),
        "app",
        r"tmpfs /\w+ added(; tmpfs /\w+ removed)?",
    ),
    "the database server": (
        setting("db", "resources", "memory", to=flip("400M", "384M")),
        "db",
        r"memory \d+M → \d+M; file my.cnf changed",
    ),
}


@pytest.mark.parametrize(("make", "server", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_change_to_one_server_touches_no_other(
    several: Stack, make: Callable[[Stack], None], server: str, reason: str
) -> None:
    before = several.identities()
    make(several)
    rows = several.run("plan", "--format", "json").json["changes"]
    assert {r["server"] for r in rows} - {""} <= {server, "edge"}
    created = [r for r in rows if r["action"] == "create"]
    assert [r["server"] for r in created] == [server]
    assert re.fullmatch(reason, created[0]["reason"]), created[0]["reason"]
    assert several.identities() == before, "a plan does nothing"

    several.up()
    after = several.identities()
    assert {s for s in after if after[s] != before[s]} == {server}
    assert after[server][0] != before[server][0]
    assert several.run("plan", "--detailed-exitcode").status == 0
    assert curl(f"http://www.test:{several.port}/").body == (several.folder / "site/index.html").read_text()  # type: ignore[attr-defined]
    assert curl(f"http://shop.test:{several.port}/").status == 200  # type: ignore[attr-defined]


def test_a_change_of_the_database_server_keeps_data_and_consumers(several: Stack) -> None:
    def sql(statement: str) -> tuple[int, str]:
        return several.inside("db", "mariadb", "--user=mysql", "--protocol=socket", "-Ne", statement)

    word = uuid.uuid4().hex
    assert sql(f"CREATE OR REPLACE TABLE app.kept (word TEXT); INSERT INTO app.kept VALUES ('{word}')")[0] == 0
    setting("db", "resources", "memory", to=flip("420M", "384M"))(several)
    several.up()
    assert sql("SELECT word FROM app.kept") == (0, f"{word}\n")
    assert "crash recovery" not in several.run("logs", "db").out, "the old one was stopped cleanly"
    greeting = several.inside("app", "bash", "-c", "exec 3<>/dev/tcp/db/3306 && head -c 20 <&3 | tr -cd '[:print:]'")
    assert "10.11" in greeting[1], "the one that was not touched finds the new one by its name"


@pytest.mark.parametrize("rewrite", ["comments", "order", "flow"])
def test_the_same_stack_written_otherwise_changes_nothing(several: Stack, rewrite: str) -> None:
    before, text = several.identities(), several.file.read_text()
    data = yaml.safe_load(text)
    if rewrite == "comments":
        several.file.write_text("# a comment\n\n" + text.replace("servers:", "servers:   # here\n"))
    elif rewrite == "order":
        turned = dict(reversed([(k, dict(reversed(v.items()))) for k, v in data["servers"].items()]))
        several.file.write_text(yaml.safe_dump(data | {"servers": turned}, sort_keys=False))
    else:
        several.file.write_text(yaml.safe_dump(data, default_flow_style=True, width=10_000))
    try:
        assert several.run("plan", "--detailed-exitcode").out.endswith("nothing to change\n")
        assert several.identities() == before
    finally:
        several.file.write_text(text)


def test_only_one_server_can_be_brought_up(several: Stack) -> None:
    before = several.identities()
    content(several)
    setting("app", "environment", "COLOUR", to=flip("green", "grey"))(several)
    several.up("-s", "app")
    after = several.identities()
    assert {s for s in after if after[s] != before[s]} == {"app"}
    several.up()
    assert several.identities()["app"] == after["app"]
    assert several.run("plan", "--detailed-exitcode").status == 0


def test_a_plan_shows_the_lines_that_change(several: Stack) -> None:
    """Of a file of its volume and of one that is reloaded; the fields are there for programs, too."""
    setting("www", "spa", to=flip(True, None))(several)
    setting("edge", "timeout", to=flip("3m", "2m"))(several)
    plan = several.run("plan", "--format", "json").json
    files = {(f["server"], f["file"]): f["diff"] for f in plan["files"]}
    assert set(files) == {("www", "nginx.conf"), ("edge", "haproxy.cfg")}
    assert re.search(r"^-.*try_files.*\n^\+.*try_files", files["www", "nginx.conf"], re.M)
    assert re.search(r"^-    timeout client \d+s\n\+    timeout client \d+s", files["edge", "haproxy.cfg"], re.M)
    fields = [f["field"] for c in plan["changes"] for f in c["fields"] if c["server"] == "www"]
    assert fields == ["file nginx.conf"]
    table = several.run("plan").out
    assert "+++ nginx.conf" in table
    assert "timeout client" in table
    several.up()


def test_a_plan_in_a_file_is_done_as_it_is_or_not_at_all(several: Stack) -> None:
    """`up FILE` does what `plan --out FILE` said; once something has changed it refuses, and says what."""
    plan = several.folder / "approved.plan"
    before = several.identities()
    content(several)
    change(several, lambda servers: servers["app"]["secrets"].update({f"s{uuid.uuid4().hex[:6]}": {}}))
    several.run("plan", "--out", plan)
    assert several.identities() == before
    done = several.run("up", "--format", "json", plan)
    assert {r["state"] for r in done.json} == {"running"}
    assert several.run("plan", "--detailed-exitcode").status == 0

    content(several)
    several.run("plan", "--out", plan)
    stale = several.identities()
    several.daemon.containers.get(several.identities()["www"][0]).stop(timeout=1)
    done = several.run("up", plan, status=1)
    assert "the engine has changed since the plan was made; nothing was done" in done.err
    several.up()
    assert several.identities()["www"] != stale["www"]
    content(several)
    done = several.run("up", plan, status=1)
    assert "the stack's files have changed" in done.err
    several.up()
