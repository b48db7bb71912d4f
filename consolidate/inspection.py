"""A closer look at servers: how their containers are made, and what is in their volumes of files."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from consolidate.desired import Desired, DesiredServer
from consolidate.diff.drift import Drift, Look, drift_of, made_right, places
from consolidate.diff.turns import as_found
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.observed import Observed, ObservedContainer, ObservedFile
from consolidate.secret import SecretRecord


def drifts(
    engine: Engine, desired: Desired, observed: Observed, secrets: Mapping[str, SecretRecord]
) -> dict[str, Drift]:
    """What was changed by hand of each server that is made from what is desired; the others are replaced anyway.

    Two calls for a server and one for each of its volumes of files, at most `engine.parallel` at once.
    """
    known = {s: (d, f[0]) for s, d in as_found(desired, observed, {}).servers.items() if (f := made_right(d, observed))}

    def look(server: DesiredServer, container: ObservedContainer) -> Drift:
        files = {path: _files(engine, container.name, path) for path in places(server)}
        seen = Look(container, engine.details(container.name), files)
        return drift_of(server, seen, observed.host.cpus, lambda address: secrets[address].value.reveal())

    with ThreadPoolExecutor(engine.parallel, thread_name_prefix="look") as pool:
        asked = {server: pool.submit(look, *pair) for server, pair in known.items()}
    found = {server: answer.result() for server, answer in asked.items()}
    return {server: drift for server, drift in found.items() if drift}


def _files(engine: Engine, container: str, path: str) -> Mapping[str, ObservedFile] | None:
    try:
        return engine.files(container, path)
    except OperationFailed:
        return None  # it has no such path
