"""How the executor waits until a server is ready, and what it says of one that never is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from consolidate.actions import CreateNetwork, ReachServer, WaitReady
from consolidate.engine import State
from consolidate.execute import readiness
from tests.memory_engine import MemoryEngine
from tests.plans import READY, Programs, an_engine, create, operation, run


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


ROUTE = "shop_route_one"
REACH = ReachServer("edge", ("switch", "probe"), "one", ROUTE, "80")


@pytest.fixture
def routed() -> Iterator[tuple[MemoryEngine, Programs]]:
    """A server that the proxy, `edge`, finds on a network, and what runs in both."""
    programs = Programs(edge=4)
    engine = an_engine(programs)
    engine.create_network(CreateNetwork(ROUTE, "10.0.0.0/28", True, True, ()))
    for name in ("edge", "one"):
        engine.create(replace(create(name), networks=(ROUTE,)))
        engine.start(name)
    yield engine, programs


@pytest.mark.usefixtures("quick")
def test_the_proxy_is_asked_until_it_reaches_the_server(routed: tuple[MemoryEngine, Programs]) -> None:
    """By the address that the server has there, and not once more."""
    engine, programs = routed
    assert run(engine, operation("probe", REACH)).ok
    assert len(programs.asked) == 4
    address = engine.state("one").addresses[ROUTE]
    assert engine.writes[-1] == ("run", ("edge", ("switch", "probe", address, "80")))


@pytest.mark.usefixtures("quick")
def test_a_server_that_the_proxy_never_reaches_is_a_failure_with_its_log(routed: tuple[MemoryEngine, Programs]) -> None:
    """After the time that was given; what the server said last may tell where it listens."""
    engine, programs = routed
    programs.looks["edge"] = 10**6
    engine.boxes["one"].log = ["listening on 127.0.0.1:80"]
    (failed,) = run(engine, operation("probe", REACH), timeout=0.05).failed
    assert "the proxy, edge, does not reach one at port 80 within 0.05 s; still loading" in failed.message
    assert failed.log == ("listening on 127.0.0.1:80",)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("cut", "why"), [("one", f"no address on the network {ROUTE}"), ("edge", "not running")])
def test_what_keeps_the_proxy_from_asking_is_told(routed: tuple[MemoryEngine, Programs], cut: str, why: str) -> None:
    """It may pass: a proxy that starts again, a network that is about to be joined."""
    engine, _ = routed
    if cut == "one":
        engine.disconnect("one", ROUTE)
    else:
        engine.boxes["edge"].end(1)
    (failed,) = run(engine, operation("probe", REACH), timeout=0.05).failed
    assert why in failed.message


@pytest.mark.usefixtures("quick")
def test_a_server_that_ends_is_not_waited_for(routed: tuple[MemoryEngine, Programs]) -> None:
    engine, programs = routed
    engine.boxes["one"].end(3)
    (failed,) = run(engine, operation("probe", REACH)).failed
    assert "one ended with exit status 3" in failed.message
    assert programs.asked == []
