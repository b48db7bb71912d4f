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

from consolidate.errors import Problem, StackInvalid
from consolidate.resolved import Resolved
from consolidate.secret import Secret, SecretRecord, SecretSpec, Source

ALPHABET = string.ascii_letters + string.digits
RENEW_BEFORE = timedelta(days=30)
STORE_FILE = "store.json"


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
    read: Callable[[Source], str | None],
) -> tuple[dict[str, SecretRecord], bool]:
    """Records for all of `specs`, made where the store has none that serves, and whether any is new.

    What the store has beyond `specs` stays in it. `read` fetches a value from its source; None means not yet there,
    and one is made meanwhile.
    """
    records, changed = dict(stored), False
    rank = {"authority": 0, "certificate": 1}
    for spec in sorted(specs.values(), key=lambda s: rank.get(s.generate, 2)):
        old = records.get(spec.address)
        signer = records.get(spec.authority) if spec.authority else None
        given = read(spec.source) if spec.source is not None else None
        if given is not None:
            if old is None or old.value.reveal() != given:
                records[spec.address], changed = record(spec.address, Secret(given), now), True
        elif old is None or (spec.source is None and _outlived(spec, old, signer, now)):
            records[spec.address], changed = make(spec, signer, now), True
    return records, changed


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
    folder: Path, in_proxy: Callable[[str], str | None], environment: Mapping[str, str] | None = None
) -> Callable[[Source], str | None]:
    """A reader of sources: files below or outside `folder`, variables, commands run in it, and files in the proxy.

    It raises StackInvalid, without the value, where the source gives nothing.
    """
    variables = os.environ if environment is None else environment

    def read(source: Source) -> str | None:
        if source.kind == "proxy's file":
            return in_proxy(source.value)
        try:
            if source.kind == "file":
                value = (folder / source.value).read_text()
            elif source.kind == "env":
                value = variables.get(source.value, "")
            else:
                words = shlex.split(source.value)
                done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
                value = done.stdout
        except (OSError, UnicodeDecodeError, subprocess.CalledProcessError) as error:
            reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise StackInvalid(
                [Problem(f"the secret's {source.kind} '{source.value}' can't be read: {reason}")]
            ) from None
        if not (value := value.rstrip("\n")):
            raise StackInvalid([Problem(f"the secret's {source.kind} '{source.value}' is empty")])
        return value

    return read


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
        )
        for row in json.loads(text)["secrets"]
    }
