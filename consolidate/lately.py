"""When each server's data was last saved, and last seen to come back: labels of helpers that never start. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from consolidate import naming
from consolidate.observed import Observed

SAVED, DRILLED = "saved", "drilled"  # roles of helpers: each has the times of all servers
KEPT = (SAVED, DRILLED)


def times(observed: Observed, role: str) -> dict[str, datetime]:
    """When each server was last saved, or drilled; nothing for one that never was, or whose data is newer than that."""
    helper = observed.helper(naming.helper(observed.stack, "", role))
    try:
        found = msgspec.json.decode(helper.labels.get(naming.TIMES, "{}") if helper else "{}", type=dict[str, datetime])
    except msgspec.DecodeError:
        return {}
    since = _since(observed)
    return {
        server: when for server, when in found.items() if when.tzinfo is not None and when >= since.get(server, when)
    }


def _since(observed: Observed) -> dict[str, datetime]:
    """When the data of each server began: the run that made its newest volume. The engine's own time of a volume is that of
    its folder's last change."""
    found: dict[str, datetime] = {}
    for volume in observed.volumes:
        if volume.labels.get(naming.ROLE) == "data" and (run := volume.labels.get(naming.RUN)):
            with contextlib.suppress(ValueError):
                made, server = datetime.fromisoformat(run).replace(microsecond=0), volume.labels.get(naming.OF, "")
                if made.tzinfo is not None:  # the times of servers are whole seconds, too
                    found[server] = max(made, found.get(server, made))
    return found


def labels(observed: Observed, role: str, servers: Iterable[str], when: datetime) -> Mapping[str, str]:
    """The labels of the helper once that has been done with these servers; what it has of others stays."""
    told = {**times(observed, role), **dict.fromkeys(servers, when)}
    text = {server: at.isoformat(timespec="seconds") for server, at in sorted(told.items())}
    return {naming.STACK: observed.stack, naming.HELPER: role, naming.TIMES: msgspec.json.encode(text).decode()}


def with_data(observed: Observed) -> frozenset[str]:
    """The servers that there is data of."""
    return frozenset(v.labels.get(naming.OF, "") for v in observed.volumes if v.labels.get(naming.ROLE) == "data")
