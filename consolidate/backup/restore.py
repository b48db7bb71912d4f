"""A backup brought back: into the volumes of a stack, on an engine that may be empty. Under the stack's lock."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from consolidate import lately, naming, snapshots, vault
from consolidate.backup import returning
from consolidate.backup.access import Given
from consolidate.backup.reading import find, read
from consolidate.backup.returning import Return
from consolidate.backup.work import (
    afterwards,
    back_up,
    fresh,
    leftovers,
    made,
    note,
    opened,
    passphrase,
    succeeded,
)
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, EngineUnavailable, OperationFailed
from consolidate.generations import cut_off
from consolidate.observed import Observed
from consolidate.pipeline import Prepared, prepare
from consolidate.plan import Plan
from consolidate.resolved import Backups
from consolidate.runner import Runner
from consolidate.secret import SecretRecord
from consolidate.snapshots import Manifest, Run
from consolidate.source import Source
from consolidate.store import save_secrets

NOT_OURS = {*vault.OF_BACKUPS, naming.OTHER_PASSPHRASE}  # of the backup's secrets: they open the repository of then
Confirm = Callable[[str, Sequence[str], str, str, bool], None]  # asks before data is replaced, which is whole or isn't


class Restored(Struct, frozen=True):
    """What was brought back."""

    backup: str
    servers: tuple[str, ...]
    safety: str


class Restore:
    """One restore: the backups of `origin`'s repository into the stack of `target`, often the same."""

    def __init__(self, origin: Source, target: Source, runner: Runner, show: Callable[[Plan], None]) -> None:
        self.origin, self.target, self.runner, self.show = origin, target, runner, show
        self.engine: Engine = runner.engine
        self.keys: Mapping[str, SecretRecord] = {}  # what opens the repository that is read
        self.backups: Backups | None = None

    def run(self, name: str, servers: Sequence[str], given: Given | None, confirm: Confirm) -> Restored:
        """Bring the backup `name` back.

        Raises UsageError, and OperationFailed: what was there before is then back, or the error says how to get it back.
        """
        of = fresh(self.origin, self.engine, restoring=True)
        prepared = of if self.origin == self.target else fresh(self.target, self.engine, restoring=True)
        leftovers(self.engine, prepared.observed)
        records, _ = passphrase(of, given)
        self._reads((given or Given()).on(of.resolved.backups), records)
        backup, manifest, secrets = self._find(prepared.observed, name, servers, returning.with_data(prepared.desired))
        words = cut_off(prepared.observed)
        wanted = self._wanted(backup, manifest, prepared, servers)
        lost = returning.live(prepared.desired, prepared.observed, wanted.all)
        returning.check_cut_off(prepared.observed, wanted, lost)
        for warning in returning.torn(prepared.desired, wanted):
            self.runner.tell(f"warning: {warning}")
        if lost:
            confirm(prepared.desired.stack, lost, backup.run, manifest.began, not words)
        everything = not prepared.observed.servers or any(w.labels.get(naming.EVERYTHING) for w in words.values())
        self._adopt(prepared, secrets)
        safety = self._safety(fresh(self.target, self.engine, restoring=True), lost)
        try:
            self._bring(wanted, safety, self._arguments(), everything=everything)
        except EngineUnavailable:
            raise
        except ConsolidateError as error:
            if not safety:
                raise
            raise self._taken_back(error, safety, wanted.all) from None
        if self._is_own(prepared):
            began = datetime.fromisoformat(manifest.began)
            note(self.runner, prepared.desired.stack, lately.SAVED, wanted.servers, began, datetime.now(UTC))
        with afterwards(self.runner.tell, "whether it runs with the images of then is not known"):
            if images := returning.other_images(self.engine.observe(prepared.desired.stack), wanted):
                self.runner.tell(f"note: {images}")
        return Restored(backup.run, wanted.servers, safety)

    def _wanted(self, backup: Run, manifest: Manifest, prepared: Prepared, servers: Sequence[str]) -> Return:
        """Whose data comes back: for the way back from a restore that was cut off, of that one's servers."""
        words = cut_off(prepared.observed)
        safeties = {w.labels.get(naming.SAFETY) for w in words.values()}
        if backup.run in safeties and words.keys() >= set(servers):
            return returning.taken_back(backup, manifest, prepared.desired, tuple(servers) or tuple(words))
        return returning.returned(backup, manifest, prepared.desired, servers)

    def _arguments(self) -> str:
        """The options with which the command finds the backup again, where that is in another stack's repository."""
        if self.origin == self.target:
            return ""
        options = ["-f", str(self.origin.file.resolve())]
        options += ["-e", self.origin.environment] if self.origin.environment else []
        options += [w for folder in self.origin.templates for w in ("--templates", str(folder.resolve()))]
        return shlex.join([*options, "--to", str(self.target.file.resolve())])

    def _secrets(self, prepared: Prepared) -> dict[str, SecretRecord]:
        """Those of the stack, with what opens the repository that is read."""
        return {**prepared.secrets, **self.keys}

    def _reads(self, backups: Backups, records: Mapping[str, SecretRecord]) -> None:
        """The repository, and what opens it: it has been made with that, once it has been opened."""
        self.backups = backups
        self.keys = {a: r for a, r in made(records, backups.repository).items() if a in vault.OF_BACKUPS}

    def _find(
        self, observed: Observed, name: str, servers: Sequence[str] = (), stack: Sequence[str] = ()
    ) -> tuple[Run, Manifest, Mapping[str, SecretRecord]]:
        """The backup that is meant: its manifest's snapshot, what is in that, and the secrets of then."""
        assert self.backups is not None, "it is known from the start"
        with opened(self.engine, self.runner.executor(self.keys).run, observed, self.backups) as session:
            found = find(self.engine, session, name, servers, stack, self.runner.tell)
            return (found, *read(self.engine, session, found))

    def _safety(self, prepared: Prepared, lost: Sequence[str]) -> str:
        """The backup of what is there now. Where a restore was cut off that is nobody's data: then the one before it."""
        if words := cut_off(prepared.observed):
            return next((s for w in words.values() if (s := w.labels.get(naming.SAFETY, ""))), "")
        if not lost:
            return ""
        report, saved = back_up(self.target, self.runner, prepared, lost, self.show, reason=snapshots.SAFETY)
        succeeded(report)
        return saved.backup

    def _adopt(self, prepared: Prepared, secrets: Mapping[str, SecretRecord]) -> None:
        """What the store lacks comes from the backup; what it has stays: servers that run know that.

        But for what opens the stack's own repository: it has just done so.
        """
        stored = {a: r for a, r in prepared.secrets.items() if a not in prepared.new_ids}
        missing = {a: r for a, r in secrets.items() if a not in stored and a not in NOT_OURS}
        key = self.keys if self.origin == self.target else {}
        if missing or any(stored.get(a) != r for a, r in key.items()):
            save_secrets(self.engine, prepared.desired.stack, {**missing, **stored, **key})

    def _bring(self, wanted: Return, safety: str, arguments: str = "", *, everything: bool = False) -> None:
        """Replace the data, and have the servers run with it."""
        prepared = fresh(self.target, self.engine, restoring=True)
        desired = prepared.desired
        records = self._secrets(prepared)
        execute = self.runner.executor(records).run
        stop = returning.stop_plan(desired, prepared.observed, wanted, safety, arguments, everything=everything)
        self.show(stop)
        succeeded(execute(stop))
        observed = self.engine.observe(desired.stack)
        mounted = returning.places(desired, observed, wanted)
        assert self.backups is not None, "it is known from the start"
        alone = self._is_own(prepared)
        with opened(self.engine, execute, observed, self.backups, mounted, writes=True, alone=alone) as session:
            succeeded(execute(returning.fill_plan(wanted, session, mounted)))
            if wanted.dumps:
                self._up(wanted.dumps)
            if wanted.dumps or wanted.emptied:
                load = returning.load_plan(desired, self.engine.observe(desired.stack), wanted, session)
                succeeded(execute(load))
        back = (*wanted.servers, *returning.consumers(desired, wanted))
        if back or everything:
            self._up(() if everything else back)
        succeeded(execute(returning.end_plan(desired.stack, wanted.all)))

    def _is_own(self, prepared: Prepared) -> bool:
        """Whether the repository that is read is that of the stack itself."""
        return self.backups is not None and self.backups.repository == prepared.resolved.backups.repository

    def _up(self, servers: Sequence[str]) -> None:
        """As `up` does it, for these servers."""
        prepared = prepare(self.target, self.engine, servers=servers, restoring=True)
        succeeded(self.runner.executor(prepared.secrets).run(prepared.plan))

    def _taken_back(self, error: ConsolidateError, safety: str, servers: Sequence[str]) -> OperationFailed:
        """Bring back what was there, if anything was: the error to be raised."""
        log = error.log if isinstance(error, OperationFailed) else ()
        try:
            prepared = fresh(self.target, self.engine, restoring=True)
            backup, manifest, _ = self._find_safety(prepared, safety)
            self._bring(returning.taken_back(backup, manifest, prepared.desired, servers), safety)
        except EngineUnavailable:
            raise
        except ConsolidateError as second:
            what = f"{error.what}; and what was there before could not be brought back: {second.what}"
            hint = f"see to that, then: consolidate restore {safety} {' '.join(f'-s {s}' for s in sorted(servers))}"
            more = second.log if isinstance(second, OperationFailed) else ()
            return OperationFailed(what, hint=hint, log=(*log, *more))
        return OperationFailed(f"{error.what}; what was there before is back", hint=error.hint, log=log)

    def _find_safety(self, prepared: Prepared, safety: str) -> tuple[Run, Manifest, Mapping[str, SecretRecord]]:
        """It is in the target's own repository."""
        records, _ = passphrase(prepared)
        self._reads(prepared.resolved.backups, records)
        return self._find(prepared.observed, safety)
