"""What a repository holds: listed, checked, found and read. `list` and `files` hold no lock of the stack's."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from consolidate import naming, process, snapshots, vault
from consolidate.backup import plans
from consolidate.backup.access import Given, alone_with
from consolidate.backup.work import opened, passphrase
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed, UsageError
from consolidate.execute import restic
from consolidate.observed import Observed
from consolidate.pipeline import Prepared
from consolidate.runner import Runner
from consolidate.secret import SecretRecord
from consolidate.snapshots import Manifest

NOBODY = "no.stack"  # whose a session is that only looks: no stack has such a name, and nobody's `up` removes it
STARTING = 3600  # seconds after which a session that was made, and not started, has been left; clocks may differ


class Checked(Struct, frozen=True):
    """A repository in which nothing is damaged, and how many whole backups it has."""

    repository: str
    backups: int


def rows_of(runs: Iterable[snapshots.Run], now: datetime) -> list[dict[str, Any]]:
    """Backups for people to look at, the newest first."""
    return [
        {
            "backup": run.run,
            "when": run.when.isoformat(timespec="seconds"),
            "age": snapshots.age(now, run.when),
            "stack": run.stack,
            "servers": list(run.servers),
            "reason": run.reason,
            "state": "whole" if run.whole else "not whole",
        }
        for run in runs
    ]


def listed(runner: Runner, prepared: Prepared, given: Given) -> list[dict[str, Any]]:
    """What the repository holds. Raises UsageError and OperationFailed."""
    records, _ = passphrase(prepared, given)
    run, observed = runner.executor(records).run, nobodys(runner.engine)
    with opened(runner.engine, run, observed, given.on(prepared.resolved.backups)) as session:
        return rows_of(snapshots.runs_of(restic.snapshots(runner.engine, session)), datetime.now(UTC))


def checked(runner: Runner, prepared: Prepared, given: Given, tell: Callable[[str], None]) -> Checked:
    """Read all that the repository holds, which may take long: how far it is, is told.

    Raises OperationFailed with what restic says of what is damaged.
    """
    records, _ = passphrase(prepared, given)
    run = runner.executor(records).run
    backups = given.on(prepared.resolved.backups)
    with opened(runner.engine, run, prepared.observed, backups, alone=True) as session:
        runs = snapshots.runs_of(restic.snapshots(runner.engine, session))
        tell(f"reading all of {backups.repository}, which may take long")
        restic.check(runner.engine, session, backups.repository, tell)
    return Checked(backups.repository, sum(r.whole for r in runs))


def nobodys(engine: Engine) -> Observed:
    """The engine, for a session that only looks. What killed ones have left goes, once it has ended by itself; one that
    somebody is just about to start stays."""
    observed, starting = engine.observe(NOBODY), datetime.now(UTC).timestamp() - STARTING
    for container in observed.containers:
        left = container.state != "created" or container.created < starting
        if container.helper == "backup" and not container.alive and left:
            with contextlib.suppress(ConsolidateError):  # another one is as quick
                engine.remove(container.name)
    for network in plans.session_networks(observed):
        if process.fate(network.labels.get(naming.PROCESS, "")) == "ended":
            with contextlib.suppress(ConsolidateError):  # its session may still run; it ends by itself
                engine.remove_network(network.name)
    return observed


def read(engine: Engine, session: str, run: snapshots.Run) -> tuple[Manifest, Mapping[str, SecretRecord]]:
    """A backup's manifest and its secrets.

    Raises OperationFailed where they are damaged.
    """
    packed = io.BytesIO(b"".join(restic.dumped(engine, session, run.manifest, restic.PRIVATE, restic.LOOK)))
    try:
        with tarfile.open(fileobj=packed) as tar:
            found = {PurePosixPath(m.name).name: tar.extractfile(m) for m in tar.getmembers() if m.isfile()}
            texts = [file.read().decode() for n in restic.TOLD if (file := found.get(n))]
        manifest, secrets = texts
        return snapshots.decode(manifest), vault.parse(secrets)
    except (ValueError, KeyError, tarfile.TarError) as error:
        raise OperationFailed(f"the manifest of the backup {run.run} can't be read: {error}") from None


def find(
    engine: Engine,
    session: str,
    name: str,
    servers: Sequence[str] = (),
    stack: Collection[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> snapshots.Run:
    """The backup that is meant; the `latest` is that of all of `servers`, or where none are named of the `stack`, which are
    those that have data today.

    It is told which of these a backup lacks, and what is newer than the one that is meant. Raises UsageError.
    """
    runs = snapshots.runs_of(restic.snapshots(engine, session))
    if name == "latest":
        held = {s for r in runs for s in r.servers}
        if none := sorted(set(servers) - held):
            hint = f"it has data of: {', '.join(sorted(held)) or 'nobody'}"
            raise UsageError(f"the repository has no backup of {', '.join(none)}", hint=hint)
        runs = [r for r in runs if set(servers) <= set(r.servers)]
    try:
        found = snapshots.chosen(runs, name, servers or stack)
    except LookupError as error:
        raise UsageError(str(error), hint="`consolidate backup list` lists them") from None
    if servers:
        return found
    if name == "latest" and (newest := snapshots.chosen(runs, name)) != found:
        tell(f"note: the backup {newest.run} is newer, and has the data of {', '.join(newest.servers)} only")
    lacking = snapshots.lacking(runs, found, stack)
    if lacking:
        others = ", ".join(f"{run} has that of {server}" for server, run in lacking.items())
        tell(f"warning: the backup {found.run} has no data of {', '.join(lacking)}; {others}")
    return found


@contextlib.contextmanager
def stored_files(
    runner: Runner, name: str, repository: str, given: Given
) -> Iterator[tuple[Manifest, Iterator[bytes]]]:
    """A backup's manifest, and the stack's files as a tar archive, of a repository of which nothing else is known.

    Raises UsageError and OperationFailed.
    """
    backups, records = alone_with(repository, given)
    engine, observed = runner.engine, nobodys(runner.engine)
    with opened(engine, runner.executor(records).run, observed, backups) as session:
        found = find(engine, session, name)
        manifest, _ = read(engine, session, found)
        yield manifest, restic.stack_files(engine, session, found.manifest)
