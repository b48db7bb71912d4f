"""A person's terminal joined to a program in a container."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

CHUNK = 65536
SIZE_TRIES, SIZE_PAUSE = 20, 0.02  # seconds
FRAME = 8  # bytes of the header before each piece of output: stream, three zeros, length (API 1.41, attach)


def interact(stream: Any, *, tty: bool, stdin: bool, resize: Callable[[int, int], None]) -> None:
    """Pass our input to `stream` and its output to ours until it ends."""
    raw = getattr(stream, "_sock", stream)
    with _raw_mode() if tty else contextlib.nullcontext():
        if tty:
            _first_size(resize)
            signal.signal(signal.SIGWINCH, lambda *_: resize(*reversed(shutil.get_terminal_size())))
        _pump(raw, stdin=stdin, write=_write_plain if tty else _Frames().write)


def _first_size(resize: Callable[[int, int], None]) -> None:
    """A program can't be resized before it runs, which takes a moment, and no more when it has ended."""
    for _ in range(SIZE_TRIES):
        try:
            resize(*reversed(shutil.get_terminal_size()))
        except Exception:
            time.sleep(SIZE_PAUSE)
        else:
            return


def _pump(raw: Any, *, stdin: bool, write: Callable[[bytes], None]) -> None:
    """No more is read of our input than the engine takes: some take no more while their output waits for us."""
    raw.setblocking(False)
    typed, sources = b"", [raw, *([sys.stdin.fileno()] if stdin else [])]
    while True:
        ready, free, _ = select.select([raw] if typed else sources, [raw] if typed else [], [])
        if raw in ready:
            try:
                data = raw.recv(CHUNK)
            except OSError:  # it ended with input of ours still under way, or the network has gone
                return
            if not data:
                return
            write(data)
        if free:
            try:
                typed = typed[raw.send(typed) :]
            except OSError:  # it does not read on
                typed, sources = b"", [raw]
        elif len(ready) > (raw in ready):
            typed = os.read(sys.stdin.fileno(), CHUNK)
            if not typed:
                sources.pop()
                with contextlib.suppress(OSError, AttributeError):
                    raw.shutdown(socket.SHUT_WR)


def _write_plain(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


class _Frames:
    """Takes the engine's frames apart: what is for standard output, and what for standard error."""

    def __init__(self) -> None:
        self.rest = b""

    def write(self, data: bytes) -> None:
        self.rest += data
        while len(self.rest) >= FRAME:
            length = int.from_bytes(self.rest[4:FRAME], "big")
            if len(self.rest) < FRAME + length:
                return
            target = sys.stderr if self.rest[0] == 2 else sys.stdout
            content, self.rest = self.rest[FRAME : FRAME + length], self.rest[FRAME + length :]
            os.write(target.fileno(), content)


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
