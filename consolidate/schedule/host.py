"""The host's own schedulers: which one runs, what it has of ours, and the change of that. The only place that writes there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from consolidate.errors import NoScheduler, OperationFailed, UsageError
from consolidate.schedule.files import CRON, MARK, UNITS, files_of, paths_of, told
from consolidate.schedule.job import Job, job_name
from consolidate.schedule.when import When, following

SCHEDULERS = ("systemd", "cron")
FOLDERS = {"systemd": UNITS, "cron": CRON}
CRON_DAEMONS = ("cron", "crond")
PLAIN = ("env", "LC_ALL=C", "TZ=UTC")  # so that what systemctl says of times can be read
STAMPS = "var/lib/systemd/timers"  # systemd.timer(5), Persistent=
STAMP = "%a %Y-%m-%d %H:%M:%S %Z"
ASKED = {
    "timer": ("ActiveState", "UnitFileState", "NextElapseUSecRealtime", "LastTriggerUSec"),
    "service": ("ActiveState", "Result", "ExecMainStatus", "ExecMainExitTimestamp"),
}


def _run(words: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        return 127, f"{words[0]}: {error.strerror}"
    return done.returncode, (done.stdout + done.stderr).strip()


class Host(Struct, frozen=True):
    """A machine: its files, and how programs are run on it."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], tuple[int, str]] = _run

    def texts(self, paths: Sequence[str]) -> dict[str, str]:
        """Those of the files that are there."""
        return {p: (self.root / p).read_text(errors="replace") for p in paths if (self.root / p).is_file()}


class Installed(Struct, frozen=True):
    """A schedule that is there, and what its scheduler says of it."""

    task: str
    scheduler: str
    when: str
    files: tuple[str, ...]
    state: str  # waiting, running; off: its files are there, and nobody runs it
    next: datetime | None = None
    last: datetime | None = None
    result: str = ""

    def row(self) -> dict[str, Any]:
        """For people to look at, and for programs; keys are stable."""
        return {
            "task": self.task,
            "when": self.when,
            "next": self.next and self.next.isoformat(timespec="minutes"),
            "last": self.last and self.last.isoformat(timespec="minutes"),
            "result": self.result,
            "state": self.state,
            "scheduler": self.scheduler,
            "files": list(self.files),
        }


def scheduler(host: Host, otherwise: str) -> str:
    """What runs commands at set times on this machine: systemd, else cron.

    Raises NoScheduler, with what to have run `otherwise`.
    """
    if (host.root / "run/systemd/system").is_dir():  # as sd_booted(3) does
        return "systemd"
    if _cron_runs(host.root) and (host.root / CRON).is_dir():
        return "cron"
    if any((host.root / "usr/sbin" / name).exists() for name in CRON_DAEMONS):
        raise NoScheduler("cron is installed and does not run", hint="start it: service cron start")
    hint = f"install one (apt-get install cron) and start it, or have your own run: {otherwise}"
    raise NoScheduler("neither systemd nor cron runs here", hint=hint)


def _cron_runs(root: Path) -> bool:
    for file in (root / "proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            if file.read_text().strip() in CRON_DAEMONS:
                return True
    return False


def installed(host: Host, stack: str, tasks: Sequence[str], now: datetime) -> list[Installed]:
    """The schedules of a stack on this machine."""
    found = []
    for task in tasks:
        for which in SCHEDULERS:
            if texts := host.texts(paths_of(task, stack, which)):
                when, text = told(texts, which)
                files = tuple(f"/{p}" for p in texts)
                look = _of_systemd if which == "systemd" else _of_cron
                found.append(look(host, task, stack, when, text, files, now))
    return found


def _of_cron(
    host: Host, task: str, stack: str, when: When | None, text: str, files: tuple[str, ...], now: datetime
) -> Installed:
    """It keeps no account of what it ran: `backup list` has that."""
    if not _cron_runs(host.root):
        return Installed(task, "cron", text, files, "off")
    return Installed(task, "cron", text, files, "waiting", following(when, now) if when else None)


def _of_systemd(
    host: Host, task: str, stack: str, when: When | None, text: str, files: tuple[str, ...], now: datetime
) -> Installed:
    name = job_name(task, stack)
    timer, service = (_shown(host, f"{name}.{kind}", asked) for kind, asked in ASKED.items())
    state = "waiting" if timer.get("ActiveState") == "active" else "off"
    if service.get("ActiveState") in ("activating", "active"):
        state = "running"
    ended = _stamp(service.get("ExecMainExitTimestamp", ""))
    status = service.get("ExecMainStatus", "0")
    how = service.get("Result", "")
    failed = f"failed: exit status {status}" if how == "exit-code" else f"failed: {how}"
    return Installed(
        task,
        "systemd",
        text,
        files,
        state,
        _stamp(timer.get("NextElapseUSecRealtime", "")) if state != "off" else None,
        _stamp(timer.get("LastTriggerUSec", "")) or ended,
        "" if ended is None or state == "running" else "done" if how == "success" else failed,
    )


def _shown(host: Host, unit: str, properties: Sequence[str]) -> Mapping[str, str]:
    code, said = host.run([*PLAIN, "systemctl", "show", unit, f"--property={','.join(properties)}"])
    return {} if code else {k: v for k, _, v in (li.partition("=") for li in said.splitlines())}


def _stamp(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, STAMP).replace(tzinfo=UTC).astimezone()
    except ValueError:
        return None


def changes(host: Host, task: str, stack: str, job: Job | None, which: str) -> dict[str, str | None]:
    """What differs of the files: texts to be written, None for what goes. Without a `job` all of the task's go.

    Raises UsageError for a file of that name that is not ours.
    """
    wanted: dict[str, str | None] = dict(files_of(job, which)) if job else {}
    have = host.texts([p for s in SCHEDULERS for p in paths_of(task, stack, s)])
    for path, text in have.items():
        if not text.startswith(MARK):
            hint = "look into it, and move it away; it does not begin as those that this command makes"
            raise UsageError(f"/{path} was not made here", hint=hint)
    return {p: wanted.get(p) for p in (*wanted, *(p for p in have if p not in wanted)) if have.get(p) != wanted.get(p)}


def check_writable(host: Host, paths: Sequence[str]) -> None:
    """Raises UsageError for who is not root."""
    for folder in dict.fromkeys((host.root / p).parent for p in paths):
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise UsageError(
                f"only root may write into {folder}", hint="run the same with sudo; `--print` shows it to anybody"
            )


def apply(host: Host, task: str, stack: str, changed: Mapping[str, str | None], which: str) -> None:
    """Write what is new, and have it run; or take it away. It may be done again: a run may have died at any point.

    Raises OperationFailed, with what systemctl says.
    """
    name, gone = job_name(task, stack), [p for p, text in changed.items() if text is None]
    units = f"{UNITS}/{name}.timer"
    booted = (host.root / "run/systemd/system").is_dir()
    if booted and units in gone:
        _systemctl(host, "disable", "--now", f"{name}.timer")
        _forget(host, name)
    for path, text in changed.items():
        if text is None:
            (host.root / path).unlink(missing_ok=True)
        else:
            _write(host.root / path, text)
    if booted and any(p.startswith(UNITS) for p in changed):
        _systemctl(host, "daemon-reload")
    if which == "systemd" and units not in gone:
        _systemctl(host, "stop", f"{name}.timer")
        _forget(host, name)  # else a time of today that has passed would count as missed
        _systemctl(host, "enable", "--now", f"{name}.timer")


def _write(file: Path, text: str) -> None:
    """Whole or not at all; cron passes over the name that it has meanwhile."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(file)
    except OSError as error:
        raise OperationFailed(f"{file} can't be written: {error.strerror}") from None


def _forget(host: Host, name: str) -> None:
    """When a timer last ran, and how that ended. `systemctl clean` would do it, where there is a D-Bus."""
    (host.root / STAMPS / f"stamp-{name}.timer").unlink(missing_ok=True)
    host.run(["systemctl", "reset-failed", f"{name}.service"])


def _systemctl(host: Host, *words: str) -> None:
    code, said = host.run(["systemctl", *words])
    if code:
        raise OperationFailed(f"systemctl {' '.join(words)} ended with status {code}", log=said.splitlines()[-10:])
