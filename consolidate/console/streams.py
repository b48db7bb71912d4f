"""The two streams: data on standard output, everything else on standard error; and the one question that is asked."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from consolidate.console import screen
from consolidate.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console_for(*, error: bool = False) -> Console:
    from rich.console import Console

    if error and (console := screen.shared()):
        return console
    return Console(stderr=error, highlight=False, soft_wrap=False)


def table_of(columns: Sequence[str]) -> Table:
    """An empty table, in the one look that all have; a long word is folded, never cut."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def load_soon() -> None:
    """Load what draws tables, while the engine has work to do."""

    def load() -> None:
        for module in ("rich.table", "rich.console", "consolidate.listing"):
            importlib.import_module(module)

    threading.Thread(target=load, name="load").start()


def say(text: str) -> None:
    print(text)


def say_progress(text: str) -> None:
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def confirm_restore(server: str, *, yes: bool) -> None:
    """Ask before a server's data is replaced by older: its name must be typed.

    Raises UsageError where it isn't, or where there is nobody to ask.
    """
    if not yes:
        say_progress(f"What was written to {server} since then is lost, but for a dump of it that is kept.")
        _ask_for(server, "was changed")


def confirm_return(stack: str, servers: Sequence[str], backup: str, when: str, *, whole: bool, yes: bool) -> None:
    """Ask before data is replaced by that of a backup: the stack's name must be typed. What isn't `whole` is not saved before.

    Raises UsageError where it isn't, or where there is nobody to ask.
    """
    if not yes:
        say_progress(f"The data of {', '.join(servers)} becomes what it was at {when} (backup {backup}).")
        if whole:
            say_progress("What is there now is saved before, as a backup of its own.")
        else:
            say_progress("What is there now is not whole, since a restore was cut off. It is not saved.")
        _ask_for(stack, "was changed")


def confirm_schedule(stack: str, *, yes: bool) -> None:
    """Ask before something of the machine itself is changed: the stack's name must be typed.

    Raises UsageError where it isn't, or where there is nobody to ask.
    """
    if not yes:
        _ask_for(stack, "was changed")


def confirm_loss(stack: str, volumes: Sequence[str], *, yes: bool) -> None:
    """Ask before data is removed: the stack's name must be typed.

    Raises UsageError where it isn't, or where there is nobody to ask.
    """
    if yes:
        return
    say_progress(f"This removes the data of {stack} for good:")
    for volume in volumes:
        say_progress(f"  {volume}")
    _ask_for(stack, "was removed")


def _ask_for(name: str, what: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask on, and nothing {what}", hint="`--yes` answers the question")
    with screen.still():
        print(f"Type {name} to go on: ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline().strip()
    if typed != name:
        raise UsageError(f"that is not its name; nothing {what}")
