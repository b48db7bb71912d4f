"""Entries of the stack file against the models of their kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from consolidate import values
from consolidate.errors import Problem, StackInvalid
from consolidate.filters import Safe
from consolidate.kinds import Setting, word_problems
from consolidate.loader import did_you_mean
from consolidate.resolve.model import SECRETS_PATH
from consolidate.resolve.places import Places
from consolidate.resolve.work import Draft, Work
from consolidate.stack import ServerEntry, Stack, server_model

SECRET_WORDS = re.compile(r"(?i)pass(word|wd|phrase)?$|secret|token|api_?key|private_?key")


def read_stack(work: Work) -> Stack:
    data = {k: v for k, v in work.document.data.items() if not k.startswith("x-")}
    unknown = [k for k in data if k not in Stack.model_fields]
    for key in unknown:
        hint = did_you_mean(key, Stack.model_fields)
        work.problems.append(work.places.problem(f"unknown key '{key}'", key, hint=hint, key=True))
    try:
        stack = Stack.model_validate({k: v for k, v in data.items() if k not in unknown})
    except ValidationError as error:
        for problem, item in zip(word_problems(error, work.document), error.errors(), strict=True):
            what = KIND_OF.get(item["type"])
            typed = Problem(f"should be {what}, not {in_words(item['input'])}", problem.place, problem.path)
            missing = Problem(f"'{item['loc'][-1]}' is required", problem.place, "")
            work.problems.append(missing if item["type"] == "missing" else typed if what else problem)
        raise StackInvalid(work.problems) from None
    if not stack.servers:
        work.problems.append(work.places.problem("a stack has at least one server", "servers"))
    return stack


def read_entry(work: Work, name: str, entry: dict[str, Any]) -> None:
    kind_name = entry.get("kind")
    if not isinstance(kind_name, str) or kind_name not in work.catalogue:
        hint = did_you_mean(str(kind_name), work.catalogue.names) if kind_name else ""
        known = f"{hint}{'; ' if hint else ''}`consolidate kinds` lists them: {', '.join(work.catalogue.names)}"
        what = f"there is no kind '{kind_name}'" if kind_name else "'kind' is required"
        path = ("servers", name, "kind") if kind_name else ("servers", name)
        work.problems.append(work.places.problem(what, *path, hint=known))
        return
    kind = work.catalogue[kind_name]
    model = server_model(kind)
    about = {key: field.description or "" for key, field in model.model_fields.items()}
    try:
        parsed = model.model_validate(entry)
    except ValidationError as error:
        work.problems += entry_problems(error, name, about, work.places)
        return
    dumped = parsed.model_dump()
    settings = {k: wrap(dumped[k], s) for k, s in kind.head.settings.items()}
    work.drafts[name] = Draft(name=name, kind=kind, entry=parsed, settings=settings)
    _check_entry(work, name, parsed)
    for key, setting in kind.head.settings.items():
        if setting.type == "path" and dumped[key] is not None:
            check_path(work, dumped[key], "servers", name, key)


def _check_entry(work: Work, name: str, entry: ServerEntry) -> None:
    for variable, value in entry.environment.items():
        if SECRET_WORDS.search(variable) and not value.startswith(SECRETS_PATH):
            hint = (
                f"anybody who can inspect the container reads it there; write `secrets: {{{variable.lower()}: {{}}}}`"
                f" and {variable}_FILE: {SECRETS_PATH}/{variable.lower()}, if the program takes that"
            )
            what = f"'{variable}' looks like a secret, and an environment variable is no place for one"
            work.problems.append(work.places.problem(what, "servers", name, "environment", variable, hint=hint))
    for secret, source in entry.secrets.items():
        if source.file is not None:
            check_path(work, source.file, "servers", name, "secrets", secret, "file", inside=False)


def check_path(work: Work, given: str, *path: str | int, inside: bool = True) -> None:
    folder = work.root
    target = (folder / given).resolve()
    if inside and not target.is_relative_to(folder):
        what = f"'{given}' leads out of the stack's folder"
        hint = f"put it below {folder}, so that the stack can be moved as one folder"
        work.problems.append(work.places.problem(what, *path, hint=hint))
    elif not target.exists():
        work.problems.append(work.places.problem(f"there is no '{given}'", *path, hint=f"looked for {target}"))


def entry_problems(error: ValidationError, name: str, about: Mapping[str, str], places: Places) -> Iterator[Problem]:
    """Problems of one server's entry; `about` has what each known key is for."""
    known = [*about, "for"]
    for item in error.errors():
        loc = [
            p
            for p in item["loc"]
            if not (isinstance(p, str) and p.startswith(("function-", "literal[", "constrained-")))
        ]
        path = ("servers", name, *loc)
        what, hint, key = item["msg"].removeprefix("Value error, "), "", False
        if item["type"] == "extra_forbidden":
            what, key = f"unknown key '{loc[-1]}'", True
            hint = (COMPOSE.get(str(loc[0])) or did_you_mean(str(loc[0]), known)) if len(loc) == 1 else ""
            if SECRET_WORDS.search(str(loc[-1])):
                hint = f"no password stands in a stack file: `consolidate secret set {name}/NAME` takes it from standard input"
        elif item["type"] == "missing":
            what, hint = f"'{loc[-1]}' is required", "`consolidate kinds show` says what it means"
            path = path[:-1]
        elif item["type"] in KIND_OF:
            what = f"should be {KIND_OF[item['type']]}, not {in_words(item['input'])}"
        elif item["type"] in ("string_pattern_mismatch", "literal_error"):
            what = f"{in_words(item['input'])} can't stand here: {item['msg'][0].lower()}{item['msg'][1:]}"
            hint = about.get(str(loc[0]), "")
        yield places.problem(what, *path, hint=hint, key=key)


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
    "deploy": "write resources: {memory: 512M, cpus: 0.5}",
    "configs": "files belong to a kind; `--templates` adds kinds of your own",
    "container_name": "the engine's name is made of the stack, the server and its generation",
    "healthcheck": "write health: {test: [CMD, …]}",
    "labels": "labels are ours; other programs find containers by name",
    "logging": "logs rotate by themselves: 3 files of 10 MB",
    "privileged": "no server is privileged; the kind `container` has cap_add",
    "security_opt": "no server gains privileges; the kind `container` has cap_add",
    "cap_drop": "every capability is dropped already",
}

KIND_OF = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def in_words(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"{value!r}" if not isinstance(value, bool) else str(value).lower()


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
