"""A second Docker Engine of the tests' own: on a small disk, in a network namespace with no way out.

It needs root. What it makes is named after its folder, and is gone when the context ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0
CLONE_NEWNET = 0x40000000  # setns(2); Python has it from 3.12 on
BLOCK = bytes(4096)
ROOM = 2**20  # bytes that are filled block by block, since the file system takes some for itself
numbers = itertools.count()

# The first process of the engine's namespaces. It does what it reads, and all there ends with it. No daemon is this
# process itself: the engine's end would be that of its containers.
INIT = """\
mount -t tmpfs tmpfs /run
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker
while read -r word; do
  case $word in
    start) rm -f /run/docker.pid; "$@" < /dev/null & ;;
    kill) kill -KILL $!; wait $! ;;
  esac
done
"""


@dataclass
class SecondEngine:
    """`url` is what `-H` takes; `disk` the mount point of its data, `network` the name of its network namespace."""

    url: str
    disk: Path
    network: str
    _folder: Path
    _words: tuple[str, ...] = ()
    _init: subprocess.Popen[bytes] | None = None

    def docker(self, *words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(["docker", "-H", self.url, *words], input=stdin, capture_output=True, check=True)
        return done.stdout.decode()

    def load(self, *images: str) -> None:
        """Copy images of the first engine into this one."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "-H", self.url, "load"], stdin=saving.stdout, capture_output=True, check=True)
        assert saving.returncode == 0

    def fill(self, leave: int) -> None:
        """Leave no more than `leave` bytes of the disk; 0: not a block."""
        self.empty()
        free = shutil.disk_usage(self.disk).free
        with (self.disk / "filler").open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(free - (leave or ROOM), 1))
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while not leave:
                    file.write(BLOCK)

    def empty(self) -> None:
        """Take away what fills the disk."""
        (self.disk / "filler").unlink(missing_ok=True)

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program where the engine publishes its ports."""
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.network}", *words], capture_output=True, text=True, timeout=60
        )

    def dial(self, port: int) -> socket.socket:
        """A connection to the loopback's port there, from here: a socket stays in the network that it was made in."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/run/netns/{self.network}").open() as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_connection(("127.0.0.1", port)))

        thread = threading.Thread(target=make)  # which alone goes there
        thread.start()
        thread.join()
        if not made:
            raise ConnectionRefusedError(f"nothing listens at {port}")
        return made[0]

    # Its life

    def boot(self) -> None:
        """Start the machine, as it were, and the engine on it."""
        daemon = [
            f"--data-root={self.disk}/data",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            "-H",
            self.url,
            *self._words,
        ]
        words = [
            "nsenter",
            f"--net=/run/netns/{self.network}",
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
        ]
        words += ["--kill-child=SIGKILL", "--mount-proc", "bash", "-c", INIT, "init", "dockerd", *daemon]
        with (self._folder / "log").open("ab") as log:
            self._init = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)
        self.start()

    def start(self) -> None:
        """Start the engine alone."""
        self._say("start")
        self._wait()

    def kill(self) -> None:
        """Kill the engine with -9. Its containers go on; it ends those that it finds when it starts again."""
        self._say("kill")
        deadline = time.monotonic() + PATIENCE
        while self._answers() and time.monotonic() < deadline:
            time.sleep(0.02)

    def power_off(self) -> None:
        """Kill everything at once, the engine and all its containers; they have ended then."""
        assert self._init is not None
        own = self._init.pid
        (first,) = map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())
        with os.fdopen(os.pidfd_open(first)) as namespace:  # unshare's child: the last to end in there
            self._init.send_signal(signal.SIGKILL)  # its child gets the same, and so all in its namespace
            self._init.communicate()
            assert select.select([namespace], [], [], PATIENCE)[0], "what ran on the second engine does not end"
        time.sleep(0.5)  # the kernel lets go of the mounts

    def _say(self, word: str) -> None:
        assert self._init is not None and self._init.stdin is not None
        self._init.stdin.write(f"{word}\n".encode())
        self._init.stdin.flush()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.url.removeprefix("unix://"))
            return True
        return False

    def _wait(self) -> None:
        assert self._init is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._init.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        raise AssertionError(f"the second engine does not answer: {(self._folder / 'log').read_text()[-2000:]}")


def run(*words: str | Path) -> None:
    subprocess.run([str(w) for w in words], check=True, capture_output=True)


@contextlib.contextmanager
def second_engine(folder: Path, size: int, *words: str) -> Iterator[SecondEngine]:
    """An engine whose disk has `size` bytes, none of them reserved for root; `words` are further ones for its daemon."""
    name = f"ct-{os.getpid()}-{next(numbers)}"
    image, disk = folder / "disk.img", folder / "disk"
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
        engine = SecondEngine(f"unix://{folder / 'docker.sock'}", disk, name, folder, words)
        engine.boot()
        cleanup.callback(engine.power_off)
        yield engine
