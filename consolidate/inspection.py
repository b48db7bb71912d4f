"""A closer look at servers: how their containers are made, and what is in their volumes of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from consolidate import naming
from consolidate.desired import WRITE_PATH, Desired, DesiredServer
from consolidate.diff.drift import Drift, Look, drift_of, made_right
from consolidate.diff.turns import as_found
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.observed import Observed, ObservedContainer, ObservedFile
from consolidate.secret import SecretRecord


def drifts(
    engine: Engine, desired: Desired, observed: Observed, secrets: Mapping[str, SecretRecord]
) -> dict[str, Drift]:
    """What was changed by hand of each server.

    Two calls for a server and one for each of its volumes of files, at most `engine.parallel` at once.
    """

    helpers: dict[str, list[ObservedContainer]] = {}
    for container in observed.containers:
        if container.helper in ("generation", "live"):
            helpers.setdefault(container.labels.get(naming.OF, ""), []).append(container)

    def look(server: DesiredServer) -> Drift:
        right = next(iter(made_right(server, observed)), None)
        details = engine.details(right.name) if right else None
        places = _places(server, observed.of_server(server.server.name), helpers.get(server.server.name, []))
        files = {v: _files(engine, *place) for v, place in places.items()}
        seen = Look(right, details, files)
        return drift_of(server, seen, observed.host.cpus, lambda address: secrets[address].value.reveal())

    with ThreadPoolExecutor(engine.parallel, thread_name_prefix="look") as pool:
        asked = {n: pool.submit(look, server) for n, server in as_found(desired, observed, {}).servers.items()}
    return {n: drift for n, answer in asked.items() if (drift := answer.result())}


def _places(
    server: DesiredServer, containers: Sequence[ObservedContainer], helpers: Sequence[ObservedContainer]
) -> dict[str, tuple[str, str]]:
    """Where the volumes of files that a server has, or would be given again, can be looked into: container and path."""
    places = {}
    ours = {f.name for f in server.files} | ({server.live.volume} if server.live else set())
    for mount in server.container.mounts:
        if mount.volume in ours:
            holders = [(c.name, mount.target) for c in containers if mount.volume in c.volumes]
            for helper in helpers:  # a record holds the volumes of a generation, another one the live files alone
                below = f"/{mount.volume}" if helper.helper == "generation" else ""
                holders += [(helper.name, WRITE_PATH + below)] if mount.volume in helper.volumes else []
            if holders:
                places[mount.volume] = holders[0]
    return places


def _files(engine: Engine, container: str, path: str) -> Mapping[str, ObservedFile] | None:
    try:
        return engine.files(container, path)
    except OperationFailed:
        return None  # it has no such path
