"""The executor by itself: order, parallelism, failures, undo, interrupts. Its plans are made by hand."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from consolidate.actions import (
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    NameOnNetwork,
    ProvideImage,
    RemoveContainer,
    StartContainer,
    StopContainer,
    WaitReady,
    WriteFiles,
)
from consolidate.desired import FileVolume, Image
from consolidate.errors import EngineUnavailable, OperationFailed
from consolidate.execute import Executor
from consolidate.execute import executor as execution
from consolidate.files import FileSet, FileSpec
from consolidate.plan import Plan
from consolidate.report import Event
from tests.contract_parts import container
from tests.memory_engine import MemoryEngine
from tests.plans import READY, an_engine, create, operation, run, statuses, volume


class Slow(MemoryEngine):
    """An engine whose `create_volume` takes a while, outside the lock of the others, and tells how many were under way."""

    def __init__(self, parallel: int) -> None:
        super().__init__()
        self.parallel = parallel
        self.under_way: list[int] = []
        self.now = 0
        self.counting = threading.Lock()

    def create_volume(self, name: str, labels: Any) -> None:
        with self.counting:
            self.now += 1
            self.under_way.append(self.now)
        time.sleep(0.05)
        with self.counting:
            self.now -= 1
        super().create_volume(name, labels)


# Order


def test_an_operation_begins_after_what_it_needs() -> None:
    """Along a chain of needs nothing begins before the last has ended, in whatever order the plan lists it."""
    engine = an_engine()
    names = [f"v{i}" for i in range(6)]
    chain = [operation("v0", volume("v0"))] + [operation(b, volume(b), [a]) for a, b in pairwise(names)]
    assert run(engine, *reversed(chain)).ok
    assert [args[0] for _, args in engine.writes[-6:]] == names


def test_what_is_independent_runs_at_once_within_the_engines_limit() -> None:
    """As many calls are under way as the engine allows, and no more."""
    engine = Slow(parallel=3)
    assert run(engine, *(operation(f"v{i}", volume(f"v{i}")) for i in range(9))).ok
    assert max(engine.under_way) == 3


def test_an_operation_waits_for_what_comes_after_without_needing_it() -> None:
    """`after` waits for an end, and a failure is an end too."""
    engine = an_engine()
    engine.fail_on(lambda name, args: name == "create_volume" and args[0] == "first")
    first, second = operation("first", volume("first")), operation("second", volume("second"), after=("first",))
    assert statuses(run(engine, second, first)) == {"first": "failed", "second": "done"}


# Failures


def test_a_failure_skips_its_dependants_and_nothing_else() -> None:
    """What needs a failed operation, directly or not, is skipped; the rest is done."""
    engine = an_engine()
    engine.fail_on(lambda name, args: args[0] == "bad")
    report = run(
        engine,
        operation("bad", volume("bad")),
        operation("child", volume("child"), ["bad"]),
        operation("grandchild", volume("grandchild"), ["child", "good"]),
        operation("good", volume("good")),
    )
    assert statuses(report) == {"bad": "failed", "child": "skipped", "grandchild": "skipped", "good": "done"}
    assert set(engine.volumes) == {"good"}
    assert not report.ok


def test_undo_removes_the_new_and_starts_the_old() -> None:
    """When a replacement doesn't get ready its undo runs, in order, and leaves the old one serving."""
    engine = an_engine(None, "old")
    engine.fail_on(lambda name, args: (name, args[0]) == ("start", "new"))
    undo = (RemoveContainer("new"), StartContainer("old"))
    report = run(
        engine,
        operation("create", create("new")),
        operation("stop", StopContainer("old", 1), ["create"]),
        operation("start", StartContainer("new"), ["stop"], undo),
        operation("remove", RemoveContainer("old"), ["start"]),
    )
    assert [name for name, _ in engine.writes[-2:]] == ["remove", "start"]
    assert set(engine.boxes) == {"old"}
    assert engine.boxes["old"].running
    assert report.failed[0].undone == ("remove new", "start old")


def test_an_undo_that_fails_is_told_and_the_rest_goes_on() -> None:
    """One step of an undo that fails does not stop the others, and is not hidden."""
    engine = an_engine(None, "old")
    engine.stop("old", 1)
    engine.fail_on(lambda name, args: args[0] == "new")
    report = run(
        engine, operation("start", StartContainer("new"), undo=(RemoveContainer("new"), StartContainer("old")))
    )
    assert engine.boxes["old"].running
    assert "could not remove" in report.failed[0].undone[0]


def test_the_operations_that_succeeded_are_not_undone() -> None:
    """Undo belongs to the operation that failed alone."""
    engine = an_engine()
    engine.fail_on(lambda name, args: args[0] == "bad")
    fine = operation("fine", volume("fine"), undo=(CreateVolume("undone", ()),))
    run(engine, fine, operation("bad", volume("bad"), ["fine"]))
    assert set(engine.volumes) == {"fine"}


def test_a_file_that_has_gone_is_a_failure_with_its_name(tmp_path: Any) -> None:
    """What vanished between plan and execution fails its own operation, not the others that are written with it."""
    files = FileSet((FileSpec("x", source=tmp_path / "gone"),))
    bad = FileVolume("shop", "shop_a_config_1", "a", "config", files)
    good = FileVolume("shop", "shop_b_config_1", "b", "config", FileSet((FileSpec("x", text="y"),)))
    engine = an_engine()
    report = run(engine, operation("bad", WriteFiles(bad)), operation("good", WriteFiles(good)))
    assert statuses(report) == {"bad": "failed", "good": "done"}
    assert "gone" in report.failed[0].message
    assert set(engine.volumes) == {"shop_b_config_1"}


def test_a_build_whose_files_have_gone_is_a_failure_with_their_name(tmp_path: Any) -> None:
    """The same holds for the files that an image is built from."""
    image = Image("thing:1", "build", FileSet((FileSpec("Dockerfile", source=tmp_path / "gone"),)))
    assert "gone" in run(an_engine(), operation("image", ProvideImage(image))).failed[0].message


def test_a_fault_of_ours_is_raised_and_nothing_more_begins() -> None:
    """What is no refusal of the engine is not swallowed."""
    engine = an_engine()

    def broken(name: str, args: tuple[Any, ...]) -> bool:
        raise ZeroDivisionError

    engine.fail_on(broken)
    with pytest.raises(ZeroDivisionError):
        run(engine, operation("a", volume("a")), operation("b", volume("b"), ["a"]))


def test_an_engine_that_goes_ends_the_work_with_one_message() -> None:
    """What has not begun doesn't begin, nothing is tried on an engine that isn't there, and the error says what to do."""
    engine, events = Going(), list[Event]()
    engine.parallel = 1
    with pytest.raises(EngineUnavailable, match=r"no engine answers; it did before(?s:.*)then `up` goes on"):
        run(
            engine,
            operation("a", volume("a")),
            operation("gone", volume("gone"), ["a"], undo=(RemoveContainer("x"), StartContainer("y"))),
            operation("b", volume("b"), ["a"]),
            operation("c", volume("c"), ["gone"]),
            events=events,
        )
    assert set(engine.volumes) == {"a"}
    assert engine.asked == ["create_volume", "remove"], "of an undo the first step alone"
    assert [e.operation.id for e in events if e.status == "failed"] == ["gone"]


class Going(MemoryEngine):
    """An engine that is there until it's asked for the volume `gone`; `asked` is what it was asked from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def called(self, name: str, args: tuple[Any, ...], *, writes: bool) -> None:
        if self.asked or args == ("gone", {}):
            self.asked.append(name)
            raise EngineUnavailable("no engine answers", hint="start it")
        super().called(name, args, writes=writes)


# Interrupts


def test_an_interrupt_stops_what_has_not_begun() -> None:
    """On Ctrl-C what is under way ends, nothing more begins, and the interrupt goes on to the caller."""
    engine = an_engine()
    engine.parallel = 2
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)
        if event.operation.id == "v0" and event.status == "started":
            raise_in_main.set()

    raise_in_main = threading.Event()
    executor = Executor(engine, {}, report, lambda _: None, 5)
    chain = [operation("v0", WaitReady("never", READY))] + [operation(f"v{i}", volume(f"v{i}"), ["v0"]) for i in (1, 2)]
    engine.create(create("never"))
    interrupted = Interrupting(raise_in_main)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            executor.run(Plan("shop", tuple(chain)))
    assert executor.stopping.is_set()
    assert not engine.volumes
    assert {e.operation.id for e in events} == {"v0"}


class Interrupting:
    """Ctrl-C while the executor waits for the first time."""

    def __init__(self, begun: threading.Event) -> None:
        self.begun, self.wait, self.hit = begun, execution.wait, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.hit:
            self.hit = True
            self.begun.wait(5)
            raise KeyboardInterrupt
        return self.wait(*args, **kwargs)


# What is told


def test_each_operation_is_told_from_its_start_to_its_end() -> None:
    """An event for the start, one for the end, with the failure's words."""
    engine, events = an_engine(), list[Event]()
    engine.fail_on(lambda name, args: args[0] == "bad")
    run(engine, operation("good", volume("good")), operation("bad", volume("bad"), ["good"]), events=events)
    assert [(e.operation.id, e.status) for e in events] == [
        ("good", "started"),
        ("good", "done"),
        ("bad", "started"),
        ("bad", "failed"),
    ]
    assert "create_volume" in events[-1].detail


def test_an_actions_values_reach_the_engine() -> None:
    """A network is made with the values of its action: the executor adds none of its own."""
    engine = an_engine()
    wanted = CreateNetwork("shop_a", "10.1.0.0/28", internal=False, masquerade=True, labels=(("k", "v"),))
    assert run(engine, operation("network", wanted)).ok
    made = engine.networks["shop_a"]
    assert (made.subnet, made.internal, made.masquerade, made.labels) == ("10.1.0.0/28", False, True, {"k": "v"})


def test_a_name_that_is_taken_is_told_as_the_engine_says_it() -> None:
    """The message of a failed operation is the engine's own."""
    engine = an_engine(None, "one")
    report = run(engine, operation("create", create("one")))
    with pytest.raises(OperationFailed) as raised:
        engine.create(create("one"))
    assert report.failed[0].message == str(raised.value)


def test_a_name_is_given_once() -> None:
    """A container that has its name stays on the network: requests may be under way there."""
    engine = an_engine(None)
    engine.create_network(CreateNetwork("net", "10.9.0.0/28", True, False, ()))
    engine.create(CreateContainer("shop-a-2", 2, container("shop", "a"), ("net",), (), nameless=("net",)))
    for _ in range(2):
        assert run(engine, operation("name", NameOnNetwork("shop-a-2", "net", "a"))).ok
        assert engine.state("shop-a-2").names == {"net": ("a",)}
    assert [name for name, _ in engine.writes if name in ("connect", "disconnect")] == ["disconnect", "connect"]
