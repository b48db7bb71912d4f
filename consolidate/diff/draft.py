"""Operations gathered, each with what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import Action, DumpData, KeepGeneration
from consolidate.desired import Desired, DesiredServer
from consolidate.diff.drift import Drift, made_right
from consolidate.diff.images import Refresh, is_made_of
from consolidate.observed import Observed, ObservedContainer
from consolidate.plan import FieldChange, Impact, Operation, Plan
from consolidate.secret import SecretRecord


@dataclass
class Draft:
    """A plan in the making: the two sides, and the operations so far. `names` tells each replica's container after it.

    `refreshes` are images that servers shall have in place of those that they have, `pins` those that the lock has for
    them, `drifts` what was changed of them by hand. `kept` are records to come, `dumps` are dumps, both by server.
    """

    desired: Desired
    observed: Observed
    store: tuple[SecretRecord, ...]
    refreshes: Mapping[str, Refresh] = field(default_factory=dict)
    drifts: Mapping[str, Drift] = field(default_factory=dict)
    pins: Mapping[str, Refresh] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[KeepGeneration]] = field(default_factory=dict)
    dumps: dict[str, DumpData] = field(default_factory=dict)

    def add(
        self,
        id_: str,
        action: Action,
        server: str,
        reason: str,
        *,
        needs: Iterable[str] = (),
        after: Iterable[str] = (),
        impact: Impact = "none",
        downtime: str = "",
        undo: Iterable[Action] = (),
        changes: Iterable[FieldChange] = (),
    ) -> str:
        """Add an operation. It may need what is added later, and what no plan has to do any more."""
        later = tuple(dict.fromkeys(after))
        needed = tuple(dict.fromkeys(needs))
        made = (needed, later, impact, downtime, tuple(undo), tuple(changes))
        self.operations.append(Operation(id_, action, server, reason, *made))
        self.ids.add(id_)
        return id_

    def image_for(self, name: str) -> Refresh | None:
        """The image that a replica shall have, where that is not for it to keep."""
        return self.refreshes.get(name) or self.pins.get(name)

    def lost(self, server: DesiredServer) -> list[str]:
        """The volumes of a server's container that are to be made."""
        mounts = server.container.mounts
        return [m.volume for m in mounts if f"volume:{m.volume}" in self.ids or f"files:{m.volume}" in self.ids]

    def right(self, server: DesiredServer) -> ObservedContainer | None:
        """The container of a server that is as it should be, or can be made so without another in its place."""
        name = server.name
        refresh, drift = self.image_for(name), self.drifts.get(name)
        if refresh and refresh.dump:  # older data is for a container that has seen no other
            return None
        first = refresh.container if refresh else ""
        for found in sorted(made_right(server, self.observed), key=lambda c: c.name != first):
            alone = found.alone and server.networks  # made without a network: it can't join one
            if is_made_of(self.observed, found, refresh) and not alone and not (drift and drift.replaces(found)):
                return None if self.lost(server) else found
        return None

    def labels(self, server: str, role: str, **more: str) -> tuple[tuple[str, str], ...]:
        labels = {naming.STACK: self.desired.stack, naming.OF: server, naming.ROLE: role} | more
        return tuple(sorted(labels.items()))

    def plan(self) -> Plan:
        """All of it, without needs that are met already."""
        return Plan(self.desired.stack, tuple(map(self._with_met_needs, self.operations)), tuple(self.notes))

    def _with_met_needs(self, operation: Operation) -> Operation:
        """Without needs that are not in this plan: they are met already."""
        needs = tuple(n for n in operation.needs if n in self.ids)
        return replace(operation, needs=needs, after=tuple(n for n in operation.after if n in self.ids))
