"""What a person sees on a terminal while something is under way."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from consolidate.actions import RemoveContainer
from consolidate.console import show_plan
from consolidate.plan import Operation, Plan

PROGRAM = """
import os, sys
from consolidate import console
from consolidate.plan import Plan

with console.progress("tty", Plan("", ())):
    os.read(int(sys.argv[1]), 1)  # until the table is there
    console.announce(Plan("shop", ()), "tty")
    console.confirm_return("shop", ["db"], "20261127T000000-abcd", "today", whole=True, yes=False)
    os.read(int(sys.argv[1]), 1)  # until it is there again
"""
QUESTION = b"Type shop to go on: "
BAR = "━".encode()


def read(terminal: int, seconds: float, until: bytes = b"") -> bytes:
    """What comes within `seconds`, or to the end, or up to `until`."""
    found, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (until and until in found):
        if select.select([terminal], [], [], left)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux' word for the end of a terminal
                break
            if not part:
                break
            found += part
    return found


def test_a_question_and_a_plan_are_not_written_over_by_the_table_of_what_is_under_way() -> None:
    """While an answer is awaited nothing else is drawn, so that what is typed stays to be seen; a plan's lines are its own."""
    (ours, theirs), (go_on, tell) = pty.openpty(), os.pipe()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    words = [sys.executable, "-c", PROGRAM, str(go_on)]
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, pass_fds=[go_on]
    ) as process:
        os.close(theirs)
        os.close(go_on)
        try:
            assert BAR in read(ours, 30, BAR), "there is a table to be in the way"
            os.write(tell, b".")
            before = read(ours, 30, QUESTION)
            (line,) = [x for x in before.splitlines() if b"nothing to change" in x]
            assert BAR not in line.split(b"\x1b[2K")[-1], "the plan begins in a line of its own"
            assert before.endswith(QUESTION)
            assert read(ours, 0.6) == b"", "nobody draws while an answer is awaited"
            os.write(ours, b"shop\n")
            assert BAR in read(ours, 30, BAR), "what is under way is told again"
            os.write(tell, b".")
            assert process.wait(30) == 0, read(ours, 1)
        finally:
            os.close(tell)
            os.close(ours)  # which ends whoever still waits for an answer


def test_a_plan_that_is_of_no_server_has_no_heading_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """As while a backup is under way, of which only what it would leave is seen."""
    left = Operation("remove:shop.freeze", RemoveContainer("shop.freeze"), "", "left by a backup")
    show_plan(Plan("shop", (left,)), "table")
    assert capsys.readouterr().out == "shop: 1 operations\n"
