"""What is there: rows as tables or JSON, the servers of `ps`, lines of logs, checks, pages of documentation."""

from __future__ import annotations

import html
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from consolidate.docker_engine import DockerEngine
    from consolidate.doctor import Check
    from consolidate.listing import LogLine
    from consolidate.resolved import Resolved

HEALTH_STYLES = {"ready": "green", "starting": "yellow", "unhealthy": "red"}
NEVER = "never"
NARROW = 100  # columns below which a table leaves out what JSON has anyway


def show_rows(rows: Sequence[Mapping[str, Any]], format_: str, *, columns: Sequence[str]) -> None:
    """Rows as a table of `columns`, or as JSON with all that they have."""
    if format_ == "json":
        print_json(list(rows))
        return
    from rich.text import Text

    table = table_of([c.upper() for c in columns])
    for row in rows:
        cells = [row.get(c) for c in columns]
        table.add_row(
            *(Text("\n".join(map(str, c)) if isinstance(c, list) else "" if c is None else str(c)) for c in cells)
        )
    console_for().print(table)


def show_history(rows: Sequence[Mapping[str, Any]], format_: str) -> None:
    """`history`: a row for each generation; a failure with its reason."""
    if format_ == "json":
        print_json(list(rows))
        return
    from rich.text import Text

    console = console_for()
    wide = console.width >= NARROW
    table = table_of(["SERVER", "GEN", "WHEN", "BY", "WHAT CHANGED"] + (["IMAGE"] if wide else []) + ["RESULT"])
    styles = {"running": "green", "failed": "red"}
    for row in rows:
        result = f"{row['result']}: {row['detail']}" if row["detail"] else row["result"]
        cells = [row["server"], str(row["generation"]), row["when"][:16].replace("T", " "), row["by"], row["reason"]]
        texts = [*cells, *([row["image"]] if wide else [])]
        table.add_row(*map(Text, texts), Text(result, style=styles.get(row["result"], "")))
    console.print(table)


def show_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        print(html.unescape(text))
        return
    from rich.markdown import Markdown, TableElement
    from rich.table import Table

    class Folded(TableElement):
        """A table that breaks a long word where rich would cut it off."""

        def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
            for table in super().__rich_console__(console, options):
                for column in table.columns if isinstance(table, Table) else ():
                    column.overflow = "fold"
                yield table

    class Page(Markdown):
        elements: ClassVar = Markdown.elements | {"table_open": Folded}

    console_for().print(Page(text))


def show_addresses(
    resolved: Resolved, engine: DockerEngine, format_: str, servers: Sequence[str] = (), ready: Collection[str] = ()
) -> None:
    """`ps`: a row for each server; those in `ready` have just been seen to be."""
    from consolidate import listing

    rows = listing.server_rows(resolved, engine, servers, ready)
    if format_ == "json":
        print_json(rows)
        return
    from rich.text import Text

    console = console_for()
    wide = console.width >= NARROW
    several = any("replica" in row for row in rows)
    kept = kept_columns(rows, datetime.now(UTC))
    columns = ["SERVER", *(["REPLICA"] if several else []), "KIND", "STATE", "HEALTH", "ADDRESSES"]
    table = table_of([*columns, *(["SINCE", "IMAGE"] if wide else []), *kept])
    for number, row in enumerate(rows):
        state = Text(row["state"], style="" if row["state"] == "running" else "red")
        health = Text(row["health"], style=HEALTH_STYLES.get(row["health"], ""))
        addresses = Text("\n".join([*row["urls"], *row["published"]]))
        cells = [Text(row["server"]), *([Text(str(row.get("replica", "")))] if several else []), Text(row["kind"])]
        cells += [state, health, addresses]
        cells += [Text(row["since"] or ""), Text(row["image"] or "")] if wide else []
        cells += [Text(column[number], style="yellow" if column[number] == NEVER else "") for column in kept.values()]
        table.add_row(*cells)
    console.print(table)


def kept_columns(rows: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, list[str]]:
    """How long ago the data of each server was saved, and seen to come back: columns, where there is something to tell."""
    columns = {}
    for key in ("backup", "drill"):
        there = any(key in row for row in rows) and (key == "backup" or any(row.get("backup") for row in rows))
        if there:
            columns[key.upper()] = [_age(row[key], now) if key in row else "" for row in rows]
    return columns


def _age(when: str | None, now: datetime) -> str:
    from consolidate.snapshots import age

    return age(now, datetime.fromisoformat(when)) if when else NEVER


COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


def show_logs(lines: Iterable[LogLine], *, timestamps: bool) -> None:
    from rich.text import Text

    console = console_for()
    colours: dict[str, str] = {}
    for line in lines:
        colour = colours.setdefault(line.server, COLOURS[len(colours) % len(COLOURS)])
        stamp = f"{line.time} " if timestamps else ""
        text = f"{stamp}{line.text}"
        if console.is_terminal:
            console.print(Text(f"{line.server:<12} | ", style=colour) + Text(text), soft_wrap=True)
        else:
            print(f"{line.server} | {text}", flush=True)


def show_checks(found: Sequence[Check], format_: str) -> None:
    rows = [{"check": c.name, "status": c.status, "detail": c.detail, "hint": c.hint} for c in found]
    if format_ == "json":
        print_json(rows)
        return
    from rich.text import Text

    console = console_for()
    style = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in found:
        console.print(Text.assemble((f"{check.status:5}", style[check.status]), f" {check.name}: {check.detail}"))
        for line in check.hint.splitlines():
            console.print(Text(f"      {line}", style="dim"), soft_wrap=True)
