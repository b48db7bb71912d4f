"""`consolidate backup schedule`: backups by themselves, at set times, by the scheduler of the machine that it is typed on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options
from consolidate.cli.backup import backup

if TYPE_CHECKING:
    from consolidate.schedule import Host, Job, When

NEVER = "never"


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
    drill: Annotated[
        str | None,
        typer.Option(
            "--drill",
            metavar="WHEN",
            help="Drill the last backup, too: 'sun 05:00', for example; never takes that away.",
        ),
    ] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the schedule away, that of drills as well.")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Only show the files that it would write.")] = False,
    yes: options.Yes = False,
    format_: options.Format = "table",
) -> None:
    """Have this machine back the stack up by itself, and drill that, by timers of systemd's or by cron; or tell when it does."""
    from consolidate import console
    from consolidate import schedule as schedules
    from consolidate.source import stack_name

    times = asked(when, drill, remove=remove, print_=print_)
    source = options.source(None, file, environment, templates)
    stack, machine = stack_name(source), this_machine()
    if not times:
        tell_installed(machine, stack, format_)
        return
    program, named = schedules.program_of(sys.argv[0], sys.executable), context
    if any(times.values()) and not (host or context):
        named = options.current_context()
    jobs = {
        task: schedules.job_for(task, source, stack, time, program, os.environ, host=host, context=named)
        if time
        else None
        for task, time in times.items()
    }
    made = [job for job in jobs.values() if job]
    which = schedules.scheduler(machine, "; ".join(job.line for job in made)) if made else ""
    if made:
        schedules.check_readable(source, dict(made[0].variables))
        if open_ := schedules.doubts([Path(made[0].words[0]), source.file.absolute()]):
            console.say_progress(f"note: root will run it, and others than root may change {', '.join(open_)}")
    if print_:
        for path, shown in (file for job in made for file in schedules.files_of(job, which).items()):
            console.say(f"# /{path}\n{shown}")
        return
    if change(machine, stack, jobs, which, yes=yes) and remove:
        console.say_progress(f"{stack}: the schedule is removed; its backups stay")
    if not remove:
        tell_installed(machine, stack, format_)


def change(machine: Host, stack: str, jobs: Mapping[str, Job | None], which: str, *, yes: bool) -> bool:
    """Have the machine run these jobs, by their tasks, and no longer what is None; whether there was anything to do.

    Shows it and asks before. Raises UsageError and OperationFailed.
    """
    from consolidate import console
    from consolidate import schedule as schedules

    changed = {task: schedules.changes(machine, task, stack, job, which) for task, job in jobs.items()}
    there = schedules.installed(machine, stack, list(jobs), datetime.now(UTC))
    run = {i.task for i in there if i.state != "off"}
    todo = [task for task, job in jobs.items() if changed[task] or (job and task not in run)]
    if not todo:
        console.say_progress(f"{stack}: {'nothing to change' if any(jobs.values()) else 'there is no schedule'}")
        return False
    files = [file for task in todo for file in changed[task].items()]
    schedules.check_writable(machine, [path for path, _ in files])
    for path, text in files:
        console.say_progress(f"/{path} is removed\n" if text is None else f"/{path}:\n\n{text}")
    console.confirm_schedule(stack, yes=yes)
    for task in todo:
        schedules.apply(machine, task, stack, changed[task], which)
    return True


def asked(when: list[str] | None, drill: str | None, *, remove: bool, print_: bool) -> dict[str, When | None]:
    """Times by tasks, None for what is to go; nothing for who only asks what there is. What isn't named is left as it is.

    Raises UsageError.
    """
    from consolidate.errors import UsageError
    from consolidate.schedule import TASKS, parse

    given = [text for text in (" ".join(when or ()), drill) if text]
    if print_ and not [text for text in given if text != NEVER]:
        raise UsageError("--print goes with a time")
    if remove and given:
        raise UsageError("--remove goes without a time", hint=f"`--drill {NEVER}` takes away that of drills alone")
    if remove:
        return dict.fromkeys(TASKS)
    times: dict[str, When | None] = {"backup": parse(" ".join(when))} if when else {}
    if drill is not None:
        times["drill"] = None if drill == NEVER else parse(drill)
    return times


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

    if schedules.installed(this_machine(), stack, list(schedules.TASKS), datetime.now(UTC)):
        tell(f"{stack}: the schedule of its backups stays: `consolidate backup schedule --remove` takes it away")
