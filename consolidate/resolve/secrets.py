"""The secrets that servers read, and who signs their certificates."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from consolidate import naming, repository
from consolidate.errors import Problem, did_you_mean
from consolidate.filters import SecretRef
from consolidate.manifest import Recipe
from consolidate.repository import Repository
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import SECRETS_PATH, Backups, Keep, Server
from consolidate.secret import SecretSpec, Source
from consolidate.stack import BackupKey

RESERVED = {naming.PASSPHRASE, naming.OTHER_PASSPHRASE, *(f"{naming.BACKUP}/{n}" for n in repository.HELP)}
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
        if name not in specs:
            specs[name] = SecretSpec(f"{draft.name}/{name}")
            mounted.append(name)
        specs[name] = _with_source(specs[name], source.model_dump(exclude_none=True))
    for name in specs:
        if f"{draft.name}/{name}" in RESERVED:
            what = f"{draft.name}/{name} is a secret of backups"
            path = ("servers", draft.name, *(("secrets", name) if name in given else ()))
            work.problems.append(
                work.places.problem(
                    what, *path, hint=f"give the {'secret' if name in given else 'server'} another name", key=True
                )
            )
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


def backups(work: Work, key: BackupKey, subnets: str) -> Backups:
    """What the stack says of its backups: its repository has its name, so that no other's is beside its own."""
    place = repository.parse(key.repository)
    spec = SecretSpec(naming.PASSPHRASE, length=32, help="opens the repository of backups; keep it elsewhere, too")
    passphrase = _with_source(spec, key.passphrase.model_dump(exclude_none=True))
    credentials = []
    for name, help_ in repository.HELP.items():
        given = getattr(key, name)
        if name in place.takes and (name in place.needs or given is not None):
            described = SecretSpec(f"{naming.BACKUP}/{name}", "none", help=help_)
            credentials.append(_with_source(described, given.model_dump(exclude_none=True) if given else {}))
        elif given is not None:
            work.problems.append(_unused(work, place, name))
    if place.kind == "sftp" and not key.known_hosts:
        what = f"the keys of {place.server} are not known, so anybody could answer in its place"
        hint = (
            f'write what `{place.scan}` prints into `known_hosts: ["…"]`, and compare it with what {place.server} has'
        )
        work.problems.append(work.places.problem(what, "backup", "repository", hint=hint))
    elif place.kind != "sftp" and key.known_hosts:
        work.problems.append(_unused(work, place, "known_hosts"))
    kept = Keep(**key.keep.model_dump())
    return Backups(f"{place.text}/{work.name}", passphrase, kept, tuple(credentials), tuple(key.known_hosts), subnets)


def _unused(work: Work, place: Repository, name: str) -> Problem:
    what = f"the repository {place.text} does not take '{name}'"
    hint = f"it takes: {', '.join(place.takes)}" if place.takes else "a folder needs no credentials"
    return work.places.problem(what, "backup", name, hint=hint, key=True)


def _with_source(spec: SecretSpec, given: Mapping[str, Any]) -> SecretSpec:
    source = next((Source(k, shlex.join(v) if isinstance(v, list) else v) for k, v in given.items()), None)  # type: ignore[arg-type]
    return SecretSpec(spec.address, spec.generate, spec.length, spec.names, spec.authority, source, spec.help)
