"""A drill: a backup brought back into a stack of another name, compared with what it says, and taken away again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from consolidate import lately, naming, vault
from consolidate.backup import proofs, returning
from consolidate.backup.access import Given
from consolidate.backup.comparing import Comparison, failed, folders_of
from consolidate.backup.files import FROM_COMMAND_LINE, extract, scratch
from consolidate.backup.proofs import Check, Drilled, Step
from consolidate.backup.reading import find, read
from consolidate.backup.restore import NOT_OURS
from consolidate.backup.returning import Return
from consolidate.backup.work import note, opened, passphrase
from consolidate.desire import desire
from consolidate.desired import Desired
from consolidate.diff import diff
from consolidate.errors import EngineUnavailable, OperationFailed, StackInvalid, UsageError
from consolidate.execute import Executor, proving, restic
from consolidate.execute.commands import free_disk
from consolidate.execute.proving import File, Pruned
from consolidate.lifecycle import down_plan
from consolidate.pipeline import Prepared, check_servers, narrowed
from consolidate.plan import Plan
from consolidate.report import Report
from consolidate.resolved import Backups
from consolidate.runner import Runner
from consolidate.secret import SecretRecord
from consolidate.snapshots import Manifest
from consolidate.source import Source, ask, load_stack, resolve_document, with_lock
from consolidate.store import read_secrets

TRIES = 3  # where a backup removes what is being read
ROUNDS = 3  # to remove what is there; what was under way as somebody interrupted may still make something
FEWER = "`-s SERVER` drills some at a time, with those that they need; `-H` names another engine"


class Unproved(Exception):
    """It can't go on; what was found until now says why."""


class Drill:
    """One drill of a backup in the repository of `origin`. The stack itself is neither touched nor needed."""

    def __init__(self, origin: Source, runner: Runner) -> None:
        self.origin, self.runner, self.engine = origin, runner, runner.engine
        self._forget()
        self.real = self.stack = ""
        self.servers: Sequence[str] = ()  # that have data in the stack as it is now
        self.backups: Backups | None = None
        self.secrets: Mapping[str, SecretRecord] = {}
        self.last_try = False

    def _forget(self) -> None:
        """What was found until now."""
        self.checks: list[Check] = []
        self.steps: list[Step] = []
        self.ready: set[str] = set()
        self.stored: dict[str, dict[str, File]] = {}  # the files of each snapshot

    def run(self, name: str, servers: Sequence[str], given: Given, patience: float = 0.0) -> Drilled:
        """Drill the backup `name`; what was made for it is gone afterwards, however it ends.

        Raises UsageError, Locked once another drill has been there for `patience` seconds, and OperationFailed where it can't
        begin, or where something of it can't be removed.
        """
        prepared = self._prepared()
        records, _ = passphrase(prepared, given)
        self.secrets = {a: r for a, r in records.items() if a in vault.OF_BACKUPS}
        self.real, self.backups = prepared.resolved.name, given.on(prepared.resolved.backups)
        self.servers = tuple(n for n, s in prepared.resolved.servers.items() if s.source.recipe.volumes)
        self.stack = naming.drill(self.real)
        interrupted = False
        with self.runner.locked(self.stack, patience):
            try:
                found = self._tried(name, servers)
                if found.proved:  # under the lock: another drill leaves its word in the same place
                    note(self.runner, self.real, lately.DRILLED, found.servers, datetime.now(UTC))
            except KeyboardInterrupt:  # its lock would stay, too
                interrupted = True
            finally:
                self._clear()
        if interrupted:
            self.runner.tell("the drill was interrupted, and nothing of it is left")
            raise KeyboardInterrupt
        return found

    def _tried(self, name: str, servers: Sequence[str]) -> Drilled:
        """Drill, and again where a backup has taken away what was being read; `latest` may be another one then.

        The last try ends with what it has found: a backup that removes older ones each time must not hide what is wrong.
        """
        for left in reversed(range(TRIES)):
            self.last_try = not left
            self._clear()  # what one has left that was killed, or the try before
            self._forget()
            try:
                return self._drill(name, servers)
            except Pruned as error:
                self.runner.tell(f"{error.what}: it begins again")
        raise AssertionError("the last try ends it")

    def _beside_backups(self, session: str, *also: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Raises Pruned, but in the last try: there what went wrong is raised as it is, and a warning tells of the rest."""
        tell = self.runner.tell if self.last_try else None
        return proving.beside_backups(self.engine, session, *also, last=tell)

    def _prepared(self) -> Prepared:
        """The stack as far as it leads to its repository: whether the host could carry it does not matter here."""
        asked = ask(self.origin, self.engine, afresh=True)
        resolved, observed = resolve_document(self.origin, asked.read()), asked.answer.result()
        desired = Desired(resolved.name, resolved, (), (), {}, ())
        return Prepared(resolved, desired, observed, read_secrets(self.engine, observed), {})

    def _repository(self) -> Backups:
        assert self.backups is not None, "it is known from the start"
        return self.backups

    def _executor(self) -> Executor:
        executor = self.runner.executor(self.secrets)
        executor.stamp = {**executor.stamp, naming.DRILL: self.real}
        return executor

    def _clear(self) -> None:
        """Remove all that is there of the drill. Raises OperationFailed with what stays."""
        for _ in range(ROUNDS):
            plan = proofs.at_once(down_plan(self.engine.observe(self.stack), volumes=True))
            if not plan:
                return
            report = Executor(self.engine, {}, lambda _: None, lambda _: None).run(plan)
        left = ", ".join(o.operation.id.partition(":")[2] for o in report.outcomes if o.status != "done")
        if left:
            hint = "the next drill removes it; docker ps --all, docker network ls and docker volume ls show it"
            raise OperationFailed(f"not all that the drill made could be removed: {left}", hint=hint)

    @contextlib.contextmanager
    def _step(self, what: str, servers: Sequence[str] = ()) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.steps.append(Step(what, tuple(servers), round(time.monotonic() - begun, 2)))

    def _drill(self, name: str, servers: Sequence[str]) -> Drilled:
        with scratch() as folder:
            observed = self.engine.observe(self.stack)
            reading = opened(self.engine, self._executor().run, observed, self._repository())
            with reading as session, self._beside_backups(session):
                with self._step("read the manifest and the stack's files"):
                    backup = find(self.engine, session, name, servers, self.servers, self.runner.tell)
                    manifest, secrets = read(self.engine, session, backup)
                    extract(restic.stack_files(self.engine, session, backup.manifest), folder / "stack")
                desired = self._desired(folder / "stack", manifest, secrets)
                check_servers(desired.resolved, servers)
                asked = proofs.needed(desired, manifest, servers)
                wanted = returning.returned(backup, manifest, desired, asked)
                plan = self._plan(desired, wanted.servers if servers else ())
                self._check_room(session, wanted, plan)
            try:
                self._bring(desired, wanted, plan, wanted.servers if servers else ())
            except (EngineUnavailable, Pruned):
                raise
            except OperationFailed as error:
                self.checks.append(failed(error, self.secrets, "", "restore"))
            except Unproved:
                pass
        return proofs.drilled(self.real, backup.run, manifest.began, wanted.servers, self.checks, self.steps)

    def _desired(self, folder: Path, manifest: Manifest, secrets: Mapping[str, SecretRecord]) -> Desired:
        """The stack as its backup has it: with its files, and with its secrets alone, wherever they came from then."""
        given = sorted(folder.glob(f"{FROM_COMMAND_LINE}.[0-9]*/*"), key=lambda p: int(p.parent.suffix[1:]))
        source = Source(folder / manifest.file, manifest.environment, tuple(given))
        try:
            resolved = proofs.secluded(load_stack(source), self.stack)
            kept = {a: r for a, r in secrets.items() if a not in NOT_OURS}
            records = vault.settle(vault.needed(resolved), kept, datetime.now(UTC), lambda _: None)
            desired, _ = with_lock(source, desire(resolved, records), strict=False)
        except (StackInvalid, UsageError) as error:
            what = error.what.replace(f"{folder}/", "")
            hint = "what a stack file takes from outside of its folder has to be on this machine, as after a loss"
            raise OperationFailed(f"the stack in the backup can't be used: {what}", hint=hint) from None
        self.secrets = {**records, **{a: r for a, r in self.secrets.items() if a in vault.OF_BACKUPS}}
        return proofs.with_networks(desired, self.real)

    def _plan(self, desired: Desired, servers: Sequence[str]) -> Plan:
        """What `up` would do for these servers, all for none."""
        observed = self.engine.observe(self.stack)
        stored = naming.store_volume(self.stack) in observed.volume_names
        store = [] if stored else [r for a, r in self.secrets.items() if a not in NOT_OURS]
        try:
            return proofs.harmless(narrowed(diff(desired, observed, store), desired.resolved, servers))
        except ValueError as error:
            raise OperationFailed(str(error), hint="a drill needs as many networks as the stack has") from None

    def _check_room(self, session: str, wanted: Return, plan: Plan) -> None:
        """Raises OperationFailed where the host can't carry the drill beside what runs."""
        parts = wanted.manifest.parts
        for snapshot in {parts[s].snapshot for s in wanted.filled}:
            folders = [f for s in wanted.filled if parts[s].snapshot == snapshot for f in folders_of(wanted, s)]
            self.stored[snapshot] = proving.stored_files(self.engine, session, snapshot, folders)
        size = sum(f.size for files in self.stored.values() for f in files.values())
        memory = proofs.too_little_memory(plan, proving.free_memory(self.engine, session))
        if short := memory or proofs.too_little_disk(size, free_disk(partial(self.engine.run, session))):
            raise OperationFailed(short, hint=FEWER)

    def _bring(self, desired: Desired, wanted: Return, plan: Plan, servers: Sequence[str]) -> None:
        """Bring all back, and look at each part of it before anybody can have changed it."""
        engine, run = self.engine, self._executor().run
        found = Comparison(engine, self.stack, self.real, self.secrets, wanted)
        images = [o.id for o in plan.operations if o.id.startswith("image:")]
        if images:
            with self._step("images"):
                self._done(run(plan.only(images)))
        self._done(run(proofs.volumes_plan(desired, engine.observe(self.stack), wanted.filled)))
        observed = engine.observe(self.stack)
        mounted = returning.places(desired, observed, wanted)
        filling = opened(engine, run, observed, self._repository(), mounted, writes=True)
        with filling as session, self._beside_backups(session, Unproved):
            if wanted.filled:
                with self._step("fill the volumes", wanted.filled):
                    self._done(run(proofs.aside(returning.fill_plan(wanted, session, mounted))))
                self.checks += found.files(session, self.stored)
            if wanted.dumps:
                with self._step("start what reads dumps", wanted.dumps):
                    self._done(run(self._plan(desired, wanted.dumps)))
                with self._step("load the dumps", wanted.dumps):
                    load = returning.load_plan(desired, engine.observe(self.stack), wanted, session)
                    self._done(run(proofs.aside(load)))
                self.checks += found.dumped(session, desired)
        begun = time.monotonic()
        report = run(self._plan(desired, servers))
        self.ready |= report.ready
        names = proofs.created(plan)
        self.steps.append(Step("start all servers, until they are ready", names, round(time.monotonic() - begun, 2)))
        self.checks += proofs.ready_checks(self.ready, report, names)
        self.checks += found.stored(desired, self.stored, self.ready)
        self.checks += found.pages(desired, names, self.ready)

    def _done(self, report: Report) -> None:
        """Raises Unproved where an operation failed; what it said is kept."""
        self.ready |= report.ready
        for outcome in report.failed:  # the executor has masked it
            detail = "\n".join([outcome.message, *outcome.log])
            operation = outcome.operation
            self.checks.append(Check(operation.server, "restore", operation.id, None, None, ok=False, detail=detail))
        if not report.ok:
            raise Unproved
