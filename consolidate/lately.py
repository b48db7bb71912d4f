"""When each server's data was last saved, and last seen to come back: labels of helpers that never start. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from consolidate import naming
from consolidate.observed import Observed

SAVED, DRILLED = "saved", "drilled"  # roles of helpers: each has the times of all servers
KEPT = (SAVED, DRILLED)


class Time(Struct, frozen=True):
    """Of which moment a backup is, or when a drill ended; and when that was `known` of the data that was there then."""

    when: datetime
    known: datetime


def times(observed: Observed, role: str) -> dict[str, datetime]:
    """When each server was last saved, or drilled; nothing for one that never was, or whose data is newer than that."""
    return {server: time.when for server, time in _known(observed, role).items()}


def _known(observed: Observed, role: str) -> dict[str, Time]:
    helper = observed.helper(naming.helper(observed.stack, "", role))
    try:
        found = msgspec.json.decode(helper.labels.get(naming.TIMES, "{}") if helper else "{}", type=dict[str, Time])
    except msgspec.DecodeError:
        return {}
    since = _since(observed)
    return {
        server: time
        for server, time in found.items()
        if time.when.tzinfo and time.known.tzinfo and time.known >= since.get(server, time.known)
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


def labels(
    observed: Observed, role: str, servers: Iterable[str], when: datetime, known: datetime | None = None
) -> Mapping[str, str]:
    """The labels of the helper once that has been done with these servers; what it has of others stays.

    What has just come back from a backup was saved `when` that was made, though it is `known` only now: its volume may be
    of today.
    """
    time = Time(when.replace(microsecond=0), (known or when).replace(microsecond=0))
    told = {**_known(observed, role), **dict.fromkeys(servers, time)}
    text = msgspec.json.encode(dict(sorted(told.items()))).decode()
    return {naming.STACK: observed.stack, naming.HELPER: role, naming.TIMES: text}


def with_data(observed: Observed) -> frozenset[str]:
    """The servers that there is data of."""
    return frozenset(v.labels.get(naming.OF, "") for v in observed.volumes if v.labels.get(naming.ROLE) == "data")
