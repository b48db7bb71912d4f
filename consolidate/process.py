"""Whether a process that has left its identity somewhere still lives, as far as this machine can tell."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

Fate = Literal["lives", "ended", "unknown"]


def identity() -> str:
    """This process: its machine's boot, its namespace, its number and its start, so that no later one is taken for it.

    Empty where the system doesn't tell them (proc(5) is Linux's).
    """
    try:
        return f"{_machine()}/{os.getpid()}/{_state(os.getpid())[1]}"
    except OSError:
        return ""


def fate(written: str) -> Fate:
    """What has become of the process of that identity; unknown where another machine wrote it."""
    try:
        machine, number, start = written.rsplit("/", 2)
        if machine != _machine():
            return "unknown"
        with contextlib.suppress(PermissionError):  # another user's, but is it the same?
            os.kill(int(number), 0)
        state, begun = _state(int(number))
    except (ProcessLookupError, FileNotFoundError):
        return "ended"
    except (OSError, ValueError):
        return "unknown"
    return "ended" if state in ("Z", "X") or begun != start else "lives"


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 — what the link leads to has no path


def _state(pid: int) -> tuple[str, str]:
    """The state and the start, in ticks since the boot: fields 3 and 22 of proc(5)'s stat, after the program's name."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
