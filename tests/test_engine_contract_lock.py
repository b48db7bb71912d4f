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
from msgspec.structs import replace

from consolidate import naming, process
from consolidate.docker_engine import DockerEngine, connect, lock
from consolidate.engine import LOCK_GRACE, Engine
from consolidate.errors import EngineUnavailable, Locked, OperationFailed
from consolidate.observed import Observed
from consolidate.runner import check_unlocked
from tests.conftest import clear
from tests.engine.support import wait_until
from tests.engine.wire import wire_to


def test_a_second_holder_is_told_who_holds_the_lock(engine: Engine, stack_name: str) -> None:
    """While one works on a stack another is refused with the holder's name; afterwards it is free."""
    with (
        engine.lock(stack_name, "ada", print),
        pytest.raises(Locked, match="ada"),
        engine.lock(stack_name, "bob", print),
    ):
        pass
    with engine.lock(stack_name, "bob", print):
        assert [c.helper for c in engine.observe(stack_name).containers] == ["lock"]
    assert engine.observe(stack_name).containers == ()


def test_other_stacks_have_locks_of_their_own(engine: Engine, stack_name: str) -> None:
    """Two stacks are worked on at the same time."""
    with engine.lock(stack_name, "ada", print), engine.lock(f"{stack_name}-b", "bob", print):
        assert len(engine.observe(f"{stack_name}-b").containers) == 1


def test_the_lock_is_a_container_of_the_base_image(
    engine: Engine, stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that there is no lock: whoever takes one has to see to it first."""
    monkeypatch.setattr(naming, "BASE_IMAGE", "nowhere/none:1")
    with pytest.raises(OperationFailed, match="nowhere/none"), engine.lock(stack_name, "ada", print):
        pass
    assert holders(engine, stack_name) == []


def test_one_of_many_gets_the_lock(engine: Engine, stack_name: str) -> None:
    """Of several that ask at once exactly one works, and the others are refused."""
    begin, end, got, refused = threading.Barrier(4), threading.Event(), [], []

    def ask(who: str) -> None:
        begin.wait()
        try:
            with engine.lock(stack_name, who, print):
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
from consolidate.docker_engine import connect, lock
lock.START_AFTER = float(sys.argv[2])
with connect().lock(sys.argv[1], "ada", print):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def a_holder(engine: DockerEngine, stack: str, *, runs: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, as ada; it runs at once, or not for a while."""
    words = [sys.executable, "-c", HOLD, stack, "0" if runs else "60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
            clear(engine, stack)


def leave_lock(engine: Engine, stack: str, identity: str, holder: str = "ada") -> None:
    """What a holder leaves who goes before its lock runs."""
    labels = {naming.STACK: stack, naming.HELPER: "lock", naming.HOLDER: holder, naming.PROCESS: identity}
    engine.create_helper(naming.helper(stack, "", "lock"), labels, {})


def an_ended_process() -> str:
    """The identity of a process of this machine that has ended."""
    say = "from consolidate import process; print(process.identity())"
    return subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True).stdout.strip()


def holders(engine: Engine, stack: str) -> list[str]:
    return [c.labels[naming.HOLDER] for c in engine.observe(stack).containers]


def test_a_dead_holders_lock_is_taken_over_with_a_word(engine: Engine, stack_name: str) -> None:
    """Who takes it hears who held it; who finds it free hears nothing."""
    leave_lock(engine, stack_name, an_ended_process())
    said: list[str] = []
    with engine.lock(stack_name, "bob", said.append):
        assert holders(engine, stack_name) == ["bob"]
    assert len(said) == 1
    assert said[0].startswith("ada has gone")
    with engine.lock(stack_name, "bob", said.append):
        pass
    assert len(said) == 1


def test_that_a_run_was_broken_off_is_seen_until_another_has_ended(engine: Engine, stack_name: str) -> None:
    """Also by whoever takes over, and by whoever comes when that one dies as well; nobody who holds a lock has died."""

    def seen() -> bool:
        return engine.observe(stack_name).broken_off

    assert not seen()
    with engine.lock(stack_name, "ada", print):
        assert not seen()
    leave_lock(engine, stack_name, process.identity())
    assert not seen()
    leave_lock(engine, stack_name, an_ended_process())
    assert seen()
    with engine.lock(stack_name, "bob", print):
        assert seen()
    assert not seen()


@pytest.mark.parametrize("age", [0, 3600])
def test_nothing_to_change_is_not_said_while_somebody_works(engine: Engine, stack_name: str, age: int) -> None:
    """However old the lock is, its holder is named while it lives; once it has gone the lock goes, with a word."""
    said: list[str] = []
    leave_lock(engine, stack_name, process.identity())
    with pytest.raises(Locked, match="ada works on this stack since 20"):
        check_unlocked(engine, aged(engine.observe(stack_name), age), said.append)
    assert said == []
    leave_lock(engine, stack_name, an_ended_process())
    check_unlocked(engine, aged(engine.observe(stack_name), age), said.append)
    assert [s.partition(" and ")[0] for s in said] == ["ada has gone before it was done,"]
    assert engine.observe(stack_name).containers == ()
    check_unlocked(engine, engine.observe(stack_name), said.append)
    assert len(said) == 1
    leave_lock(engine, stack_name, an_ended_process())
    seen = engine.observe(stack_name)
    engine.remove(naming.helper(stack_name, "", "lock"))  # the holder's last act, before it ended
    check_unlocked(engine, seen, said.append)
    assert len(said) == 1


def aged(observed: Observed, seconds: int) -> Observed:
    """The same, but made `seconds` ago."""
    made = int(time.time()) - seconds
    return replace(observed, containers=tuple(replace(c, created=made) for c in observed.containers))


def test_of_another_machines_lock_its_age_tells(engine: Engine, stack_name: str) -> None:
    """One that doesn't run yet counts for as long as it may take to run; later it keeps nobody away."""
    leave_lock(engine, stack_name, "elsewhere/1/2/3")
    observed = engine.observe(stack_name)
    with pytest.raises(Locked, match="ada"):
        check_unlocked(engine, aged(observed, int(LOCK_GRACE) - 5), print)
    check_unlocked(engine, aged(observed, int(LOCK_GRACE) + 5), print)
    assert holders(engine, stack_name) == ["ada"], "clocks may differ: it is left to who wants the lock"


@pytest.mark.engine
def test_a_running_lock_outlives_its_holder_as_a_word_alone(docker_engine: DockerEngine, stack_name: str) -> None:
    """When the holder is killed with -9 its lock, once it runs, ends by itself, for every machine to see.

    On the holder's own machine nobody waits for that; on another it keeps others away until then.
    """
    name = naming.helper(stack_name, "", "lock")
    with a_holder(docker_engine, stack_name, runs=True) as holder, pytest.MonkeyPatch.context() as elsewhere:
        wait_until(lambda: docker_engine.state(name).running, "the lock runs")
        elsewhere.setattr(process, "_machine", lambda: "another")
        with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob", print):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        wait_until(lambda: not docker_engine.state(name).running, "the lock ends")
        said: list[str] = []
        with docker_engine.lock(stack_name, "bob", said.append):
            assert holders(docker_engine, stack_name) == ["bob"]
        assert [s.partition(" before ")[0] for s in said] == ["ada has gone"]


@pytest.mark.engine
def test_a_lock_that_ends_under_its_holder_stops_that(docker_engine: DockerEngine, stack_name: str) -> None:
    """Whether only the connection that held it broke off, or its container ended: another machine may work by then, so the
    holder asks nothing more of the engine. On its own machine nobody gets the lock before it has ended.
    """
    name = naming.helper(stack_name, "", "lock")
    with wire_to(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock") as wire:
        for end in (lambda: wire.cut(silent=0.2), lambda: docker_engine.kill(name, "SIGKILL")):
            engine = connect(wire.url)
            with pytest.MonkeyPatch.context() as soon, pytest.raises(EngineUnavailable, match="lost the stack's lock"):
                soon.setattr(lock, "START_AFTER", 0.0)
                with engine.lock(stack_name, "ada", print):
                    wait_until(lambda: docker_engine.state(name).running, "the lock runs")
                    wait_until(
                        lambda: len(wire.silent(0.3)) == len(wire.connections), "nothing more is asked to have it run"
                    )
                    assert engine.has_image(naming.BASE_IMAGE)  # on another connection
                    end()
                    wait_until(lambda: not docker_engine.state(name).running, "the lock ends")
                    with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob", print):
                        pass
                    wait_until(lambda e=engine: not e.has_image(naming.BASE_IMAGE), "it is noticed")
            engine.client.close()
            assert holders(docker_engine, stack_name) == ["ada"]  # the next run has to know
            docker_engine.remove(name)


@pytest.mark.engine
def test_a_lock_that_can_not_run_stops_its_holder(
    docker_engine: DockerEngine, stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other machines take one that never runs for remains after a while: before that its holder asks nothing more."""
    monkeypatch.setattr(lock, "START_AFTER", 0.3)
    engine = connect()
    gone = pytest.raises(EngineUnavailable, match=r"(?i)the stack's lock can't be started: .*no such container")
    with gone, engine.lock(stack_name, "ada", print):
        docker_engine.remove(naming.helper(stack_name, "", "lock"))
        wait_until(lambda: not engine.has_image(naming.BASE_IMAGE), "it is noticed")
    engine.client.close()


@pytest.mark.parametrize("end", [KeyboardInterrupt(), EngineUnavailable("no engine answers")])
def test_who_does_not_come_to_the_end_leaves_the_lock(engine: Engine, stack_name: str, end: BaseException) -> None:
    """An interrupt, or an engine that went: the next run has to know of it. What is refused leaves no lock."""
    with pytest.raises(OperationFailed), engine.lock(stack_name, "ada", print):
        raise OperationFailed("no")
    assert holders(engine, stack_name) == []
    with pytest.raises(type(end)), engine.lock(stack_name, "ada", print):
        raise end
    assert holders(engine, stack_name) == ["ada"]


@pytest.mark.engine
def test_a_lock_that_never_ran_is_taken_from_a_dead_holder_alone(docker_engine: DockerEngine, stack_name: str) -> None:
    """Before the lock runs it keeps others away while its holder lives, and no longer."""
    name = naming.helper(stack_name, "", "lock")
    with a_holder(docker_engine, stack_name) as holder:
        with pytest.raises(Locked, match="ada"), docker_engine.lock(stack_name, "bob", print):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert docker_engine.state(name).status == "created"
        with docker_engine.lock(stack_name, "bob", print):
            assert [c.labels[naming.HOLDER] for c in docker_engine.observe(stack_name).containers] == ["bob"]


@pytest.mark.engine
def test_a_lock_that_another_machine_made_may_still_be_about_to_run(
    docker_engine: DockerEngine, stack_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its holder lives can't be told here: it is left alone for a while, then it counts as remains.

    Each has its own time: one that came after the first had gone is not taken for it.
    """
    monkeypatch.setattr(lock, "LOCK_GRACE", 1.0)
    said: list[str] = []
    leave_lock(docker_engine, stack_name, "elsewhere/1/2/3")

    def replaced() -> None:
        time.sleep(0.6)
        leave_lock(docker_engine, stack_name, "elsewhere/1/2/4", "cy")

    begun, other = time.monotonic(), threading.Thread(target=replaced)
    other.start()
    try:
        with docker_engine.lock(stack_name, "bob", said.append):
            assert 1.6 < time.monotonic() - begun < 5
            assert holders(docker_engine, stack_name) == ["bob"]
    finally:
        other.join()
        clear(docker_engine, stack_name)
    assert [" ".join(s.split()[:3]) for s in said] == ["ada has just", "cy has just", "cy has gone"]
