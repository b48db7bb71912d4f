"""Why a container is replaced, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping

from consolidate import naming
from consolidate.desired import DesiredServer
from consolidate.observed import ObservedContainer


def why(server: DesiredServer, current: ObservedContainer | None, lost: list[str]) -> str:
    """What differs, in words; the parts of the old container are on its label."""
    if current is None:
        return "not there yet"
    if lost:
        return f"a volume of it was lost: {', '.join(lost)}"
    try:
        old: Mapping[str, str] = json.loads(current.labels.get(naming.REASONS, "{}"))
    except ValueError:
        old = {}
    new = server.parts
    told = []
    for part in sorted({*old, *new}):
        before, after = old.get(part), new.get(part)
        if before == after:
            continue
        if part in ("image", "memory", "cpus", "pids", "published ports"):
            told.append(f"{part} {_human(part, before)} → {_human(part, after)}")
        elif before is None or after is None:
            told.append(f"{part} {'added' if before is None else 'removed'}")
        else:
            told.append(f"{part} changed")
    if server.networks and not current.networks:
        told.append("it had no network yet")
    return "; ".join(told) or "how its container is made changed"


def _human(part: str, value: str | None) -> str:
    if part == "memory" and value and value.isdigit():
        return f"{int(value) / 2**20:g}M"
    return value or "none"
