"""What `consolidate secret` does: look into the store on the engine, and change it under the stack's lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from consolidate import naming, vault
from consolidate.errors import UsageError, did_you_mean
from consolidate.repository import check_credential, parse
from consolidate.runner import Runner
from consolidate.secret import Secret, SecretRecord
from consolidate.snapshots import age
from consolidate.source import Source, load_stack
from consolidate.store import read_secrets, save_secrets


class Custody:
    """The secrets of one stack on one engine."""

    def __init__(self, source: Source, runner: Runner, rekey: Callable[[Source, Runner, Secret], None]) -> None:
        """`rekey` gives the repository of backups another passphrase: what a repository opens with changes there, too."""
        self.source, self.runner, self.rekey = source, runner, rekey
        self.engine = runner.engine
        self.resolved = load_stack(source)
        self.backups = {s.address: s for s in self.resolved.backups.secrets}
        self.specs = vault.needed(self.resolved) | self.backups
        self.readers = vault.readers(self.resolved)

    def _stored(self) -> dict[str, SecretRecord]:
        return read_secrets(self.engine, self.engine.observe(self.resolved.name))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each secret: never its value."""
        stored, now = self._stored(), datetime.now(UTC)
        rows = []
        unmade = {naming.PASSPHRASE} - stored.keys()  # the first backup makes it
        for address in sorted({*self.specs, *stored} - unmade):
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
        if address == naming.OTHER_PASSPHRASE:
            return "opens the repository of backups, perhaps: a change of the passphrase was cut off"
        return "no server reads it any more"

    def show(self, address: str) -> str:
        """The value.

        Raises UsageError where there is none.
        """
        stored = self._stored()
        if address not in stored:
            if address in self.backups:
                raise UsageError(
                    f"{address} is not known yet", hint="`consolidate backup` has it, `secret set` sets it"
                )
            if address in self.specs:
                raise UsageError(f"{address} is not made yet", hint="`consolidate up` makes it, `secret set` sets it")
            raise UsageError(f"there is no secret '{address}'", hint=did_you_mean(address, {*self.specs, *stored}))
        return stored[address].value.reveal()

    def check(self, address: str) -> None:
        """Raises UsageError for an address that no server reads, or whose value the stack file gives."""
        spec = self.specs.get(address)
        if spec is None:
            hint = did_you_mean(address, self.specs) or "`consolidate secret list` lists them"
            raise UsageError(f"no server reads a secret '{address}'", hint=hint)
        if spec.source is not None:
            what = f"{address} comes from the {spec.source.kind} '{spec.source.value}'"
            verb = "backup" if address in self.backups else "up"
            raise UsageError(what, hint=f"change it there; `consolidate {verb}` takes it over")

    def set(self, address: str, value: str) -> None:
        """Raises UsageError for an empty value or an unknown secret."""
        self.check(address)
        if not value or "\0" in value:
            raise UsageError("a secret can't be empty, and holds no NUL")
        if address == naming.PASSPHRASE:
            self._rekey(value)
            return
        if address in self.backups:
            place, name = parse(self.resolved.backups.repository), address.partition("/")[2]
            if wrong := check_credential(place, name, value):
                raise UsageError(f"{address} {wrong}", hint=f"it is {self.specs[address].help}")
        with self.runner.locked(self.resolved.name):
            stored = self._stored()
            stored[address] = vault.record(address, Secret(value), datetime.now(UTC))
            save_secrets(self.engine, self.resolved.name, stored)

    def rotate(self, addresses: list[str]) -> None:
        """Make new values; certificates that an authority has signed follow at the next `up`."""
        for address in addresses:
            self.check(address)
            if self.specs[address].generate == "none":
                hint = f"have a new one there, then: consolidate secret set {address}"
                raise UsageError(f"{address} is made by whoever runs the repository's server", hint=hint)
        ours = [a for a in addresses if a != naming.PASSPHRASE]
        if ours:
            self._rotate(ours)
        if naming.PASSPHRASE in addresses:
            self._rekey(vault.make(self.specs[naming.PASSPHRASE], None, datetime.now(UTC)).value.reveal())

    def _rekey(self, value: str) -> None:
        if "\n" in value or "\r" in value:
            raise UsageError("a passphrase is one line")
        self.rekey(self.source, self.runner, Secret(value))

    def _rotate(self, addresses: list[str]) -> None:
        with self.runner.locked(self.resolved.name):
            stored = self._stored()
            for address in addresses:
                spec = self.specs[address]
                signer = stored.get(spec.authority) if spec.authority else None
                stored[address] = vault.make(spec, signer, datetime.now(UTC))
            save_secrets(self.engine, self.resolved.name, stored)
