"""The passphrase of a repository changed: there and in the store, or in neither. A change that was cut off is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from consolidate import naming, vault
from consolidate.backup.access import Given, wished
from consolidate.backup.work import fresh, leftovers, opened, passphrase
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed, UsageError
from consolidate.execute import restic
from consolidate.pipeline import Prepared
from consolidate.runner import Runner
from consolidate.secret import Secret, SecretRecord
from consolidate.source import Source, stack_name
from consolidate.store import save_secrets

Records = Mapping[str, SecretRecord]


def set_passphrase(source: Source, runner: Runner, value: Secret) -> None:
    """Give the stack's repository another passphrase, under the stack's lock. Where there is none yet, it will have that one.

    Raises UsageError and OperationFailed.
    """
    with runner.locked(stack_name(source)):
        prepared = fresh(source, runner.engine, restoring=True)
        leftovers(runner.engine, prepared.observed)
        wish = vault.record(naming.PASSPHRASE, value, datetime.now(UTC))
        known, backups = prepared.secrets.get(naming.PASSPHRASE), prepared.resolved.backups
        if known is None or not known.opens:
            save_secrets(runner.engine, prepared.resolved.name, {**prepared.secrets, naming.PASSPHRASE: wish})
            return
        if known.opens != backups.repository:
            hint = f"`consolidate backup` makes the one in {backups.repository} first; the other keeps the passphrase of now"
            raise UsageError(
                f"{naming.PASSPHRASE} opens the repository {known.opens}, which the stack has left", hint=hint
            )
        change(runner, prepared, wish)


def up_to_date(runner: Runner, prepared: Prepared, given: Given | None = None) -> Prepared:
    """The same with the passphrase that the stack file has come to say, and with none that a change has left.

    Raises OperationFailed and StackInvalid.
    """
    if given is not None and given.passphrase is not None:
        return prepared
    wish = wished(prepared)
    if wish is None and naming.OTHER_PASSPHRASE not in prepared.secrets:
        return prepared
    return replace(prepared, secrets=change(runner, prepared, wish, given))


def change(runner: Runner, prepared: Prepared, wish: SecretRecord | None, given: Given | None = None) -> Records:
    """Have the repository open with `wish` alone, or finish what was begun: the secrets as they are then.

    To be called under the stack's lock. Raises OperationFailed.
    """
    records, _ = passphrase(prepared, given)
    backups, stack = (given or Given()).on(prepared.resolved.backups), prepared.resolved.name
    with opened(runner.engine, runner.executor(records).run, prepared.observed, backups, alone=True) as session:
        stored = finish(runner.engine, session, stack, prepared.secrets)
        return stored if wish is None else _exchange(runner.engine, session, stack, stored, wish)


def _exchange(engine: Engine, session: str, stack: str, stored: Records, wish: SecretRecord) -> Records:
    """The new key first, then the store, then the old key goes. The store has both values meanwhile, and its first opens."""
    known = stored[naming.PASSPHRASE]
    if wish.value == known.value:
        return stored
    begun = {**stored, naming.OTHER_PASSPHRASE: replace(wish, address=naming.OTHER_PASSPHRASE)}
    save_secrets(engine, stack, begun)
    try:
        restic.add_key(engine, session, wish.value.reveal())
    except OperationFailed:
        with contextlib.suppress(ConsolidateError):  # else the next backup sees to it
            finish(engine, session, stack, begun)
        raise
    changed = {
        **stored,
        naming.PASSPHRASE: replace(wish, opens=known.opens),
        naming.OTHER_PASSPHRASE: replace(known, address=naming.OTHER_PASSPHRASE),
    }
    save_secrets(engine, stack, changed)
    try:
        return finish(engine, session, stack, changed)
    except OperationFailed as error:
        what = f"the passphrase is changed, but the one of before opens the repository, too: {error.what}"
        raise OperationFailed(what, hint="the next `consolidate backup` removes that", log=error.log) from None


def finish(engine: Engine, session: str, stack: str, stored: Records) -> Records:
    """Have the repository open with no second passphrase that the store knows of: the secrets without that."""
    other, known = stored.get(naming.OTHER_PASSPHRASE), stored.get(naming.PASSPHRASE)
    if other is None or known is None:
        return stored
    restic.use_passphrase(engine, session, known.value.reveal())
    if other.value != known.value and (key := restic.key_of(engine, session, other.value.reveal())):
        restic.run(engine, session, "key", "remove", key)
    left = {a: r for a, r in stored.items() if a != naming.OTHER_PASSPHRASE}
    save_secrets(engine, stack, left)
    return left
