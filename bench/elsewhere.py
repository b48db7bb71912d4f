"""Engines elsewhere: what each way to one costs, and how much memory something large takes that goes there.

`python elsewhere.py` prints the calls of this process's engine as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backups import DUMP, line, shell, shop
from common import CONSOLIDATE, ROOT, alternate, clocked, run, seconds, webs
from density import field
from goods import NAME, orders

sys.path.insert(0, str(ROOT))  # the sshd is that of the tests

Rows = list[dict[str, Any]]
MB, MIB = 10**6, 2**20
CALLS, CONNECTIONS = 200, 20
WAYS = {"ssh": (18484, ""), "sessions": (18485, "AllowStreamLocalForwarding no\n")}  # port, further lines for sshd
PING = b"GET /_ping HTTP/1.0\r\n\r\n"
LOOK = 0.2  # seconds between two looks; the kernel keeps a process's most
# A small process: what is measured begins with what its parent has.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def elsewhere(repeat: int = 5) -> Rows:
    """This machine's engine by its socket, by ssh to its socket, and by ssh sessions: medians."""
    stack = webs("bench-elsewhere", 1)
    with _ways() as ways:
        words = [sys.executable, __file__]
        found = {way: json.loads(run(*words, env=env).stdout) for way, env in ways.items()}
        ps = [CONSOLIDATE, "ps", str(stack.file)]
        sides = {way: (clocked(lambda e=env: run(*ps, env=e)), lambda: None) for way, env in ways.items()}
        times = alternate(sides, repeat)
    for way, took in times.items():
        found[way]["`ps` of a stack that isn't up"] = statistics.median(took)
    whats = found["socket"]
    return [{"what": what} | {f"{way}_ms": round(1000 * found[way][what], 1) for way in found} for what in whats]


def large(sizes: tuple[int, ...] = (200, 400)) -> Rows:
    """`sizes`: MB of a site that `up` sends, and of rows that `backup` saves. The most memory of our process, and of restic's."""
    rows = []
    stack = webs("bench-large", 1)
    with _ways() as ways:
        try:
            stack.up()  # builds what isn't built
            for size in (1000, sizes[0] * MB):
                for way in ("socket", "ssh"):
                    (stack.file.parent / "site/it").write_bytes(random.randbytes(size))
                    ours = _peak("up", stack.file, env=ways[way])
                    rows.append({"what": f"up, a site, by {way}", "mb": size / MB, "ours_mib": ours})
        finally:
            stack.down()
    with shop() as stack:
        for size in (0, sizes[-1]):
            if size:
                orders(size)
            dump = int(shell(f"{line(DUMP)} | wc -c"))
            with Most("restic", NAME) as restic:
                ours = _peak("backup", "-f", stack.file, "-s", "db", env=dict(os.environ))
            rows.append(
                {"what": "backup, a dump", "mb": round(dump / MB, 1), "ours_mib": ours, "restic_mib": restic.mib}
            )
    return rows


@contextlib.contextmanager
def _ways() -> Iterator[dict[str, dict[str, str]]]:
    """The environment of commands by each way to this machine's engine; by ssh to a real sshd on the loopback."""
    from tests.sshd import sshd

    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        found = {"socket": dict(os.environ)}
        for way, (port, config) in WAYS.items():
            host = stack.enter_context(sshd(Path(folder, way), port, config))
            found[way] = os.environ | {"DOCKER_HOST": host.url} | host.env
        yield found


def _peak(*words: str | Path, env: dict[str, str]) -> float:
    """The most memory that a command of ours has had, in MiB."""
    verb, *rest = words
    said = run(sys.executable, "-S", "-c", PEAK, CONSOLIDATE, verb, *rest, "--progress", "quiet", env=env).stdout
    return round(int(said.split()[-1]) / 1024, 1)


class Most(threading.Thread):
    """The most memory that a program in the session of a stack's backup has had, on an engine of this machine."""

    def __init__(self, program: str, stack: str) -> None:
        super().__init__(daemon=True)
        self.program, self.mib = program, 0.0
        self.label = [f"io.consolidate.stack={stack}", "io.consolidate.helper=backup"]
        self.done = threading.Event()

    def __enter__(self) -> Most:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()

    def run(self) -> None:
        import docker

        client = docker.APIClient()
        while not self.done.wait(LOOK):
            for container in client.containers(filters={"label": self.label}):
                with contextlib.suppress(docker.errors.APIError, OSError, StopIteration):  # it has ended
                    for pid, program in client.top(container["Id"], "-eo pid,comm")["Processes"] or ():
                        if program == self.program:
                            most = field(Path("/proc", pid, "status"), "VmHWM:") / MIB
                            self.mib = max(self.mib, round(most, 1))


def _calls() -> dict[str, float]:
    """Seconds of a call of the engine that is meant."""
    from consolidate.docker_engine import connect

    client: Any = connect().client
    way = client.get_adapter(client.base_url)

    def another() -> None:
        with way.dial() as connection:
            connection.sendall(PING)
            assert connection.recv(1)

    client.ping()
    return {
        "a call on a connection that is there": statistics.median(seconds(client.ping) for _ in range(CALLS)),
        "a call on another connection: each exec, each stream": statistics.median(
            seconds(another) for _ in range(CONNECTIONS)
        ),
    }


if __name__ == "__main__":
    print(json.dumps(_calls()))

__all__ = ["elsewhere", "large"]
