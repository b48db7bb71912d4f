"""Variables filled into what was read: into values, never into keys, and after YAML had its say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from consolidate.errors import Place, Problem
from consolidate.loader.walk import REFUSED, YamlPath
from consolidate.loader.words import yaml_path
from consolidate.variables import Substituted, Unfilled, Use, Variables, fill, parse

_NO_TEXT = re.compile(f"{REFUSED.pattern}|[\ud800-\udfff]")  # a half of a surrogate pair: bytes that are no UTF-8


def fill_in(
    data: dict[str, Any],
    places: Mapping[YamlPath, Place],
    variables: Variables,
    report: Callable[[Problem], None],
) -> dict[YamlPath, tuple[Use, ...]]:
    """Fill variables into the texts of `data`; which ones stand in which value.

    What is at the top under `x-…` is the user's own, and stays as it is. Raises StackInvalid for a bad .env file.
    """
    found: dict[YamlPath, tuple[Use, ...]] = {}
    own = {key: value for key, value in data.items() if not key.startswith("x-")}
    for around, key, path, text in _texts(own, ()):
        uses: list[Use] = []
        try:
            filled = fill(parse(text), variables.find, uses)
        except Unfilled as error:
            hint = (variables.near(error.name) if error.name else "") or error.hint
            report(Problem(str(error), error.place or places.get(path), yaml_path(path), hint))
            continue
        if bad := _NO_TEXT.search(filled):
            names = ", ".join(dict.fromkeys(u.name for u in uses))
            what = f"the character U+{ord(bad[0]):04X} in the value of {names} can't stand in a text"
            report(Problem(what, places.get(path), yaml_path(path), "remove it; only line ends and tabs can"))
            continue
        around[key] = Substituted(filled) if uses else filled
        if uses:
            found[path] = tuple(uses)
        if around is own:
            data[key] = own[key]
    return found


def _texts(around: Any, path: YamlPath) -> Iterator[tuple[Any, Any, YamlPath, str]]:
    """Every text with a dollar: what holds it, its key there, its path, and itself."""
    inside = list(around.items() if isinstance(around, dict) else enumerate(around))
    for key, value in inside:
        if isinstance(value, str):
            if "$" in value:
                yield around, key, (*path, key), value
        elif isinstance(value, dict | list):
            yield from _texts(value, (*path, key))
