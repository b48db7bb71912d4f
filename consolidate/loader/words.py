"""How paths, names and problems of a file are told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from consolidate.errors import Place, Problem, StackInvalid


def yaml_path(path: Iterable[str | int]) -> str:
    """How a path is shown: `servers.www.domains[0]`, `mailboxes."ada@acme.test"`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += "." * bool(shown) + (part if re.fullmatch(r"[\w-]{1,60}", part) else quote(part))
    return shown


def quote(text: str) -> str:
    text = text if len(text) <= 60 else text[:59] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def invalid(what: str, place: Place, hint: str, path: Iterable[str | int] = ()) -> StackInvalid:
    return StackInvalid([Problem(what, place, yaml_path(path), hint)])


def place_at(name: str, text: str, index: int) -> Place:
    return Place(name, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))
