"""The walk of the verbs that work on a repository: opened in a session, and a backup made. Under the stack's lock."""

from __future__ import annotations

import contextlib
import secrets as random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from consolidate import __version__, lately, naming, process, snapshots, vault
from consolidate.actions import CreateNetwork
from consolidate.backup import plans
from consolidate.backup.access import Given, credentials, unproven
from consolidate.backup.files import stack_files
from consolidate.desire.content import restic_image
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed, UsageError
from consolidate.execute import restic
from consolidate.execute.reaching import WrongPassphrase, wrong_passphrase
from consolidate.observed import Observed
from consolidate.pipeline import Prepared, check_servers, prepare
from consolidate.plan import Plan
from consolidate.report import Report
from consolidate.resolved import Backups
from consolidate.runner import Runner, who
from consolidate.secret import Secret, SecretRecord
from consolidate.source import Source, ask
from consolidate.store import save_secrets


class Done(Struct, frozen=True):
    """A backup that was made."""

    backup: str
    servers: tuple[str, ...]
    seconds: float
    new_passphrase: bool = False  # the repository had no backup that was asked for: nobody has been told of it yet


def succeeded(report: Report) -> Report:
    """Raises OperationFailed for the first operation that failed, or was left out."""
    for outcome in (*report.failed, *report.skipped):
        raise OperationFailed(f"{outcome.operation.id}: {outcome.message}", log=outcome.log)
    return report


def passphrase(
    prepared: Prepared, given: Given | None = None, *, new: bool = False
) -> tuple[Mapping[str, SecretRecord], bool]:
    """The secrets with what opens the repository, its passphrase and credentials: what is `given`, the stack file's, or the
    store's; and whether the repository, too, may be `new`: none was made with the passphrase before.

    The passphrase that has made it counts until it has been changed, whatever the stack file says by now. Raises UsageError
    where there is none and none is to be made, or a credential is missing.
    """
    resolved, now = prepared.resolved, datetime.now(UTC)
    stored = credentials(prepared, given, now)
    spec, known = resolved.backups.passphrase, stored.get(naming.PASSPHRASE)
    if given is not None and given.passphrase is not None:
        return {**stored, naming.PASSPHRASE: vault.record(naming.PASSPHRASE, Secret(given.passphrase), now)}, False
    if known is None and spec.source is None and not new:
        hint = "give the one that it was made with: --passphrase-file FILE; `consolidate backup` makes both where there is none"
        raise UsageError("the engine does not have the passphrase of the repository", hint=hint)
    if known is not None and known.opens == resolved.backups.repository:
        return stored, False
    records = vault.settle({naming.PASSPHRASE: spec}, stored, now, vault.read_source(resolved, lambda _: None))
    if known is not None and records[naming.PASSPHRASE] is not known:
        records[naming.PASSPHRASE] = replace(records[naming.PASSPHRASE], opens=known.opens)
    return records, new


def made(records: Mapping[str, SecretRecord], repository: str) -> dict[str, SecretRecord]:
    """The secrets once a repository has been made: where that is missing from then on, its disk is."""
    return {**records, naming.PASSPHRASE: replace(records[naming.PASSPHRASE], opens=repository)}


@contextlib.contextmanager
def opened(
    engine: Engine,
    run: Callable[[Plan], Report],
    observed: Observed,
    backups: Backups,
    volumes: Iterable[tuple[str, str]] = (),
    *,
    new: bool = False,
    writes: bool = False,
    alone: bool = False,
) -> Iterator[str]:
    """A session by its name, which ends with the block; `alone` with the repository under the lock of its stack.

    Raises OperationFailed where it can't be opened.
    """
    session = naming.helper(observed.stack, "", f"backup.{random.token_hex(3)}")
    image, me = restic_image(), process.identity()
    plan = plans.open_plan(observed, image, session, backups, volumes, me, new=new, writes=writes, alone=alone)
    try:
        succeeded(run(plan))
        yield session
    except WrongPassphrase:
        raise wrong_passphrase(backups.repository) from None
    finally:
        with contextlib.suppress(ConsolidateError):
            engine.remove(session)
            for network in (o.action.name for o in plan.operations if isinstance(o.action, CreateNetwork)):
                engine.remove_network(network)


def leftovers(engine: Engine, observed: Observed) -> None:
    """What runs that were killed have left: sessions go, and who still stands still goes on.

    Under the stack's lock nobody else has such that matter.
    """
    for container in observed.containers:
        if container.helper == "freeze":
            engine.stop(container.name, None)  # killed, it would leave them as they are
        if container.helper in ("backup", "freeze"):
            engine.remove(container.name)
    for network in plans.session_networks(observed):
        engine.remove_network(network.name)


def fresh(source: Source, engine: Engine, *, restoring: bool = False) -> Prepared:
    """The stack and the engine, from the files: what is remembered doesn't know which they are."""
    return prepare(source, engine, asked=ask(source, engine, afresh=True), restoring=restoring)


def back_up(
    source: Source,
    runner: Runner,
    prepared: Prepared,
    servers: Sequence[str],
    show: Callable[[Plan], None],
    *,
    reason: str = snapshots.ASKED,
    given: Given | None = None,
) -> tuple[Report, Done]:
    """Save servers, all for none, with what belongs to the same moment. To be called under the stack's lock.

    What is `given` and opens the repository is the stack's from then on. Raises UsageError where there is no
    data, and OperationFailed.
    """
    from consolidate.backup import keys

    engine, desired, observed = runner.engine, prepared.desired, prepared.observed
    check_servers(desired.resolved, servers)
    units = plans.Units(desired, observed)
    groups = units.of(servers)
    if not groups:
        what = f"{', '.join(servers) or desired.stack} has no data to save"
        raise UsageError(what, hint="`consolidate up` makes its volumes" if not servers else "")
    leftovers(engine, observed)
    prepared = keys.up_to_date(runner, prepared, given)
    records, is_new = passphrase(prepared, given, new=True)
    if (known := unproven(records, prepared.secrets, given)) != prepared.secrets:
        save_secrets(engine, desired.stack, known)
    begun = datetime.now(UTC)
    run = f"{begun:%Y%m%dT%H%M%S}-{random.token_hex(2)}"
    manifest = plans.manifest_of(
        desired, observed, units, groups, file=source.file.name, run=run, by=who(), now=begun, program=__version__
    )
    executor = runner.executor(records)
    backups = (given or Given()).on(desired.resolved.backups)
    volumes = plans.mounts(units, groups)
    with opened(engine, executor.run, observed, backups, volumes, new=is_new, alone=True) as session:
        rows = restic.snapshots(engine, session)
        if is_new or known != records:
            save_secrets(engine, desired.stack, made(records, backups.repository))
        first = not snapshots.asked_for(snapshots.runs_of(rows))
        plan = plans.save_plan(
            units, groups, manifest, session, stack_files(source, desired.resolved), rows, backups.keep, reason
        )
        show(plan)
        report = executor.run(plan)
    if report.ok and reason != snapshots.SAFETY:
        note(runner, desired.stack, lately.SAVED, manifest.parts, begun)
    seconds = (datetime.now(UTC) - begun).total_seconds()
    return report, Done(run, tuple(sorted(manifest.parts)), round(seconds, 1), first)


def note(
    runner: Runner, stack: str, role: str, servers: Iterable[str], when: datetime, known: datetime | None = None
) -> None:
    """Leave word on the engine, if there is anything of the stack, of when these servers were last saved or drilled.

    That has succeeded, whatever becomes of the word.
    """
    with afterwards(runner.tell, f"`consolidate ps` doesn't tell that this was {role}"):
        observed = runner.engine.observe(stack)
        if lately.with_data(observed) or observed.containers:
            labels = lately.labels(observed, role, servers, when, known)
            runner.engine.create_helper(naming.helper(stack, "", role), labels, {})


@contextlib.contextmanager
def afterwards(tell: Callable[[str], None], lacking: str) -> Iterator[None]:
    """What is still to be said of something that has succeeded: where that fails it is told what is `lacking`, as a warning."""
    try:
        yield
    except ConsolidateError as error:
        tell(f"warning: all is done, but {lacking}: {error.what}")
