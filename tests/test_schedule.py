"""Schedules decided: times as three write them, the files for systemd and cron, and what is done to a machine."""

from __future__ import annotations

import json
import os
import shlex
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate import naming, schedule, vault
from consolidate.__main__ import main
from consolidate.backup import drill as drills
from consolidate.backup import work
from consolidate.backup.proofs import Check, drilled
from consolidate.cli import options
from consolidate.cli import schedule as cli
from consolidate.errors import Locked, NoScheduler, OperationFailed, StackInvalid, UsageError
from consolidate.plan import Plan
from consolidate.report import Report
from consolidate.runner import Runner
from consolidate.schedule import Host, When, job_for, parse
from consolidate.schedule import job as jobs
from consolidate.schedule.files import MARK, files_of, paths_of, quoted
from consolidate.schedule.when import calendar, cron_fields, following, from_calendar, from_cron
from consolidate.secret import Secret
from consolidate.source import Source
from tests.memory_engine import MemoryEngine
from tests.test_address import context

WHENS = st.builds(
    lambda days, times: parse(str(When(tuple(sorted(days)), tuple(sorted(times, key=str))))),
    st.sets(st.integers(0, 6), min_size=1),
    st.sets(st.tuples(st.none() | st.integers(0, 23), st.integers(0, 59)), min_size=1, max_size=5),
)
TIMER, SERVICE = paths_of("backup", "acme", "systemd")[::-1]
(CRON,) = paths_of("backup", "acme", "cron")


# When


@given(WHENS)
def test_times_are_read_back_as_they_were_written(when: When) -> None:
    """By people, in a timer of systemd's, and in lines for cron."""
    assert parse(str(when)) == when
    assert from_calendar(calendar(when)) == when
    assert from_cron(cron_fields(when)) == when


@given(WHENS, st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)))
def test_the_next_time_is_the_first_that_fits(when: When, now: datetime) -> None:
    found = following(when, now.astimezone()).replace(tzinfo=None)

    def fits(moment: datetime) -> bool:
        times = {(hour, moment.minute) for hour in (None, moment.hour)}
        return moment.weekday() in when.days and not times.isdisjoint(when.times)

    assert fits(found) and now < found <= now + timedelta(days=7)
    minutes = int((found - now).total_seconds() // 60)
    between = (found - timedelta(minutes=m) for m in range(1, min(minutes, 1500) + 1))
    assert not any(fits(m) and m > now for m in between)


def test_people_write_times_in_several_ways() -> None:
    assert parse("Mon..Fri 3:05") == parse("monday-friday 03:05") == When((0, 1, 2, 3, 4), ((3, 5),))
    assert str(parse("sat-mon 1:00, 13:00".replace(", ", ","))) == "mon,sat,sun 01:00,13:00"
    assert parse("*:15,03:15") == parse("*:15")


@pytest.mark.parametrize(
    "wrong", ["", "daily", "25:00", "3", "03:60", "mon tue 03:00", "xyz 03:00", "mon- 03:00x", "* * * * *"]
)
def test_what_is_no_time_is_refused_with_examples(wrong: str) -> None:
    with pytest.raises(UsageError, match="03:00"):
        parse(wrong)


def test_what_somebody_else_wrote_is_not_taken_for_ours() -> None:
    assert from_cron(["*/5 * * * *"]) is None and from_cron(["0 3 1 * *"]) is None and from_cron([]) is None
    assert from_calendar(["daily"]) is None and from_calendar(["*-*-* 03:00:00", "Mon *-*-* 04:00:00"]) is None


# The command line


def job(folder: Path = Path("/srv/acme"), when: str = "03:00", **more: Any) -> schedule.Job:
    given: dict[str, Any] = {"program": ("/opt/consolidate",), "environment": {}, "host": None, "context": None} | more
    source = given.pop("source", Source(folder / "stack.yml"))
    return job_for(given.pop("task", "backup"), source, "acme", parse(when), **given)


def test_a_schedule_means_the_stack_and_the_engine_of_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From whatever folder it runs: with whole paths, and with the variables that name the engine alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    source = Source(Path("sub/../stack.yml"), "prod", (Path("kinds"),))
    environment = {"DOCKER_HOST": "tcp://a:2376", "DOCKER_TLS_VERIFY": "1", "AWS_SECRET": "x", "DOCKER_CONFIG": "/c"}
    made = job(source=source, environment=environment)
    tail = ["--file", f"{tmp_path}/stack.yml", "--environment", "prod", "--templates", f"{tmp_path}/kinds"]
    assert list(made.words[-len(tail) :]) == tail
    assert dict(made.variables) == {k: v for k, v in environment.items() if k != "AWS_SECRET"}
    named = job(environment=environment, host="ssh://root@b")
    assert named.words[-2:] == ("--host", "ssh://root@b")
    assert dict(named.variables) == {"DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": "/c"}
    home(tmp_path)
    environment |= {"DOCKER_CONFIG": ".docker", "DOCKER_CERT_PATH": "sub"}
    named = job(environment=environment, context="far")
    given = {"DOCKER_CONFIG": f"{tmp_path}/.docker"}
    assert (named.words[-2:], dict(named.variables)) == (("--context", "far"), given)
    given |= {"DOCKER_CERT_PATH": f"{tmp_path}/sub", "DOCKER_TLS_VERIFY": "1"}
    assert dict(job(environment=environment, host="tcp://b:2376").variables) == given
    given |= {"DOCKER_HOST": "tcp://a:2376"}
    assert dict(job(environment=environment, context="default").variables) == given


def home(folder: Path) -> Path:
    """Whose current context is an engine elsewhere."""
    context(folder / ".docker", "far", {"Host": "ssh://root@far", "SkipTLSVerify": False})
    (folder / ".docker" / "config.json").write_text(json.dumps({"currentContext": "far"}))
    return folder


def test_a_schedule_that_would_come_to_another_engine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs with the home of root's: contexts and certificates that only another home has are not found from there."""
    ada, root = home(tmp_path / "ada"), tmp_path / "root"
    monkeypatch.setattr(jobs, "GIVEN", jobs.GIVEN | {"HOME": str(root)})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="there is no Docker context 'far'") as refused:
        job(environment={"HOME": str(ada)}, context="far")
    assert f"DOCKER_CONFIG={ada}/.docker" in refused.value.hint
    named = job(environment={"HOME": str(ada), "DOCKER_CONFIG": f"{ada}/.docker"}, context="far")
    assert dict(named.variables) == {"DOCKER_CONFIG": f"{ada}/.docker"}
    with pytest.raises(UsageError, match="comes to another engine"):
        job(environment={"HOME": str(ada), "DOCKER_TLS_VERIFY": "1"}, host="tcp://b:2376")
    home(root)
    assert job(environment={"HOME": str(ada)}, context="far").variables == ()
    with pytest.raises(UsageError, match="comes to another engine"):
        job(environment={"HOME": str(tmp_path)})  # this machine's own, where root has another


def test_a_link_that_somebody_chose_is_kept(tmp_path: Path) -> None:
    """A release is switched by its link; only where `..` goes through one is the path another."""
    (tmp_path / "deep" / "r1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("deep/r1")
    assert f"{tmp_path}/current/stack.yml" in job(tmp_path / "current").words
    assert f"{tmp_path}/deep/stack.yml" in job(tmp_path / "current" / "..").words


def test_the_program_takes_the_line_that_it_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack(tmp_path)
    engine = MemoryEngine()
    engine.import_image(None, naming.BASE_IMAGE)
    monkeypatch.setattr(options, "engine", lambda *_: engine)
    monkeypatch.setattr(work, "fresh", lambda *_: None)
    monkeypatch.setattr(work, "back_up", lambda *_, **__: (Report(Plan("acme", ()), ()), work.Done("r", (), 0.1)))
    assert main(list(job(tmp_path).words[1:])) == 0


class Kept:
    """An engine with what a repository is opened by; and what a drill on it finds, that of a stack of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stack(folder)
        self.engine, self.found, self.line = MemoryEngine(), list[Check](), list(job(folder, task="drill").words[1:])
        self.engine.import_image(None, naming.BASE_IMAGE)
        records = {naming.PASSPHRASE: vault.record(naming.PASSPHRASE, Secret("key"), datetime.now(UTC))}
        monkeypatch.setattr(options, "engine", lambda *_: self.engine)
        monkeypatch.setattr(drills, "passphrase", lambda *_: (records, False))
        monkeypatch.setattr(drills.Drill, "_drill", lambda *_: drilled("acme", "r1", "t", ["db"], self.found, ()))


def test_a_drill_that_proves_nothing_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the line that is scheduled: its output goes nowhere, so what is wrong is an error. One that proves all is silent there."""
    kept = Kept(tmp_path, monkeypatch)
    kept.found = [Check("mail", "messages", "ada@acme.test", 4, 4, ok=True)]
    assert main(kept.line) == 0 and capsys.readouterr().err == ""
    kept.found += [Check("mail", "messages", "bob@acme.test", 4, 3, ok=False)]
    assert main(kept.line) == 1
    said = capsys.readouterr().err
    assert "NOT proved: the backup r1" in said and "bob@acme.test: backup 4, restored 3" in said
    assert "ada@acme.test" not in said


def test_a_drill_waits_for_another_and_not_for_who_works_on_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the hour that its line says, and then it ends with 75; a backup may prune meanwhile."""
    kept = Kept(tmp_path, monkeypatch)
    kept.found = [Check("db", "rows", "t", 1, 1, ok=True)]
    monkeypatch.setattr("consolidate.runner.LOCK_PAUSE", 0.01)
    clock = iter(range(0, 99999, schedule.LOCK_TIMEOUT // 2))
    monkeypatch.setattr("consolidate.runner.time.monotonic", lambda: next(clock))
    with kept.engine.lock("acme", "ada@host", print):
        assert main(kept.line) == 0
        with kept.engine.lock("acme.drill", "bob@host", print):
            assert main(kept.line) == 75
    said = capsys.readouterr().err
    assert "bob@host" in said and "ada@host" not in said
    assert next(clock) > schedule.LOCK_TIMEOUT


def test_the_script_that_was_started_is_scheduled_not_its_python(tmp_path: Path) -> None:
    script = tmp_path / "consolidate"
    script.write_text("#!/bin/sh\n")
    assert schedule.program_of(str(script), "/usr/bin/python3")[1:] == ("-m", "consolidate")  # it can't be run
    script.chmod(0o755)
    assert schedule.program_of(str(script), "/usr/bin/python3") == (str(script),)
    assert schedule.program_of("/x/consolidate/__main__.py", str(tmp_path / "python")) == (str(script),)


@pytest.mark.parametrize("which", ["systemd", "cron"])
def test_no_schedule_holds_a_secret_or_a_control_character(which: str, tmp_path: Path) -> None:
    for path in ("new\nline", "bell\a"):
        with pytest.raises(UsageError, match="can't stand in a schedule"):
            job(tmp_path / path)
    texts = "".join(files_of(job(environment={"RESTIC_PASSWORD": "key", "KEY": "key2"}), which).values())
    assert "key" not in texts


def test_cron_refuses_what_it_would_cut_or_change(tmp_path: Path) -> None:
    for folder, told in ((tmp_path / "a\\b", "backslash"), (Path(f"/{'x' * 999}"), "longer than")):
        with pytest.raises(UsageError, match=told):
            files_of(job(folder), "cron")
        assert files_of(job(folder), "systemd")


def test_systemd_executes_no_path_with_a_quote_by_itself() -> None:
    service = files_of(job(program=("/srv/it's/consolidate",)), "systemd")[SERVICE]
    assert 'ExecStart=:/usr/bin/env "/srv/it\'s/consolidate" backup ' in service


def test_words_of_a_unit_are_quoted_where_they_have_to_be() -> None:
    assert quoted("--file=/a:b@c.d,e+f_g-h") == "--file=/a:b@c.d,e+f_g-h"
    assert [quoted(t) for t in ("", "a b", "50%", 'a"\\b', "$x;")] == ['""', '"a b"', '"50%%"', '"a\\"\\\\b"', '"$x;"']


# The stack, as it will be read


def stack(folder: Path, more: str = "") -> Source:
    (folder / "stack.yml").write_text(f"stack: acme\n{more}servers:\n  www: {{kind: web, content: site}}\n")
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "index.html").write_text("hello")
    return Source(folder / "stack.yml")


def test_what_only_this_shell_knows_is_told_before_the_first_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is not in .env, or what opens the repository from one: the schedule would fail each time."""
    monkeypatch.setenv("WHERE", "/mnt/nas")
    monkeypatch.setenv("KEY", "key")
    source = stack(tmp_path, 'backup: {repository: "${WHERE}"}\n')
    with pytest.raises(StackInvalid, match=r"(?s)WHERE.*put it into \.env"):
        schedule.check_readable(source, {})
    (tmp_path / ".env").write_text("WHERE=/mnt/nas\n")
    schedule.check_readable(source, {})
    with pytest.raises(UsageError, match="backup/passphrase comes from the variable KEY"):
        schedule.check_readable(stack(tmp_path, "backup: {passphrase: {env: KEY}}\n"), {})
    opens = "backup: {repository: 's3:h/b', access_key: {env: KEY}, secret_key: {file: key}}\n"
    with pytest.raises(UsageError, match="backup/access_key comes from the variable KEY"):
        schedule.check_readable(stack(tmp_path, opens), {})
    schedule.check_readable(stack(tmp_path, opens.replace("env", "file")), {})
    with pytest.raises(StackInvalid) as plain:
        schedule.check_readable(stack(tmp_path, "nonsense: 1\n"), {})
    assert ".env" not in str(plain.value)


def test_who_may_change_what_root_runs_is_told(tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    file.write_text("")
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    mine = [] if os.geteuid() == 0 else [str(file), str(tmp_path)]
    assert schedule.doubts([file]) == mine
    tmp_path.chmod(0o775)
    assert str(tmp_path) in schedule.doubts([file, Path("/nowhere/at/all")])


# A machine


class Machine:
    """A root folder, and a systemctl that does as it is told; `shown` is what it says of units, `fails` what it refuses."""

    def __init__(self, root: Path, *, systemd: bool = False, cron: bool = False) -> None:
        self.root, self.calls, self.shown, self.fails = root, list[str](), dict[str, str](), ""
        if systemd:
            (root / "run/systemd/system").mkdir(parents=True)
        if cron:
            (root / "etc/cron.d").mkdir(parents=True)
            self.daemon("cron")

    def daemon(self, name: str) -> None:
        (self.root / "proc" / "7").mkdir(parents=True, exist_ok=True)
        (self.root / "proc" / "7" / "comm").write_text(f"{name}\n")

    @property
    def host(self) -> Host:
        return Host(self.root, self.run)

    def run(self, words: Sequence[str]) -> tuple[int, str]:
        called = " ".join(words).removeprefix("env LC_ALL=C TZ=UTC ").removeprefix("systemctl ")
        if called.startswith("show "):
            return 0, self.shown.get(called.split()[1], "")
        self.calls.append(called)
        if called.startswith("enable"):
            self.shown[called.split()[-1]] = "ActiveState=active\n"
        return (1, "no\nway") if self.fails and called.startswith(self.fails) else (0, "")

    def files(self) -> dict[str, str]:
        return {str(f.relative_to(self.root)): f.read_text() for f in (self.root / "etc").rglob("*") if f.is_file()}


def install(machine: Machine, when: str, which: str = "systemd") -> dict[str, str | None]:
    made = job(when=when)
    changed = schedule.changes(machine.host, "backup", "acme", made, which)
    schedule.apply(machine.host, "backup", "acme", changed, which)
    return changed


def states(machine: Machine) -> list[tuple[str, str, str]]:
    found = schedule.installed(machine.host, "acme", ["backup"], datetime(2024, 5, 1, 2, tzinfo=UTC))
    return [(i.scheduler, i.when, i.state) for i in found]


def test_systemd_is_taken_where_it_runs_else_cron_where_that_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(NoScheduler, match=r"neither systemd nor cron(?s:.*)or have your own run: consolidate backup"):
        schedule.scheduler(machine.host, "consolidate backup")
    (tmp_path / "etc/cron.d").mkdir(parents=True)  # other packages bring it, too
    with pytest.raises(NoScheduler, match="neither systemd nor cron"):
        schedule.scheduler(machine.host, "")
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/cron").touch()
    with pytest.raises(NoScheduler, match="does not run"):
        schedule.scheduler(machine.host, "")
    machine.daemon("crond")
    assert schedule.scheduler(machine.host, "") == "cron"
    assert schedule.scheduler(Machine(tmp_path, systemd=True).host, "") == "systemd"
    assert NoScheduler.status == 69


def test_a_timer_is_installed_replaced_and_removed(tmp_path: Path) -> None:
    """What is as it should be is left alone; nothing stays, not even when it last ran."""
    machine = Machine(tmp_path, systemd=True)
    assert install(machine, "03:00").keys() == {SERVICE, TIMER} == machine.files().keys()
    assert states(machine) == [("systemd", "03:00", "waiting")]
    assert machine.calls[0] == "daemon-reload" and machine.calls[-1] == "enable --now consolidate-backup-acme.timer"
    assert install(machine, "03:00") == {}
    assert install(machine, "sun 04:00").keys() == {TIMER}
    assert states(machine) == [("systemd", "sun 04:00", "waiting")]
    machine.calls.clear()
    assert install_nothing(machine) == {SERVICE: None, TIMER: None}
    assert (machine.files(), states(machine)) == ({}, [])
    assert machine.calls[0] == "disable --now consolidate-backup-acme.timer" and machine.calls[-1] == "daemon-reload"


def install_nothing(machine: Machine) -> dict[str, str | None]:
    changed = schedule.changes(machine.host, "backup", "acme", None, "")
    schedule.apply(machine.host, "backup", "acme", changed, "")
    return changed


def test_cron_has_one_file_which_goes_when_systemd_takes_over(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cron=True)
    assert install(machine, "mon-fri 03:00,04:30", "cron").keys() == {CRON}
    text = machine.files()[CRON]
    assert (tmp_path / CRON).stat().st_mode & 0o777 == 0o644 and "." not in Path(CRON).name and text.endswith("\n")
    assert [li.partition(" root ")[0] for li in text.splitlines()[3:]] == ["0 3 * * 1,2,3,4,5", "30 4 * * 1,2,3,4,5"]
    (found,) = schedule.installed(machine.host, "acme", ["backup"], datetime(2024, 5, 4, tzinfo=UTC))
    assert found.next is not None and found.next.strftime("%a %H:%M") == "Mon 03:00"
    machine.daemon("sleep")
    assert states(machine) == [("cron", "mon-fri 03:00,04:30", "off")]
    machine.calls.clear()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert install(machine, "03:00")[CRON] is None
    assert machine.files().keys() == {SERVICE, TIMER}


def test_an_install_that_was_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    """Files alone are no schedule: it is off, and the same command enables it."""
    machine = Machine(tmp_path, systemd=True)
    machine.fails = "enable"
    with pytest.raises(OperationFailed, match="systemctl enable") as refused:
        install(machine, "03:00")
    assert refused.value.log == ("no", "way")
    machine.shown.clear()
    assert states(machine) == [("systemd", "03:00", "off")]
    machine.fails = ""
    assert install(machine, "03:00") == {} and states(machine) == [("systemd", "03:00", "waiting")]


def test_a_file_that_somebody_else_made_is_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cron=True)
    (tmp_path / CRON).write_text("0 1 * * * root reboot\n")
    for made in (job(), None):
        with pytest.raises(UsageError, match=f"/{CRON} was not made here"):
            schedule.changes(machine.host, "backup", "acme", made, "cron")
    (tmp_path / CRON).write_text(f"{MARK}\n*/5 1 * * * root reboot\n")  # edited since
    assert states(machine) == [("cron", "*/5 1 * * *", "waiting")]


SHOWN = "ActiveState=active\nUnitFileState=enabled\nNextElapseUSecRealtime=Thu 2024-05-02 03:02:10 UTC\nLastTriggerUSec={last}\n"


@pytest.mark.parametrize(
    ("service", "last", "expected"),
    [
        (
            "ActiveState=inactive\nResult=success\nExecMainStatus=0\nExecMainExitTimestamp=",
            "n/a",
            ("waiting", "", None),
        ),
        (
            "ActiveState=inactive\nResult=success\nExecMainStatus=0\nExecMainExitTimestamp=Wed 2024-05-01 03:04:00 UTC",
            "Wed 2024-05-01 03:02:10 UTC",
            ("waiting", "done", "03:02"),
        ),
        (
            "ActiveState=failed\nResult=exit-code\nExecMainStatus=75\nExecMainExitTimestamp=Wed 2024-05-01 03:04:00 UTC",
            "Wed 2024-05-01 03:02:10 UTC",
            ("waiting", "failed: exit status 75", "03:02"),
        ),
        (
            "ActiveState=activating\nResult=success\nExecMainStatus=0\nExecMainExitTimestamp=",
            "Wed 2024-05-01 03:02:10 UTC",
            ("running", "", "03:02"),
        ),
    ],
)
def test_what_systemd_says_is_told(
    tmp_path: Path, service: str, last: str, expected: tuple[str, str, str | None]
) -> None:
    machine = Machine(tmp_path, systemd=True)
    install(machine, "03:00")
    machine.shown = {Path(SERVICE).name: service, Path(TIMER).name: SHOWN.format(last=last)}
    (found,) = schedule.installed(machine.host, "acme", ["backup"], datetime.now(UTC))
    told = found.last.astimezone(UTC).strftime("%H:%M") if found.last else None
    assert (found.state, found.result, told) == expected
    assert found.next == datetime(2024, 5, 2, 3, 2, 10, tzinfo=UTC)


# The verb


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[Any]:
    """A machine with systemd, and the verb on it; it gives status, output and messages."""
    machine = Machine(tmp_path / "root", systemd=True)
    monkeypatch.setattr(cli, "this_machine", lambda: machine.host)
    monkeypatch.setattr(options, "current_context", lambda: None)
    stack(tmp_path)
    return machine


def call(folder: Path, *words: str) -> int:
    return main(["backup", "schedule", *words, "-f", str(folder / "stack.yml")])


def test_it_shows_what_it_writes_asks_and_tells(
    verb: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path) == 0 and "no schedule on this machine" in capsys.readouterr().out
    assert call(tmp_path, "03:00") == 64
    shown = capsys.readouterr().err
    assert "OnCalendar=*-*-* 03:00:00" in shown and "no terminal to ask on" in shown and verb.calls == []
    assert call(tmp_path, "03:00", "--print") == 0
    printed = capsys.readouterr().out
    assert f"# /{SERVICE}" in printed and not (verb.root / "etc").exists()
    assert call(tmp_path, "03:00", "--yes", "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task"], row["when"], row["state"], row["files"]) == (
        "backup",
        "03:00",
        "waiting",
        [f"/{SERVICE}", f"/{TIMER}"],
    )
    assert all(text in printed for text in verb.files().values())
    assert call(tmp_path, "3:00") == 0 and "nothing to change" in capsys.readouterr().err
    assert call(tmp_path, "--remove") == 64 and verb.files()
    assert call(tmp_path, "--remove", "--yes") == 0 and not verb.files()
    assert call(tmp_path, "--remove") == 0 and "there is no schedule" in capsys.readouterr().err


def test_drills_have_a_time_of_their_own_and_go_with_the_rest(
    verb: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are installed and shown by one command; who names one leaves the other as it is."""

    def there() -> dict[str, str]:
        capsys.readouterr()
        assert call(tmp_path, "--format", "json") == 0
        return {r["task"]: r["when"] for r in json.loads(capsys.readouterr().out)}

    assert call(tmp_path, "03:00", "--drill", "sun 05:00", "--print") == 0
    printed = capsys.readouterr().out
    assert call(tmp_path, "03:00", "--drill", "sun 05:00", "--yes") == 0
    assert there() == {"backup": "03:00", "drill": "sun 05:00"}
    assert len(verb.files()) == 4 and all(text in printed for text in verb.files().values())
    (service,) = (t for p, t in verb.files().items() if p.endswith("consolidate-drill-acme.service"))
    assert "restore latest --drill --progress quiet --lock-timeout 3600 --file" in service
    assert call(tmp_path, "04:00", "--yes") == 0 and there() == {"backup": "04:00", "drill": "sun 05:00"}
    assert call(tmp_path, "--drill", "sat 05:00", "--yes") == 0 and there() == {"backup": "04:00", "drill": "sat 05:00"}
    assert call(tmp_path, "--drill", "never", "--yes") == 0 and there() == {"backup": "04:00"}
    assert call(tmp_path, "--drill", "never") == 0 and there() == {"backup": "04:00"}
    for wrong in (
        ["--drill", "soon"],
        ["--drill", ""],
        ["--remove", "--drill", "never"],
        ["--print", "--drill", "never"],
    ):
        assert call(tmp_path, *wrong) == 64
    assert call(tmp_path, "--drill", "sun 05:00", "--yes") == 0 and len(verb.files()) == 4
    assert call(tmp_path, "--remove", "--yes") == 0 and verb.files() == {}


def test_cron_has_a_file_for_drills(verb: Machine, tmp_path: Path) -> None:
    (verb.root / "run/systemd/system").rmdir()
    (verb.root / "etc/cron.d").mkdir(parents=True)
    verb.daemon("cron")
    assert call(tmp_path, "03:00", "--drill", "sun 05:00", "--yes") == 0
    lines = {Path(p).name: t.splitlines()[-1].partition(" root ")[0] for p, t in verb.files().items()}
    assert lines == {"consolidate-backup-acme": "0 3 * * *", "consolidate-drill-acme": "0 5 * * 0"}


def test_without_a_scheduler_it_ends_with_69_and_what_to_run(
    verb: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (verb.root / "run/systemd/system").rmdir()
    assert call(tmp_path, "03:00", "--yes") == 69
    said = capsys.readouterr().err
    assert f"backup --progress quiet --lock-timeout 3600 --file {shlex.quote(str(tmp_path / 'stack.yml'))}" in said
    assert call(tmp_path, "03:00", "--remove") == 64 and call(tmp_path, "--print") == 64 and call(tmp_path, "3") == 64


def test_only_root_may(
    verb: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever else asks is told so before he is asked anything; he may look."""
    (verb.root / "etc/systemd/system").mkdir(parents=True)
    monkeypatch.setattr("consolidate.schedule.host.os.access", lambda _, mode: mode != os.W_OK)
    assert call(tmp_path, "03:00", "--yes") == 64 and "only root may write into" in capsys.readouterr().err
    assert call(tmp_path, "03:00", "--print") == 0 and call(tmp_path) == 0


def test_an_environment_has_a_schedule_of_its_own(verb: Machine, tmp_path: Path) -> None:
    (tmp_path / "stack.prod.yml").write_text("backup: {keep: {daily: 2}}\n")
    assert call(tmp_path, "03:00", "--yes") == call(tmp_path, "04:00", "--yes", "-e", "prod") == 0
    assert {Path(f).name for f in verb.files()} == {
        f"consolidate-backup-{s}.{k}" for s in ("acme", "acme-prod") for k in ("service", "timer")
    }
    assert call(tmp_path, "--remove", "--yes", "-e", "prod") == 0
    assert verb.files().keys() == {SERVICE, TIMER}


def test_whoever_removes_the_data_hears_of_the_schedule(verb: Machine, tmp_path: Path) -> None:
    said: list[str] = []
    cli.remind("acme", said.append)
    assert call(tmp_path, "03:00", "--yes") == 0
    cli.remind("acme", said.append)
    assert len(said) == 1 and "backup schedule --remove" in said[0]


# Somebody else works on the stack


def test_a_lock_is_waited_for_as_long_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word, once. Whoever says nothing waits for nobody."""
    monkeypatch.setattr("consolidate.runner.LOCK_PAUSE", 0.01)
    engine, said = MemoryEngine(), list[str]()
    engine.import_image(None, naming.BASE_IMAGE)
    runner = Runner(engine, lambda _: None, lambda _: None, said.append)
    held, let_go = threading.Event(), threading.Event()

    def other() -> None:
        with engine.lock("acme", "ada@host", print):
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10)
    for patience in (0.0, 0.05):
        with pytest.raises(Locked, match="ada@host"), runner.locked("acme", patience):
            raise AssertionError("it is another's")
    assert len(said) == 1 and "ada@host" in said[0]
    threading.Timer(0.1, let_go.set).start()
    began = time.monotonic()
    with runner.locked("acme", 10.0):
        assert let_go.is_set() and time.monotonic() - began < 5
    thread.join()
