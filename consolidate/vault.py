"""Secrets of a stack: which are needed, which exist, and the making of those that are missing."""

from __future__ import annotations

import json
import os
import secrets as random
import shlex
import string
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from consolidate import naming
from consolidate.errors import StackInvalid
from consolidate.repository import HELP
from consolidate.resolved import Resolved
from consolidate.secret import Secret, SecretRecord, SecretSpec

ALPHABET = string.ascii_letters + string.digits
RENEW_BEFORE = timedelta(days=30)
STORE_FILE = "store.json"
OF_BACKUPS = frozenset({naming.PASSPHRASE, *(f"{naming.BACKUP}/{n}" for n in HELP)})  # what opens their repository


def needed(resolved: Resolved) -> dict[str, SecretSpec]:
    """Every secret of a stack by its address."""
    return {spec.address: spec for server in resolved.servers.values() for spec in server.secrets.values()}


def readers(resolved: Resolved) -> dict[str, list[str]]:
    """Who reads each secret: the servers in which it is a file or part of one."""
    found: dict[str, list[str]] = {}
    for server in resolved.servers.values():
        for spec in server.secrets.values():
            found.setdefault(spec.address, []).append(server.name)
    for link in resolved.links:
        if link.password:
            found.setdefault(link.password, []).append(link.provider)
    return found


def settle(
    specs: Mapping[str, SecretSpec],
    stored: Mapping[str, SecretRecord],
    now: datetime,
    read: Callable[[SecretSpec], str | None],
    ids: Mapping[str, str] = {},
) -> dict[str, SecretRecord]:
    """Records for all of `specs`, made where the store has none that serves, with one of `ids` where there is one for it.

    What the store has beyond `specs` stays in it. `read` fetches the value of one that has a source; None means not yet there,
    and one is made meanwhile.
    """
    records = dict(stored)
    rank = {"authority": 0, "certificate": 1}
    for spec in sorted(specs.values(), key=lambda s: rank.get(s.generate, 2)):
        old = records.get(spec.address)
        signer = records.get(spec.authority) if spec.authority else None
        given = read(spec) if spec.source is not None else None
        if given is not None:
            if old is None or old.value.reveal() != given:
                records[spec.address] = _known_as(record(spec.address, Secret(given), now), ids)
        elif old is None or (spec.source is None and _outlived(spec, old, signer, now)):
            records[spec.address] = _known_as(make(spec, signer, now), ids)
    return records


def _known_as(made: SecretRecord, ids: Mapping[str, str]) -> SecretRecord:
    return replace(made, id=ids[made.address]) if made.address in ids else made


def _outlived(spec: SecretSpec, old: SecretRecord, signer: SecretRecord | None, now: datetime) -> bool:
    if spec.generate != "certificate":
        return False
    ends_soon = old.expires is not None and old.expires - now < RENEW_BEFORE
    return ends_soon or old.names != spec.names or old.signed_by != (signer.id if signer else "")


def record(address: str, value: Secret, now: datetime, **more: Any) -> SecretRecord:
    return SecretRecord(address, value, random.token_hex(6), now, **more)


def make(spec: SecretSpec, signer: SecretRecord | None, now: datetime) -> SecretRecord:
    """A new secret as `spec` says."""
    if spec.generate == "password":
        return record(spec.address, Secret("".join(random.choice(ALPHABET) for _ in range(spec.length))), now)
    from consolidate import authority  # its library is heavy, and seldom needed

    if spec.generate == "rsa":
        return record(spec.address, Secret(authority.rsa_key()), now)
    if spec.generate == "authority":
        return record(spec.address, Secret(authority.new_authority(spec.address, now)), now)
    value, expires = authority.new_certificate(spec.names, signer.value.reveal() if signer else None, now)
    signed_by = signer.id if signer else ""
    return record(spec.address, Secret(value), now, expires=expires, names=spec.names, signed_by=signed_by)


def read_source(
    resolved: Resolved, in_proxy: Callable[[str], str | None], environment: Mapping[str, str] | None = None
) -> Callable[[SecretSpec], str | None]:
    """A reader of sources: files below or outside the stack's folder, variables, commands run in it, and files in the proxy.

    It raises StackInvalid, without the value, where the source gives nothing.
    """
    variables = os.environ if environment is None else environment

    def read(spec: SecretSpec) -> str | None:
        source = spec.source
        assert source is not None, "what is generated has no source"
        if source.kind == "proxy's file":
            return in_proxy(source.value)
        try:
            if source.kind == "file":
                value, why = (resolved.folder / source.value).read_text(), "is empty"
            elif source.kind == "env":
                value, why = variables.get(source.value, ""), "is empty" if source.value in variables else "is not set"
            else:
                value, why = _said(shlex.split(source.value), resolved.folder), "prints nothing"
        except (OSError, UnicodeDecodeError) as error:
            value, why = "", f"can't be read: {getattr(error, 'strerror', None) or 'it is no UTF-8'}"
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:]
            value, why = "", ": ".join([f"ends with status {error.returncode}", *last])
        if not (value := value.rstrip("\n")):
            server, _, name = spec.address.partition("/")
            what = f"the secret's {source.kind} '{source.value}' {why}"
            hint = f"see to it, or write {name}: {{}} to have one generated"
            path: tuple[str, ...] = ("servers", server, "secrets", name)
            if spec in resolved.backups.secrets:
                path = ("backup", name)
                hint = (
                    hint
                    if spec.address == naming.PASSPHRASE
                    else f"see to it, or set it: `consolidate secret set {spec.address}`"
                )
            raise StackInvalid([resolved.problem(what, *path, hint=hint)])
        return value

    return read


def _said(words: list[str], folder: Path) -> str:
    """What a command prints.

    Raises OSError where it can't be run, CalledProcessError with what it complained of where it fails.
    """
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout


def dump(records: Iterable[SecretRecord]) -> str:
    """The store's file."""
    rows = [
        {
            "address": r.address,
            "value": r.value.reveal(),
            "id": r.id,
            "created": r.created.isoformat(),
            "expires": r.expires.isoformat() if r.expires else None,
            "names": list(r.names),
            "signed_by": r.signed_by,
            "opens": r.opens,
        }
        for r in records
    ]
    return json.dumps({"version": 1, "secrets": rows}, indent=1)


def parse(text: str) -> dict[str, SecretRecord]:
    """The records in a store's file.

    Raises ValueError or KeyError where it is damaged.
    """
    return {
        row["address"]: SecretRecord(
            address=row["address"],
            value=Secret(row["value"]),
            id=row["id"],
            created=datetime.fromisoformat(row["created"]),
            expires=datetime.fromisoformat(row["expires"]) if row["expires"] else None,
            names=tuple(row["names"]),
            signed_by=row["signed_by"],
            opens=row.get("opens", ""),
        )
        for row in json.loads(text)["secrets"]
    }
