"""`consolidate init`: a commented stack file from a choice of kinds. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from consolidate.errors import UsageError
from consolidate.kinds import Catalogue, Kind
from consolidate.loader import did_you_mean

INDEX = "<!doctype html>\n<meta charset=utf-8>\n<title>{0}</title>\n<h1>{0}</h1>\n"


def starter(catalogue: Catalogue, kinds: Sequence[str], name: str) -> tuple[str, dict[str, str]]:
    """The text of a stack file with a server of each of `kinds`, and folders to make, each with its index.html.

    What a kind needs comes with it: a proxy for whatever has a domain, a provider for each required link.
    Raises UsageError for an unknown kind.
    """
    chosen: list[Kind] = []

    def choose(kind: Kind) -> None:
        if kind in chosen:
            return
        for link in kind.head.links.values():
            if link.required:
                choose(next(k for k in catalogue if link.provides in k.head.provides))
        chosen.append(kind)

    for word in kinds:
        if word not in catalogue:
            raise UsageError(
                f"there is no kind '{word}'", hint=did_you_mean(word, catalogue.names) or "`consolidate kinds`"
            )
        choose(catalogue[word])
    if not chosen:
        choose(
            next(
                k
                for k in catalogue
                if isinstance(k.recipe.get("http"), int) and not _required(k) and "content" in k.head.settings
            )
        )
    routed = [k for k in chosen if "http" in k.recipe]
    router = next((k for k in catalogue if k.recipe.get("routes")), None)
    if routed and router and router not in chosen:
        chosen.insert(0, router)
    stack = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "stack"
    stack = stack if stack[0].isalpha() else f"s-{stack}"
    lines = [
        "# A stack: every server on this host, each in its own container.",
        "# `consolidate plan` shows what would be done, `consolidate up` does it, `consolidate kinds show KIND` explains.",
        f"stack: {stack[:32]}",
        "servers:",
    ]
    folders = {}
    for kind in chosen:
        server = _server(kind, chosen, stack)
        lines += ["", f"  # {kind.head.summary}", f"  {kind.name}:", *server]
        if "content" in kind.head.settings:
            folders[f"sites/{kind.name}"] = INDEX.format(kind.name)
    return "\n".join(lines) + "\n", folders


def _required(kind: Kind) -> bool:
    return any(s.required for s in kind.head.settings.values())


def _server(kind: Kind, chosen: Sequence[Kind], stack: str) -> list[str]:
    lines = [f"    kind: {kind.name}"]
    if "http" in kind.recipe and "build" not in kind.head.settings:
        lines.append(f"    domains: [{kind.name}.{stack}.test]")
    if "build" in kind.head.settings:
        lines.append("    image: debian:bookworm-slim  # any image")
        lines.append("    command: [sleep, infinity]")
    for name, link in kind.head.links.items():
        provider = next((k for k in chosen if link.provides in k.head.provides and k is not kind), None)
        if provider:
            lines.append(f"    {name}: {provider.name}  # {link.help.splitlines()[0] if link.help else 'a link'}")
    for name, setting in kind.head.settings.items():
        about = setting.help.splitlines()[0] if setting.help else ""
        if name == "content":
            lines.append(f"    content: ./sites/{kind.name}  # {about}")
        elif setting.required:
            lines.append(f"    {name}: {_example(name, setting, stack)}  # {about}")
        elif setting.default not in (None, [], {}) and not isinstance(setting.default, dict | list):
            lines.append(f"    # {name}: {_flow(setting.default)}  # {about}")
    return lines


def _flow(value: object) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("\n").removesuffix("\n...")


def _example(name: str, setting: object, stack: str) -> str:
    from consolidate.kinds import Setting

    assert isinstance(setting, Setting)
    examples = {"email": f"you@{stack}.test", "domain": f"{stack}.test", "integer": "1", "port": "8080", "path": "."}
    if setting.type == "map" and setting.fields:
        inner = ", ".join(f"{n}: {_example(n, s, stack)}" for n, s in setting.fields.items() if s.required)
        return "{" + inner + "}"
    if setting.type == "map":
        key = examples.get(setting.keys.type if setting.keys else "", "name")
        return "{" + f"{key}: {{}}" + "}"
    if setting.type == "list":
        return "[]"
    return examples.get(setting.type, name)
