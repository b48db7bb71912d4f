"""A real sshd on the loopback, with a key and a port of its own, and the client's side of it: an `ssh` that knows them.

It needs root, and the package openssh-server, of which nothing but the program is used.
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
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"
ALIAS = "elsewhere"  # what ~/.ssh/config calls the host
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
"""
CLIENT = """\
Host {alias}
  HostName 127.0.0.1
  Port {port}
  User root
Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
"""


@dataclass
class Sshd:
    """`url` is what `-H` takes; `env` is for commands that are to find the host and its key."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"ssh://{ALIAS}"

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def connections(self) -> list[int]:
        """The processes of connections that are there."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(p) for p in listed.split()]

    def cut(self) -> None:
        """Cut all connections, as a network does that goes."""
        for pid in self.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def forget(self) -> None:
        """The client does not know the host's key any more."""
        (self.folder / "known_hosts").unlink()


def keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


@contextlib.contextmanager
def sshd(folder: Path, port: int, config: str = "") -> Iterator[Sshd]:
    """`config` are further lines of its configuration, which win over ours."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "key"):
        keygen(folder / name)
    (folder / "sshd_config").write_text(config + CONFIG.format(port=port, folder=folder))
    (folder / "config").write_text(CLIENT.format(alias=ALIAS, port=port, folder=folder))
    _, kind, key = ("", *(folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "bin").mkdir()
    program = folder / "bin" / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    program.chmod(0o755)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
        )
    made = Sshd(folder, port, process)
    try:
        _wait(made)
        yield made
    finally:
        made.cut()
        process.terminate()
        process.wait()


def _wait(made: Sshd) -> None:
    end = time.monotonic() + 10
    while made.process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", made.port)):
            return
        time.sleep(0.02)
    raise AssertionError(f"sshd does not answer: {made.log}")
