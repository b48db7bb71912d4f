"""`consolidate init`: a commented stack file from a choice of kinds. Pure text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from consolidate.errors import UsageError, did_you_mean
from consolidate.kinds import Catalogue, Kind
from consolidate.manifest import Setting

INDEX = "<!doctype html>\n<meta charset=utf-8>\n<title>{0}</title>\n<h1>{0}</h1>\n"
SHOWN = 6  # settings with a default that are shown of each kind; a manifest has the important ones first
WIDTH = 110  # columns, where a comment can be shortened to that

HEAD = """\
# The servers of this host, each in its own container.
#   consolidate plan                shows what would be done, and why
#   consolidate up                  does it, and ends when every server is ready
#   consolidate kinds show KIND     explains a kind and all of its settings
# Settings that are commented out show their defaults. `-e prod` lays stack.prod.yml over this file.
stack: {name}

# host:
#   reserve: {{cpus: 0.5, memory: 512M}}   # left for the operating system

servers:"""

FOOT = """\

# What a server of any kind also takes:
#   resources: {memory: 512M, cpus: 1}     # its limits; each kind has defaults
#   publish: ["127.0.0.1:8000:80"]         # ADDRESS:PORT of this host, port of the server
#   egress: true                           # may it reach the outside?
#   environment: {TZ: Europe/Paris}        # variables; never a secret"""


@dataclass(frozen=True)
class _Line:
    """A line under a server: text, and what it is about; `active` or commented out."""

    text: str
    about: str = ""
    active: bool = True


def starter(catalogue: Catalogue, kinds: Sequence[str], name: str) -> tuple[str, dict[str, str]]:
    """The text of a stack file with a server of each of `kinds`, and folders to make, each with its index.html.

    What a kind needs comes with it: a proxy for whatever has a domain, a provider for each required link. A kind that
    is named twice makes two servers. Raises UsageError for an unknown kind.
    """
    chosen = _choose(catalogue, kinds)
    stack = _stack_name(name)
    text = [HEAD.format(name=stack)]
    folders = {}
    for index, (server, kind) in enumerate(chosen.items()):
        shown = _server(server, kind, chosen, stack)
        first = next(n for n, k in chosen.items() if k is kind) == server
        lines = _aligned([line for line in shown if first or line.active])
        text += [*([""] if index else []), f"  # {kind.head.summary}", f"  {server}:", *lines]
        if _has_content(kind):
            folders[f"sites/{server}"] = INDEX.format(server)
    return "\n".join([*text, FOOT]) + "\n", folders


def _choose(catalogue: Catalogue, words: Sequence[str]) -> dict[str, Kind]:
    """The servers by name: the proxy first where there is anything to route."""
    chosen: dict[str, Kind] = {}

    def add(kind: Kind) -> None:
        number = sum(k is kind for k in chosen.values()) + 1
        chosen[kind.name if number == 1 else f"{kind.name}-{number}"] = kind

    for word in words:
        if word not in catalogue:
            hint = did_you_mean(word, catalogue.names) or "`consolidate kinds` lists them"
            raise UsageError(f"there is no kind '{word}'", hint=hint)
        add(catalogue[word])
    if not chosen:
        add(next(k for k in catalogue if _is_routed(k) and _has_content(k) and not _required(k)))
    for kind in list(chosen.values()):
        for link in kind.head.links.values():
            if link.required and not any(link.provides in k.head.provides for k in chosen.values()):
                add(next(k for k in catalogue if link.provides in k.head.provides))
    router = next((k for k in catalogue if k.recipe.get("routes")), None)
    if router and router not in chosen.values() and any(_is_routed(k) for k in chosen.values()):
        chosen = {router.name: router} | chosen
    return chosen


def _stack_name(name: str) -> str:
    """A name that a stack can have, as near to `name` as can be."""
    stack = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "stack"
    return (stack if stack[0].isalpha() else f"s-{stack}")[:32].rstrip("-")


def _is_routed(kind: Kind) -> bool:
    return isinstance(kind.recipe.get("http"), int)


def _has_content(kind: Kind) -> bool:
    content = kind.head.settings.get("content")
    return content is not None and content.type == "path"


def _required(kind: Kind) -> bool:
    return any(s.required for s in kind.head.settings.values())


def _server(name: str, kind: Kind, chosen: Mapping[str, Kind], stack: str) -> list[_Line]:
    head = kind.head
    lines = [_Line(f"kind: {kind.name}")]
    if _is_routed(kind):
        lines.append(_Line(f"domains: [{name}.{stack}.test]", "the names that it answers to"))
    elif any("domains" in r.expression for r in head.requires):
        lines.append(_Line(f"domains: [{stack}.test]"))
    if "build" in head.settings:
        lines += [_Line("image: debian:bookworm-slim", "any image"), _Line("command: [sleep, infinity]")]
    for link, need in head.links.items():
        provider = next((n for n, k in chosen.items() if need.provides in k.head.provides and n != name), None)
        if provider and not need.many:
            lines.append(_Line(f"{link}: {provider}", need.help))
    rest = []
    for word, setting in head.settings.items():
        if word == "content" and _has_content(kind):
            lines.append(_Line(f"content: ./sites/{name}", setting.help))
        elif setting.required or _holds_things(setting):
            lines.append(_Line(f"{word}: {_example(word, setting, stack)}", setting.help))
        elif setting.default not in (None, "", [], {}):
            rest.append(_Line(f"{word}: {_flow(setting.default)}", setting.help, active=False))
    ports = kind.recipe.get("ports")
    if isinstance(ports, dict) and not _is_routed(kind) and "publish" not in kind.recipe:
        shown = ", ".join(f'"{p}:{p}"' for p in ports.values())
        lines.append(_Line(f"publish: [{shown}]", "open these ports on 127.0.0.1", active=False))
    return [*lines, *rest[:SHOWN]]


def _aligned(lines: Sequence[_Line]) -> list[str]:
    """Lines of a server, what they are about in one column where it fits."""
    texts = [line.text if line.active else f"# {line.text}" for line in lines]
    widths = [len(t) for t, line in zip(texts, lines, strict=True) if line.about and len(t) <= 36]
    column = max(widths, default=0) + 3
    shown = []
    for text, line in zip(texts, lines, strict=True):
        about = _first_sentence(line.about)
        comment = f"    {text:<{column}}# {about}" if len(text) < column else f"    {text}   # {about}"
        if not about:
            shown.append(f"    {text}")
        elif len(comment) <= WIDTH:
            shown.append(comment)
        else:
            shown += [f"    # {about}:", f"    {text}"]
    return shown


def _first_sentence(text: str) -> str:
    """What a help text begins with."""
    first = re.split(r"(?<=[^.]{2})(?:\. (?=[A-Z])|[;:] )", " ".join(text.split()))[0]
    return first.rstrip(".")


def _holds_things(setting: Setting) -> bool:
    """A map of things of one sort, which a server without any is of little use for."""
    return setting.type == "map" and setting.items is not None and bool(setting.items.fields)


def _flow(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("\n").removesuffix("\n...")


def _example(name: str, setting: Setting, stack: str) -> str:
    """A value that a setting takes, for the reader to change."""
    examples = {
        "email": f"you@{stack}.test",
        "domain": f"{stack}.test",
        "integer": "1",
        "number": "1",
        "port": "8080",
        "listen": "8080",
        "path": ".",
        "size": "64M",
        "duration": "30s",
        "boolean": "true",
        "command": '["true"]',
        "test": "[CMD, 'true']",
        "list": "[]",
    }
    if setting.default is not None and setting.default != {}:
        return _flow(setting.default)
    if setting.type == "choice":
        return _flow(setting.choices[0])
    if setting.type == "map" and setting.fields:
        inner = (f"{n}: {_example(n, s, stack)}" for n, s in setting.fields.items() if s.required)
        return "{" + ", ".join(inner) + "}"
    if setting.type == "map":
        key = examples.get(setting.keys.type if setting.keys else "", "name")
        item = setting.items
        return "{" + f"{key}: {_example(key, item, stack) if item else '{}'}" + "}"
    return examples.get(setting.type, name)
