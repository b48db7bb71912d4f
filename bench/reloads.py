"""Reloads of the proxy: what visitors notice, how long the old workers stay, and what they take meanwhile."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common import CACHE, CONSOLIDATE, PAGE, ROOT, Stack, run
from turns import in_turn

sys.path.insert(0, str(ROOT))  # the visitors are those of the tests

Rows = list[dict[str, Any]]
NAME, PORT = "bench-reloads", 18484
EDGE = f"{NAME}-edge-1"
MIB = 2**20
UPLOAD = """<?php
$hash = hash_init('sha256');
$bytes = hash_update_stream($hash, fopen('php://input', 'rb'));
echo json_encode(['bytes' => $bytes, 'sha256' => hash_final($hash)]);
"""
OPTION = "    option idle-close-on-response\n"
# Process ids of the workers, the newest first, each with what it takes in KiB: RSS, PSS.
WORKERS = """
for worker in $(echo 'show proc' | socat -t5 - /run/haproxy/master.sock | awk '$2 == "worker" {print $1}'); do
    echo $worker $(awk '/^(Rss|Pss):/ {print $2}' /proc/$worker/smaps_rollup)
done"""


def reloads(repeat: int = 20) -> Rows:
    """Under load `repeat` reloads in a row, and as many restarts; then what an upload in flight keeps."""
    stack = _site()
    try:
        return [*_under_load(stack, repeat), *_memory(stack), _room(stack), *_stay(stack)]
    finally:
        stack.down()


def _site() -> Stack:
    folder = CACHE / "stacks" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in {"www/index.html": PAGE.format(name=NAME), "app/upload.php": UPLOAD}.items():
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    kind = shutil.copytree(ROOT / "templates/proxy", folder / "kinds/proxy") / "files/haproxy.cfg.j2"
    assert OPTION in kind.read_text()
    kind.write_text(kind.read_text().replace(OPTION, ""))
    return Stack(folder / "stack.yml")


def _write(stack: Stack, *, timeout: int = 120, kinds: bool = False, drain: str = "1h", sites: int = 1) -> None:
    """The stack; another `timeout` is another configuration of the proxy. `sites` beside the two are not brought up."""
    more = f'  more-{{i}}: {{for: {{i: 1..{sites - 2}}}, kind: web, domains: ["more-{{i}}.bench.test"]}}\n'
    stack.file.write_text(
        f"stack: {NAME}\n"
        + ("templates: [./kinds]\n" if kinds else "")
        + "servers:\n"
        + f"  edge: {{kind: proxy, http: {PORT}, https: {PORT + 1}, redirect: false, timeout: {timeout}s, drain: {drain}}}\n"
        + "  www: {kind: web, domains: [www.bench.test], content: ./www}\n"
        + "  app: {kind: php, domains: [app.bench.test], content: ./app}\n"
        + (more if sites > 2 else "")
    )


# Visitors


def _under_load(stack: Stack, repeat: int) -> Rows:
    import docker

    def reload(kinds: bool) -> Callable[[int], None]:
        def change(turn: int) -> None:
            _write(stack, timeout=120 + turn, kinds=kinds)
            stack.up()

        return change

    def restart(_: int) -> None:
        docker.APIClient().restart(EDGE, timeout=10)

    rows = []
    for side, kinds, act in (
        ("reload, as it is", False, reload(False)),
        ("reload, without idle-close-on-response", True, reload(True)),
        ("restart of the container", False, restart),
    ):
        _write(stack, kinds=kinds)
        stack.up()
        try:
            rows.append(_visited(stack, side, repeat, act))
        finally:
            stack.down(data=False)
    return rows


def _visited(stack: Stack, side: str, repeat: int, act: Callable[[int], None]) -> dict[str, Any]:
    from tests.load import Visitor, checksum, saying, upload, visitors

    pem = run(CONSOLIDATE, "secret", "show", "-f", stack.file, "edge/authority").stdout
    trust = ssl.create_default_context(cadata=pem[: pem.index("-----BEGIN", 10)])
    page: dict[str, Any] = {"host": "www.bench.test", "expect": saying(NAME)}
    sent: dict[str, Any] = {"path": "/upload.php", "body": upload(4 * MIB), "sending": 3.0, "expect": checksum}
    them = [Visitor(f"kept {pause}", port=PORT, pause=pause, **page) for pause in (0.02, 0.2, 1.0)]
    them += [Visitor(f"kept, TLS {pause}", port=PORT + 1, tls=trust, pause=pause, **page) for pause in (0.02, 0.2, 1.0)]
    them += [Visitor(f"new {pause}", port=PORT, keep=False, pause=pause, **page) for pause in (0.02, 0.2)]
    them += [Visitor("new, TLS", port=PORT + 1, tls=trust, keep=False, pause=0.1, **page)]
    with visitors(*them) as load, visitors(Visitor("upload", "app.bench.test", PORT, **sent)) as sender:
        counted = in_turn(load, side, repeat, act)
        sender.another_round()
    words = [re.sub(r".*s: |\d{3,}", "", f)[:90] for f in load.failed()]
    return {
        "what": "the proxy under load",
        **counted,
        "uploads": sender.asked["upload"],
        "cut": len(sender.failures),
        "how": {w: words.count(w) for w in dict.fromkeys(words)},
    }


# Workers that stay


class Uploads:
    """Uploads in flight: each says a byte now and then, so that nothing takes it for dead. `cut` are those that ended."""

    def __init__(self) -> None:
        self.open: list[socket.socket] = []
        self.cut = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._drip, daemon=True)

    def begin(self) -> None:
        one = socket.create_connection(("127.0.0.1", PORT), timeout=10)
        one.sendall(b"POST /upload.php HTTP/1.1\r\nHost: app.bench.test\r\nContent-Length: 1000000\r\n\r\n")
        self.open.append(one)
        time.sleep(0.2)  # the worker has it

    def _drip(self) -> None:
        while not self.over.wait(0.2):
            for one in list(self.open):
                try:
                    one.sendall(b"x")
                except OSError:
                    self.open.remove(one)
                    self.cut += 1

    def end(self) -> None:
        self.over.set()
        self.thread.join()
        for one in self.open:
            one.close()


@contextmanager
def uploads() -> Iterator[Uploads]:
    them = Uploads()
    them.thread.start()
    try:
        yield them
    finally:
        them.end()


def _inside(script: str) -> str:
    return run("docker", "exec", EDGE, "bash", "-c", script).stdout


def _reload() -> float:
    begun = time.monotonic()
    _inside("bash /config/reload")
    return time.monotonic() - begun


def _workers() -> list[list[int]]:
    return [list(map(int, line.split())) for line in _inside(WORKERS).splitlines() if len(line.split()) == 3]


def _memory_of_container() -> float:
    import docker

    return float(docker.APIClient().stats(EDGE, stream=False)["memory_stats"]["usage"]) / MIB


def _alone(within: float = 60) -> float:
    """Seconds until the newest worker is the only one."""
    begun = time.monotonic()
    while len(_workers()) > 1:
        assert time.monotonic() - begun < within, "old workers stay"
        time.sleep(0.1)
    return time.monotonic() - begun


def _memory(stack: Stack, sizes: tuple[int, ...] = (2, 50), count: int = 10) -> Rows:
    """What `count` workers take, in each of which an upload is in flight."""
    rows = []
    for size in sizes:
        _write(stack, sites=size)
        run(CONSOLIDATE, "up", stack.file, "-s", "edge", "-s", "app", "--progress", "quiet")
        try:
            _reload()
            _alone()
            before = _memory_of_container()
            with uploads() as them:
                took = []
                for _ in range(count):
                    them.begin()
                    took.append(_reload())
                found, after = _workers()[1:], _memory_of_container()
                assert len(found) == count
                assert not them.cut
            rows.append(
                {
                    "what": "workers with an upload in flight",
                    "sites": size,
                    "workers": count,
                    "rss_mib": round(statistics.mean(w[1] for w in found) / 1024, 1),
                    "pss_mib": round(statistics.mean(w[2] for w in found) / 1024, 1),
                    "container_each_mib": round((after - before) / count, 1),
                    "reload_s": round(statistics.median(took), 2),
                    "gone_after_s": round(_alone(), 1),
                }
            )
        finally:
            stack.down(data=False)
    return rows


def _room(stack: Stack) -> dict[str, Any]:
    """How many uploads, each in another worker, there may be until the first is cut."""
    _write(stack)
    stack.up()
    try:
        with uploads() as them:
            count = 0
            while not them.cut and count < 100:
                them.begin()
                _reload()
                count += 1
                time.sleep(0.5)
                print(f"  {count} reloads, {them.cut} cut", file=sys.stderr)
            return {
                "what": "reloads until an upload is cut",
                "reloads": count,
                "workers": len(_workers()),
                "container_mib": round(_memory_of_container(), 1),
            }
    finally:
        stack.down(data=False)


def _stay(stack: Stack, drain: int = 10) -> Rows:
    """How long a worker stays for an upload that does not end, and for a connection on which nobody asks."""
    rows = []
    _write(stack, drain=f"{drain}s")
    stack.up()
    try:
        with uploads() as them:
            them.begin()
            _reload()
            rows.append({"what": f"an upload without end, drain {drain}s", "worker_gone_after_s": round(_alone(), 1)})
            time.sleep(1)
            assert them.cut == 1
    finally:
        stack.down(data=False)
    _write(stack)
    stack.up()
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=10) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: www.bench.test\r\n\r\n")
            assert b"200 OK" in idle.recv(4096)
            _reload()
            rows.append({"what": "a connection on which nobody asks", "worker_gone_after_s": round(_alone(), 1)})
    finally:
        stack.down(data=False)
    return rows


__all__ = ["reloads"]
