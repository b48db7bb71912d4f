"""A plan: operations as values, in an order that their needs give. It says all that will happen, and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

from consolidate.actions import Action

Impact = Literal["none", "reload", "rolling", "restart"]


class FieldChange(Struct, frozen=True):
    """A field of a server that differs, None where it is new or gone; long values and secrets only as a hash of theirs."""

    field: str
    old: str | None
    new: str | None


class Operation(Struct, frozen=True):
    """One act on the engine.

    `needs` are ids of operations that must have succeeded; `after` ids that must have ended, however. When it fails,
    `undo` is done, in order. `downtime` is a sentence about what the server's users notice. `changes` are the fields
    that `reason` tells of.
    """

    id: str
    action: Action
    server: str
    reason: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    impact: Impact = "none"
    downtime: str = ""
    undo: tuple[Action, ...] = ()
    changes: tuple[FieldChange, ...] = ()

    @property
    def verb(self) -> str:
        return self.action.verb

    def to_json(self) -> dict[str, Any]:
        """The row that others build on; keys are stable."""
        return {
            "id": self.id,
            "action": self.verb,
            "server": self.server,
            "reason": self.reason,
            "impact": self.impact,
            "downtime": self.downtime,
            "needs": list(self.needs),
            "fields": [asdict(c) for c in self.changes],
        }


class Plan(Struct, frozen=True):
    """Operations, and notes for the reader: what is kept, what is loosened, what to know."""

    stack: str
    operations: tuple[Operation, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.operations)

    def only(self, ids: Iterable[str]) -> Plan:
        """These operations alone; what they need of the others counts as done."""
        chosen = set(ids)
        return Plan(self.stack, tuple(o for o in self.operations if o.id in chosen), self.notes)

    def to_json(self) -> dict[str, Any]:
        return {"stack": self.stack, "changes": [o.to_json() for o in self.operations], "notes": list(self.notes)}
