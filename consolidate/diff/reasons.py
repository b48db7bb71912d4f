"""Why a container is replaced: the fields that differ, and the same in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from consolidate import naming
from consolidate.desired import HASHED, DesiredServer
from consolidate.observed import ObservedContainer
from consolidate.plan import FieldChange


def changes(server: DesiredServer, current: ObservedContainer | None) -> tuple[FieldChange, ...]:
    """The fields in which the server differs from the container that it has; its label tells those that it was made of."""
    if current is None:
        return ()
    try:
        old: Mapping[str, str] = json.loads(current.labels.get(naming.PARTS, "{}"))
    except ValueError:
        old = {}
    new = server.parts
    fields = [f for f in dict.fromkeys((*new, *sorted(old))) if old.get(f) != new.get(f)]
    return tuple(FieldChange(f, old.get(f), new.get(f)) for f in fields)


def why(
    server: DesiredServer, current: ObservedContainer | None, lost: Sequence[str], changed: Sequence[FieldChange]
) -> str:
    """The reason in words: that the container is not there, what it `lost`, or what of it `changed`."""
    if current is None:
        return "not there yet"
    if lost:
        return f"a volume of it was lost: {', '.join(lost)}"
    told = [in_words(c) for c in changed]
    if server.networks and current.alone:
        told.append("it had no network yet")
    return "; ".join(told) or "how its container is made changed"


def by_hand(changed: Sequence[FieldChange]) -> str:
    return f"changed by hand: {'; '.join(map(in_words, changed))}"


def in_words(change: FieldChange) -> str:
    if change.old is None:
        return f"{change.field} added"
    if change.new is None:
        return f"{change.field} removed"
    if HASHED in (change.old[: len(HASHED)], change.new[: len(HASHED)]):
        return f"{change.field} changed"
    return f"{change.field} {_plain(change.old)} → {_plain(change.new)}"


def _plain(value: str) -> str:
    return value if value.isprintable() else json.dumps(value)
