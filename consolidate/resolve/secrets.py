"""The secrets that servers read, and who signs their certificates."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from consolidate import naming
from consolidate.errors import did_you_mean
from consolidate.filters import SecretRef
from consolidate.manifest import Recipe
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import SECRETS_PATH, Backups, Keep, Server
from consolidate.secret import SecretSpec, Source
from consolidate.stack import BackupKey

SECRET_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")


def secret_specs(work: Work, draft: Draft, recipe: Recipe) -> tuple[dict[str, SecretSpec], tuple[str, ...]]:
    """The secrets that a server reads by their local names, and which of them are files in it."""
    specs: dict[str, SecretSpec] = {}
    mounted = []
    given = draft.entry.secrets
    for pattern, need in recipe.secrets.items():
        for item in [None] if need.each is None else list(need.each):
            name = pattern if item is None else pattern.replace("{item}", str(item))
            raw = need.name if isinstance(need.name, list) else [need.name] if need.name else []
            names = tuple(str(n).replace("{item}", str(item)) for n in raw)
            address = f"{draft.name}/{name}"
            specs[name] = SecretSpec(address, need.generate, need.length, names, None, None, need.help)
            if need.mount:
                mounted.append(name)
            if need.generate == "authority" and draft is work.proxy:
                work.authority = address
    for link in draft.links.values():
        if link.password:
            name = f"{link.name}_password"
            specs[name] = SecretSpec(link.password, help=f"the account on {link.provider}")
            mounted.append(name)
    for name, source in given.items():
        if not SECRET_FILE.fullmatch(name):
            what, path = f"{name!r} can't be a secret's name", ("servers", draft.name, "secrets", name)
            hint = f"it is a file in {SECRETS_PATH}: letters, digits and _ - . @"
            work.problems.append(work.places.problem(what, *path, hint=hint, key=True))
            continue
        if f"{draft.name}/{name}" == naming.PASSPHRASE:
            what, path = f"{naming.PASSPHRASE} is the passphrase of backups", ("servers", draft.name, "secrets", name)
            work.problems.append(work.places.problem(what, *path, hint="give it another name", key=True))
            continue
        if name not in specs:
            specs[name] = SecretSpec(f"{draft.name}/{name}")
            mounted.append(name)
        specs[name] = _with_source(specs[name], source.model_dump(exclude_none=True))
    return specs, tuple(sorted(mounted))


def add_secret_function(work: Work, draft: Draft, specs: Mapping[str, SecretSpec]) -> None:
    readable = {spec.address: spec for spec in specs.values()}
    consumed = {str(c["password"]) for group in draft.context["consumers"].values() for c in group if c["password"]}

    def secret(name: str) -> SecretRef:
        spec = specs.get(name) or readable.get(name)
        if spec is None:
            ref = SecretRef.of(name, needs_filter=True)
            if ref in consumed:
                return ref
            near = did_you_mean(name, specs)
            raise LookupError(f"the manifest declares no secret '{name}'" + (f"; {near}" if near else ""))
        return SecretRef.of(spec.address, needs_filter=spec.generate == "password")

    draft.context["secret"] = secret


def share_certificates(work: Work, servers: dict[str, Server]) -> None:
    """Sign every certificate by the proxy's authority; one for a routed host name is the proxy's own.

    Where the proxy obtains certificates itself, from an ACME server, it is read there.
    """
    proxy = servers.get(work.proxy.name) if work.proxy else None
    issued = {s.names: s.address for s in proxy.secrets.values() if s.generate == "certificate"} if proxy else {}
    for name, server in servers.items():
        for local, spec in server.secrets.items():
            if spec.generate != "certificate":
                continue
            address = issued.get(spec.names, spec.address)
            source = spec.source or _obtained(work, proxy, server, spec)
            shared = SecretSpec(address, "certificate", spec.length, spec.names, work.authority, source, spec.help)
            servers[name].secrets[local] = shared  # type: ignore[index]


def _obtained(work: Work, proxy: Server | None, server: Server, spec: SecretSpec) -> Source | None:
    if proxy is None or server is proxy or proxy.source.recipe.certificates is None or len(spec.names) != 1:
        return None
    routed = {domain for route in work.routes for domain in route.domains}
    if spec.names[0] not in routed:
        return None
    return Source("proxy's file", proxy.source.recipe.certificates.replace("{name}", spec.names[0]))


def backups(key: BackupKey, stack: str) -> Backups:
    """What the stack says of its backups: its repository has its name, so that no other's is beside its own."""
    spec = SecretSpec(naming.PASSPHRASE, length=32, help="opens the repository of backups; keep it elsewhere, too")
    passphrase = _with_source(spec, key.passphrase.model_dump(exclude_none=True))
    return Backups(f"{key.repository}/{stack}", passphrase, Keep(**key.keep.model_dump()))


def _with_source(spec: SecretSpec, given: Mapping[str, Any]) -> SecretSpec:
    source = next((Source(k, shlex.join(v) if isinstance(v, list) else v) for k, v in given.items()), None)  # type: ignore[arg-type]
    return SecretSpec(spec.address, spec.generate, spec.length, spec.names, spec.authority, source, spec.help)
