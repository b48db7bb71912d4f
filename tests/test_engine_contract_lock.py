"""What every engine's lock does: the last part of the suite."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from consolidate import naming
from consolidate.docker_engine import DockerEngine, lock
from consolidate.engine import Engine
from consolidate.errors import Locked
from tests.conftest import clear
from tests.engine.support import wait_until


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


@contextlib.contextmanager
def a_holder(engine: DockerEngine, stack: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, as ada."""
    with subprocess.Popen([sys.executable, "-c", HOLD, stack], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
            clear(engine, stack)


@pytest.mark.engine
def test_the_lock_dies_with_its_holder(docker_engine: DockerEngine, stack_name: str) -> None:
    """When the holder is killed with -9 its lock, once it runs, goes by itself, soon."""
    name = naming.helper(stack_name, "", "lock")
    with a_holder(docker_engine, stack_name) as holder:
        wait_until(lambda: docker_engine.state(name).running, "the lock runs")
        with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        wait_until(lambda: not docker_engine.observe(stack_name).containers, "the lock goes")
        with docker_engine.lock(stack_name, "bob"):
            pass


@pytest.mark.engine
def test_a_lock_that_never_ran_is_taken_from_a_dead_holder_alone(docker_engine: DockerEngine, stack_name: str) -> None:
    """Before the lock runs it keeps others away while its holder lives, and no longer."""
    name = naming.helper(stack_name, "", "lock")
    with a_holder(docker_engine, stack_name) as holder:
        with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert docker_engine.state(name).status == "created"
        with docker_engine.lock(stack_name, "bob"):
            assert [c.labels[naming.HOLDER] for c in docker_engine.observe(stack_name).containers] == ["bob"]


@pytest.mark.engine
def test_a_lock_that_another_machine_made_may_still_be_about_to_run(
    docker_engine: DockerEngine, stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its holder lives can't be told here: it is left alone for a while, then it counts as remains."""
    monkeypatch.setattr(lock, "LOCK_GRACE", 1.0)
    name = naming.helper(stack_name, "", "lock")
    labels = {naming.STACK: stack_name, naming.HELPER: "lock", naming.HOLDER: "ada", naming.PROCESS: "elsewhere/1/2/3"}
    docker_engine.create_helper(name, labels, {})
    begun = time.monotonic()
    try:
        with docker_engine.lock(stack_name, "bob"):
            assert time.monotonic() - begun > 1.0
            assert [c.labels[naming.HOLDER] for c in docker_engine.observe(stack_name).containers] == ["bob"]
    finally:
        clear(docker_engine, stack_name)
