"""A second Docker Engine of the tests' own: on a small disk, in a network namespace with no way out.

It needs root. What it makes is named after its folder, and is gone when the context ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0


@dataclass(frozen=True)
class SecondEngine:
    """`url` is what `-H` takes; `disk` the mount point of its data."""

    url: str
    disk: Path

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(["docker", "-H", self.url, *words], input=stdin, capture_output=True, check=True)
        return done.stdout.decode()

    def load(self, image: str) -> None:
        """Copy an image of the first engine into this one."""
        saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
        self.docker("load", stdin=saved)

    def fill(self, leave: int) -> None:
        """Leave no more than `leave` bytes of the disk."""
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - leave, 1))


def run(*words: str | Path) -> None:
    subprocess.run([str(w) for w in words], check=True, capture_output=True)


@contextlib.contextmanager
def second_engine(folder: Path, size: int) -> Iterator[SecondEngine]:
    """An engine whose disk has `size` bytes, none of them reserved for root."""
    name = f"ct-{os.getpid()}"
    image, disk, socket_path = folder / "disk.img", folder / "disk", folder / "docker.sock"
    with contextlib.ExitStack() as cleanup:
        with image.open("wb") as file:
            file.truncate(size)
        disk.mkdir()
        run("mkfs.ext4", "-q", "-m", "0", image)
        run("mount", "-o", "loop", image, disk)
        cleanup.callback(run, "umount", disk)
        run("ip", "netns", "add", name)
        cleanup.callback(run, "ip", "netns", "del", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        daemon = start(name, folder, disk, socket_path)
        cleanup.callback(stop, daemon)
        wait_for(socket_path, daemon, folder / "log")
        yield SecondEngine(f"unix://{socket_path}", disk)


def start(name: str, folder: Path, disk: Path, socket_path: Path) -> subprocess.Popen[bytes]:
    """dockerd under a first process of its own, whose end is the end of all that it has started."""
    inner = (
        "mount -t tmpfs tmpfs /run && mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker && exec dockerd "
        f"--data-root {disk}/data --exec-root /run/docker --pidfile /run/docker.pid -H unix://{socket_path}"
    )
    words = ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork"]
    words += ["--kill-child=SIGKILL", "--mount-proc", "bash", "-c", inner]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGKILL)  # unshare's child gets the same, and so all in its namespace
    daemon.wait()
    time.sleep(0.5)  # the kernel lets go of the mounts


def wait_for(path: Path, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and daemon.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.1)
    raise AssertionError(f"the second engine does not answer: {log.read_text()[-2000:]}")
