"""`for`: one entry written out as many servers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from consolidate import naming
from consolidate.errors import Problem
from consolidate.places import Places

LARGEST = 32 * 2**20  # characters of all servers that one `for` makes


def _substitute(value: Any, name: str, item: str) -> Any:
    if isinstance(value, str):  # one without it stays what it is: a variable's text may be a number
        return value.replace("{" + name + "}", item) if "{" + name + "}" in value else value
    if isinstance(value, list):
        return [_substitute(v, name, item) for v in value]
    if isinstance(value, dict):
        return {_substitute(k, name, item): _substitute(v, name, item) for k, v in value.items()}
    return value


def _items(given: Any) -> list[str] | None:
    """The values of a `for`: a list, or a range such as 1..20."""
    if isinstance(given, list) and given and all(isinstance(v, str | int) and not isinstance(v, bool) for v in given):
        return [str(v) for v in given]
    span = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", given, re.ASCII) if isinstance(given, str) else None
    if span and int(span[1]) <= int(span[2]) < int(span[1]) + 10_000:
        width = len(span[1]) if span[1].startswith("0") else 0
        return [str(n).zfill(width) for n in range(int(span[1]), int(span[2]) + 1)]
    return None


def expand(servers: Mapping[str, Any], places: Places, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """Servers with every `for` written out."""
    result: dict[str, dict[str, Any]] = {}

    def add(name: str, entry: Any, origin: str) -> None:
        places.origin[name] = origin
        if not naming.NAME.fullmatch(name):
            hint = "a server's name has letters a-z, digits and dashes, begins with a letter, and has at most 32"
            if "{" in name:
                hint = "braces are filled in by a `for`: write for: {i: 1..20} in this server"
            what = f"'{name if len(name) <= 60 else f'{name[:59]}…'}' can't be a server's name"
            problems.append(places.problem(what, "servers", name, hint=hint, key=True))
        elif name in result:
            what, hint = f"two servers are named '{name}'", "a name stands once; the other one may come from a `for`"
            problems.append(places.problem(what, "servers", name, hint=hint, key=True))
        elif not isinstance(entry, dict):
            hint = f"write at least `{name}: {{kind: web}}`; `consolidate kinds` lists them"
            problems.append(places.problem("a server is a mapping with its kind", "servers", name, hint=hint))
        else:
            result[name] = places.entries[name] = entry

    for name, entry in servers.items():
        if not (isinstance(entry, dict) and "for" in entry):
            add(name, entry, name)
            continue
        places.origin[name] = name
        loop, rest = entry["for"], {k: v for k, v in entry.items() if k != "for"}
        variable = next(iter(loop)) if isinstance(loop, dict) and len(loop) == 1 else None
        items = _items(loop[variable]) if variable is not None else None
        if items is None:
            hint = "write for: {i: 1..20} or for: {name: [red, green]}, and {i} or {name} where the value goes"
            problems.append(
                places.problem("a `for` has one name with a list or a range", "servers", name, "for", hint=hint)
            )
        elif "{" + str(variable) + "}" not in name:
            what = f"the server's name must have {{{variable}}} in it, or all would be named '{name}'"
            hint = f"write {name}-{{{variable}}}: at its beginning"
            problems.append(places.problem(what, "servers", name, hint=hint, key=True))
        elif len(items) * len(repr(rest)) > LARGEST:
            what, hint = f"{len(items)} such servers are more than one file can hold", "make several stacks of them"
            problems.append(places.problem(what, "servers", name, "for", hint=hint))
        else:
            for item in items:
                places.loops[name.replace(f"{{{variable}}}", item)] = (str(variable), item)
                add(name.replace(f"{{{variable}}}", item), _substitute(rest, str(variable), item), name)
    return result
