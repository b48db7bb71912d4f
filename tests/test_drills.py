"""Drills decided: a stack that reaches nobody, what counts as the same, what is told of it afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from consolidate import examine, lately, lock_file, naming, process
from consolidate.actions import CompleteBackup, CreateContainer, RemoveContainer, RemoveImage, SavedDump
from consolidate.backup import drill as drills
from consolidate.backup import plans, proofs, work
from consolidate.backup.access import Given
from consolidate.backup.comparing import Comparison
from consolidate.backup.drill import Unproved
from consolidate.backup.files import scratch
from consolidate.backup.proofs import Check, Step
from consolidate.backup.returning import Return
from consolidate.console.drill import MOST, folded, show_drill
from consolidate.console.look import kept_columns
from consolidate.counting import Drill, DumpedRecords, Page, StoredRecords
from consolidate.errors import OperationFailed
from consolidate.execute import proving, saving
from consolidate.execute.paths import printable
from consolidate.execute.proving import Answer, File, go_mode, go_time
from consolidate.files import FileSet, lines
from consolidate.lifecycle import down_plan
from consolidate.listing import server_rows
from consolidate.locked import Lock, LockedImage
from consolidate.pipeline import Prepared
from consolidate.plan import Operation, Plan
from consolidate.report import Outcome, Report
from consolidate.resolved import Keep, Publish
from consolidate.runner import Runner
from consolidate.secret import Secret, SecretRecord
from consolidate.snapshots import Manifest, Part
from consolidate.source import Source
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box
from tests.test_backups import run, shop
from tests.world import World

NOW = datetime(2026, 11, 27, 3, tzinfo=UTC)


def world_of_shop() -> World:
    world = World()
    world.up(shop())
    return world


def note(engine: MemoryEngine, role: str, servers: list[str], when: datetime) -> None:
    told = lately.labels(engine.observe("shop"), role, servers, when)
    engine.create_helper(naming.helper("shop", "", role), told, {})


# The stack that comes up


def test_a_drill_s_stack_is_nobody_s_and_reaches_nobody() -> None:
    """Its name can't be that of a stack; it has no front network, no published port and one container for each server."""
    stack = shop()
    port = Publish("127.0.0.1", 8080, 80)
    servers = {n: replace(s, egress=True, publish=(port,), replicas=2) for n, s in stack.servers.items()}
    found = proofs.secluded(replace(stack, servers=servers), naming.drill("shop"))
    assert not naming.NAME.fullmatch(found.name)
    assert {(s.egress, s.publish, s.replicas) for s in found.servers.values()} == {(False, (), 1)}


def test_whoever_has_a_page_and_no_network_gets_one_without_a_way_out() -> None:
    """Somebody has to ask for it; a server that is on a network is asked there. A build has the image of the stack itself."""
    world = world_of_shop()
    assert world.desired is not None
    page = Drill(page=Page(80))
    servers = {n: replace(s, networks=(), drill=page) for n, s in world.desired.servers.items()}
    servers["db"] = replace(
        servers["db"], drill=None, container=replace(servers["db"].container, image="consolidate/shop.drill-db:1")
    )
    wanted = replace(world.desired, stack="shop.drill", servers=servers, networks=())
    found = proofs.with_networks(wanted, "shop")
    assert [(n.server, n.internal, n.role) for n in found.networks] == [("www", True, "route")]
    assert found.servers["www"].networks == (found.networks[0].name,) and found.servers["db"].networks == ()
    assert found.servers["db"].container.image == "consolidate/shop-db:1"
    on_one = replace(world.desired, servers={n: replace(s, drill=page) for n, s in world.desired.servers.items()})
    assert proofs.with_networks(on_one, "shop").networks == world.desired.networks


def test_a_server_is_drilled_with_those_that_it_uses() -> None:
    """A site on an empty database would prove nothing."""
    world = world_of_shop()
    assert world.desired is not None
    part = Part("depot", "", "", "dump", ("data",))
    manifest = Manifest("shop", None, "stack.yml", "r", NOW.isoformat(), "ada", {"www": part, "db": part})
    assert proofs.needed(world.desired, manifest, ("www",)) == ("www", "db")
    assert proofs.needed(world.desired, manifest, ("db",)) == ("db",)
    assert proofs.needed(world.desired, manifest, ()) == ("www", "db")


def test_what_the_host_can_t_carry_is_told_by_server() -> None:
    world = World()
    plan = world.make_plan(shop())
    made = [o.action.container for o in plan.operations if isinstance(o.action, CreateContainer)]
    wanted = sum(c.limits.memory for c in made)
    assert proofs.too_little_memory(plan, wanted) == ""
    short = proofs.too_little_memory(plan, wanted - 1)
    assert all(f"{c.server} {c.limits.memory >> 20}M" in short for c in made)
    assert proofs.too_little_disk(5, 5) == "" and "100M" in proofs.too_little_disk(100 << 20, 1)


def test_a_drill_removes_no_image_and_asks_nothing_to_end() -> None:
    world = world_of_shop()
    gone = Operation("remove-image:x", RemoveImage("x"), "db", "")
    kept = Operation("remove:x", RemoveContainer("x"), "db", "", needs=("stop:x",))
    assert proofs.harmless(Plan("shop", (gone, kept))).operations == (kept,)
    plan = proofs.at_once(down_plan(world.engine.observe("shop"), volumes=True))
    verbs = {o.verb for o in plan.operations}
    assert "stop" not in verbs and "remove" in verbs


def test_a_folder_of_a_killed_drill_goes_with_the_next_and_that_of_one_under_way_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, other = tmp_path / "consolidate-drill-killed", tmp_path / "consolidate-drill-other"
    for folder, whose in ((killed, f"{process.identity()}0"), (other, process.identity())):
        folder.mkdir()
        (folder / "process").write_text(whose)
    with scratch() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700 and not killed.exists() and other.exists()
    assert list(tmp_path.iterdir()) == [other]


# What counts as the same


def test_files_differ_by_what_is_told_of_them() -> None:
    """One that is missing, one too many, one with another mode: each is named, with the two sides."""
    one = File("f", 0o644, "33:33", 3, 1)
    same = {"/data/w/d/a": one, "/data/w/d/b": one}
    assert [c.ok for c in proofs.files_check("w", same, dict(same), "d")] == [True]
    found = {"/data/w/d/a": replace(one, mode=0o4644, time=2), "/data/w/d/c": one}
    total, *rows = proofs.files_check("w", same, found, "d")
    assert (total.ok, total.backup, total.restored, total.detail) == (False, 2, 2, "3 differ")
    assert [(r.what[-1], r.backup, r.restored) for r in rows] == [
        ("a", "mode 0644, time 1", "mode 4644, time 2"),
        ("b", "there", None),
        ("c", None, "there"),
    ]


def test_restic_and_find_say_the_same_of_a_file() -> None:
    """Go numbers the bits before the permissions in its own way, and has nine digits of a second."""
    assert go_mode(0o755 | 1 << 23 | 1 << 31) == 0o4755
    assert go_mode(0o770 | 1 << 22 | 1 << 20 | 1 << 31) == 0o3770
    assert go_time("2001-02-03T04:05:06.789123999Z") == 981173106789123
    assert go_time("2001-02-03T05:05:06+01:00") == 981173106000000
    assert proving.find_time("981173106.7891239990") == 981173106789123
    assert printable("a\ufffd\ufffdb") == printable("a\ufffdb")
    assert list(lines([b"a\0b", b"c\0", b"d"], b"\0")) == [b"a", b"bc", b"d"]


def test_a_fraction_of_a_second_is_added_also_before_1970() -> None:
    """To the seconds rounded down: so the kernel has it, and find writes the two one after the other."""
    assert proving.find_time("-2.9999999990") == go_time("1969-12-31T23:59:58.999999999Z") == -1_000_001
    assert proving.find_time("-1.5000000000") == go_time("1969-12-31T23:59:59.5Z") == -500_000
    assert proving.find_time("-2.0000000000") == go_time("1969-12-31T23:59:58Z") == -2_000_000


def test_rows_are_the_same_or_not_and_mailboxes_may_have_more() -> None:
    """A table that is missing differs also where it was empty; one of which neither side has any row is not told."""
    rows = Drill(records="rows", count=("x",), dumped=DumpedRecords("(x)", "x"))
    backup, there = (
        {"d.a": 5, "d.b": 2, "d.empty": 0, "d.gone": 0},
        {"d.a": 5, "d.b": 1, "d.empty": 0, "d.new": 3, "d.no": 0},
    )
    found = {c.what: (c.backup, c.restored, c.ok) for c in proofs.records_check("db", rows, backup, there)}
    assert found == {
        "d.a": (5, 5, True),
        "d.b": (2, 1, False),
        "d.empty": (0, 0, True),
        "d.gone": (0, None, False),
        "d.new": (0, 3, False),
    }
    mail = Drill(records="messages", count=("x",), stored=StoredRecords("(x)", r"\1"), grows=True)
    checks = proofs.records_check("mail", mail, {"ada": 5, "bob": 2}, {"ada": 7, "bob": 1, "eve": 1})
    assert [(c.what, c.ok) for c in checks] == [("ada", True), ("bob", False), ("eve", True)]
    assert "2 more" in checks[0].detail


def test_a_page_has_the_status_that_its_kind_says() -> None:
    """And the text that its server says, where its kind asks for one: if it says none, nothing is proved."""
    named = Page(80, text=("say",))

    def ok(page: Page, status: str, *, text: str = "", holds: bool = False) -> bool:
        return proofs.page_check("blog", page, "b.test", Answer(status, 10, holds), text).ok

    assert [ok(Page(80), s) for s in ("200", "500", "2000")] == [True, False, False]
    assert ok(Page(80, "/", "[234][0-9][0-9]"), "404")
    said = (("200", "Acme", True), ("200", "Acme", False), ("500", "Acme", True), ("200", "", True))
    assert [ok(named, s, text=t, holds=h) for s, t, h in said] == [True, False, False, False]
    nameless = proofs.page_check("blog", named, "b.test", Answer("200", 10, holds=True), "")
    assert "no text to look for" in nameless.detail
    lacks = proofs.page_check("blog", named, "b.test", Answer("200", 10, holds=False), "Acme & Co")
    found = proofs.drilled("s", "r", "t", ["blog"], [lacks], [])
    assert proofs.failures(found) == [
        "blog page http://b.test/: backup -, restored status 200",
        "10 bytes, without the text 'Acme & Co'",
    ]


def test_a_page_s_text_is_looked_for_in_its_body_alone() -> None:
    """By the very program that asks for it, of a server that answers: what its headers say is not the page. That is read in
    pieces, since it may be one long line, and a text may lie in two of them."""

    body = "<title>Ada&#8217;s $(id) \\ café</title>\n<p>End, without a line's end".encode()
    body += b"-" * (65536 - 4 - len(body)) + b"in two pieces" + b"+" * 65536

    class Blog(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200, "fine")
            self.send_header("X-Blog", "in the header")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Blog)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def said(text: str) -> str:
        words = ["127.0.0.1", str(server.server_port), "/", "b.test", text, proving.BODY]
        return subprocess.run(["bash", "-c", proving.ASK, "ask", *words], capture_output=True, text=True).stdout

    try:
        held = {
            t: said(t) for t in ("Ada&#8217;s $(id) \\ café<", "in two pieces", "+", "in the header", "pieces-", "Eve")
        }
    finally:
        server.shutdown()
        server.server_close()
    assert list(held.values()) == [f"answer 200 {len(body)} {n}\n" for n in (1, 1, 1, 0, 0, 0)]


def test_an_answer_that_was_cut_off_is_told_as_that() -> None:
    """Not as a page, and not as nobody's answer: what read it was killed, or the network went."""
    assert proving.answered(["what bash says", "answer 200 31 1"], "blog:80") == Answer("200", 31, holds=True)
    for said, what in (
        (["answer 200 ", "Killed"], "what blog:80 answers can't be read to its end"),
        (["it says nothing"], "nobody answers at blog:80"),
    ):
        with pytest.raises(OperationFailed) as told:
            proving.answered(said, "blog:80")
        assert told.value.what == what and list(told.value.log) == said


def test_nothing_is_proved_where_nothing_was_looked_at_or_one_thing_differs() -> None:
    good, bad = Check("db", "rows", "t", 1, 1, ok=True), Check("db", "rows", "u", 1, 0, ok=False)
    steps = [Step("load", ("db",), 1.26), Step("start", ("db",), 2.5)]

    def proved(*checks: Check) -> bool:
        return proofs.drilled("shop", "r", "t", ["db"], checks, steps).proved

    assert (proved(good), proved(good, bad), proved()) == (True, False, False)
    assert proofs.drilled("shop", "r", "t", ["db"], [good], steps).seconds == 3.8


def test_who_did_not_get_ready_says_why() -> None:
    operation = Operation("ready:db", RemoveContainer("x"), "db", "")
    report = Report(Plan("shop", (operation,)), (Outcome(operation, "failed", 1.0, "no space", ("last word",)),))
    rows = {c.server: c for c in proofs.ready_checks({"www"}, report, ["www", "db", "mail"])}
    assert {s: c.ok for s, c in rows.items()} == {"www": True, "db": False, "mail": False}
    assert rows["db"].detail == "no space\nlast word"


def test_many_tables_that_are_the_same_are_shown_as_one() -> None:
    """And each that differs by itself. JSON has all of them."""
    rows = [Check("db", "rows", f"t{n}", 2, 2, ok=True) for n in range(MOST + 5)]
    bad = Check("db", "rows", "u", 2, 1, ok=False)
    shown = list(folded([*rows[:10], bad, *rows[10:]]))
    assert [(c.what, c.backup, c.restored) for c in shown] == [
        (f"{MOST + 5} of {MOST + 6}", 2 * (MOST + 5), 2 * (MOST + 5)),
        ("u", 2, 1),
    ]
    assert list(folded(rows[:3])) == rows[:3]


@pytest.mark.parametrize("proved", [True, False])
def test_the_table_says_what_differs_and_how_long_a_restore_takes(
    proved: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        Check("db", "rows", "d.t", 1234, 1234 if proved else 1233, ok=proved),
        Check("db", "ready", "", None, "yes", ok=True),
    ]
    found = proofs.drilled("shop", "r1", NOW.isoformat(), ["db"], checks, [Step("load the dumps", ("db",), 4.2)])
    show_drill(found, "table")
    said = capsys.readouterr().out
    assert "d.t" in said and "1,234" in said and "load the dumps" in said and ("DIFFERS" in said) != proved
    assert ("a restore takes 4.2 s" in said) == proved and ("proved: the backup r1" in said) == proved
    show_drill(found, "json")
    assert json.loads(capsys.readouterr().out)["checks"][0]["restored"] == (1234 if proved else 1233)


def test_what_failed_is_told_in_lines_with_both_sides() -> None:
    """For a mail or a journal: where, how many there were, how many came back, and no more lines than somebody reads."""
    checks = [
        Check("mail", "messages", "ada", 4, 3, ok=False),
        Check("db", "rows", "d.t", 2, None, ok=False),
        Check("blog", "ready", "", None, "no", ok=False, detail="no space\nlast word"),
        Check("db", "rows", "d.u", 2, 2, ok=True),
    ]
    found = proofs.drilled("shop", "r1", NOW.isoformat(), ["db"], checks, ())
    assert proofs.failure(found).startswith("NOT proved: the backup r1 of 2026") and "3 of 4" in proofs.failure(found)
    assert proofs.failures(found) == [
        "mail messages ada: backup 4, restored 3",
        "db rows d.t: backup 2, restored -",
        "blog ready: backup -, restored no",
        "no space",
        "last word",
    ]
    many = proofs.drilled("shop", "r1", "t", ["db"], checks[:1] * (proofs.TOLD + 2), ())
    assert len(proofs.failures(many)) == proofs.TOLD + 1 and proofs.failures(many)[-1] == "and 2 lines more"
    assert "nothing could be looked at" in proofs.failure(proofs.drilled("shop", "r1", "t", [], (), ()))


# Somebody else is at work


class Tried(drills.Drill):
    """A drill whose first tries find that something fails, while a backup removes one of the others."""

    def __init__(self, pruned: int) -> None:
        self.said: list[str] = []
        self.there = [f"id{n}" for n in range(drills.TRIES)]
        engine = MemoryEngine(lambda *_: (0, json.dumps([{"id": i} for i in self.there])))
        engine.create_helper("s", {}, {})
        engine.boxes["s"].state = "running"
        super().__init__(Source(Path("/a/stack.yml")), Runner(engine, print, print, self.said.append))
        self.pruned, self.did = pruned, list[str]()

    def _clear(self) -> None:
        self.did.append("clear")

    def _drill(self, name: str, servers: object) -> proofs.Drilled:
        self.did.append(name)
        fails = self.did.count(name) <= self.pruned
        self.checks.append(Check("db", "rows", "t", 1, 0 if fails else 1, ok=not fails))
        with contextlib.suppress(Unproved), self._beside_backups("s", Unproved):
            if fails:
                self.there.pop()
                raise Unproved
        return proofs.drilled("shop", "r", "t", ["db"], self.checks, self.steps)


def test_a_drill_begins_again_where_a_backup_has_taken_away_what_it_was_reading() -> None:
    """No night's alarm for that. What the try before has left, or found, counts for nothing. What the last finds does: a
    backup that removes others every hour does not hide that a dump can't be loaded."""
    again = Tried(drills.TRIES - 1)
    found = again._tried("latest", ())
    assert found.proved and len(found.checks) == 1
    assert again.did == ["clear", "latest"] * drills.TRIES
    assert len(again.said) == drills.TRIES - 1 and "it begins again" in again.said[0]
    wrong = Tried(drills.TRIES)
    found = wrong._tried("latest", ())
    assert not found.proved and [c.ok for c in found.checks] == [False]
    assert wrong.did == ["clear", "latest"] * drills.TRIES and wrong.said[-1] == f"warning: {proving.PRUNED}"


def test_the_word_of_a_drill_is_left_under_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drills of other servers leave it in the same place: neither takes the other's away."""
    drill = Tried(0)
    drill.engine.import_image(None, naming.BASE_IMAGE)
    held: list[bool] = []
    world = world_of_shop()
    assert world.desired is not None
    prepared = Prepared(shop(), world.desired, world.engine.observe("shop"), {}, {})
    monkeypatch.setattr(drill, "_prepared", lambda: prepared)
    monkeypatch.setattr(drills, "passphrase", lambda *_: ({}, False))
    monkeypatch.setattr(
        drills, "note", lambda *_: held.append(bool(drill.engine.observe("shop.drill").helper("shop.drill.lock")))
    )
    assert drill.run("latest", (), Given()).proved and held == [True]


# What a backup says for it


def test_the_records_of_a_dump_are_in_the_manifest() -> None:
    """Of those that say how to count them; a manifest of before tells of none."""
    world = world_of_shop()
    assert world.desired is not None
    how = DumpedRecords("(x)", "x")
    servers = {
        **world.desired.servers,
        "db": replace(world.desired.servers["db"], drill=Drill(count=("x",), dumped=how)),
    }
    units = plans.Units(replace(world.desired, servers=servers), world.engine.observe("shop"))
    assert isinstance(units.dumps["db"], SavedDump) and units.dumps["db"].records == how
    part = Part("depot", "", "", "dump", ("data",))
    manifest = Manifest("shop", None, "stack.yml", "r", NOW.isoformat(), "ada", {"db": part})
    plan = plans.save_plan(units, [["db"]], manifest, "s", FileSet(()), [], Keep(), "asked for")
    (whole,) = (o.action for o in plan.operations if isinstance(o.action, CompleteBackup))
    assert whole.counted == ("db",)
    assert manifest.counted({"db": {"d.t": 3}}).parts["db"].records == {"d.t": 3}
    assert manifest.counted({}).parts["db"].records is None


def test_the_records_of_who_stands_still_are_counted_in_that_moment() -> None:
    """As files that are there, whatever restic makes of them; of who doesn't they come and go, and a manifest tells none."""
    world, how = World(), StoredRecords("kept/([a-z]+)/new/.*", r"\1")
    world.up(shop(www={"kind": "page", "domains": ["www.test"], "keeps": True}))
    assert world.desired is not None
    www = replace(world.desired.servers["www"], drill=Drill(count=("x",), stored=how))
    desired = replace(world.desired, servers={**world.desired.servers, "www": www})
    units = plans.Units(desired, world.engine.observe("shop"))
    assert units.volumes["www"].records == how
    manifest = Manifest("shop", None, "stack.yml", "r", NOW.isoformat(), "ada", {})
    plan = plans.save_plan(units, [["www"]], manifest, "s", FileSet(()), [], Keep(), "asked for")
    (whole,) = (o.action for o in plan.operations if isinstance(o.action, CompleteBackup))
    assert whole.counted == ("www",)
    world.engine.boxes["shop-www-1"].end(0)
    assert plans.Units(desired, world.engine.observe("shop")).volumes["www"].records is None

    paths = "\0".join(f"/data/www/kept/{p}" for p in ("ada/new/1", "ada/new/2", "bob/new/1", "ada/tmp/1", ""))
    engine = MemoryEngine(lambda *_: (0, paths))
    engine.create_helper("s", {}, {})
    engine.boxes["s"].state = "running"
    assert saving._count_stored(engine, "s", units.volumes["www"], how) == {"ada": 2, "bob": 1}


def test_an_older_backup_s_dump_is_counted_as_it_is_read_and_no_lock_is_taken() -> None:
    """Its manifest doesn't tell. What a command says that is no count is an error, and no zero."""
    commands: list[tuple[str, ...]] = []

    def program(_: MemoryEngine, __: Box, command: tuple[str, ...], ___: bytes | None) -> tuple[int, str]:
        commands.append(command)
        return 0, "Sorry" if command == ("count",) else "t a\nr\nr\nt b\n"

    engine = MemoryEngine(program)
    engine.create_helper("s", {}, {})
    engine.boxes["s"].state = "running"
    how = DumpedRecords("t (.)", "r")
    assert proving.records_dumped(engine, "s", "id1", "db", how) == {"a": 2, "b": 0}
    assert "--no-lock" in commands[0] and commands[0][-2:] == ("id1", "/dump/db")
    with pytest.raises(OperationFailed, match="'Sorry' is no name"):
        proving.records_there(engine, "s", ["count"])


def test_what_can_t_be_read_while_a_backup_removes_older_ones_is_not_said_to_be_damaged() -> None:
    """A drill takes no lock. Where nothing was removed, or only added, what went wrong is told as it is."""
    there = ["a", "b"]
    engine = MemoryEngine(lambda *_: (0, json.dumps([{"id": i} for i in there])))
    engine.create_helper("s", {}, {})
    engine.boxes["s"].state = "running"
    with pytest.raises(OperationFailed) as told, proving.beside_backups(engine, "s"):
        there.append("c")
        raise OperationFailed("a pack is missing")
    assert told.value.what == "a pack is missing"
    with pytest.raises(OperationFailed) as told, proving.beside_backups(engine, "s"):
        there.remove("a")
        raise OperationFailed("a pack is missing", log=["of restic"])
    assert told.value.what == f"a pack is missing; {proving.PRUNED}" and list(told.value.log) == ["of restic"]
    with pytest.raises(OperationFailed) as told, proving.beside_backups(engine, "s", Unproved):
        there.clear()
        raise Unproved
    assert told.value.what == proving.PRUNED
    with pytest.raises(Unproved), proving.beside_backups(engine, "s", Unproved):
        raise Unproved


def test_what_a_server_says_that_can_t_be_counted_is_told_without_its_secrets() -> None:
    """Of a mail or a journal nobody knows who reads it."""
    told = "connect db shop s3cret-word: refused\n"
    secrets = {"db/password": SecretRecord("db/password", Secret("s3cret-word"), "1", NOW)}
    engine = MemoryEngine(lambda *_: (0, told))
    engine.create_helper("db", {}, {})
    engine.boxes["db"].state = "running"
    wanted = Return(run(NOW), Manifest("shop", None, "stack.yml", "r", "", "ada", {}), ())
    found = Comparison(engine, "shop.drill", "shop", secrets, wanted)
    (row,) = found.counted("db", Drill(count=("count",)), {"t": 3}, "db")
    assert (row.backup, row.restored, row.ok) == (3, None, False)
    assert "connect db shop <secret db/password>: refused" in row.detail


@pytest.mark.parametrize("image, pinned", [("redis:7", True), ("redis:8", False)])
def test_a_drill_keeps_to_the_lock_that_came_with_the_backup_as_far_as_it_fits(
    tmp_path: Path, image: str, pinned: bool
) -> None:
    (tmp_path / "stack.yml").write_text(f"stack: shop\nservers:\n  cache: {{kind: container, image: '{image}'}}\n")
    locked = LockedImage("redis:7", f"sha256:{'5' * 64}")
    lock = Lock({"cache": {"redis:7": locked}}, keys={("redis:7", locked.id): "redis"})
    lock_file.write(Source(tmp_path / "stack.yml").lock, lock, "stack.yml")
    engine = MemoryEngine()
    drill = drills.Drill(Source(tmp_path / "elsewhere.yml"), Runner(engine, print, print, print))
    drill.real, drill.stack = "shop", naming.drill("shop")
    manifest = Manifest("shop", None, "stack.yml", "r", NOW.isoformat(), "ada", {})
    desired = drill._desired(tmp_path, manifest, {})
    assert desired.stack == "shop.drill" and desired.locked == ({"cache": locked} if pinned else {})


# What is told afterwards


def test_the_times_of_others_stay_and_outlive_down() -> None:
    """They are labels of helpers that no plan rests on, and go with the data."""
    world = world_of_shop()
    before = world.engine.observe("shop").essence
    note(world.engine, lately.SAVED, ["db", "www"], NOW)
    note(world.engine, lately.SAVED, ["db"], NOW + timedelta(hours=1))
    note(world.engine, lately.DRILLED, ["db"], NOW)
    observed = world.engine.observe("shop")
    assert lately.times(observed, lately.SAVED) == {"db": NOW + timedelta(hours=1), "www": NOW}
    assert lately.times(observed, lately.DRILLED) == {"db": NOW}
    assert observed.essence == before and not world.make_plan(shop())
    helpers = {"shop.saved", "shop.drilled"}
    for volumes in (False, True):
        gone = {
            o.action.name
            for o in down_plan(observed, volumes=volumes).operations
            if isinstance(o.action, RemoveContainer)
        }
        assert (helpers <= gone) == volumes


@pytest.mark.parametrize(
    "label",
    [
        "",
        "[1]",
        '{"db": "2026-01-01T00:00:00Z"}',
        '{"db": {"when": "2026-01-01T00:00:00", "known": "2026-01-01T00:00:00Z"}}',
    ],
)
def test_times_that_can_t_be_read_are_none(label: str) -> None:
    world = world_of_shop()
    labels = {naming.STACK: "shop", naming.HELPER: lately.SAVED, naming.TIMES: label}
    world.engine.create_helper("shop.saved", labels, {})
    assert lately.times(world.engine.observe("shop"), lately.SAVED) == {}


def test_data_that_was_made_after_the_last_backup_was_never_saved() -> None:
    """Its servers, and no others, are told as if they had never been: what was saved has gone with its volume."""
    world = World()
    world.stamp = {naming.RUN: (NOW - timedelta(days=1)).isoformat(timespec="milliseconds")}
    world.up(shop())
    note(world.engine, lately.SAVED, ["db"], NOW)
    note(world.engine, lately.DRILLED, ["db"], NOW)
    assert {r["server"]: r.get("backup") for r in server_rows(shop(), world.engine)}["db"] == NOW.isoformat()
    world.plan = down_plan(world.engine.observe("shop"), volumes=True, servers=["db"])
    world.run()
    world.stamp = {naming.RUN: (NOW + timedelta(seconds=1)).isoformat(timespec="milliseconds")}
    world.up(shop())
    rows = {r["server"]: r for r in server_rows(shop(), world.engine)}
    assert (rows["db"]["backup"], rows["db"]["drill"]) == (None, None)
    observed = world.engine.observe("shop")
    assert [c.detail for c in examine.backups(observed, ["db"], NOW)] == ["never of db"]
    note(world.engine, lately.SAVED, ["db"], NOW + timedelta(seconds=1, milliseconds=5))
    assert "db" in lately.times(world.engine.observe("shop"), lately.SAVED)


def test_data_that_came_back_was_saved_when_its_backup_was_made() -> None:
    """Though its volume is of today: word is left that this is known of it. What is known of no moment counts for nothing."""
    world = World()
    world.stamp = {naming.RUN: NOW.isoformat(timespec="milliseconds")}
    world.up(shop())
    before = NOW - timedelta(days=2)
    runner = Runner(world.engine, print, print, print)
    work.note(runner, "shop", lately.SAVED, ["db"], before)
    assert lately.times(world.engine.observe("shop"), lately.SAVED) == {}
    work.note(runner, "shop", lately.SAVED, ["db"], before, NOW + timedelta(seconds=1))
    assert lately.times(world.engine.observe("shop"), lately.SAVED) == {"db": before}
    work.note(runner, "other", lately.SAVED, ["db"], NOW)
    assert "other.saved" not in world.engine.boxes  # nothing is there of it


def test_what_has_succeeded_stays_so_where_no_word_of_it_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore or a backup that is whole does not fail for that: a warning tells."""
    world, said = world_of_shop(), list[str]()

    def refused(*_: object) -> None:
        raise OperationFailed("the disk is full")

    monkeypatch.setattr(world.engine, "create_helper", refused)
    work.note(Runner(world.engine, print, print, said.append), "shop", lately.SAVED, ["db"], NOW)
    (word,) = said
    assert word.startswith("warning: all is done, but") and word.endswith("was saved: the disk is full")


def test_ps_tells_the_age_of_what_has_data_and_asks_the_engine_no_more_for_it() -> None:
    """Never, where there is data and no backup; nothing where there is no data, or no backup that could be tried."""
    world = world_of_shop()
    rows = {r["server"]: r for r in server_rows(shop(), world.engine)}
    assert "backup" not in rows["www"] and (rows["db"]["backup"], rows["db"]["drill"]) == (None, None)
    listed = [rows["www"], rows["db"]]
    assert kept_columns(listed, NOW) == {"BACKUP": ["", "never"]}
    assert kept_columns([rows["www"]], NOW) == {}
    note(world.engine, lately.SAVED, ["db"], NOW - timedelta(hours=3))
    reads = world.engine.reads.copy()
    listed = server_rows(shop(), world.engine)
    assert world.engine.reads["observe"] - reads["observe"] == 1
    columns = kept_columns(sorted(listed, key=lambda r: -len(r)), NOW)
    assert columns == {"BACKUP": ["3 h", ""], "DRILL": ["never", ""]}


def test_doctor_tells_of_data_that_nobody_has_saved_or_tried_for_long() -> None:
    world = world_of_shop()

    def found() -> list[tuple[str, str, str]]:
        observed = world.engine.observe("shop")
        return [(c.name, c.status, c.detail) for c in examine.backups(observed, ["db"], NOW)]

    assert found() == [("backups", "warn", "never of db")]
    note(world.engine, lately.SAVED, ["db"], NOW - timedelta(days=1))
    assert [f[:2] for f in found()] == [("backups", "ok"), ("drills", "warn")]
    note(world.engine, lately.SAVED, ["db"], NOW - timedelta(days=8))
    note(world.engine, lately.DRILLED, ["db"], NOW - timedelta(days=8))
    assert [f[:2] for f in found()] == [("backups", "warn"), ("drills", "ok")]
    assert "8 d" in found()[0][2]
    assert list(examine.backups(world.engine.observe("shop"), [], NOW)) == []


def test_doctor_tells_what_a_drill_has_left_and_not_of_one_under_way() -> None:
    engine = MemoryEngine()
    engine.import_image(None, naming.BASE_IMAGE)
    engine.create_helper("shop.drill-db.x", {naming.STACK: "shop.drill", naming.HELPER: "page"}, {})
    assert [c.status for c in examine.left_of_drill(engine.observe("shop.drill"))] == ["warn"]
    with engine.lock("shop.drill", "ada", print):
        assert list(examine.left_of_drill(engine.observe("shop.drill"))) == []
