"""Plans made by hand, and an engine for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from consolidate.actions import Action, CreateContainer, CreateVolume
from consolidate.execute import Executor
from consolidate.naming import BASE_IMAGE
from consolidate.plan import Operation, Plan
from consolidate.report import Event, Report
from consolidate.resolved import Check
from tests.contract_parts import container
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box

READY = Check(("ready",), 30.0, 5.0, 3)


def create(name: str) -> CreateContainer:
    return CreateContainer(name, 1, container("shop", name), (), ())


def volume(name: str) -> CreateVolume:
    return CreateVolume(name, ())


def operation(
    id_: str, action: Action, needs: Sequence[str] = (), undo: Sequence[Action] = (), **more: Any
) -> Operation:
    return Operation(id_, action, id_, "a test", tuple(needs), undo=tuple(undo), **more)


class Programs:
    """What runs in the containers of a test: each is ready after so many looks, or says why not."""

    def __init__(self, **looks: int) -> None:
        self.looks = looks
        self.asked: list[float] = []

    def __call__(
        self, engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None
    ) -> tuple[int, str]:
        if command == ("start",):
            return 0, ""
        self.asked.append(time.monotonic())
        self.looks[box.name] = self.looks.get(box.name, 1) - 1
        return (0, "") if self.looks[box.name] <= 0 else (1, "still loading")


def an_engine(program: Programs | None = None, *boxes: str) -> MemoryEngine:
    engine = MemoryEngine(program or Programs())
    engine.images.add(BASE_IMAGE)
    for name in boxes:
        engine.create(create(name))
        engine.start(name)
    return engine


def run(engine: MemoryEngine, *operations: Operation, events: list[Event] | None = None, timeout: float = 5) -> Report:
    told: list[Event] = [] if events is None else events
    executor = Executor(engine, {}, told.append, lambda _: None, timeout)
    return executor.run(Plan("shop", operations))


def statuses(report: Report) -> dict[str, str]:
    return {o.operation.id: o.status for o in report.outcomes}
