"""YAML text in; plain data and the place of every value out, or all that is wrong. Knows no word of a stack.

A plain scalar is accepted only where YAML 1.1 and 1.2 read the same in it: what they read differently (`no`, `012`,
`22:22`, `1_000`) is a problem that asks for quotes. Dates stay text.

One parse makes a graph of nodes, in which aliases are not expanded; the limits hold while it grows, so that a bomb
costs nothing. A walk over the graph makes the data and notes the places; an overlay is walked over the base's data.
Variables are filled in last: what an overlay replaces needs none, and no value of a variable is ever read as YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consolidate.errors import Place, Problem, StackInvalid
from consolidate.loader.filling import fill_in
from consolidate.loader.nodes import MAX_DEPTH, MAX_VALUES, Node
from consolidate.loader.text import MAX_BYTES, parse
from consolidate.loader.walk import MAX_PROBLEMS, NEW, Walk, YamlPath
from consolidate.loader.words import yaml_path
from consolidate.variables import Use, Variables

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_PROBLEMS",
    "MAX_VALUES",
    "Document",
    "load",
    "yaml_path",
]


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it."""

    data: Any
    values: Mapping[YamlPath, Place] = field(default_factory=dict)
    keys: Mapping[YamlPath, Place] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    removed: Mapping[YamlPath, Place] = field(default_factory=dict)  # by the overlay
    uses: Mapping[YamlPath, tuple[Use, ...]] = field(default_factory=dict)  # of variables
    asked: frozenset[str] = frozenset()  # the names of all variables that were looked for

    def place(self, path: Iterable[str | int]) -> Place | None:
        """The place of a value, or of the nearest one around it."""
        path = tuple(path)
        around = (self.values.get(path[:length]) for length in range(len(path), -1, -1))
        return next((place for place in around if place), None)

    def key_place(self, path: Iterable[str | int]) -> Place | None:
        """The place of a mapping's key; where there is no key, that of the value."""
        path = tuple(path)
        return self.keys.get(path) or self.place(path)


def load(
    path: Path,
    overlay: Path | None = None,
    *,
    shown_as: Callable[[Path], str] = str,
    variables: Variables | None = None,
) -> Document:
    """Read a file, and an overlay over it: maps merge by key, lists and scalars replace, null removes.

    Then fill in `variables`; with none a `$` is a character like any other. Raises StackInvalid with all that is wrong
    in both files.
    """
    files: tuple[Path, ...] = (path,) if overlay is None else (path, overlay)
    problems: list[Problem] = []
    roots: list[Node | None] = []
    for file in files:
        try:
            roots.append(parse(file, shown_as(file), is_overlay=bool(roots or problems)))
        except StackInvalid as invalid:
            problems += invalid.problems
    walk = Walk(problems)
    data: Any = NEW
    for root in filter(None, roots):
        data = walk.value(root, (), data)
    if overlay:
        walk.forget_removed(data)
    uses = {}
    if variables is not None and isinstance(data, dict):
        uses = fill_in(data, walk.values, variables, walk.report)
        files += (variables.file,) if variables.asked else ()
    if walk.problems:
        more = [Problem(f"and {walk.unsaid} more problems")] if walk.unsaid else []
        raise StackInvalid([*walk.problems, *more])
    asked = frozenset(variables.asked if variables is not None else ())
    return Document(data, walk.values, walk.keys, files, walk.removed, uses, asked)
