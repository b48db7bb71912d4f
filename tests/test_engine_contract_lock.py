"""What every engine's lock does: the last part of the suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from consolidate.docker_engine import DockerEngine
from consolidate.engine import Engine
from consolidate.errors import Locked
from tests.conftest import clear


def test_a_second_holder_is_told_who_holds_the_lock(engine: Engine, stack_name: str) -> None:
    """While one works on a stack another is refused with the holder's name; afterwards it is free."""
    with engine.lock(stack_name, "ada"), pytest.raises(Locked, match="ada"), engine.lock(stack_name, "bob"):
        pass
    with engine.lock(stack_name, "bob"):
        assert [c.helper for c in engine.observe(stack_name).containers] == ["lock"]
    assert engine.observe(stack_name).containers == ()


def test_other_stacks_have_locks_of_their_own(engine: Engine, stack_name: str) -> None:
    """Two stacks are worked on at the same time."""
    with engine.lock(stack_name, "ada"), engine.lock(f"{stack_name}-b", "bob"):
        assert len(engine.observe(f"{stack_name}-b").containers) == 1


def test_one_of_many_gets_the_lock(engine: Engine, stack_name: str) -> None:
    """Of several that ask at once exactly one works, and the others are refused."""
    begin, end, got, refused = threading.Barrier(4), threading.Event(), [], []

    def ask(who: str) -> None:
        begin.wait()
        try:
            with engine.lock(stack_name, who):
                got.append(who)
                end.wait(20)
        except Locked:
            refused.append(who)
            if len(refused) == 3:
                end.set()

    askers = [threading.Thread(target=ask, args=(w,)) for w in ("ada", "bob", "cy", "di")]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert (len(got), len(refused)) == (1, 3)


HOLD = """
import sys, time
from consolidate.docker_engine import connect
with connect().lock(sys.argv[1], "ada"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.engine
def test_the_lock_dies_with_its_holder(docker_engine: DockerEngine, stack_name: str) -> None:
    """When the holder is killed with -9 the lock goes by itself, soon."""
    with subprocess.Popen([sys.executable, "-c", HOLD, stack_name], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob"):
                pass
            os.kill(holder.pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while docker_engine.observe(stack_name).containers and time.monotonic() < deadline:
                time.sleep(0.05)
            assert docker_engine.observe(stack_name).containers == ()
            with docker_engine.lock(stack_name, "bob"):
                pass
        finally:
            holder.kill()
            clear(docker_engine, stack_name)
