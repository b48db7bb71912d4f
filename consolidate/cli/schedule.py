"""`consolidate backup schedule`: backups by themselves, at set times, by the scheduler of the machine that it is typed on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options
from consolidate.cli.backup import backup

if TYPE_CHECKING:
    from consolidate.schedule import Host

TASK = "backup"


def register(_: typer.Typer) -> None:
    backup.command()(schedule)


def this_machine() -> Host:
    from consolidate.schedule import Host

    return Host()


def schedule(
    when: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHEN]",
            help="03:00 (each day), 'sun 04:30', 'mon-fri 12:30,18:00', or '*:15' (each hour). Without it: what there is.",
        ),
    ] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the schedule away.")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Only show the files that it would write.")] = False,
    yes: options.Yes = False,
    format_: options.Format = "table",
) -> None:
    """Have this machine back the stack up by itself, by a timer of systemd's or by cron; or tell when it does."""
    from consolidate import console
    from consolidate import schedule as schedules
    from consolidate.errors import UsageError
    from consolidate.source import stack_name

    if (not when and print_) or (when and remove):
        raise UsageError("--print goes with a time" if print_ else "--remove goes without a time")
    source = options.source(None, file, environment, templates)
    stack, machine = stack_name(source), this_machine()
    if not when and not remove:
        tell_installed(machine, stack, format_)
        return
    job, which = None, ""
    if when:
        named = context or (None if host else options.current_context())
        program = schedules.program_of(sys.argv[0], sys.executable)
        job = schedules.job_for(
            TASK, source, stack, schedules.parse(" ".join(when)), program, os.environ, host=host, context=named
        )
        which = schedules.scheduler(machine, job.line)
        schedules.check_readable(source, dict(job.variables))
        if open_ := schedules.doubts([Path(job.words[0]), source.file.absolute()]):
            console.say_progress(f"note: root will run it, and others than root may change {', '.join(open_)}")
    if print_:
        for path, shown in (schedules.files_of(job, which) if job else {}).items():
            console.say(f"# /{path}\n{shown}")
        return
    changed = schedules.changes(machine, TASK, stack, job, which)
    now = datetime.now(UTC)
    runs = any(i.state != "off" for i in schedules.installed(machine, stack, [TASK], now))
    if not changed and (runs or remove):
        console.say_progress(f"{stack}: {'nothing to change' if job else 'there is no schedule'}")
    else:
        schedules.check_writable(machine, list(changed))
        for path, text in changed.items():
            console.say_progress(f"/{path} is removed\n" if text is None else f"/{path}:\n\n{text}")
        console.confirm_schedule(stack, yes=yes)
        schedules.apply(machine, TASK, stack, changed, which)
        if job is None:
            console.say_progress(f"{stack}: the schedule is removed; its backups stay")
    if job is not None:
        tell_installed(machine, stack, format_)


def tell_installed(machine: Host, stack: str, format_: str) -> None:
    from consolidate import console
    from consolidate import schedule as schedules

    rows = [i.row() for i in schedules.installed(machine, stack, list(schedules.TASKS), datetime.now(UTC))]
    if format_ == "table":
        if not rows:
            console.say(f"{stack}: no schedule on this machine; `consolidate backup schedule 03:00` makes one")
            return
        rows = [r | {k: r[k] and r[k][:16].replace("T", " ") for k in ("next", "last")} for r in rows]
    console.show_rows(rows, format_, columns=("task", "when", "next", "last", "result", "state"))


def remind(stack: str, tell: Callable[[str], None]) -> None:
    """Tell whoever has removed a stack's data that its schedule is still there: that is the machine's, and will fail."""
    from consolidate import schedule as schedules

    if schedules.installed(this_machine(), stack, [TASK], datetime.now(UTC)):
        tell(f"{stack}: the schedule of its backups stays: `consolidate backup schedule --remove` takes it away")
