"""How the executor waits until a server is ready, and what it says of one that never is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from consolidate.actions import WaitReady
from consolidate.engine import State
from consolidate.execute import readiness
from tests.plans import READY, Programs, an_engine, operation, run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Probes that follow each other fast."""
    monkeypatch.setattr(readiness, "FIRST_PROBE", 0.001)
    monkeypatch.setattr(readiness, "STEADY", 0.01)
    yield


@pytest.mark.usefixtures("quick")
def test_waiting_ends_as_soon_as_the_check_is_good() -> None:
    """A server is asked until its check succeeds, and not once more."""
    programs = Programs(one=4)
    engine = an_engine(programs, "one")
    assert run(engine, operation("ready", WaitReady("one", READY))).ok
    assert len(programs.asked) == 4


@pytest.mark.usefixtures("quick")
def test_a_program_that_ends_is_a_failure_with_its_log() -> None:
    """A container that has exited fails at once, with its exit status and the last that it said."""
    engine = an_engine(Programs(one=99), "one")
    engine.boxes["one"].log = [f"line {i}" for i in range(40)]
    engine.boxes["one"].end(3)
    report = run(engine, operation("ready", WaitReady("one", READY)))
    assert "exit status 3" in report.failed[0].message
    assert report.failed[0].log == tuple(f"line {i}" for i in range(25, 40))


@pytest.mark.usefixtures("quick")
def test_a_program_that_never_gets_ready_is_a_failure_with_its_checks_word() -> None:
    """After the time that it has, the message says how long that was and what the check said last."""
    engine = an_engine(Programs(one=10**6), "one")
    report = run(engine, operation("ready", WaitReady("one", READY)), timeout=0.05)
    assert "not ready after 0.05 s" in report.failed[0].message
    assert "still loading" in report.failed[0].message


@pytest.mark.usefixtures("quick")
def test_a_program_that_the_engine_keeps_restarting_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few restarts are enough to know: it is not waited for to the end."""
    engine = an_engine(Programs(one=99), "one")
    monkeypatch.setattr(engine, "state", lambda _: State("restarting", False, 1, readiness.RESTARTS))
    assert "exit status 1" in run(engine, operation("ready", WaitReady("one", READY))).failed[0].message


@pytest.mark.usefixtures("quick")
def test_a_program_without_a_check_is_ready_when_it_goes_on_running() -> None:
    """With nothing to ask, running for a moment counts."""
    engine = an_engine(None, "one")
    engine.boxes["one"].test = ()
    assert run(engine, operation("ready", WaitReady("one", None))).ok
    assert engine.written["run"] == 0


@pytest.mark.usefixtures("quick")
def test_one_slow_look_does_not_count_as_running_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is slow to answer has seen a program run once, and not that it goes on: this one never does."""
    engine, restarts = an_engine(None, "one"), iter(range(readiness.RESTARTS + 1))

    def slow(_: str) -> State:
        time.sleep(0.02)
        return State("running", True, 1, next(restarts))

    monkeypatch.setattr(engine, "state", slow)
    assert "exit status 1" in run(engine, operation("ready", WaitReady("one", None))).failed[0].message
