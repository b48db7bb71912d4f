"""How paths, names and problems of a file are told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from consolidate.errors import Place, Problem, StackInvalid


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the known word that is nearest, or nothing."""
    from difflib import get_close_matches

    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean '{by_lower[near[0]]}'?" if near else ""


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
