"""Two machines work on one stack: one of them is told who the other is, and goes on once that one has died."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import command, environment, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# Another machine, as far as a process can tell: with a name and processes of its own.
ELSEWHERE = ["unshare", "--uts", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
ELSEWHERE += ["bash", "-c", 'hostname elsewhere && exec "$@"', "_"]
NEVER = "  never: {kind: container, image: 'debian:bookworm-slim', command: sleep 99999, healthcheck: {test: [CMD, 'false']}}\n"


def test_one_works_and_the_other_is_told_who_and_since_when(make_stack: StackFactory) -> None:
    stack = make_stack("two")
    stack.write("  www: {kind: web}\n" + NEVER)
    words = [*ELSEWHERE, *command("up", "--progress", "plain", "--wait-timeout", "60")]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=stack.folder, env=environment(), **silent) as other:  # type: ignore[call-overload]
        try:
            wait_until(lambda: f"container {stack.name}-never-1" in stack.left(), "the other is at work")
            works = r"root@elsewhere \(process 1\) works on this stack since 20\S+ \d\d:\d\d:\d\d UTC"
            assert re.search(works, stack.up(status=75).err), "what is not done yet is not nothing to change"
            stack.edit("{kind: web}", "{kind: web, resources: {memory: 80M}}")
            assert re.search(works, stack.up(status=75).err), "once its lock runs"
            assert other.poll() is None
        finally:
            other.kill()
    stack.write("  www: {kind: web}\n")
    done = stack.up()
    assert "root@elsewhere (process 1) has gone before it was done" in done.err
    assert stack.run("plan", "--detailed-exitcode").status == 0
    assert stack.orphans() == []
