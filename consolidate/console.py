"""The only printing: tables, progress, reports. Data goes to standard output, everything else to standard error.

rich is imported where something is drawn with it; a no-op `up` needs none of it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from consolidate.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from consolidate.docker_engine import DockerEngine
    from consolidate.doctor import Check
    from consolidate.listing import LogLine
    from consolidate.plan import Plan
    from consolidate.report import Event, Report
    from consolidate.resolve import Resolved

SIGNS = {
    "create": "+",
    "replace": "~",
    "reload": "~",
    "start": "~",
    "connect": "~",
    "grant": "~",
    "remove": "-",
    "image": "+",
}
STYLES = {"+": "green", "~": "yellow", "-": "red"}
HEALTH_STYLES = {"ready": "green", "starting": "yellow", "unhealthy": "red"}
NARROW = 100  # columns below which a table leaves out what JSON has anyway


def _console(*, error: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=False)


def load_soon() -> None:
    """Load what draws tables, while the engine has work to do."""
    threading.Thread(target=importlib.import_module, args=("rich.table",), name="load").start()


def say(text: str) -> None:
    print(text)


def say_progress(text: str) -> None:
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(rows: Sequence[Mapping[str, Any]], format_: str, *, columns: Sequence[str]) -> None:
    """Rows as a table of `columns`, or as JSON with all that they have."""
    if format_ == "json":
        print_json(list(rows))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        cells = [row.get(c) for c in columns]
        table.add_row(
            *(Text("\n".join(map(str, c)) if isinstance(c, list) else "" if c is None else str(c)) for c in cells)
        )
    _console().print(table)


def show_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        print(text)
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

    _console().print(Page(text))


def show_plan(plan: Plan, format_: str, warnings: Iterable[str] = (), *, error: bool = False) -> None:
    """A plan: a row for each server and image that changes, then what to know."""
    if format_ == "json":
        print_json(plan.to_json())
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from consolidate.summary import summarise

    console = _console(error=error)
    if not plan:
        console.print(f"{plan.stack}: nothing to change")
    else:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("", "WHAT", "CHANGE", "WHY", "DOWNTIME"):
            table.add_column(column, overflow="fold")
        for row in summarise(plan):
            sign = SIGNS[row.change]
            style = STYLES[sign]
            table.add_row(
                Text(sign, style=style), Text(row.what, style=style), row.change, Text(row.why), Text(row.downtime)
            )
        console.print(table)
        console.print(f"{plan.stack}: {len(plan.operations)} operations")
    for note in (*plan.notes, *warnings):
        console.print(Text(f"note: {note}", style="dim"))


def announce(plan: Plan, how: str, warnings: Iterable[str] = (), *, changed: bool = False) -> None:
    """What is about to be done, on standard error: for people, so not where `how` progress is shown is JSON or quiet."""
    if how in ("json", "quiet"):
        return
    if changed:
        say_progress("the engine has changed since the plan was made; this is what is done now:")
    show_plan(plan, "table", warnings, error=True)


@contextlib.contextmanager
def progress(how: str, plan: Plan) -> Iterator[Callable[[Event], None]]:
    """Show events as they come: a live table on a terminal, else a line for each."""
    if how == "auto":
        how = "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if how == "quiet":
        yield lambda event: None
    elif how == "json":
        yield _json_line
    elif how == "plain":
        yield _plain
    else:
        live = _Live(plan)
        with live.shown():
            yield live.report


def _label(event: Event) -> str:
    operation = event.operation
    return f"{operation.server + ': ' if operation.server else ''}{operation.verb} {operation.id.partition(':')[2]}".strip()


def _json_line(event: Event) -> None:
    sys.stderr.write(f"{json.dumps(event.to_json())}\n")  # one write for the whole line, as below
    sys.stderr.flush()


def _plain(event: Event) -> None:
    if event.status in ("done", "failed", "skipped"):
        detail = f" ({event.detail.splitlines()[0]})" if event.detail else ""
        # One write for the whole line: operations end in several threads.
        sys.stderr.write(f"{event.status:8}{event.seconds:6.1f} s  {_label(event)}{detail}\n")


class _Live:
    """What is under way, and how much is done."""

    def __init__(self, plan: Plan) -> None:
        self.total = len(plan.operations)
        self.ended = 0
        self.running: dict[str, tuple[Event, float]] = {}
        self.mutex = threading.Lock()

    def report(self, event: Event) -> None:
        with self.mutex:
            if event.status in ("started", "progress"):
                began = self.running.get(event.operation.id, (event, time.monotonic()))[1]
                self.running[event.operation.id] = (event, began)
            else:
                self.running.pop(event.operation.id, None)
                self.ended += 1
        if event.status == "failed":
            self.live.console.print(f"[red]failed[/] {_label(event)}", highlight=False)
        elif event.operation.id.startswith("ready:") and event.status == "done":
            self.live.console.print(f"[green]ready[/]  {event.operation.server}", highlight=False)

    def __rich__(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        with self.mutex:
            grid.add_row(ProgressBar(self.total, self.ended, width=24), f"{self.ended}/{self.total}")
            rows = list(self.running.values())
        for event, began in rows[:12]:
            seconds = time.monotonic() - began
            grid.add_row(
                Text(f"{_label(event)}"[:60]), Text(f"{seconds:.0f} s {event.detail[:60]}", style="dim", no_wrap=True)
            )
        return grid

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        from rich.live import Live

        self.live = Live(self, console=_console(error=True), refresh_per_second=8, transient=True)
        with self.live:
            yield


def show_report(report: Report, how: str) -> None:
    """How it went: failures with the last lines of their programs, what was kept, how much was done.

    `how` progress is shown: as JSON the events have said it all, and `quiet` is about failures alone.
    """
    if how == "json":
        return
    for outcome in report.failed:
        server = outcome.operation.server
        say_progress(f"\nfailed: {outcome.operation.verb} {server}: {outcome.message}")
        for line in outcome.log:
            say_progress(f"  | {line}")
        for undone in outcome.undone:
            say_progress(f"  taken back: {undone}")
    servers = sorted({o.operation.server for o in report.skipped if o.operation.server} - {""})
    if servers:
        say_progress(f"not done, since what they need failed: {', '.join(servers)}")
    if how == "quiet":
        return
    for note in report.plan.notes if report.ok else ():
        say_progress(note)
    ended = sum(1 for o in report.outcomes if o.status == "done")
    say_progress(f"{report.plan.stack}: {ended} of {len(report.outcomes)} operations done")


def show_addresses(
    resolved: Resolved, engine: DockerEngine, format_: str, servers: Sequence[str] = (), ready: Collection[str] = ()
) -> None:
    """`ps`: a row for each server; those in `ready` have just been seen to be."""
    from consolidate import listing

    rows = listing.server_rows(resolved, engine, servers, ready)
    if format_ == "json":
        print_json(rows)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console()
    wide = console.width >= NARROW
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns = ["SERVER", "KIND", "STATE", "HEALTH", "ADDRESSES"] + (["SINCE", "IMAGE"] if wide else [])
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        state = Text(row["state"], style="" if row["state"] == "running" else "red")
        health = Text(row["health"], style=HEALTH_STYLES.get(row["health"], ""))
        addresses = Text("\n".join([*row["urls"], *row["published"]]))
        cells = [Text(row["server"]), Text(row["kind"]), state, health, addresses]
        table.add_row(*cells, *([Text(row["since"] or ""), Text(row["image"] or "")] if wide else []))
    console.print(table)


COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


def show_logs(lines: Iterable[LogLine], *, timestamps: bool) -> None:
    from rich.text import Text

    console = _console()
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

    console = _console()
    style = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in found:
        console.print(Text.assemble((f"{check.status:5}", style[check.status]), f" {check.name}: {check.detail}"))
        for line in check.hint.splitlines():
            console.print(Text(f"      {line}", style="dim"), soft_wrap=True)


def confirm_loss(stack: str, volumes: Sequence[str], *, yes: bool) -> None:
    """Ask before data is removed: the stack's name must be typed.

    Raises UsageError where it isn't, or where there is nobody to ask.
    """
    if yes:
        return
    say_progress(f"This removes the data of {stack} for good:")
    for volume in volumes:
        say_progress(f"  {volume}")
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on, and nothing was removed", hint="`--yes` answers the question")
    print(f"Type {stack} to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != stack:
        raise UsageError("that is not its name; nothing was removed")
