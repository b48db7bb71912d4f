"""A terminal of a given width for a command, and what it shows there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.engine.support import environment

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


@dataclass(frozen=True)
class Shown:
    """What a command wrote to its terminal; `lines` as a person would see them, one after the other."""

    status: int
    raw: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        return [part.rstrip() for line in CONTROL.sub("", self.raw).split("\n") for part in line.split("\r") if part]


def at_terminal(
    command: Sequence[str],
    *,
    cwd: Path,
    columns: int = 80,
    typed: str = "",
    env: Mapping[str, str] = {},
    timeout: float = 120,
) -> Shown:
    """Run a command with a terminal as its input and both outputs; `typed` is typed once it asks."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = environment(TERM="xterm-256color", **env)
    del variables["COLUMNS"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=variables, start_new_session=True
    )
    os.close(theirs)
    if typed:
        os.write(ours, typed.encode())
    said, end = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says EIO where the other end is closed
                break
            if not part:
                break
            said += part
        status = process.wait(10)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return Shown(status, said.decode(errors="replace"))
