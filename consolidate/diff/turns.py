"""Volumes of files that somebody has edited are not written to: the same files go into a new one. Pure.

The old container reads the old volume until the new one is ready, so that none ever reads half a configuration. The new
volume has the old one's name and a number, which is part of what is desired as soon as a container has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import Container, Desired, DesiredServer
from consolidate.diff.drift import Drift
from consolidate.observed import Observed


def as_found(desired: Desired, observed: Observed, drifts: Mapping[str, Drift]) -> Desired:
    """With the volumes of files that servers have in place of others, and further ones for those that were edited."""
    names: dict[str, int] = {}
    for volume in observed.filled:
        first, turn = naming.turn_of(volume)
        if turn:
            names[first] = max(turn, names.get(first, 0))
    for drift in drifts.values():
        for volume in drift.edited:
            first, turn = naming.turn_of(volume)
            names[first] = turn + 1
    if not names:
        return desired
    servers = {n: _turned(s, names) if s.files else s for n, s in desired.servers.items()}
    return replace(desired, servers=servers)


def _turned(server: DesiredServer, names: Mapping[str, int]) -> DesiredServer:
    turned = {f.name: naming.turned(f.name, names[f.name]) for f in server.files if f.name in names}
    if not turned:
        return server

    def mounted(container: Container) -> Container:
        return replace(
            container, mounts=tuple(replace(m, volume=turned.get(m.volume, m.volume)) for m in container.mounts)
        )

    return replace(
        server,
        container=mounted(server.container),
        files=tuple(replace(f, name=turned.get(f.name, f.name)) for f in server.files),
        trial=replace(server.trial, container=mounted(server.trial.container)) if server.trial else None,
    )
