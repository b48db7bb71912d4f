"""What `consolidate secret` does: look into the store on the engine, and change it under the stack's lock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from consolidate import naming, vault
from consolidate.errors import UsageError, did_you_mean
from consolidate.runner import Runner
from consolidate.secret import Secret, SecretRecord
from consolidate.snapshots import age
from consolidate.source import Source, load_stack
from consolidate.store import read_secrets, save_secrets


class Custody:
    """The secrets of one stack on one engine."""

    def __init__(self, source: Source, runner: Runner) -> None:
        self.runner = runner
        self.engine = runner.engine
        self.resolved = load_stack(source)
        self.specs = vault.needed(self.resolved)
        self.readers = vault.readers(self.resolved)

    def _stored(self) -> dict[str, SecretRecord]:
        return read_secrets(self.engine, self.engine.observe(self.resolved.name))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each secret: never its value."""
        stored, now = self._stored(), datetime.now(UTC)
        rows = []
        for address in sorted({*self.specs, *stored}):
            record, spec = stored.get(address), self.specs.get(address)
            rows.append(
                {
                    "secret": address,
                    "age": age(now, record.created) if record else "not made yet",
                    "expires": record.expires.date().isoformat() if record and record.expires else None,
                    "readers": self.readers.get(address, []),
                    "about": (spec.help or spec.generate) if spec else self._about(address),
                }
            )
        return rows

    def _about(self, address: str) -> str:
        known = address == naming.PASSPHRASE
        return self.resolved.backups.passphrase.help if known else "no server reads it any more"

    def show(self, address: str) -> str:
        """The value.

        Raises UsageError where there is none.
        """
        stored = self._stored()
        if address not in stored:
            if address in self.specs:
                raise UsageError(f"{address} is not made yet", hint="`consolidate up` makes it, `secret set` sets it")
            raise UsageError(f"there is no secret '{address}'", hint=did_you_mean(address, {*self.specs, *stored}))
        return stored[address].value.reveal()

    def check(self, address: str) -> None:
        """Raises UsageError for an address that no server reads, or whose value the stack file gives."""
        if address == naming.PASSPHRASE:
            hint = "a repository elsewhere can have another: `backup: {repository: …, passphrase: …}` in the stack file"
            raise UsageError(f"{address} opens the repository of backups, and can't be changed here", hint=hint)
        spec = self.specs.get(address)
        if spec is None:
            hint = did_you_mean(address, self.specs) or "`consolidate secret list` lists them"
            raise UsageError(f"no server reads a secret '{address}'", hint=hint)
        if spec.source is not None:
            what = f"{address} comes from the {spec.source.kind} '{spec.source.value}'"
            raise UsageError(what, hint="change it there; `consolidate up` takes it over")

    def set(self, address: str, value: str) -> None:
        """Raises UsageError for an empty value or an unknown secret."""
        self.check(address)
        if not value or "\0" in value:
            raise UsageError("a secret can't be empty, and holds no NUL")
        with self.runner.locked(self.resolved.name):
            stored = self._stored()
            stored[address] = vault.record(address, Secret(value), datetime.now(UTC))
            save_secrets(self.engine, self.resolved.name, stored)

    def rotate(self, addresses: list[str]) -> None:
        """Make new values; certificates that an authority has signed follow at the next `up`."""
        for address in addresses:
            self.check(address)
        with self.runner.locked(self.resolved.name):
            stored = self._stored()
            for address in addresses:
                spec = self.specs[address]
                signer = stored.get(spec.authority) if spec.authority else None
                stored[address] = vault.make(spec, signer, datetime.now(UTC))
            save_secrets(self.engine, self.resolved.name, stored)
