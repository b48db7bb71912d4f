"""The files of a schedule, and what they say when they are read back: units of systemd's, or one file for cron. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from consolidate.errors import UsageError
from consolidate.schedule.job import PATH, Job, job_name
from consolidate.schedule.when import When, calendar, cron_fields, from_calendar, from_cron

MARK = "# Made by `consolidate backup schedule`, which also shows and removes it."
UNITS, CRON = "etc/systemd/system", "etc/cron.d"
BARE = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
ODD = re.compile(r"""["'\\]""")
LINE = 998  # bytes of a command that cron takes
LINES_OF = {"systemd": re.compile(r"(?m)^OnCalendar=(.*)$"), "cron": re.compile(r"(?m)^((?:\S+ ){4}\S+) root ")}

SERVICE = """\
{mark}
[Unit]
Description=consolidate: {task} of the stack {stack}
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=oneshot
User=root
{environment}ExecStart={command}
KillSignal=SIGINT
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
"""
# It runs at its next chance where the machine was off; and with some minutes in between where several stacks have one time.
TIMER = """\
{mark}
[Unit]
Description=consolidate: {task} of the stack {stack}

[Timer]
{times}
Persistent=true
RandomizedDelaySec=5min
FixedRandomDelay=true

[Install]
WantedBy=timers.target
"""
CRON_FILE = """\
{mark}
SHELL=/bin/sh
PATH={path}
{lines}
"""


def files_of(job: Job, scheduler: str) -> dict[str, str]:
    """Paths, below the root, and texts; in the order in which they are to be written.

    Raises UsageError for a command line that cron can't take.
    """
    return units(job) if scheduler == "systemd" else cron_file(job)


def paths_of(task: str, stack: str, scheduler: str) -> list[str]:
    """The same without their texts."""
    name = job_name(task, stack)
    return [f"{UNITS}/{name}.service", f"{UNITS}/{name}.timer"] if scheduler == "systemd" else [f"{CRON}/{name}"]


def units(job: Job) -> dict[str, str]:
    # systemd takes no quote in the path of what it executes itself. With the colon a $ is no variable.
    program, *more = ("/usr/bin/env", *job.words) if ODD.search(job.words[0]) else job.words
    command = " ".join(map(quoted, (f":{program}", *more)))
    environment = "".join(f"Environment={quoted(f'{n}={v}')}\n" for n, v in job.variables)
    service = SERVICE.format(mark=MARK, task=job.task, stack=job.stack, environment=environment, command=command)
    times = "\n".join(f"OnCalendar={t}" for t in calendar(job.when))
    timer = TIMER.format(mark=MARK, task=job.task, stack=job.stack, times=times)
    return dict(zip(paths_of(job.task, job.stack, "systemd"), (service, timer), strict=True))


def quoted(text: str) -> str:
    """A word of a systemd unit: no specifier, no quote and no escape in it means anything."""
    if BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def cron_file(job: Job) -> dict[str, str]:
    command = f"nice -n 10 {job.line} > /dev/null"
    if "\\" in command:
        raise UsageError("a path with a backslash can't stand in a line for cron", hint="rename it")
    command = command.replace("%", "\\%")  # else it ends the command, also between quotes
    if len(command.encode()) > LINE:
        raise UsageError(f"the command line is longer than the {LINE} bytes that cron takes", hint="use shorter paths")
    lines = "\n".join(f"{fields} root {command}" for fields in cron_fields(job.when))
    (path,) = paths_of(job.task, job.stack, "cron")
    return {path: CRON_FILE.format(mark=MARK, path=PATH, lines=lines)}


def told(texts: Mapping[str, str], scheduler: str) -> tuple[When | None, str]:
    """When it runs by files that are there: None where somebody has edited them, and the text in any case."""
    found = [t.strip() for text in texts.values() for t in LINES_OF[scheduler].findall(text)]
    when = from_calendar(found) if scheduler == "systemd" else from_cron(found)
    return when, str(when) if when else "; ".join(found)
