"""What fails says why and with which last words, spares the others, and leaves what served before."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, curl, free_port, wait_until

pytestmark = pytest.mark.engine

BASE = "debian:bookworm-slim"
WAIT = "trap 'exit 0' TERM INT; while sleep 0.2; do :; done"
PAGE = "  www: {kind: web}\n"


def kind(stack: Stack, name: str, manifest: str, **files: str) -> None:
    """A kind of the stack's own, in the folder that `own` names."""
    stack.put(f"kinds/{name}/kind.yml", manifest)
    for file, text in files.items():
        stack.put(f"kinds/{name}/{file.replace('__', '/').replace('_dot_', '.')}", text)


def with_kinds(stack: Stack, servers: str) -> None:
    stack.write(servers)
    stack.file.write_text(stack.file.read_text().replace("servers:\n", "templates: [./kinds]\nservers:\n", 1))


def health(stack: Stack, server: str) -> str:
    return str(stack.run("ps", "-s", server, "--format", "json").json[0]["health"])


def test_a_build_that_fails(make_stack: StackFactory) -> None:
    stack = make_stack("build")
    broken = "FROM {{ base }}\nRUN echo so far so good && echo the compiler has gone >&2 && exit 3\n"
    kind(stack, "broken", "summary: A kind whose image can't be built.\n", Dockerfile_dot_j2=broken)
    with_kinds(stack, PAGE + "  bad: {kind: broken}\n")
    done = stack.up(status=1)
    assert re.search(r"failed: image bad: the build of consolidate/broken:\w+ failed", done.err)
    assert "so far so good" in done.err
    assert "the compiler has gone" in done.err
    assert "not done, since what they need failed: bad" in done.err
    assert set(stack.containers()) == {"www"}
    assert health(stack, "www") == "ready"


def test_an_image_that_is_nowhere(make_stack: StackFactory) -> None:
    stack = make_stack("pull")
    stack.write(PAGE + "  bad: {kind: container, image: '127.0.0.1:9/nothing:1'}\n")
    done = stack.up(status=1)
    assert "127.0.0.1:9/nothing:1 can't be pulled" in done.err
    assert health(stack, "www") == "ready"


def test_a_program_that_dies_at_its_start(make_stack: StackFactory) -> None:
    """At first, and later in the place of one that runs, which is started again."""
    stack = make_stack("dies")
    dies = "command: [bash, -c, 'echo first; echo these are its last words >&2; exit 5']"
    stack.write(PAGE + f"  bad: {{kind: container, image: '{BASE}', {dies}}}\n")
    done = stack.up(status=1)
    assert "failed: wait bad: " in done.err
    assert "exit status 5" in done.err
    assert "these are its last words" in done.err
    assert health(stack, "www") == "ready"
    assert not (state := stack.containers()["bad"]["State"])["Running"], f"{state}\n{done.err}"
    time.sleep(1)
    assert not stack.containers()["bad"]["State"]["Restarting"], "it is not tried for ever"
    stack.edit("exit 5", "exec sleep 99999")
    stack.up()
    assert stack.run("plan", "--detailed-exitcode").status == 0

    before = stack.containers()["bad"]
    stack.edit("exec sleep 99999", "exit 6")
    failed = stack.up(status=1)
    assert "failed: wait bad: " in failed.err
    assert "exit status 6" in failed.err
    assert "these are its last words" in failed.err
    after = stack.containers()["bad"]
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)


def test_a_program_that_never_gets_ready(make_stack: StackFactory) -> None:
    stack = make_stack("never")
    stack.write(
        PAGE + "  bad:\n    kind: container\n    image: debian:bookworm-slim\n"
        f'    command: [bash, -c, "echo still waiting for Godot; {WAIT}"]\n'
        "    healthcheck: {test: [CMD-SHELL, 'echo Godot is not here; exit 1']}\n"
    )
    begun = time.monotonic()
    done = stack.up("--wait-timeout", "2", status=1)
    assert time.monotonic() - begun < 30
    assert "is not ready after 2 s" in done.err
    assert "Godot is not here" in done.err, "what its check says"
    assert "still waiting for Godot" in done.err, "what it says itself"
    assert health(stack, "www") == "ready"


def test_a_server_whose_provider_fails_is_not_started(make_stack: StackFactory) -> None:
    stack = make_stack("needs")
    stack.write(
        "  db: {kind: mysql, options: {innodb_buffer_pool_size: nonsense}}\n"
        f"  app: {{kind: container, image: '{BASE}', command: sleep 99999, database: db}}\n" + PAGE
    )
    done = stack.up("--wait-timeout", "10", status=1)
    assert "nonsense" in done.err, "MariaDB's own words"
    assert re.search("not done, since what they need failed: .*app", done.err)
    assert not stack.containers().get("app", {"State": {"Running": False}})["State"]["Running"]
    assert health(stack, "www") == "ready"


def test_a_grant_that_is_refused(make_stack: StackFactory) -> None:
    stack = make_stack("grant")
    kind(
        stack,
        "inn",
        f"summary: Gives rooms.\nimage: '{BASE}'\ncommand: [sleep, '99999']\nready: {{command: ['true']}}\n"
        "provides:\n  room:\n    port: 1\n    grant: {command: [sh, -c, 'echo there is no room >&2; exit 1']}\n",
    )
    kind(
        stack,
        "guest",
        f"summary: Wants a room.\nimage: '{BASE}'\ncommand: [sleep, '99999']\n"
        "links: {room: {provides: room, required: true}}\n",
    )
    with_kinds(stack, "  inn: {kind: inn}\n  guest: {kind: guest, room: inn}\n" + PAGE)
    done = stack.up(status=1)
    assert "inn refuses guest" in done.err
    assert "there is no room" in done.err
    running = {s for s, c in stack.containers().items() if c["State"]["Running"]}
    assert running == {"inn", "www"}


def test_reloadable_files_that_are_refused(make_stack: StackFactory) -> None:
    stack = make_stack("reload")
    kind(
        stack,
        "listener",
        f"summary: Takes new files.\nimage: '{BASE}'\n"
        "settings: {words: {type: string, pattern: '[a-z ]+', required: true}}\n"
        "command: [bash, -c, \"trap 'cat /live/current/words' HUP; while sleep 0.2; do :; done\"]\n"
        "ready: {command: ['true']}\n"
        "files: [{source: words.j2, reload: true}]\n"
        "stop: {signal: SIGKILL}\n"
        "reload:\n"
        "  check: [sh, -c, 'if grep rude /live/next/words; then echo such words are not taken; exit 1; fi']\n"
        "  signal: SIGHUP\n",
        files__words_dot_j2="{{ settings.words }}\n",
    )
    with_kinds(stack, "  ear: {kind: listener, words: good morning}\n" + PAGE)
    stack.up()
    before = stack.identities()
    stack.edit("good morning", "something rude")
    done = stack.up(status=1)
    assert "ear refuses its new files; it goes on with the old ones" in done.err
    assert "such words are not taken" in done.err
    assert stack.identities() == before
    assert stack.inside("ear", "cat", "/live/current/words") == (0, "good morning\n")
    assert stack.run("plan", "--detailed-exitcode", status=2), "it is still to be done"

    stack.edit("something rude", "good evening")
    stack.up()
    assert stack.identities() == before
    assert stack.inside("ear", "cat", "/live/current/words") == (0, "good evening\n")
    wait_until(lambda: "good evening" in stack.run("logs", "ear").out, "the signal")


def test_a_rolling_change_that_fails_leaves_the_old_one_serving(make_stack: StackFactory) -> None:
    stack = make_stack("roll")
    http = free_port()
    good = f"  edge: {{kind: proxy, http: {http}, tls: 'off'}}\n  www: {{kind: web, domains: [www.test], content: ./site}}\n"
    stack.write(good, site__index_dot_html="the first\n")
    stack.up()
    before = stack.identities()
    stack.edit("content: ./site", "content: ./site, health: {test: [CMD-SHELL, 'echo no good; exit 1']}")
    stack.put("site/index.html", "the second\n")
    process = stack.start("up", "--progress", "plain", "--wait-timeout", "3")
    seen = set()
    while process.poll() is None:
        answer = curl(f"http://www.test:{http}/")
        seen.add((answer.status, answer.body))
        time.sleep(0.05)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "no good" in said
    assert seen == {(200, "the first\n")}, "all the time"
    assert stack.identities() == before
    stack.write(good)
    stack.up()
    assert curl(f"http://www.test:{http}/").body == "the second\n"
    assert stack.run("plan", "--detailed-exitcode").status == 0


def test_a_new_one_that_the_proxy_does_not_reach_gets_no_request(make_stack: StackFactory, python_image: str) -> None:
    """Its own check passes, but it listens elsewhere than the old one, which serves on."""
    stack = make_stack("port")
    http = free_port()
    server = f"kind: container, image: '{python_image}', domains: [www.test], http: 8000, healthcheck: {{test: [CMD, 'true']}}"
    stack.write(
        f"  edge: {{kind: proxy, http: {http}, tls: 'off'}}\n  www: {{{server}, command: 'python3 -u -m http.server 8000'}}\n"
    )
    stack.up()
    wait_until(lambda: curl(f"http://www.test:{http}/").status == 200, "the page")
    before = stack.identities()
    stack.edit("http.server 8000", "http.server 8001")
    process = stack.start("up", "--progress", "plain", "--wait-timeout", "5")
    seen = set()
    while process.poll() is None:
        seen.add(curl(f"http://www.test:{http}/").status)
        time.sleep(0.05)
    _, said = process.communicate()
    assert process.returncode == 1
    assert re.search(r"the proxy, .*port-edge-1, does not reach .*port-www-2 at port 8000 within 5 s", said)
    assert "Serving HTTP on 0.0.0.0 port 8001" in said, "its last words"
    assert seen == {200}, "all the time"
    assert stack.identities() == before
    stack.edit("http.server 8001", "http.server 8000")
    assert "nothing to change" in stack.up().out


def test_a_change_that_never_gets_ready_brings_the_old_one_back(make_stack: StackFactory) -> None:
    stack = make_stack("back")
    port = free_port()
    stack.write(PAGE.replace("{kind: web}", f"{{kind: web, content: ./site, publish: ['{port}:80']}}"))
    stack.put("site/index.html", "the first\n")
    stack.up()
    before = stack.containers()["www"]
    stack.edit("content: ./site", "content: ./site, health: {test: [CMD, 'false']}")
    done = stack.up("--wait-timeout", "2", status=1)
    after = stack.containers()["www"]
    assert after["Id"] == before["Id"]
    assert after["State"]["Running"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"], "its port can't be had twice: it was stopped"
    assert re.search(r"taken back: .*start", done.err)
    assert float(re.findall(r"www: the old one serves again, away for ([0-9.]+) s", done.err)[0]) > 2
    wait_until(lambda: curl(f"http://localhost:{port}/").body == "the first\n", "the page")
    rows = stack.run("ps", "--format", "json").json
    assert [(r["generation"], r["state"]) for r in rows] == [(1, "running")]
    stack.edit(", health: {test: [CMD, 'false']}", "")
    assert "nothing to change" in stack.up().out


def test_a_template_that_fails_is_named_with_its_line(make_stack: StackFactory, tmp_path: Path) -> None:
    stack = make_stack("line")
    kind(
        stack,
        "odd",
        f"summary: Odd.\nimage: '{BASE}'\n",
        files__conf_dot_j2="first\n{{ settings.nothing }}\n",
    )
    with_kinds(stack, "  odd: {kind: odd}\n")
    done = stack.up(status=65)
    assert re.search(r"conf\.j2:2", done.err), done.err
    assert stack.left() == []
