"""What is under way: a live table on a terminal, a line for each operation elsewhere, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consolidate.console import screen
from consolidate.console.streams import console_for, say_progress

if TYPE_CHECKING:
    from consolidate.plan import Plan
    from consolidate.report import Event


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
        with screen.showing(live, console_for(error=True)):
            yield live.report


def teller(how: str, *, passing: bool = False) -> Callable[[str], None]:
    """Tells what is no operation of the plan, beside the progress that is shown: also where that is `quiet`, but for what is
    `passing`, as how far something has come."""
    if passing and how == "quiet":
        return lambda _: None
    return _json_word if how == "json" else say_progress


def _json_word(text: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    row = {"time": now, "operation": "", "server": "", "status": "note", "seconds": 0.0, "detail": text}
    sys.stderr.write(f"{json.dumps(row)}\n")
    sys.stderr.flush()


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
            console_for(error=True).print(f"[red]failed[/] {_label(event)}", highlight=False)
        elif event.operation.id.startswith("ready:") and event.status == "done":
            console_for(error=True).print(f"[green]ready[/]  {event.operation.server}", highlight=False)

    def __rich__(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        with self.mutex:
            grid.add_row(
                ProgressBar(self.total, self.ended, width=24),
                f"{self.ended}/{self.total}" if self.total else str(self.ended),
            )
            rows = list(self.running.values())
        for event, began in rows[:12]:
            seconds = time.monotonic() - began
            grid.add_row(
                Text(f"{_label(event)}"[:60]), Text(f"{seconds:.0f} s {event.detail[:60]}", style="dim", no_wrap=True)
            )
        return grid
