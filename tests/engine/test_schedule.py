"""Schedules on real schedulers: a systemd and a cron, each in a container, run what was installed, word by word; and what
was installed does its work on a stack."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import consolidate
from consolidate import schedule
from consolidate.__main__ import main
from consolidate.cli import schedule as cli
from consolidate.errors import NoScheduler
from consolidate.schedule import Host, Job, job_for, parse
from consolidate.schedule.files import files_of
from consolidate.source import Source
from tests.engine.conftest import StackFactory, kept_image
from tests.engine.support import Done, Stack, on_host, wait_until
from tests.engine.test_drill import of_drill
from tests.test_schedule import Machine

pytestmark = pytest.mark.engine

IMAGE = "consolidate-tests/schedulers"
DOCKERFILE = """\
FROM debian:bookworm-slim
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends systemd systemd-sysv cron faketime \\
 && rm -rf /var/lib/apt/lists/* /etc/cron.d/* \\
 && systemctl mask systemd-logind.service getty.target systemd-resolved.service systemd-networkd.service
"""
# What is scheduled: it says how it was called. Its status is that of a run that another one kept away, once there is one to say.
PROGRAM = """\
#!/bin/bash
printf '%s\\n' "$0" "$@" "DOCKER_HOST=$DOCKER_HOST" "HOME=$HOME" "PATH=$PATH" > /srv/called.new
echo said; echo complained >&2
mv /srv/called.new /srv/called
exit "$(cat /srv/status 2> /dev/null || echo 0)"
"""
ODD = '/srv/it\'s 100% "$HOME" `id` ü; here'
ENGINE = {"DOCKER_HOST": "unix:///run/a%b.sock"}


@pytest.fixture(scope="module")
def schedulers(daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with systemd and cron, kept between runs."""
    return kept_image(daemon, IMAGE, DOCKERFILE, tmp_path_factory)


def machine(container: Any) -> Host:
    """The container as a machine: its files as its own processes see them, its programs by the engine's exec."""
    container.reload()

    def run(words: Any) -> tuple[int, str]:
        code, said = container.exec_run(list(words))
        return code, said.decode().strip()

    return Host(Path(f"/proc/{container.attrs['State']['Pid']}/root"), run)


def scheduled(host: Host, when: str) -> Job:
    """A job whose every part has what means something to systemd, cron or a shell."""
    program = f"{ODD}/consolidate"
    file = host.root / program.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROGRAM)
    file.chmod(0o755)
    source = Source(Path(f"{ODD}/stack.yml"), "prod", (Path(f"{ODD}/kinds"),))
    return job_for("backup", source, "acme-prod", parse(when), (program,), ENGINE, host=None, context=None)


def called(host: Host, job: Job) -> None:
    """The program was called as the job says, with what every run of it finds."""
    file = host.root / "srv/called"
    wait_until(file.exists, "the schedule runs", within=30)
    *words, engine, home, path = file.read_text().splitlines()
    assert words == list(job.words)
    assert (engine, home) == (f"DOCKER_HOST={ENGINE['DOCKER_HOST']}", "HOME=/root")
    assert "/usr/local/bin" in path and "/usr/bin" in path
    file.unlink()


def install(host: Host, job: Job) -> None:
    which = schedule.scheduler(host, "")
    schedule.apply(host, job.task, job.stack, schedule.changes(host, job.task, job.stack, job, which), which)


def told(host: Host, job: Job) -> schedule.Installed:
    (found,) = schedule.installed(host, job.stack, [job.task], datetime.now(UTC))
    return found


@pytest.fixture
def systemd(daemon: Any, schedulers: str, token: str) -> Iterator[Host]:
    """A machine that systemd runs, in a container."""
    # Of the engine's own hierarchies it may write to its part of one, which is all that it needs.
    boot = "d=/sys/fs/cgroup; [ ! -d $d/systemd ] || d=$d/systemd; mount -o remount,bind,rw $d && exec /sbin/init"
    made = daemon.containers.create(
        schedulers,
        ["sh", "-c", boot],
        name=f"{token}-systemd",
        cap_add=["SYS_ADMIN"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        cgroupns="private",
        tmpfs={"/run": "", "/run/lock": "", "/tmp": ""},
        environment={"container": "docker"},
        network_mode="none",
    )
    try:
        made.start()
        host = machine(made)
        up = ("running", "degraded")
        wait_until(lambda: host.run(["systemctl", "is-system-running"])[1] in up, "systemd", within=60)
        yield host
    finally:
        made.remove(force=True)


def test_systemd_runs_what_was_scheduled_and_tells_how_it_went(systemd: Host) -> None:
    """From its installation to its removal: when it runs next, with which words, how it ended, and nothing left of it."""
    job = scheduled(systemd, "mon-fri 03:00,16:30")
    install(systemd, job)
    first = told(systemd, job)
    assert (first.scheduler, first.state, first.when, first.last, first.result) == (
        "systemd",
        "waiting",
        "mon-fri 03:00,16:30",
        None,
        "",
    )
    assert first.next is not None and first.next.weekday() < 5
    assert timedelta(0) <= first.next - before(first.next) <= timedelta(minutes=5)
    units = [f"/{p}" for p in files_of(job, "systemd")]
    assert systemd.run(["systemd-analyze", "verify", *units])[1].replace("\n", " ").count(job.stack) == 0
    service, timer = (Path(u).name for u in units)
    assert systemd.run(["systemctl", "is-enabled", timer])[1] == "enabled"

    assert systemd.run(["systemctl", "start", service]) == (0, "")
    called(systemd, job)
    assert told(systemd, job).result == "done"
    journal = systemd.run(["journalctl", "-u", service, "-o", "cat"])[1]
    assert "said" in journal and "complained" in journal
    nice = systemd.run(["systemctl", "show", service, "--property=Nice,IOSchedulingClass"])[1]
    assert "Nice=10" in nice

    (systemd.root / "srv/status").write_text("75")
    assert systemd.run(["systemctl", "start", service])[0] != 0
    assert told(systemd, job).result == "failed: exit status 75"
    again = scheduled(systemd, "*:15")
    (systemd.root / "srv/called").unlink()
    install(systemd, again)
    found = told(systemd, again)
    assert (found.when, found.last is not None) == ("*:15", True)  # of the run before, as long as systemd knows it
    assert found.next is not None and found.next - datetime.now(UTC) <= timedelta(minutes=66)
    assert not (systemd.root / "srv/called").exists()  # the time that it once had has not been missed

    changed = schedule.changes(systemd, "backup", job.stack, None, "")
    schedule.apply(systemd, "backup", job.stack, changed, "")
    assert schedule.installed(systemd, job.stack, ["backup"], datetime.now(UTC)) == []
    assert job.stack not in systemd.run(["systemctl", "list-units", "--all", "--no-legend"])[1]
    assert systemd.run(["find", "/etc/systemd", "/var/lib/systemd", "-name", f"*{job.stack}*"]) == (0, "")


def before(moment: datetime) -> datetime:
    """The time that was asked for, before systemd added its minutes."""
    day = moment.astimezone(UTC)
    return max(
        t for t in (day.replace(hour=3, minute=0, second=0), day.replace(hour=16, minute=30, second=0)) if t <= day
    )


def test_a_run_that_the_machine_missed_is_made_up_for(systemd: Host) -> None:
    """It was off at that time: the last run is older than the time that has passed since."""
    job = scheduled(systemd, "*:00")
    install(systemd, job)
    timer = "consolidate-backup-acme-prod.timer"
    assert systemd.run(["systemctl", "stop", timer])[0] == 0
    stamp = f"/var/lib/systemd/timers/stamp-{timer}"
    assert systemd.run(["touch", "-d", "2 hours ago", stamp])[0] == 0
    assert systemd.run(["systemctl", "start", timer])[0] == 0
    found = told(systemd, job)
    assert found.next is not None and found.next - datetime.now(UTC) <= timedelta(minutes=5)


@pytest.fixture
def cron(daemon: Any, schedulers: str, token: str) -> Iterator[Host]:
    """A machine without systemd, whose cron believes that it is three seconds before three in the morning."""
    clock = ["faketime", "-f", "@2024-05-01 02:59:57", "cron", "-f", "-L", "15"]
    made = daemon.containers.create(
        schedulers,
        ["bash", "-c", f"while [ ! -e /srv/go ]; do sleep 0.1; done; exec {shlex.join(clock)}"],
        name=f"{token}-cron",
        init=True,
        network_mode="none",
    )
    try:
        made.start()
        yield machine(made)
    finally:
        made.remove(force=True)


def test_cron_runs_what_was_scheduled(cron: Host) -> None:
    """At its time, as root, with the same words; until cron runs, nothing is called a schedule."""
    job = scheduled(cron, "wed 03:00")
    with pytest.raises(NoScheduler, match="does not run"):
        schedule.scheduler(cron, "")
    schedule.apply(cron, "backup", job.stack, schedule.changes(cron, "backup", job.stack, job, "cron"), "cron")
    assert told(cron, job).state == "off"
    (cron.root / "srv/go").touch()
    wait_until(lambda: told(cron, job).state == "waiting", "cron")
    assert schedule.scheduler(cron, "") == "cron"
    called(cron, job)


def as_cron_does(root: Path, task: str, stack: str) -> Done:
    """Run the line of a file for cron, with all that it gives a command, and nothing else."""
    text = (root / f"etc/cron.d/consolidate-{task}-{stack}").read_text()
    variables = dict(re.findall(r"(?m)^([A-Z]+)=(.*)$", text))
    (command,) = re.findall(r"(?m)^(?:\S+ ){5}root (.*)$", text)
    done = subprocess.run(
        [variables["SHELL"], "-c", command.replace("\\%", "%")],
        env={"HOME": "/root", "LOGNAME": "root", **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def times(stack: Stack) -> tuple[bool, bool]:
    """Whether `ps` knows of a backup and of a drill."""
    (row,) = stack.run("ps", "--format", "json").json
    return row["backup"] is not None, row["drill"] is not None


def test_what_was_scheduled_makes_backups_and_drills_them(
    make_stack: StackFactory, daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the very lines that the verb has installed. Cron would mail where the passphrase is, once, and nothing while all goes
    well."""
    stack, machine = make_stack("nightly"), Machine(tmp_path / "root", cron=True)
    stack.write(
        "  files: {kind: container, image: debian:bookworm-slim, volumes: ['data:/srv'], command: [sleep, '1000']}\n"
        f"backup: {{repository: {tmp_path}/repositories}}\n"
    )
    program = tmp_path / "100% of it" / "consolidate"
    program.parent.mkdir()
    ours = Path(consolidate.__file__).parents[1]
    program.write_text(f'#!/bin/sh\nexport PYTHONPATH={ours}\nexec {sys.executable} -m consolidate "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setattr(cli, "this_machine", lambda: machine.host)
    words = ["backup", "schedule", "03:00", "--drill", "sun 05:00", "--yes", "-f", str(stack.file)]
    assert main(words) == 0
    stack.up()
    try:
        assert times(stack) == (False, False)
        first = as_cron_does(machine.root, "backup", stack.name)
        assert (first.status, first.out) == (0, "") and "consolidate secret show backup/passphrase" in first.err
        assert times(stack) == (True, False)
        (row,) = stack.run("backup", "list", "--format", "json").json
        assert (row["servers"], row["state"]) == (["files"], "whole")
        assert as_cron_does(machine.root, "drill", stack.name) == Done(0, "", "")
        assert times(stack) == (True, True) and of_drill(stack) == []
    finally:
        Stack(tmp_path, f"{stack.name}.drill", daemon, is_up=True).purge()
        on_host(daemon, tmp_path, "rm -rf /host/repositories")  # it is root's
