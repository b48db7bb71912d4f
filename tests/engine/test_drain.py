"""What an old generation has begun it may end, for so long as its server's `stop.grace` says; then it is stopped, and gone."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.conftest import PYTHON_IMAGE, StackFactory
from tests.engine.support import LABEL, Stack, curl, free_port, wait_until
from tests.load import Visitor, ask, connected

pytestmark = pytest.mark.engine

MANIFEST = f"""\
summary: Says its page at once, or at /slow once there is a file that says go.
settings:
  page: {{type: string, pattern: "[a-z]+", required: true}}
  grace: {{type: duration, required: true}}
  deaf: {{type: boolean, default: false, help: Whether it goes on when it is told to end.}}
image: {PYTHON_IMAGE}
user: "33:33"
command: [python3, /config/serve.py]
tmpfs: {{/tmp: {{size: 1M}}}}
files: [{{source: serve.py.j2, target: serve.py}}]
http: 8000
ready: {{command: [bash, -c, ": < /dev/tcp/127.0.0.1/8000"]}}
stop: {{signal: SIGTERM, grace: "{{{{ settings.grace }}}}"}}
update: rolling
"""
SERVE = """\
import os, signal, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
{% if settings.deaf %}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{% endif %}
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        said = b"{{ settings.page | line }}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.path == "/slow":
            open("/tmp/begun", "w").close()
            while not os.path.exists("/tmp/go"):
                time.sleep(0.05)
        self.wfile.write(said)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
GRACE = 2  # seconds, of the server whose visitor stays for longer


class Events:
    """What the engine does with a stack's containers, as it tells it itself."""

    def __init__(self, stack: Stack) -> None:
        self.stream = stack.daemon.api.events(decode=True, filters={"label": f"{LABEL}stack={stack.name}"})
        self.found: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=lambda: self.found.extend(self.stream), daemon=True)
        self.thread.start()

    def times(self, action: str, **words: str) -> list[float]:
        """When the engine did this, by its own clock; `words` are what else it tells of it."""
        all_ = [e for e in list(self.found) if e["Type"] == "container" and e["Action"].startswith(action)]
        return [e["timeNano"] / 1e9 for e in all_ if words.items() <= e["Actor"]["Attributes"].items()]

    def command(self, words: str) -> tuple[float, float]:
        """When a command in a container began and ended."""
        (begun,) = [e for e in list(self.found) if e["Action"].startswith(f"exec_start: {words}")]
        (ended,) = self.times("exec_die", execID=begun["Actor"]["Attributes"]["execID"])
        return begun["timeNano"] / 1e9, ended


@pytest.fixture
def watch() -> Iterator[Callable[[Stack], Events]]:
    with contextlib.ExitStack() as at_end:

        def of(stack: Stack) -> Events:
            made = Events(stack)
            at_end.callback(made.thread.join, 5)
            at_end.callback(made.stream.close)
            return made

        yield of


def slow(host: str, port: int) -> tuple[bytes | str, float]:
    """What somebody gets who asks for something slow, and when that was."""
    visitor = Visitor(host, host, port, "/slow", timeout=60)
    with contextlib.closing(connected(visitor)) as connection:
        try:
            said: bytes | str = ask(visitor, connection)
        except (OSError, http.client.HTTPException) as error:
            said = type(error).__name__
    return said, time.time()


def test_the_old_one_is_drained_then_told_to_end_then_killed_and_gone(
    make_stack: StackFactory, python_image: str, watch: Callable[[Stack], Events]
) -> None:
    """Two servers, each with a request under way: one ends in the grace of its server, the other outlives it."""
    stack, port = make_stack("drain"), free_port()
    stack.put("kinds/page/kind.yml", MANIFEST)
    stack.put("kinds/page/files/serve.py.j2", SERVE)
    stack.write(
        f"  edge: {{kind: proxy, http: {port}, tls: 'off'}}\n"
        "  ends: {kind: page, domains: [ends.test], page: first, grace: 60s}\n"
        f"  stays: {{kind: page, domains: [stays.test], page: first, grace: {GRACE}s, deaf: true}}\n"
        "templates: [kinds]\ngenerations: 0\n"
    )
    stack.up()
    old, there, events = stack.containers(), stack.left(), watch(stack)
    with ThreadPoolExecutor() as pool:
        visits = {s: pool.submit(slow, f"{s}.test", port) for s in ("ends", "stays")}
        for server in visits:
            wait_until(lambda: stack.inside(server, "ls", "/tmp/begun")[0] == 0, f"a request to {server}")  # noqa: B023
        stack.edit("page: first", "page: second")
        done = pool.submit(stack.up)
        switched = wait_until(
            lambda: events.times("exec_start: bash /config/switch take ends "), "the switch", within=60
        )
        wait_until(lambda: curl(f"http://ends.test:{port}/").body == "second", "the next one")
        time.sleep(GRACE)
        assert not visits["ends"].done()
        stack.daemon.containers.get(old["ends"]["Id"]).exec_run(["touch", "/tmp/go"])
        done.result()
        assert curl(f"http://stays.test:{port}/").body == "second"

    def of(server: str, action: str, **words: str) -> float:
        (when,) = events.times(action, name=old[server]["Name"][1:], **words)
        return when

    wait_until(lambda: all(events.times("destroy", name=old[s]["Name"][1:]) for s in visits), "the last event")
    said, when = visits["ends"].result()
    assert said == b"first"
    assert switched[0] + GRACE < when < of("ends", "kill", signal="15"), "nothing was under way when it was told to end"
    assert of("ends", "kill", signal="15") < switched[0] + 60, "nor did it wait for its whole grace"
    assert not events.times("kill", name=old["ends"]["Name"][1:], signal="9")

    said, when = visits["stays"].result()
    begun, drained = events.command("bash /config/switch take stays ")
    told, killed = of("stays", "kill", signal="15"), of("stays", "kill", signal="9")
    assert begun + GRACE < drained < told, "it was drained for its grace"
    assert told + GRACE < killed < told + GRACE + 5, "and had its grace again to end by itself"
    assert killed < of("stays", "die") < of("stays", "destroy")
    assert said == "IncompleteRead"
    assert killed < when + 1

    assert stack.orphans() == []
    assert {e for e in stack.left() if e.startswith("network")} == {e for e in there if e.startswith("network")}
    now = stack.containers()
    for server in visits:
        assert not stack.daemon.api.containers(all=True, filters={"id": old[server]["Id"]})
        assert (configuration := {m["Name"] for m in old[server]["Mounts"] if m["Type"] == "volume"})
        assert not configuration & stack.volumes()
        (network,) = now[server]["NetworkSettings"]["Networks"]
        members = stack.daemon.api.inspect_network(network)["Containers"]
        assert set(members) == {now["edge"]["Id"], now[server]["Id"]}
