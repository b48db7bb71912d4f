"""What opens a repository: its passphrase and, of one on a server, credentials. From the command line, the stack or the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming, repository, vault
from consolidate.errors import UsageError
from consolidate.pipeline import Prepared
from consolidate.resolved import Backups, Keep
from consolidate.secret import Secret, SecretRecord, SecretSpec
from consolidate.values import Wrong


class Given(Struct, frozen=True):
    """What the command line gives of that, by the names of `backup:`."""

    passphrase: str | None = None
    credentials: Mapping[str, str] = {}

    def records(self, now: datetime) -> dict[str, SecretRecord]:
        found = {f"{naming.BACKUP}/{n}": v for n, v in self.credentials.items() if n in repository.HELP}
        found |= {naming.PASSPHRASE: self.passphrase} if self.passphrase is not None else {}
        return {a: vault.record(a, Secret(v), now) for a, v in found.items()}

    def on(self, backups: Backups) -> Backups:
        """The same repository, with the known hosts of the command line where that has some, and its credentials."""
        lines = [li for li in self.credentials.get("known_hosts", "").splitlines() if li.strip()]
        known = {s.address for s in backups.credentials}
        takes = repository.parse(backups.repository).takes
        more = [n for n in self.credentials if n in takes and f"{naming.BACKUP}/{n}" not in known]
        specs = (
            *backups.credentials,
            *(SecretSpec(f"{naming.BACKUP}/{n}", "none", help=repository.HELP[n]) for n in more),
        )
        return replace(backups, known_hosts=tuple(lines) or backups.known_hosts, credentials=specs)


def unproven(
    records: Mapping[str, SecretRecord], stored: Mapping[str, SecretRecord], given: Given | None
) -> dict[str, SecretRecord]:
    """The secrets while what is `given` has yet to show that it opens anything: it replaces nothing of what is stored."""
    told = (given or Given()).records(datetime.now(UTC)).keys()
    return {a: r for a, r in records.items() if a not in told} | {a: stored[a] for a in told if a in stored}


def credentials(prepared: Prepared, given: Given | None, now: datetime) -> dict[str, SecretRecord]:
    """The secrets with the credentials of the repository: what is `given`, else what the stack file says, else the store's.

    Raises UsageError where one is missing, is none or is not for this repository, and StackInvalid.
    """
    backups = prepared.resolved.backups
    check_taken(repository.parse(backups.repository), given or Given())
    told = {a: r for a, r in (given or Given()).records(now).items() if a != naming.PASSPHRASE}
    sourced = {s.address: s for s in backups.credentials if s.source is not None and s.address not in told}
    read = vault.read_source(prepared.resolved, lambda _: None)
    records = {**vault.settle(sourced, prepared.secrets, now, read), **told}
    check(backups, records)
    return records


def check(backups: Backups, records: Mapping[str, SecretRecord]) -> None:
    """Raises UsageError for a credential that the repository needs and nobody has, or that is none; never with its value."""
    place = repository.parse(backups.repository)
    for spec in backups.credentials:
        name = spec.address.partition("/")[2]
        if spec.address not in records:
            if name in place.needs:
                what = f"the repository {backups.repository} needs the secret {spec.address}: {spec.help}"
                raise UsageError(
                    what,
                    hint=f"set it, `consolidate secret set {spec.address}`, or write `{name}: {{file: …}}` below `backup:`",
                )
        elif wrong := repository.check_credential(place, name, records[spec.address].value.reveal()):
            raise UsageError(f"{spec.address} {wrong}", hint=f"it is {spec.help}")


def wished(prepared: Prepared) -> SecretRecord | None:
    """The passphrase that the stack file has come to say, where another one has made the repository."""
    backups, known = prepared.resolved.backups, prepared.secrets.get(naming.PASSPHRASE)
    if backups.passphrase.source is None or known is None or known.opens != backups.repository:
        return None
    value = vault.read_source(prepared.resolved, lambda _: None)(backups.passphrase)
    if value is None or value == known.value.reveal():
        return None
    return vault.record(naming.PASSPHRASE, Secret(value), datetime.now(UTC))


def alone_with(text: str, given: Given) -> tuple[Backups, dict[str, SecretRecord]]:
    """A repository of which nothing is known but what the command line gives.

    Raises UsageError.
    """
    try:
        place = repository.parse(text)
    except Wrong as error:
        raise UsageError(f"--repository: {error}", hint=error.hint) from None
    for name in given.credentials:
        check_name(name)
    check_taken(place, given)
    if place.kind == "sftp" and not given.credentials.get("known_hosts", "").strip():
        hint = f"give the server's keys, as `{place.scan}` prints them: --credential known_hosts=FILE"
        raise UsageError(f"the keys of {place.server} are not known", hint=hint)
    specs = [SecretSpec(f"{naming.BACKUP}/{n}", "none", help=repository.HELP[n]) for n in place.takes]
    backups = Backups(place.text, SecretSpec(naming.PASSPHRASE), Keep(), tuple(specs))
    records = given.records(datetime.now(UTC))
    for name in place.needs:
        if f"{naming.BACKUP}/{name}" not in records:
            what = f"the repository {place.text} needs {repository.HELP[name]}"
            raise UsageError(what, hint=f"give it in a file: --credential {name}=FILE")
    check(backups, records)
    return given.on(backups), records


def check_name(name: str) -> None:
    """Raises UsageError for what is the name of no credential."""
    known = ("known_hosts", *repository.HELP)
    if name not in known:
        raise UsageError(f"--credential: there is no credential '{name}'", hint=f"there are: {', '.join(known)}")


def check_taken(place: repository.Repository, given: Given) -> None:
    """Raises UsageError for a credential that such a repository has no use for: it may be meant for another one."""
    takes = (*place.takes, *(("known_hosts",) if place.kind == "sftp" else ()))
    for name in given.credentials:
        if name not in takes:
            what = f"--credential: the repository {place.text} takes no '{name}'"
            raise UsageError(what, hint=f"it takes: {', '.join(takes) or 'none, it is a folder'}")
