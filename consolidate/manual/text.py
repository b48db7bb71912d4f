"""Markdown: tables, and text that is safe in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; an empty text where there are no rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) + "\n" if lines else ""


def in_line(text: str) -> str:
    """Text of a manifest in one line, in which `<…>` is no HTML."""
    return " ".join(text.replace("<", "&lt;").split())


def explained(help_: str, default: object, *, required: bool) -> str:
    """What a key is for, and what holds where it isn't given."""
    about = "" if required or default in (None, [], {}) else f"Default {code(default)}."
    return " ".join(filter(None, ["**Required.**" if required else "", in_line(help_), about]))


def code(value: object) -> str:
    """A value as YAML would have it, in code."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"
