"""Entries of the stack file against the models of their kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from consolidate import values
from consolidate.errors import Problem, StackInvalid, did_you_mean
from consolidate.filters import Safe
from consolidate.kinds import Kind
from consolidate.manifest import Setting
from consolidate.mistakes import SECRET_NAME, SWITCHES, mistakes, shown
from consolidate.places import Places
from consolidate.resolve.work import Draft, Work
from consolidate.resolved import SECRETS_PATH
from consolidate.settings import server_model
from consolidate.stack import ServerEntry, Stack

PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def read_stack(work: Work) -> Stack:
    data = {k: v for k, v in work.document.data.items() if not k.startswith("x-")}
    try:
        stack = Stack.model_validate(data)
    except ValidationError as error:
        work.problems += model_problems(error, Stack, data, work.places)
        raise StackInvalid(work.problems) from None
    for index, given in enumerate(stack.templates):
        check_path(work, given, "templates", index)
    if not stack.servers:
        what, hint = "a stack has at least one server", "write www: {kind: web} under it"
        work.problems.append(work.places.problem(what, "servers", hint=hint))
    work.stop_on_problems()
    return stack


def read_entry(work: Work, name: str, entry: dict[str, Any]) -> None:
    kind = _kind(work, name, entry)
    if kind is None:
        return
    model = server_model(kind)
    try:
        parsed = model.model_validate(entry)
    except ValidationError as error:
        work.problems += model_problems(error, model, entry, work.places, name, kind)
        return
    dumped = parsed.model_dump()
    settings = {k: wrap(dumped[k], s) for k, s in kind.head.settings.items()}
    work.drafts[name] = Draft(name=name, kind=kind, entry=parsed, settings=settings)
    _check_entry(work, name, parsed)
    for key, setting in kind.head.settings.items():
        if setting.type == "path" and dumped[key] is not None:
            check_path(work, dumped[key], "servers", name, key)


def _kind(work: Work, name: str, entry: dict[str, Any]) -> Kind | None:
    given = entry.get("kind")
    if isinstance(given, str) and given in work.catalogue:
        return work.catalogue[given]
    known = f"`consolidate kinds list` has them: {', '.join(work.catalogue.names)}"
    if given is None:
        misspelt = next((k for k in entry if did_you_mean(k, ["kind"])), None)
        what = f"unknown key '{misspelt}'" if misspelt else "'kind' is required"
        hint, path = "did you mean 'kind'?" if misspelt else known, [misspelt] if misspelt else []
        work.problems.append(work.places.problem(what, "servers", name, *path, hint=hint, key=bool(misspelt)))
        return None
    what = f"there is no kind '{given}'" if isinstance(given, str) else f"should be text, not {shown(given)}"
    hint = did_you_mean(str(given), work.catalogue.names) or known
    work.problems.append(work.places.problem(what, "servers", name, "kind", hint=hint))
    return None


def _check_entry(work: Work, name: str, entry: ServerEntry) -> None:
    for variable, value in entry.environment.items():
        named = SECRET_NAME.search(variable) and value.lower() not in SWITCHES and not value.startswith(SECRETS_PATH)
        from_secret = any(
            SECRET_NAME.search(u.name) for u in work.places.uses("servers", name, "environment", variable)
        )
        if named or from_secret or PASSWORD_IN_URL.search(value):
            hint = (
                f"anybody who can inspect the container reads it there; write `secrets: {{{variable.lower()}: {{}}}}`"
                f" and {variable}_FILE: {SECRETS_PATH}/{variable.lower()}, if the program takes that"
            )
            what = f"'{variable}' looks like it holds a secret, and an environment variable is no place for one"
            work.problems.append(
                work.places.problem(what, "servers", name, "environment", variable, hint=hint, shows=False)
            )
    for secret, source in entry.secrets.items():
        if source.file is not None:
            check_path(work, source.file, "servers", name, "secrets", secret, "file", inside=False)


def check_path(work: Work, given: str, *path: str | int, inside: bool = True) -> None:
    folder = work.root
    target, exists = work.located(given)
    if inside and not target.is_relative_to(folder):
        what = f"'{given}' leads out of the stack's folder"
        hint = f"put it below {folder}, so that the stack can be moved as one folder"
        if path[0] == "templates":
            hint += "; or name it on the command line: `--templates`"
        work.problems.append(work.places.problem(what, *path, hint=hint))
    elif not exists:
        work.problems.append(work.places.problem(f"there is no '{given}'", *path, hint=f"looked for {target}"))


def model_problems(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any],
    places: Places,
    server: str = "",
    kind: Kind | None = None,
) -> Iterator[Problem]:
    """Problems of the whole file, or of one server's entry."""
    at = ("servers", server) if kind else ()
    manual = (
        f"`consolidate kinds show {kind.name}` has what it takes" if kind else "`consolidate init` writes an example"
    )
    for mistake in mistakes(error, model, data):
        if mistake.default and kind:
            yield Problem(mistake.what, kind.place("settings", *mistake.path, "default"), mistake.path_shown, manual)
            continue
        hint = mistake.hint
        if mistake.kind == "extra_forbidden":
            name = str(mistake.path[-1])
            if kind and len(mistake.path) == 1:
                hint = COMPOSE.get(name) or did_you_mean(name, [*model.model_fields, "for"])
            if SECRET_NAME.search(name):
                address = f"{server or 'SERVER'}/NAME"
                hint = f"no password stands in a stack file: `consolidate secret set {address}` takes it from standard input"
        elif len(mistake.path) > 1 and mistake.path[0] == "secrets" and mistake.kind == "model_type":
            hint = (
                "no secret stands in a stack file: write {} to have one generated, or {file: …}, {env: …}, {command: …}"
            )
        yield places.problem(mistake.what, *at, *mistake.path, hint=hint or manual, key=mistake.at_key)


# What people know from Compose, and what they write here instead.
COMPOSE = {
    "ports": 'write publish: ["8080:80"]',
    "expose": "ports between linked servers need no word",
    "depends_on": "a link orders servers, and waits until they are ready",
    "networks": "a link makes a private network; nothing else is shared",
    "network_mode": "a link makes a private network; nothing else is shared",
    "restart": "every server starts again by itself",
    "env_file": "write environment: {KEY: value}; secrets go under secrets:",
    "mem_limit": "write resources: {memory: 512M}",
    "cpus": "write resources: {cpus: 0.5}",
    "pids_limit": "write resources: {pids: 200}",
    "deploy": "write resources: {memory: 512M, cpus: 0.5}, and replicas: 2",
    "scale": "write replicas: 2",
    "configs": "files belong to a kind; `--templates` adds kinds of your own",
    "container_name": "the engine's name is made of the stack, the server and its generation",
    "healthcheck": "write health: {test: [CMD, …]}",
    "labels": "labels are ours; other programs find containers by name",
    "logging": "logs rotate by themselves: 3 files of 10 MB",
    "privileged": "no server is privileged; the kind `container` has cap_add",
    "security_opt": "no server gains privileges; the kind `container` has cap_add",
    "cap_drop": "every capability is dropped already",
}


def wrap(value: Any, setting: Setting | None) -> Any:
    """A setting's value as templates see it: text whose type or pattern makes it harmless is `Safe`."""
    if isinstance(value, str):
        safe = setting is not None and (setting.type in values.SAFE_TYPES or setting.pattern is not None)
        return Safe(value) if safe else value
    if isinstance(value, list):
        inner = setting.items if setting else None
        return [wrap(v, inner) for v in value]
    if isinstance(value, dict):
        fields = setting.fields if setting else {}
        keys, items = (setting.keys, setting.items) if setting else (None, None)
        return {(k if k in fields else wrap(k, keys)): wrap(v, fields.get(k, items)) for k, v in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
