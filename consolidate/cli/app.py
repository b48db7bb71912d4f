"""The command line: the verbs put together, and every error as a message and an exit status."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import typer
from typer import Abort
from typer._click.exceptions import ClickException
from typer._click.exceptions import UsageError as ClickUsageError

from consolidate import __version__
from consolidate.cli import (
    backup,
    change,
    describe,
    environments,
    history,
    kinds,
    lock,
    look,
    schedule,
    secrets,
    ship,
    update,
)
from consolidate.errors import ConsolidateError, OperationFailed

USAGE, INTERRUPTED = 64, 130
PROGRAM = "consolidate"
SURPLUS_FILE = re.compile(r"(?:unexpected extra argument|No such command).*\.ya?ml\b")  # as Click tells of them

app = typer.Typer(
    name=PROGRAM,
    help="The servers of many old machines on one host, each in its own container.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (describe, environments, change, update, lock, ship, history, backup, schedule, look, secrets, kinds):
    part.register(app)


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", "-V", help="Show the version and exit.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"consolidate {__version__}")
        raise typer.Exit


def _narrowed(words: Sequence[str]) -> typer.Typer:
    """The program with the verb of `words` alone: Typer reads the options of every verb that it is given (30 ms)."""
    verb = next((w for w in words if not w.startswith("-")), "")
    commands = [c for c in app.registered_commands if verb == (c.name or getattr(c.callback, "__name__", None))]
    groups = [g for g in app.registered_groups if verb == g.name]
    if not commands and not groups:
        return app
    one = copy.copy(app)
    one.registered_commands, one.registered_groups = commands, groups
    return one


def run(words: Sequence[str]) -> int:
    """Run a command line; the exit status. Messages go to standard error."""
    try:
        with _interruptible():
            status = _narrowed(words)(args=list(words), standalone_mode=False)
        return status if isinstance(status, int) else 0
    except SystemExit:  # so Typer answers a reader that has gone: `consolidate logs | head`
        return 0
    except ClickUsageError as error:
        if said := error.format_message():  # nothing was asked for, and the help has been shown
            _say(said, _usage_hint(error, words))
        return USAGE
    except ClickException as error:
        _say(error.format_message())
        return USAGE
    except ConsolidateError as error:
        _say(str(error))
        for line in error.log if isinstance(error, OperationFailed) else ():
            print(f"  | {line}", file=sys.stderr)
        return error.status
    except (KeyboardInterrupt, Abort):
        _say(interrupted(words))
        # Threads may still wait for the engine, which does not take back what it has begun: we don't wait for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def interrupted(words: Sequence[str]) -> str:
    """What to tell whoever interrupted: a restore, for one, is nothing that `up` goes on with."""
    verb = next((w for w in words if not w.startswith("-")), "")
    again = "ship" if verb == "ship" else "up" if verb in ("up", "down", "restart", "update") else ""
    if verb == "restore" and "--drill" not in words:  # a drill replaces nothing
        return "interrupted; where data was being replaced, the next command says how to go on, and how to go back"
    return f"interrupted; the next `{again}` goes on from here" if again else "interrupted"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where somebody interrupted; Typer makes an exit status of it that a program may have, too."""
    before, noticed = signal.getsignal(signal.SIGINT), False

    def notice(number: int, frame: FrameType | None) -> None:
        nonlocal noticed
        noticed = True
        signal.default_int_handler(number, frame)

    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, notice)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    if noticed:
        raise KeyboardInterrupt


def _usage_hint(error: ClickUsageError, words: Sequence[str]) -> str:
    """What to do about it; a stack file as a word too many is what somebody types who knows `up stack.yml`."""
    path, command = _meant(words)
    if SURPLUS_FILE.search(error.format_message()) and _takes_file_by_option(command):
        return f"the stack file is given with `-f` here; `{path} --help` says how it is used"
    return f"`{path} --help` says how it is used"


def _meant(words: Sequence[str]) -> tuple[str, Any]:
    """The verb of a command line, as one types it, and its command."""
    command: Any = typer.main.get_command(_narrowed(words))
    path = [PROGRAM]
    for word in words:
        if (below := getattr(command, "commands", {}).get(word)) is None:
            break
        path.append(word)
        command = below
    return " ".join(path), command


def _takes_file_by_option(command: Any) -> bool:
    """Whether a command, or each below it, has -f and no word for the stack file."""
    names = {p.name: p for p in command.params}
    if names.keys() & {"file", "argument"}:
        return "argument" not in names
    below = getattr(command, "commands", {}).values()
    return bool(below) and all(map(_takes_file_by_option, below))


def _say(what: str, hint: str = "") -> None:
    print(f"consolidate: {what}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
