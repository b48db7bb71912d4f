"""Whether a process that left its identity still lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from consolidate import process

SAY = "from consolidate import process; print(process.identity(), flush=True); input()"


def test_a_process_lives_until_it_ends() -> None:
    """Its identity tells its machine's other processes so, also while nobody has waited for it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SAY], text=True, **pipes) as other:  # type: ignore[call-overload]
        written = other.stdout.readline().strip()
        assert process.fate(written) == "lives"
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert process.fate(written) == "ended"
    assert process.fate(written) == "ended"


def test_a_number_that_another_process_has_by_now_is_not_the_same() -> None:
    """Numbers come again; with its start an identity doesn't."""
    here = process.identity()
    assert process.fate(here) == "lives"
    assert process.fate(f"{here}1") == "ended"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_process_is_told_apart_as_well() -> None:
    """That it may not be signalled says that some process has the number, not that it is the same."""
    program = (
        "import os, sys; from consolidate import process; os.setuid(65534); print(*map(process.fate, sys.argv[1:]))"
    )
    machine, number, start = process.identity().rsplit("/", 2)
    words = [f"{machine}/{number}/{start}", f"{machine}/{number}/1"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lives", "ended"]


@pytest.mark.parametrize("written", ["", "a/b", "boot/4026531836/1/2", "boot/4026531836/one/2", "/////"])
def test_of_other_machines_nothing_is_known(written: str) -> None:
    """Neither of theirs nor of what makes no sense."""
    assert process.fate(written) == "unknown"
