"""What happened: events while a plan runs, outcomes when it has. Values only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from consolidate.actions import CreateContainer, WaitReady
from consolidate.plan import Operation, Plan

Status = Literal["started", "progress", "done", "failed", "skipped"]


def amount(size: int) -> str:
    """Bytes, for people."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


class Event(Struct, frozen=True):
    """Something about an operation under way; `time` in seconds since the epoch, `seconds` since it began.

    `away`: the server serves again, so many seconds after it was asked to stop.
    """

    time: float
    operation: Operation
    status: Status
    seconds: float
    detail: str = ""
    away: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "operation": self.operation.id,
            "server": self.operation.server,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
            "away": None if self.away is None else round(self.away, 3),
        }


class Outcome(Struct, frozen=True):
    """How an operation ended; `log` has the last lines that its program said, `undone` what took it back.

    `away`: the server serves again, so many seconds after it was asked to stop.
    """

    operation: Operation
    status: Status
    seconds: float
    message: str = ""
    log: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    away: float | None = None


class Report(Struct, frozen=True):
    """How a plan went. `back` is how all of it was taken back, where it was to be all or nothing."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    back: Report | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def skipped(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status == "skipped")

    @property
    def ready(self) -> frozenset[str]:
        """Servers that were seen to be ready."""
        ended = (o.operation for o in self.outcomes if o.status == "done")
        return frozenset(o.server for o in ended if isinstance(o.action, WaitReady))

    @property
    def replaced(self) -> frozenset[str]:
        """Servers that have a new container."""
        made = (o.operation for o in self.outcomes if o.status == "done")
        return frozenset(o.server for o in made if isinstance(o.action, CreateContainer))

    @property
    def ok(self) -> bool:
        return not self.failed and not self.skipped
