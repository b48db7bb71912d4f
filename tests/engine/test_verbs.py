"""Every verb on a real engine, and every exit status."""

from __future__ import annotations

import json
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import StackFactory
from tests.engine.support import (
    KINDS,
    STACKS,
    Stack,
    command,
    curl,
    environment,
    free_port,
    put_on_free_ports,
    run,
    wait_until,
)
from tests.engine.terminal import at_terminal

pytestmark = pytest.mark.engine

TEMPLATES = STACKS.parent / "templates"
EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_TEMPFAIL = 64, 65, 69, 75

# Ready after some seconds, so that there is time to meddle.
SLOW = """\
  slow:
    kind: container
    image: debian:bookworm-slim
    command: [bash, -c, "trap 'exit 0' TERM; sleep {0}; touch /tmp/ready; while sleep 1; do :; done"]
    user: "1000:1000"
    tmpfs: [/tmp]
    volumes: ["data:/data"]
    healthcheck: {{test: [CMD, test, -e, /tmp/ready]}}
"""


@pytest.fixture(scope="module")
def small(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A page and a program that waits, up; tests of this module look at it and leave it as it is."""
    folder = tmp_path_factory.mktemp("small") / "small"
    folder.mkdir()
    stack = Stack(folder, f"{token}-small", daemon)
    stack.port = free_port()  # type: ignore[attr-defined]
    stack.write(
        f"  www: {{kind: web, publish: ['{stack.port}:80']}}\n"  # type: ignore[attr-defined]
        "  tools:\n    kind: container\n    image: debian:bookworm-slim\n    user: '1000:1000'\n"
        "    command: [bash, -c, 'echo begun; echo complained >&2; exec sleep 99999']\n"
    )
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
        stack.purge()


def visit(stack: Stack, path: str) -> None:
    """Have the page's server write a line into its log."""
    curl(f"http://localhost:{stack.port}{path}")  # type: ignore[attr-defined]


# init, validate, render, plan


@pytest.mark.parametrize("kind", KINDS)
def test_init_makes_a_stack_that_is_valid_and_plans(kind: str, daemon: Any, token: str, tmp_path: Path) -> None:
    stack = Stack(tmp_path, f"{token}-init", daemon)
    stack.run("init", kind, "--name", stack.name)
    servers = yaml.safe_load(stack.file.read_text())["servers"]
    assert kind in {s["kind"] for s in servers.values()}
    assert "all valid" in stack.run("validate").out
    elsewhere = put_on_free_ports(stack.file)
    planned = stack.run("plan", "--format", "json").json
    assert planned["stack"] == stack.name
    assert {c["server"] for c in planned["changes"]} >= set(servers), elsewhere
    assert stack.left() == []
    assert stack.run("init", kind, status=EX_USAGE).err.count("is there already") == 1


@pytest.mark.slow
def test_a_stack_of_every_kind_from_init_comes_up(make_stack: StackFactory) -> None:
    stack = make_stack("every")
    stack.run("init", *KINDS, "--name", stack.name)
    http, _ = put_on_free_ports(stack.file)
    stack.up()
    rows = stack.run("ps", "--format", "json").json
    assert {r["kind"] for r in rows} == set(KINDS)
    assert {r["state"] for r in rows} == {"running"}
    assert {r["health"] for r in rows} <= {"ready", "none"}
    for kind in ("web", "php", "wordpress"):
        assert curl(f"http://{kind}.{stack.name}.test:{http}/").status == 307
    assert stack.run("plan", "--detailed-exitcode").status == 0


def test_render_writes_to_standard_output_and_to_a_folder(small: Stack, tmp_path: Path) -> None:
    shown = small.run("render").out
    small.run("render", "--out", tmp_path / "out")
    files = {str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*") if f.is_file()}
    assert "www/live/nginx.conf" in files
    assert {line[2:] for line in shown.splitlines() if line.startswith("# ")} >= files
    assert (tmp_path / "out/www/live/nginx.conf").read_text() in shown
    only = small.run("render", "-s", "tools").out
    assert "nginx.conf" not in only


def test_render_redacts_secrets(tmp_path: Path) -> None:
    shutil.copytree(STACKS / "acme", tmp_path / "acme")
    shown = run("render", tmp_path / "acme" / "stack.yml").out
    assert "\ue000" not in shown, "no placeholder"
    assert "<secret mail/ada@acme.test>" in shown
    assert "PRIVATE KEY" not in shown


def test_plan_tells_and_writes_nothing(one: Stack) -> None:
    done = one.run("plan", "--detailed-exitcode", status=2)
    assert re.search(r"\+ +www +create +not there yet", done.out)
    rows = one.run("plan", "--format", "json").json["changes"]
    assert all(set(r) >= {"id", "action", "server", "reason", "impact", "needs"} for r in rows)
    assert len({r["id"] for r in rows}) == len(rows)
    assert {n for r in rows for n in r["needs"]} <= {r["id"] for r in rows}
    assert one.left() == []
    one.up()
    assert one.run("plan", "--detailed-exitcode").status == 0


# ps, logs, exec, restart


def test_ps_as_a_table(small: Stack) -> None:
    lines = small.run("ps").out.splitlines()
    assert re.match(r"SERVER +KIND +STATE +HEALTH +ADDRESSES", lines[0])
    assert re.search(r"www +web +running +ready +127\.0\.0\.1:\d+/tcp", "\n".join(lines))
    assert small.run("ps", "-s", "tools", "--format", "json").json[0]["health"] == "none"


def test_logs_of_several_servers_in_the_order_of_their_times(small: Stack) -> None:
    mark = f"/mark-{time.monotonic_ns()}"
    visit(small, mark)
    wait_until(lambda: mark in small.run("logs", "www").out, "the visit's line")
    lines = small.run("logs", "--timestamps").out.splitlines()
    parsed = [re.match(r"(\w+) \| (\S+Z) ?(.*)", line) for line in lines]
    assert all(parsed), lines
    times = [p[2] for p in parsed if p]
    assert times == sorted(times)
    assert {p[1] for p in parsed if p} == {"www", "tools"}
    assert {p[3] for p in parsed if p and p[1] == "tools"} == {"begun", "complained"}
    assert {line.split(" | ")[0] for line in small.run("logs", "tools").out.splitlines()} == {"tools"}


def test_logs_tail_and_since(small: Stack) -> None:
    assert len(small.run("logs", "tools", "--tail", "1").out.splitlines()) == 1
    assert len(small.run("logs", "tools", "--tail", "0").out.splitlines()) == 0
    assert len(small.run("logs", "tools", "--since", "1h").out.splitlines()) == 2
    assert small.run("logs", "tools", "--since", "2100-01-01T00:00").out == ""
    assert "is no time" in small.run("logs", "tools", "--since", "yesterdayish", status=EX_USAGE).err


def test_logs_follow_shows_a_line_as_it_comes(small: Stack) -> None:
    mark = f"/live-{time.monotonic_ns()}"
    following = small.start("logs", "www", "tools", "--follow", "--tail", "0")
    try:
        assert following.stdout is not None
        for _ in range(150):  # until it has begun to follow
            visit(small, mark)
            if select.select([following.stdout], [], [], 0.2)[0]:
                break
        line = following.stdout.readline()
        assert line.startswith("www | ")
        assert mark in line
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130
    finally:
        following.kill()
        following.communicate()


def test_exec_passes_input_output_and_status(small: Stack) -> None:
    done = small.run("exec", "tools", "--", "sh", "-c", "cat; echo said >&2; exit 7", stdin="given\nand more", status=7)
    assert (done.out, done.err) == ("given\nand more", "said\n")
    assert small.run("exec", "tools", "id", "-u").out == "1000\n"
    assert small.run("exec", "tools", "sh", "-ec", "echo $1", "-f", "-T").out == "-T\n"  # ours stand before the name
    assert small.run("exec", "tools", "--", "sh", "-c", 'echo "$0 $1"', "a b", "-x").out == "a b -x\n"
    large = "x" * 3_000_000
    assert small.run("exec", "tools", "--", "cat", stdin=large).out == large
    assert small.run("exec", "-T", "tools", "tty", status=1).out == "not a tty\n"
    assert small.run("exec", "tools", "no-such-program", status=None).status in (126, 127)


def test_exec_has_a_terminal_where_we_have_one(small: Stack) -> None:
    sized = 'tty; until [ "$(stty size)" != "0 0" ]; do sleep 0.1; done; stty size'  # it comes a moment after the start
    shown = at_terminal(command("exec", "tools", "--", "sh", "-c", sized), cwd=small.folder, columns=93)
    assert shown.status == 0
    assert "/dev/pts/" in shown.text
    assert shown.text.split()[-1] == "93"
    assert "not a tty" in at_terminal(command("exec", "-T", "tools", "tty"), cwd=small.folder).text


def test_restart_keeps_data_and_generation(make_stack: StackFactory) -> None:
    stack = make_stack("again")
    stack.write(SLOW.format(0))
    stack.up()
    stack.inside("slow", "sh", "-c", "echo precious > /data/file", user="0")
    before = stack.containers()["slow"]
    stack.run("restart", "slow")
    after = stack.containers()["slow"]
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    assert stack.run("ps", "--format", "json").json[0]["generation"] == 1
    assert stack.run("plan", "--detailed-exitcode").status == 0
    assert "no server 'slwo'" in stack.run("restart", "slwo", status=EX_USAGE).err


# Secrets


def test_secrets_are_listed_shown_set_and_rotated(make_stack: StackFactory) -> None:
    stack = make_stack("secret")
    stack.write(
        "  app:\n    kind: container\n    image: debian:bookworm-slim\n    command: sleep 99999\n    user: '1000:1000'\n"
        "    secrets: {token: {}, fixed: {file: fixed.txt}}\n",
        fixed_dot_txt="from the file\n",
    )
    assert "is not made yet" in stack.run("secret", "show", "app/token", status=EX_USAGE).err
    stack.up()
    first = stack.secret("app/token")
    assert len(first) >= 20
    assert stack.inside("app", "cat", "/run/secrets/token") == (0, first)
    assert stack.secret("app/fixed") == "from the file"
    rows = {r["secret"]: r for r in stack.run("secret", "list", "--format", "json").json}
    assert rows["app/token"]["readers"] == ["app"]
    assert first not in stack.run("secret", "list").both

    value = 'it\'s a "secret" $HOME \\ {{ x }}; ü'
    done = stack.run("secret", "set", "app/token", stdin=value + "\n")
    assert value not in done.both
    assert stack.secret("app/token") == value
    assert stack.inside("app", "cat", "/run/secrets/token") == (0, first), "until `up`"
    assert re.search(r"app +replace +secret app/\w+ changed", stack.run("plan").out)
    stack.up()
    assert stack.inside("app", "cat", "/run/secrets/token") == (0, value)

    stack.run("secret", "rotate", "app/token")
    assert stack.secret("app/token") not in (first, value)
    assert "comes from the file" in stack.run("secret", "rotate", "app/fixed", status=EX_USAGE).err
    assert "did you mean" in stack.run("secret", "show", "app/tokne", status=EX_USAGE).err
    assert stack.run("secret", "set", "app/token", "a value on the command line", stdin="", status=EX_USAGE)
    assert stack.run("secret", "set", "app/token", stdin="\n", status=EX_USAGE)


# down


def test_down_asks_before_it_removes_data(make_stack: StackFactory) -> None:
    stack = make_stack("ask")
    stack.write(SLOW.format(0))
    stack.up()
    volume = f"{stack.name}_slow_data"
    done = stack.run("down", "--volumes", status=EX_USAGE)
    assert volume in done.err, "it says what would go"
    assert stack.containers()["slow"]["State"]["Running"]
    refused = at_terminal(command("down", "--volumes"), cwd=stack.folder, typed="no\n")
    assert refused.status == EX_USAGE
    assert stack.containers()["slow"]["State"]["Running"]

    assert volume in stack.run("down").both
    assert volume in stack.volumes()
    assert stack.containers() == {}
    agreed = at_terminal(command("down", "--volumes"), cwd=stack.folder, typed=f"{stack.name}\n")
    assert agreed.status == 0, agreed.text
    assert stack.left() == []
    assert "nothing to remove" in stack.run("down").both


# doctor, kinds


def test_doctor_looks_at_the_engine_and_at_the_stacks_ports(one: Stack) -> None:
    rows = {r["check"]: r for r in one.run("doctor", "--format", "json").json}
    assert rows["engine"]["status"] == "ok"
    assert one.daemon.version()["Version"] in rows["engine"]["detail"]
    import socket

    port = int(re.search(r"'(\d+):80'", one.file.read_text())[1])  # type: ignore[index]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = one.run("doctor", "stack.yml", status=EX_UNAVAILABLE)
        assert str(port) in done.out
    one.run("doctor", "stack.yml")


def test_kinds_are_listed_and_shown_and_make_a_schema() -> None:
    assert [r["kind"] for r in run("kinds", "list", "--format", "json").json] == KINDS
    assert all(kind in run("kinds").out for kind in KINDS)
    for kind in KINDS:
        settings = yaml.safe_load((TEMPLATES / kind / "kind.yml").read_text()).get("settings", {})
        page = run("kinds", "show", kind).out
        assert all(f"`{s}`" in page or s in page for s in settings)
    schema = run("kinds", "schema").json
    assert schema["$schema"].endswith("2020-12/schema")
    assert "wordpress" in json.dumps(schema)
    assert "did you mean" in run("kinds", "show", "wordpres", status=EX_USAGE).err


# Which stack, which engine


def test_the_stack_is_found_by_argument_option_variable_and_folder(small: Stack, tmp_path: Path) -> None:
    deep = small.folder / "deep" / "er"
    deep.mkdir(parents=True, exist_ok=True)
    elsewhere = {"cwd": tmp_path}
    other = tmp_path / "other.yml"
    other.write_text("stack: other\nservers: {a: {kind: web}}\n")
    for done in (
        run("validate", small.file, **elsewhere),  # type: ignore[arg-type]
        run("validate", small.folder, **elsewhere),  # type: ignore[arg-type]
        run("validate", "-f", small.file, **elsewhere),  # type: ignore[arg-type]
        run("validate", env={"CONSOLIDATE_FILE": str(small.file)}, **elsewhere),  # type: ignore[arg-type]
        run("validate", small.file, env={"CONSOLIDATE_FILE": str(other)}, **elsewhere),  # type: ignore[arg-type]
        run("validate", cwd=deep),
    ):
        assert done.out.startswith(f"{small.name}: 2 servers")
    assert "there is no stack.yml" in run("validate", cwd=tmp_path, status=EX_USAGE).err
    assert "two stack files" in run("validate", small.file, "-f", other, status=EX_USAGE).err


def test_an_environment_is_a_stack_of_its_own(small: Stack) -> None:
    small.put("stack.staging.yml", "servers: {www: {publish: null}, tools: {resources: {pids: 50}}}\n")
    try:
        planned = small.run("plan", "-e", "staging", "--format", "json").json
        assert planned["stack"] == f"{small.name}-staging"
        assert {c["server"] for c in planned["changes"]} >= {"www", "tools"}
        assert "there is no stack.qa.yml" in small.run("plan", "-e", "qa", status=EX_USAGE).err
    finally:
        (small.folder / "stack.staging.yml").unlink()
    assert small.run("plan", "--detailed-exitcode").status == 0


# Exit statuses


def test_status_64_for_a_command_line_that_makes_no_sense(small: Stack) -> None:
    for words in (("upp",), ("up", "--no-such-option"), ("ps", "--format", "xml"), ("up", "a.yml", "b.yml"), ("exec",)):
        done = small.run(*words, status=EX_USAGE)
        assert done.err.startswith("consolidate: "), done.err
    assert "did you mean 'tools'" in small.run("logs", "tolls", status=EX_USAGE).err.lower()
    assert small.run("plan", "-s", "tolls", status=EX_USAGE)


def test_status_65_for_a_stack_that_is_invalid(small: Stack) -> None:
    for verb in ("validate", "plan", "up"):
        small.put("bad.yml", f"stack: {small.name}\nservers:\n  www: {{kind: wbe}}\n")
        done = small.run(verb, "bad.yml", status=EX_DATAERR)
        assert "bad.yml:3:15: servers.www.kind: " in done.err
        assert "web" in done.err
    assert small.run("validate", "nowhere.yml", status=EX_DATAERR)


def test_status_69_where_no_engine_answers(small: Stack, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    for words in (("plan",), ("up",), ("ps",), ("down",), ("logs",), ("secret", "list"), ("doctor",)):
        assert small.run(*words, env={"DOCKER_HOST": nowhere}, status=EX_UNAVAILABLE)
    assert small.run("ps", "--host", nowhere, status=EX_UNAVAILABLE)
    small.run("validate", env={"DOCKER_HOST": nowhere})
    assert "no Docker context 'nothing'" in small.run("ps", "--context", "nothing", status=EX_USAGE).err


def locked(stack: Stack) -> bool:
    mine = {"label": [f"io.consolidate.stack={stack.name}", "io.consolidate.helper=lock"]}
    return bool(stack.daemon.api.containers(filters=mine))


def test_status_75_while_another_works_on_the_stack(make_stack: StackFactory) -> None:
    stack = make_stack("busy")
    stack.write(SLOW.format(0).replace("touch /tmp/ready", "true"))  # it is ready when we say so
    first = stack.start("up", "--progress", "plain")
    try:
        wait_until(lambda: locked(stack), "the lock")
        for words in (("up",), ("down",)):
            done = stack.run(*words, status=EX_TEMPFAIL)
            assert re.search(rf"\S+@\S+ \(process {first.pid}\) works on this stack since \d{{4}}-", done.err), done.err
        stack.inside("slow", "touch", "/tmp/ready")
        said = first.communicate(timeout=60)
        assert first.returncode == 0, said
    finally:
        first.kill()
        first.communicate()
    assert not locked(stack)
    assert stack.run("plan", "--detailed-exitcode").status == 0


def test_status_130_when_interrupted_and_the_next_up_goes_on(make_stack: StackFactory) -> None:
    stack = make_stack("stop")
    stack.write("  www: {kind: web}\n" + SLOW.format(5))
    first = stack.start("up", "--progress", "plain")
    try:
        wait_until(lambda: stack.containers().get("slow", {}).get("State", {}).get("Running"), "the slow one's start")
        begun = time.monotonic()
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=30)
    finally:
        first.kill()
        first.communicate()
    assert first.returncode == 130
    assert time.monotonic() - begun < 4, "it does not wait for what is slow"
    assert "interrupted" in said
    assert "Traceback" not in said
    stack.up()
    assert stack.run("plan", "--detailed-exitcode").status == 0
    wait_until(lambda: {r["health"] for r in stack.run("ps", "--format", "json").json} == {"ready"}, "both ready")


@pytest.mark.parametrize("moment", [0.9, 1.4, 2.0, 3.0])
def test_killed_at_any_moment_and_the_next_up_converges(make_stack: StackFactory, moment: float) -> None:
    stack = make_stack("kill")
    edge = f"  edge: {{kind: proxy, http: {free_port()}, tls: 'off'}}\n  www: {{kind: web, domains: [www.test]}}\n"
    stack.write(edge + "  db: {kind: mysql}\n" + SLOW.format(1))
    first = stack.start("up", "--progress", "plain")
    time.sleep(moment)
    first.kill()
    first.communicate()
    stack.up()
    assert stack.run("plan", "--detailed-exitcode").status == 0
    assert {r["state"] for r in stack.run("ps", "--format", "json").json} == {"running"}
    names = [e for e in stack.left() if ".writer" in e or ".lock" in e]
    assert names == []


# What is printed


def test_json_progress_is_json_alone(one: Stack) -> None:
    done = one.run("up", "--progress", "json", "--format", "json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert all(set(e) >= {"time", "operation", "server", "status", "seconds"} for e in events)
    assert {e["status"] for e in events} <= {"started", "progress", "done"}
    begun = {e["operation"] for e in events if e["status"] == "started"}
    assert begun == {e["operation"] for e in events if e["status"] == "done"}
    assert done.json[0]["health"] == "ready"


def test_quiet_progress_says_nothing_when_all_goes_well(one: Stack) -> None:
    assert one.run("up", "--progress", "quiet").err == ""


@pytest.mark.parametrize("columns", [80, 200])
def test_nothing_is_wider_than_the_terminal_and_nothing_is_torn(make_stack: StackFactory, columns: int) -> None:
    stack = make_stack("wide")
    http, site = free_port(), "www.example.test" if columns == 80 else "a-rather-long-name-for-a-site.example.test"
    stack.write(
        f"  edge: {{kind: proxy, http: {http}, tls: 'off'}}\n  www: {{kind: web, domains: [{site}]}}\n" + SLOW.format(1)
    )
    shown = {"up": at_terminal(command("up"), cwd=stack.folder, columns=columns)}
    assert shown["up"].status == 0, shown["up"].text
    for words in ("up", "ps", "secret list", "kinds", "logs"):
        shown[words + " then"] = at_terminal(command(*words.split()), cwd=stack.folder, columns=columns)
    assert "nothing to change" in shown["up then"].text
    for words, screen in shown.items():
        if words != "logs then":  # the terminal breaks those, so that they can be copied whole
            assert [line for line in screen.lines if len(line) > columns] == [], words
        assert "\ufffd" not in screen.text
    rows = shown["ps then"].text
    assert f"http://{site}:{http}/" in rows
    assert f"http://{site}:{http}/" in shown["up"].text
    assert ("consolidate/web:" in rows) == (columns == 200)


def test_colour_only_where_it_is_wanted(small: Stack) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*m")
    assert colour.search(at_terminal(command("ps"), cwd=small.folder).raw)
    assert not re.search(
        r"\x1b\[(?:3[0-7]|9[0-7]|38;)", at_terminal(command("ps"), cwd=small.folder, env={"NO_COLOR": "1"}).raw
    )
    assert "\x1b" not in small.run("ps").out
    assert "\x1b" not in small.run("logs").out


def test_output_into_a_closed_pipe_is_no_error(small: Stack) -> None:
    shell = f"{' '.join(command('logs'))} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], cwd=small.folder, env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
