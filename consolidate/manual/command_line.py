"""The verbs and their options, from the command line itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from typing import Any

from consolidate.manual.text import in_line, table

Row = tuple[str, str]  # an option, and what it is for: where both are the same, verbs share it


def cli_page(command: Any, level: int = 2) -> str:
    """The commands below `command` (a click group): the options that several share, then how each is used."""
    leaves = [leaf for _, leaf in _commands(command, "") if not hasattr(leaf, "commands")]
    found = [p for leaf in leaves for p in _options(leaf)]
    uses = Counter(map(_row, found))
    shared = {row for row, times in uses.items() if times > 1}
    panels: dict[str, dict[Row, None]] = {}
    for parameter in found:
        if (panel := getattr(parameter, "rich_help_panel", None)) and _row(parameter) in shared:
            panels.setdefault(panel, {})[_row(parameter)] = None
    parts = []
    for panel, rows in panels.items():
        parts.append(f"{'#' * level} {panel}: options of several verbs\n\n{table(('option', 'what'), list(rows))}")
    for words, sub in _commands(command, str(command.name)):
        depth = level + words.count(" ") - 1
        parts.append(f"{'#' * depth} `{words}`\n\n{in_line(sub.help or '')}\n")
        if not hasattr(sub, "commands") or _options(sub):
            parts += _usage(words, sub, shared)
    return "\n".join(parts)


def _commands(group: Any, path: str) -> Iterable[tuple[str, Any]]:
    for name, sub in group.commands.items():
        words = f"{path} {name}"
        yield words, sub
        if hasattr(sub, "commands"):
            yield from _commands(sub, words)


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]


def _usage(words: str, command: Any, shared: Set[Row]) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = _options(command)
    usage = [words, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    rows = [(f"`{_argument(p)}`", in_line(p.help or "")) for p in arguments]
    groups: dict[str, list[str]] = {}
    for p in options:
        if (panel := getattr(p, "rich_help_panel", None)) and _row(p) in shared:
            groups.setdefault(panel, []).append(f"`{p.opts[0]}`")
        else:
            rows.append(_row(p))
    told = [f"{panel}: {', '.join(names)}." for panel, names in groups.items()]
    return [f"    {' '.join(usage)}\n", *filter(None, [table(("", "what"), rows), " ".join(told) + "\n" * bool(told)])]


def _argument(parameter: Any) -> str:
    name = parameter.metavar or str(parameter.name).upper()
    more = "..." if parameter.nargs == -1 else ""
    return f"{name}{more}" if parameter.required or name.startswith("[") else f"[{name}]{more}"


VALUES = {"str": "TEXT", "text": "TEXT", "path": "PATH", "int range": "NUMBER", "float range": "NUMBER"}


def _row(option: Any) -> Row:
    return _option(option), _option_help(option)


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if not parameter.is_flag:
        kind = parameter.type.name
        choices = getattr(parameter.type, "choices", None)
        names[-1] += " " + (
            "|".join(map(str, choices)) if choices else parameter.metavar or VALUES.get(kind, kind.upper())
        )
    return ", ".join(f"`{n}`" for n in names)


def _option_help(parameter: Any) -> str:
    told = in_line(parameter.help or "")
    if parameter.envvar:
        told += f" Environment: `{parameter.envvar}`."
    if not parameter.is_flag and isinstance(parameter.default, str | int | float):
        told += f" Default: `{parameter.default}`."
    return told
