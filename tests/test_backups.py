"""Backups decided: what belongs to one moment, what counts as a backup, which are kept, what a restore stops."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consolidate import lately, naming, vault
from consolidate.__main__ import main
from consolidate.actions import (
    CompleteBackup,
    FillVolumes,
    ForgetBackups,
    LeaveWord,
    LoadDump,
    OpenRepository,
    ReadVolumes,
    RemoveContainer,
    SaveData,
    SavedDump,
    StopContainer,
)
from consolidate.backup import plans, reading, restore, returning, work
from consolidate.backup.files import stack_files
from consolidate.backup.restore import Restore, Restored
from consolidate.cli import options
from consolidate.errors import ConsolidateError, EngineUnavailable, OperationFailed, Problem, StackInvalid, UsageError
from consolidate.execute import freezing, restic, saving
from consolidate.execute.restic import refusal, saved
from consolidate.files import FileSet
from consolidate.generations import check_restored
from consolidate.manifest import BackupWord
from consolidate.naming import PASSPHRASE
from consolidate.pipeline import Prepared
from consolidate.plan import Operation, Plan
from consolidate.report import Outcome, Report
from consolidate.resolved import Backups, Keep, Resolved
from consolidate.runner import Runner, without_sessions
from consolidate.secret import Secret, SecretRecord
from consolidate.snapshots import (
    ASKED,
    FIRST,
    MANIFEST,
    SAFETY,
    Manifest,
    Part,
    Run,
    asked_for,
    chosen,
    decode,
    encode,
    lacking,
    outlived,
    runs_of,
)
from consolidate.source import Source, load_stack
from consolidate.values import Wrong
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box
from tests.world import World, resolved

NIGHT = datetime(2024, 5, 1, 3, tzinfo=UTC)


def shop(**more: Any) -> Resolved:
    servers = {"www": {"kind": "page", "domains": ["www.test"], "storage": "db"}, "db": {"kind": "depot"}} | more
    return resolved({"stack": "shop", "servers": servers})


def run(when: datetime, servers: str = "db", reason: str = ASKED, *, whole: bool = True) -> Run:
    name = f"{when:%Y%m%dT%H%M%S}-{reason[:1]}{servers[:1]}"
    return Run(name, "shop", when, tuple(servers.split()), reason, f"m{name}" if whole else "", (f"s{name}",))


def row(number: int, *tags: str, paths: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"id": f"id{number}", "time": f"2024-05-01T03:00:{number:02d}Z", "tags": list(tags), "paths": list(paths)}


# What is kept


def test_the_last_of_so_many_days_weeks_and_months_is_kept() -> None:
    """A backup each night for a year: 7 days, 4 weeks, 12 months, where one night may stand for several."""
    nights = [run(NIGHT + timedelta(days=d)) for d in range(366)]
    kept = [r.when.date().isoformat() for r in nights if r not in outlived(nights, Keep(7, 4, 12))]
    assert kept[-7:] == [f"2025-04-{d}" for d in range(25, 31)] + ["2025-05-01"]
    assert kept[:-7] == [
        *("2024-06-30", "2024-07-31", "2024-08-31", "2024-09-30", "2024-10-31", "2024-11-30", "2024-12-31"),
        *("2025-01-31", "2025-02-28", "2025-03-31", "2025-04-13", "2025-04-20"),
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 90 * 24), st.sampled_from(["db", "db www", "www"]), st.sampled_from([ASKED, SAFETY])),
        max_size=30,
        unique=True,
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_the_newest_backup_of_every_server_stays_whatever_is_kept(
    made: list[tuple[int, str, str]], daily: int, weekly: int
) -> None:
    """Of each reason; what goes could always have gone: doing it again removes nothing more."""
    keep, runs = Keep(daily, weekly, 0), [run(NIGHT + timedelta(hours=h), s, why) for h, s, why in made]
    gone = outlived(runs, keep)
    left = [r for r in runs if r not in gone]
    for server in ("db", "www"):
        for reason in (ASKED, SAFETY):
            mine = [r for r in runs if server in r.servers and r.reason == reason]
            assert not mine or max(mine, key=lambda r: r.when) in left
    assert outlived(left, keep) == []


def test_two_backups_of_a_day_stay_until_they_are_old() -> None:
    """Somebody makes one before each step of his work: none replaces the one before."""
    today = [run(NIGHT + timedelta(hours=h)) for h in (0, 1, 2)]
    assert outlived(today, Keep(1, 0, 0)) == []
    later = [*today, run(NIGHT + timedelta(days=2))]
    assert outlived(later, Keep(2, 0, 0)) == today[:2]


def test_what_a_cut_off_run_has_left_is_no_backup_and_goes() -> None:
    """Without its manifest nothing finds it; with the next backup it is removed."""
    rows = [
        row(1, "run=20240501T030000-aa", "stack=shop", "reason=asked for", "server=db"),
        row(2, "run=20240501T030000-aa", "stack=shop", "reason=asked for", MANIFEST),
        row(3, "run=20240501T040000-bb", "stack=shop", "reason=asked for", "server=db"),
    ]
    cut, whole = runs_of(rows)
    assert (cut.whole, whole.whole, whole.servers) == (False, True, ("db",))
    assert chosen([cut, whole], "latest") == whole
    with pytest.raises(LookupError, match="no backup '20240501T04'"):
        chosen([cut, whole], "20240501T04")
    assert outlived([cut, whole], Keep()) == [cut]


def test_latest_is_never_what_a_restore_has_replaced() -> None:
    good, safety = run(NIGHT), run(NIGHT + timedelta(hours=1), reason=SAFETY)
    assert chosen([safety, good], "latest") == good
    assert chosen([safety, good], safety.run) == safety


def test_latest_has_the_data_of_all_servers_that_a_backup_has() -> None:
    """One of some servers, made since, is not meant: of the others nothing would come back. It is known who has theirs."""
    whole, part = run(NIGHT, "db mail"), run(NIGHT + timedelta(hours=1), "db")
    assert chosen([part, whole], "latest", ["db", "mail", "proxy"]) == whole
    assert chosen([part, whole], "latest", ["db"]) == part  # mail has left the stack
    assert chosen([part], "latest", ["db", "mail"]) == part
    assert lacking([part, whole], part, ["db", "mail", "proxy"]) == {"mail": whole.run}
    assert lacking([part, whole], whole, ["db", "mail", "proxy"]) == {}


# What a backup says


def test_a_manifest_is_read_back_and_knows_where_each_server_is() -> None:
    """The last snapshot of each counts: a moment that had to be tried again has several. One that is missing is named."""
    part = Part("depot", "i", "sha256:1", "dump", ("data",))
    manifest = Manifest("shop", None, "stack.yml", "r", "2024-05-01T03:00:00+00:00", "ada@host", {"db": part})
    rows = [row(2, "server=db"), row(3, "server=db"), row(1, "server=db"), row(4, FIRST)]
    found = manifest.located(rows)
    assert found.parts["db"].snapshot == "id3"
    assert decode(encode(found)) == found
    with pytest.raises(LookupError, match="db"):
        manifest.located([row(1, "server=www")])
    with pytest.raises(ValueError, match="its version is 9"):
        decode(encode(found).replace('"version": 2', '"version": 9'))
    with pytest.raises(ValueError, match="the version of consolidate that made it"):  # what is beside it was another
        decode(encode(found).replace('"version": 2', '"version": 1'))


GONE = '{"message_type":"error","error":{"Op":"lstat","Path":"/data/a","Err":2},"during":"archival"}\n'
BROKEN = GONE.replace('"Err":2', '"Err":5')
# As where a file goes between its content and its attributes.
UNTOLD = '{{"message_type":"error","error":{{}},"during":"archival","item":"/data/mail/spool/{}"}}\n'
SUMMARY = '{"message_type":"summary","snapshot_id":"3d52bcd2"}\n'


def test_a_file_that_goes_while_its_server_goes_on_is_no_error_and_one_that_cant_be_read_is() -> None:
    def gone(path: str) -> bool:
        return path == "/data/mail/spool/gone"

    assert saved(3, GONE + SUMMARY, gone) == "3d52bcd2"
    assert saved(3, UNTOLD.format("gone") + SUMMARY, gone) == "3d52bcd2"
    assert saved(3, UNTOLD.format("there") + SUMMARY, gone, ["/data/mail"]) == "3d52bcd2"  # it is read once more
    for code, said, may_go in (
        (3, GONE + SUMMARY, None),
        (3, BROKEN + SUMMARY, gone),
        (3, UNTOLD.format("gone") + SUMMARY, None),
        (3, UNTOLD.format("there") + SUMMARY, gone),
        (1, SUMMARY, gone),
        (0, "", gone),
    ):
        with pytest.raises(OperationFailed):
            saved(code, said, may_go, ["/data/ma"])
    with pytest.raises(OperationFailed) as refused:
        saved(3, UNTOLD.format("there") + SUMMARY)
    assert "/data/mail/spool/there can't be read" in refused.value.log
    with pytest.raises(OperationFailed, match="status 137"):
        saved(137, SUMMARY[:20])  # killed within a line
    assert "passphrase does not open" in refusal("Fatal: wrong password or no key found", "x").what


# The plan of a backup


def test_a_database_is_dumped_and_its_consumer_stands_still_for_that_moment() -> None:
    """The link says who belongs together; the dump needs no volume in the session, and a server without data nothing."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "storage": "db", "keeps": True}))
    assert world.desired is not None
    observed = world.engine.observe("shop")
    units = plans.Units(world.desired, observed)
    assert units.of(()) == [["www", "db"]] == units.of(["db"])
    assert (set(units.dumps), set(units.volumes)) == ({"db"}, {"www"})
    assert units.volumes["www"].freeze == (("www", "shop-www-1", ()),)
    assert plans.mounts(units, units.groups) == [("shop_www_kept", "www/kept")]

    manifest = plans.manifest_of(
        world.desired, observed, units, units.groups, file="stack.yml", run="r", by="ada", now=NIGHT, program="1"
    )
    assert {s: (p.method, p.volumes) for s, p in manifest.parts.items()} == {
        "www": ("volumes", ("kept",)),
        "db": ("dump", ("data",)),
    }
    old = row(1, "run=20230101T030000-aa", "stack=shop", f"reason={ASKED}", "server=db", MANIFEST)
    read = row(2, "run=20240501T020000-bb", FIRST, paths=("/data/www/kept",))
    plan = plans.save_plan(units, units.groups, manifest, "s", FileSet(()), [old, read], Keep(1, 0, 0), ASKED)
    actions = [o.action for o in plan.operations]
    assert [type(a) for a in actions] == [ReadVolumes, SaveData, CompleteBackup, ForgetBackups]
    assert isinstance(actions[0], ReadVolumes) and actions[0].parent == "id2"
    assert isinstance(actions[1], SaveData)
    assert ([d.server for d in actions[1].dumps], [v.server for v in actions[1].volumes]) == (["db"], ["www"])
    assert isinstance(actions[3], ForgetBackups) and set(actions[3].snapshots) == {"id1", "id2"} and actions[3].prune
    assert plan.operations[2].needs == tuple(o.id for o in plan.operations[:2])
    assert plan.operations[3].needs == (plan.operations[2].id,)  # nothing goes before there is something new


def test_who_hands_out_work_stands_still_before_who_does_it() -> None:
    """So what is under way has been done when all do. The helper that sees to it is told the names of the programs."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "keeps": True}))
    assert world.desired is not None
    www = world.desired.servers["www"]
    assert www.backup is not None
    servers = {**world.desired.servers, "www": replace(www, backup=replace(www.backup, first=("qmgr",)))}
    units = plans.Units(replace(world.desired, servers=servers), world.engine.observe("shop"))
    assert units.volumes["www"].freeze == (("www", "shop-www-1", ("qmgr",)),)
    ((server, container, first),) = units.volumes["www"].freeze
    helper = freezing._helper("shop", server, container, "shop-www.freeze", first)
    assert (helper.container.command or ())[1:] == ("stand-still", "qmgr") and helper.processes_of == "shop-www-1"
    with pytest.raises((Wrong, ValueError), match="stands still before the others, and nobody does"):
        BackupWord(first=["qmgr"])


def test_replicas_stand_still_together_and_stop_together() -> None:
    """They write to the same data: it is saved once, while all of them stand still, and comes back while none runs."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "storage": "db", "keeps": True, "replicas": 2}))
    assert world.desired is not None
    observed = world.engine.observe("shop")
    units = plans.Units(world.desired, observed)
    assert units.of(()) == [["www", "db"]]
    assert units.volumes["www"].freeze == (("www", "shop-www-1", ()), ("www.2", "shop-www.2-1", ()))
    part = Part("page", "", "", "volumes", ("kept",), True)
    stop = returning.stop_plan(world.desired, observed, returned(world, ("www",), www=part), "")
    stopped = {o.action.name for o in stop.operations if isinstance(o.action, StopContainer)}
    assert stopped == {"shop-www-1", "shop-www.2-1"}


def test_a_server_that_is_down_is_saved_as_it_lies() -> None:
    """Nobody writes to it, so that its volumes are whole; there is nobody to dump it, and nobody to freeze."""
    world = World()
    world.up(shop())
    world.engine.stop("shop-db-1", None)
    assert world.desired is not None
    units = plans.Units(world.desired, world.engine.observe("shop"))
    assert not units.dumps and units.volumes["db"].freeze == ()


@pytest.mark.parametrize("state", ["restarting", "paused"])
def test_a_database_that_comes_and_goes_is_not_copied_while_it_writes(state: str) -> None:
    """The files would be of no moment, and the backup would be called whole. Others can be saved."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "keeps": True}))
    world.engine.boxes["shop-db-1"].state = state
    assert world.desired is not None
    units = plans.Units(world.desired, world.engine.observe("shop"))
    for servers in ((), ("db",)):
        with pytest.raises(OperationFailed, match=f"db is {state}"):
            units.of(servers)
    assert units.of(("www",)) == [["www"]]


# The repository, and the dumps on their way into it


class Sessions(MemoryEngine):
    """An engine whose sessions go on, and find a repository or none; it keeps the commands that they are given."""

    def __init__(self, *, there: bool) -> None:
        self.commands: list[tuple[str, ...]] = []

        def program(_: MemoryEngine, __: Box, command: tuple[str, ...], ___: bytes | None) -> tuple[int, str]:
            self.commands.append(command)
            return int(command[:2] == ("test", "-e") and not there), "[]"

        super().__init__(program)
        self.import_image(None, "tools")

    def start(self, container: str, *, new: bool = False) -> None:
        super().start(container, new=new)
        self.boxes[container].state = "running"


def opening(*, new: bool, alone: bool = False) -> OpenRepository:
    return OpenRepository("shop.backup.1", "shop", "tools", "/srv/b", (), new, alone=alone)


def test_a_repository_is_made_once_and_missing_from_then_on() -> None:
    """A disk that isn't mounted has none: a new one there would keep nobody's backups. Another place may be told."""
    for new in (True, False):
        engine = Sessions(there=False)
        with contextlib.nullcontext() if new else pytest.raises(OperationFailed, match=r"/srv/b: is it mounted\?"):
            restic.open_repository(engine, opening(new=new), {"passphrase": "key"})
        assert any("init" in c for c in engine.commands) == new

    stack = shop()
    world = World()
    world.up(stack)
    assert world.desired is not None
    prepared = Prepared(stack, world.desired, world.engine.observe("shop"), {}, {})
    records, new = work.passphrase(prepared, new=True)
    assert new
    again = replace(prepared, secrets=records)  # the run was killed before it had made one
    assert work.passphrase(again, new=True) == (records, True)
    known = vault.parse(vault.dump(work.made(records, stack.backups.repository).values()))
    again = replace(prepared, secrets=known)
    assert work.passphrase(again, new=True) == (known, False)
    elsewhere = replace(stack, backups=replace(stack.backups, repository="/srv/other"))
    assert work.passphrase(replace(again, resolved=elsewhere), new=True) == (known, True)


def test_a_folder_that_the_engine_cannot_mount_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file stands in its path. What fails for another reason is told as it is."""
    said = 'error mounting "/srv/b" to rootfs at "/repository": stat /srv/b: not a directory'
    for text, told in ((said, "can't be used as a folder"), ("no space left on device", "no space left")):
        engine = Sessions(there=True)

        def refuse(*_: Any, text: str = text, **__: Any) -> None:
            raise OperationFailed(text)

        monkeypatch.setattr(engine, "start", refuse)
        with pytest.raises(OperationFailed, match=told) as error:
            restic.open_repository(engine, opening(new=False), {"passphrase": "key"})
        assert (text in error.value.log) == (text == said)


def test_the_passphrase_is_told_until_there_is_a_backup() -> None:
    """What was cut off, or made by a restore, has told nobody."""
    cut, safety, whole = run(NIGHT, whole=False), run(NIGHT, reason=SAFETY), run(NIGHT)
    assert not asked_for([]) and not asked_for([cut, safety]) and asked_for([cut, safety, whole])


def test_a_backup_that_fails_tells_of_the_passphrase_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is stored by then: the next backup finds it, and only one that is whole lets nobody be told any more."""
    stack(tmp_path, "")
    engine = MemoryEngine()
    engine.import_image(None, naming.BASE_IMAGE)
    failed = Outcome(Operation("save:db", RemoveContainer("x"), "db", "its data"), "failed", 0.1, "no")
    report, done = Report(Plan("acme", ()), (failed,)), work.Done("r", ("db",), 0.1, new_passphrase=True)
    monkeypatch.setattr(options, "engine", lambda *_: engine)
    monkeypatch.setattr(work, "fresh", lambda *_: None)
    monkeypatch.setattr(work, "back_up", lambda *_, **__: (report, done))
    assert main(["backup", "-f", str(tmp_path / "stack.yml"), "--progress", "plain"]) == 1
    assert "consolidate secret show backup/passphrase" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said", "what"),
    [
        (
            1,
            "load indexes\nerror for tree 1a2b:\nFatal: repository contains errors",
            "the repository in /srv/b is damaged",
        ),
        (
            137,
            "load indexes\n[0:05] 3.00%  1 / 30 packs",
            "nothing is known to be damaged: env ended with exit status 137",
        ),
        (137, "", "nothing is known to be damaged: env ended with exit status 137"),
    ],
)
def test_a_repository_is_called_damaged_only_where_restic_says_so(code: int, said: str, what: str) -> None:
    """Where it was killed, or its session has gone, that is told."""
    engine = MemoryEngine(lambda *_: (code, said))
    engine.create_helper("s", {}, {})
    engine.boxes["s"].state = "running"
    with pytest.raises(OperationFailed) as told:
        restic.check(engine, "s", "/srv/b", print)
    assert what in told.value.what


@pytest.mark.parametrize("said", ["", "killed", "[{"])
def test_a_list_that_restic_has_not_told_is_not_an_empty_one(said: str) -> None:
    """A repository without backups is an answer: whoever has none must know that it came."""
    assert restic._listed("[]", "snapshots") == restic._listed("null", "snapshots") == []
    with pytest.raises(OperationFailed, match="restic's list of snapshots can't be read"):
        restic._listed(said, "snapshots")


def test_who_only_looks_locks_nothing_and_is_no_part_of_a_stack() -> None:
    """So a backup goes on that runs meanwhile, an `up` doesn't remove it, and what a killed one left goes with the next."""
    assert naming.NAME.fullmatch(reading.NOBODY) is None
    engine = Sessions(there=True)
    restic.open_repository(engine, opening(new=False), {"passphrase": "key"})
    assert restic.snapshots(engine, "shop.backup.1") == []
    assert "--no-lock" in engine.commands[-1] and not any("locks" in c for command in engine.commands for c in command)
    now = int(time.time())
    sessions = {
        "ended": ("exited", now),
        "at-work": ("running", now),
        "begins": ("created", now),
        "left": ("created", 0),
    }
    for name, (state, created) in sessions.items():
        labels = {naming.STACK: reading.NOBODY, naming.HELPER: "backup"}
        engine.create_helper(name, labels, {})
        engine.boxes[name].state, engine.boxes[name].created = state, created
    reading.nobodys(engine)
    assert sessions.keys() & engine.boxes.keys() == {"at-work", "begins"}  # somebody else starts that one now
    made = engine.boxes["shop.backup.1"].made
    assert made is not None and made.command == (restic.LIFETIME,) != ("infinity",)


def test_a_plan_leaves_a_backup_alone_that_is_under_way() -> None:
    """It is no change: what it has there goes with it. What a killed one has left goes with the next `up`."""
    world, stack = World(), shop()
    world.up(stack)
    for role in ("backup", "freeze"):
        labels = {naming.STACK: "shop", naming.HELPER: role, naming.OF: ""}
        world.engine.create_helper(f"shop.{role}.1", labels, {})
    plan = world.make_plan(stack)
    assert plan and world.desired is not None
    prepared = Prepared(stack, world.desired, world.engine.observe("shop"), {}, {}, plan)
    assert without_sessions(prepared).plan == plan
    with world.engine.lock("shop", "ada", print):
        assert not without_sessions(replace(prepared, observed=world.engine.observe("shop"))).plan


def test_a_dump_that_does_not_begin_ends_the_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's command hangs: nobody waits for it for ever, and the dumps beside it are given up, too."""
    monkeypatch.setattr(saving, "BEGIN", 0.2)
    monkeypatch.setattr(saving, "GIVE_UP", 0.2)
    released, ended = threading.Event(), threading.Event()

    class Hanging(MemoryEngine):
        def output(self, container: str, command: Sequence[str]) -> Iterator[bytes]:
            if container == "hangs":
                released.wait(30)
            try:
                while not released.is_set():
                    yield b"row\n"
            finally:
                ended.set()

        def feed(self, container: str, command: Sequence[str], input_: Iterable[bytes]) -> tuple[int, str]:
            for _ in input_:
                released.wait(0.01)
            return 0, ""

    dumps = tuple(SavedDump(n, n, ("dump",), "end") for n in ("hangs", "goes-on"))
    began = time.monotonic()
    with pytest.raises(OperationFailed, match="the dump of hangs does not begin"):
        saving.save_data(Hanging(), SaveData("s", "shop", (), (), dumps), threading.Event())
    assert time.monotonic() - began < 10 and ended.wait(10)
    released.set()


def test_whoever_stands_still_after_a_backup_was_cut_off_goes_on_with_the_next_plan() -> None:
    """The helper is asked to end, since only then it lets them go on; killed, it would not."""
    world = World()
    stack = shop()
    world.up(stack)
    labels = {"io.consolidate.stack": "shop", "io.consolidate.helper": "freeze", "io.consolidate.of": "www"}
    world.engine.create_helper("shop-www.freeze", labels, {})
    plan = world.make_plan(stack)
    assert [(o.id, o.needs) for o in plan.operations] == [
        ("stop:shop-www.freeze", ()),
        ("remove:shop-www.freeze", ("stop:shop-www.freeze",)),
    ]


# The plan of a restore


OF_SHOP = Manifest("shop", None, "stack.yml", "r", "2024-05-01T03:00:00+00:00", "ada", {})


def returned(world: World, servers: tuple[str, ...] = (), **parts: Part) -> returning.Return:
    assert world.desired is not None
    known = {"db": Part("depot", "i", "sha256:1", "dump", ("data",), snapshot="id1")} | parts
    return returning.returned(run(NIGHT), replace(OF_SHOP, parts=known), world.desired, servers)


def test_a_server_that_comes_back_with_another_image_is_named() -> None:
    """By what ran when it was saved; one that was not up then had none, and one that isn't now has none."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "keeps": True}))
    observed = world.engine.observe("shop")
    current = observed.current("db")
    assert current is not None
    now, then = current.image_id.removeprefix("sha256:")[:12], "f" * 12

    def told(**parts: str) -> str:
        saved = {s: Part("depot", "i", image, "volumes", ()) for s, image in parts.items()}
        return returning.other_images(
            observed, returning.Return(run(NIGHT), replace(OF_SHOP, parts=saved), tuple(saved))
        )

    assert told(db=current.image_id, www="", gone="sha256:1") == ""
    assert told(db=f"sha256:{then}ff", www="") == f"not made of the images of then: db ({now}, then {then})"


def test_a_restore_leaves_word_first_and_stops_who_uses_the_data() -> None:
    """The consumer must not see a database that is half there; its own data stays. Until the end all else is refused."""
    world = World()
    world.up(shop())
    desired, observed = world.desired, world.engine.observe("shop")
    assert desired is not None
    back = returned(world)
    assert returning.live(desired, observed, back.servers) == ("db",)
    plan = returning.stop_plan(desired, observed, back, "safety")
    words = [o.id for o in plan.operations if isinstance(o.action, LeaveWord)]
    stops = {o.server: o.needs for o in plan.operations if isinstance(o.action, StopContainer)}
    assert stops == {"db": tuple(words), "www": tuple(words)}
    mounted = returning.places(desired, observed, back)
    (fill,) = returning.fill_plan(back, "s", mounted).operations
    assert isinstance(fill.action, FillVolumes) and fill.action.volumes == (
        ("db", "data", ""),
    )  # emptied, for its dump
    load = returning.load_plan(desired, observed, back, "s")
    assert isinstance(load.operations[0].action, LoadDump)
    assert [o.id for o in load.operations[1:]] == ["forget:shop-db.grant.www.storage"]

    word = next(o.action for o in plan.operations if isinstance(o.action, LeaveWord))
    labels = {"io.consolidate.stack": "shop", "io.consolidate.helper": "restore", "io.consolidate.of": "db"}
    labels |= {"io.consolidate.snapshot": word.backup, "io.consolidate.safety": word.safety}
    world.engine.create_helper(word.name, labels, {})
    with pytest.raises(OperationFailed) as refused:
        check_restored(world.engine.observe("shop"), but_for="db")
    assert refused.value.hint == (
        f"finish it: consolidate restore {back.backup.run} -s db;"
        " or return to what was there before: consolidate restore safety -s db"
    )


def cut_off(world: World, *servers: str, **more: Any) -> None:
    """As a restore leaves it that was killed."""
    for server in servers:
        action = LeaveWord(f"shop-{server}.restore", "shop", server, "r1", "safety", **more)
        saving.act(world.engine, action, {}, threading.Event())


def test_while_a_restore_is_cut_off_only_its_own_servers_come_back() -> None:
    """Another server's data would be replaced without having been saved: the safety backup has these alone."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "storage": "db", "keeps": True}))
    cut_off(world, "db", arguments="-f /a/stack.yml --to /b/stack.yml")
    observed, files = world.engine.observe("shop"), Part("page", "", "", "volumes", ("kept",), True)
    for servers, told in (((), "www is left alone"), (("www",), "the data of db is not whole")):
        with pytest.raises(OperationFailed, match=told) as refused:
            returning.check_cut_off(observed, returned(world, servers, www=files), servers or ("www", "db"))
        assert "restore r1 -f /a/stack.yml --to /b/stack.yml -s db; or" in refused.value.hint
        assert refused.value.hint.endswith("consolidate restore safety -s db")
    returning.check_cut_off(observed, returned(world, ("db",), www=files), ("db",))
    returning.check_cut_off(observed, returned(world, (), www=files), ("db",))  # the other has no data yet


def test_on_the_way_back_a_server_that_had_no_data_has_none_again() -> None:
    """Its half-filled volume is emptied, what it knew of its consumers is forgotten, and its word ends with the others'."""
    world = World()
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "storage": "db", "keeps": True}))
    cut_off(world, "db", "www")
    desired, observed = world.desired, world.engine.observe("shop")
    assert desired is not None
    files = Part("page", "", "", "volumes", ("kept",), True, "id2")
    manifest = Manifest("shop", None, "stack.yml", "r", "2024-05-01T03:00:00+00:00", "ada", {"www": files})
    back = returning.taken_back(run(NIGHT), manifest, desired, ("db", "www"))
    assert (back.servers, back.emptied) == (("www",), ("db",))
    returning.check_cut_off(observed, back, ("db", "www"))
    mounted = returning.places(desired, observed, back)
    (fill,) = returning.fill_plan(back, "s", mounted).operations
    assert isinstance(fill.action, FillVolumes)
    assert set(fill.action.volumes) == {("www", "kept", "id2"), ("db", "data", "")}
    forgotten = returning.load_plan(desired, observed, back, "s").operations
    assert [o.id for o in forgotten] == ["forget:shop-db.grant.www.storage"]
    assert {o.server for o in returning.end_plan("shop", back.all).operations} == {"db", "www"}


class Restoring(Restore):
    """A restore of a world's stack, but for the repository. `brought` are those that came back, with how; `wrong` what the
    first fails with."""

    def __init__(self, world: World, wrong: ConsolidateError | None = None) -> None:
        stack, file = shop(), Source(Path("/a/stack.yml"))
        assert world.desired is not None
        runner = Runner(world.engine, lambda _: None, lambda _: None, print)
        super().__init__(file, file, runner, lambda _: None)
        self.prepared = Prepared(stack, world.desired, world.engine.observe("shop"), {}, {})
        self.manifest = returned(world).manifest
        self.wrong, self.brought = wrong, list[tuple[tuple[str, ...], bool]]()

    def _find(self, *_: object) -> tuple[Run, Manifest, dict[str, SecretRecord]]:
        return run(NIGHT), self.manifest, {}

    def _find_safety(self, *_: object) -> tuple[Run, Manifest, dict[str, SecretRecord]]:
        return self._find()

    def _adopt(self, *_: object) -> None: ...

    def _safety(self, *_: object) -> str:
        return "safety"

    def _bring(self, wanted: returning.Return, safety: str, arguments: str = "", *, everything: bool = False) -> None:
        self.brought.append((wanted.all, everything))
        if self.wrong and len(self.brought) == 1:
            raise self.wrong


@pytest.fixture
def without_repository(monkeypatch: pytest.MonkeyPatch) -> Callable[[Restoring], Restored]:
    """Have it run with what the world has."""

    def go(restoring: Restoring) -> Restored:
        records = {PASSPHRASE: vault.record(PASSPHRASE, Secret("key"), NIGHT)}
        monkeypatch.setattr(restore, "fresh", lambda *_, **__: restoring.prepared)
        monkeypatch.setattr(restore, "passphrase", lambda *_: (records, False))
        return restoring.run("r", (), None, lambda *_: None)

    return go


def test_whatever_a_restore_fails_with_its_servers_come_back(
    without_repository: Callable[[Restoring], Restored],
) -> None:
    """Also where the stack is invalid on this host. Without an engine nothing can be brought back."""
    world = World()
    world.up(shop())
    for wrong in (OperationFailed("no"), StackInvalid([Problem("no")]), UsageError("no")):
        failing = Restoring(world, wrong)
        with pytest.raises(OperationFailed, match="no; what was there before is back"):
            without_repository(failing)
        assert failing.brought == [(("db",), False)] * 2
    gone = Restoring(world, EngineUnavailable("gone"))
    with pytest.raises(EngineUnavailable):
        without_repository(gone)
    assert len(gone.brought) == 1


def test_a_stack_that_a_restore_was_making_is_made_whole_by_the_next(
    without_repository: Callable[[Restoring], Restored],
) -> None:
    """Those without data are part of it, too: the word tells that nothing was there."""
    world = World()
    world.up(shop())
    cut_off(world, "db", everything=True)
    again = Restoring(world)
    without_repository(again)
    assert again.brought == [(("db",), True)]


def test_what_has_come_back_was_saved_then_where_the_stack_s_own_repository_has_it(
    without_repository: Callable[[Restoring], Restored],
) -> None:
    """That of a stack which `--to` names does not, and a restore that fails brings nothing."""
    world = World()
    world.up(shop())

    def saved(restoring: Restoring) -> dict[str, datetime]:
        with contextlib.suppress(OperationFailed):
            without_repository(restoring)
        return lately.times(world.engine.observe("shop"), lately.SAVED)

    class Elsewhere(Restoring):
        def _reads(self, backups: Backups, records: Mapping[str, SecretRecord]) -> None:
            super()._reads(replace(backups, repository="/srv/b/other"), records)

    assert saved(Restoring(world, OperationFailed("no"))) == saved(Elsewhere(world)) == {}
    assert saved(Restoring(world)) == {"db": NIGHT}


def test_a_backup_of_another_stack_is_found_again_by_what_the_word_tells() -> None:
    runner = Runner(MemoryEngine(), lambda _: None, lambda _: None, print)
    one, other = Source(Path("/my stacks/a.yml"), "prod", (Path("/kinds"),)), Source(Path("/b/stack.yml"))
    told = Restore(one, other, runner, lambda _: None)._arguments()
    assert told == "-f '/my stacks/a.yml' -e prod --templates /kinds --to /b/stack.yml"
    assert Restore(one, one, runner, lambda _: None)._arguments() == ""


def test_what_has_no_place_is_refused_before_anything_is_done() -> None:
    world = World()
    world.up(shop())
    other = Part("page", "i", "sha256:1", "volumes", ("gone",))
    for servers, parts, told in (
        (("nobody",), {}, "has no data of 'nobody'"),
        ((), {"mail": other}, "the stack has no server 'mail'"),
        (("db",), {"db": other}, "was a server of the kind page"),
        (("www",), {"www": other}, "has no place for gone"),
    ):
        with pytest.raises(UsageError, match=told):
            returned(world, servers, **parts)
    assert returned(world, ("db",), mail=other).servers == ("db",)


# The stack file


def stack(folder: Path, text: str) -> Resolved:
    (folder / "stack.yml").write_text(f"stack: acme\n{text}servers:\n  www: {{kind: web, content: site}}\n")
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "index.html").write_text("hello")
    return load_stack(Source(folder / "stack.yml"))


def test_each_stack_has_a_repository_of_its_own(tmp_path: Path) -> None:
    """So two environments on a host never meet in one, each with its own passphrase."""
    assert stack(tmp_path, "").backups.repository == "/var/backups/consolidate/acme"
    given = stack(tmp_path, "backup: {repository: /srv/b/, keep: {daily: 2}, passphrase: {env: KEY}}\n").backups
    assert (given.repository, given.keep, given.passphrase.address) == ("/srv/b/acme", Keep(daily=2), PASSPHRASE)
    assert given.passphrase.source is not None and given.passphrase.source.value == "KEY"


@pytest.mark.parametrize("wrong", ["/", "/a/../b", "/a:b"])
def test_a_repository_that_is_no_folder_of_the_host_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StackInvalid, match="no folder of the host"):
        stack(tmp_path, f"backup: {{repository: '{wrong}'}}\n")


def test_the_files_of_a_stack_travel_with_it(tmp_path: Path) -> None:
    """The stack file, every overlay, the lock, and what the servers copy; nothing else of the folder."""
    made = stack(tmp_path, "")
    for name in ("stack.prod.yml", "stack.lock.yml", ".env", "letters.txt"):
        (tmp_path / name).write_text("x: 1\n")
    (tmp_path / ".env").chmod(0o600)
    found = {f.path: f.mode for f in stack_files(Source(tmp_path / "stack.yml"), made).files}
    assert found.keys() == {"stack.yml", "stack.prod.yml", "stack.lock.yml", ".env", "site/index.html"}
    assert found[".env"] == 0o600
