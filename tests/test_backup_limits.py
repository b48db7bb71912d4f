"""Backups where something takes too long, and restores of a part: what is given up, tried again, or told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from consolidate import naming, snapshots
from consolidate.actions import SaveData, SavedDump, SavedVolumes
from consolidate.backup import reading, returning
from consolidate.counting import StoredRecords
from consolidate.errors import OperationFailed, UsageError
from consolidate.execute import restic, saving
from consolidate.execute.ending import END
from consolidate.snapshots import Manifest, Part, Run
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box
from tests.test_backups import NIGHT, run, shop
from tests.world import World

DUMP = ("dump", "--all databases")


class Stalling(MemoryEngine):
    """An engine whose dump says one line and then nothing, until somebody ends it; `ended` are the commands that were."""

    def __init__(self) -> None:
        self.ended, self.gone = list[tuple[str, ...]](), threading.Event()

        def program(_: MemoryEngine, __: Box, command: tuple[str, ...], ___: bytes | None) -> tuple[int, str]:
            if END in command:
                self.ended.append(command[command.index(END) + 2 :])
                self.gone.set()
            return 0, ""

        super().__init__(program)
        self.import_image(None, naming.BASE_IMAGE)

    def output(self, container: str, command: Sequence[str]) -> Iterator[bytes]:
        yield b"row\n"
        self.gone.wait(30)
        raise OperationFailed("dump ended with exit status 137")

    def feed(self, container: str, command: Sequence[str], input_: Iterable[bytes]) -> tuple[int, str]:
        for _ in input_:
            pass
        return 0, ""


def test_a_dump_that_stops_halfway_ends_the_backup_and_is_ended_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would stay in the server, with all that it holds there, and the backup would wait for ever."""
    for name, value in (("STALL", 0.3), ("GIVE_UP", 0.1), ("PAUSE", 0.02)):
        monkeypatch.setattr(saving, name, value)
    engine, dump = Stalling(), SavedDump("db", "shop-db-1", DUMP, "end")
    with pytest.raises(OperationFailed, match=r"the dump of db has not come on for 0\.3 s"):
        saving.save_data(engine, SaveData("s", "shop", (), (), (dump,)), threading.Event())
    assert engine.ended == [DUMP]
    assert "shop-db.end" not in engine.boxes
    assert not [t for t in threading.enumerate() if t.name == "dump db"]


def test_what_takes_longer_than_programs_stand_still_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have gone on by themselves, so what was read is of no moment; after some times the backup fails and says so."""
    stood: list[bool] = []

    @contextlib.contextmanager
    def frozen(*_: Any) -> Iterator[Any]:
        yield lambda: stood.pop(0)

    monkeypatch.setattr(saving, "frozen", frozen)
    volumes = (SavedVolumes("www", ("kept",), (("www", "shop-www-1"),)),)
    for outcomes, tries in (([True], 1), ([False, True], 2), ([False, False, False], 3)):
        made: list[str] = []
        monkeypatch.setattr(saving.restic, "save", lambda *_, made=made: made.append("x") or f"id{len(made)}")
        written: list[str] = []
        monkeypatch.setattr(saving.restic, "write", lambda *w, written=written: written.append(w[-1]))
        listed: list[Any] = []
        monkeypatch.setattr(saving, "list_links_again", lambda *w, listed=listed: listed.append(w[-1]))
        stood[:] = outcomes
        with pytest.raises(OperationFailed, match="www") if not outcomes[-1] else contextlib.nullcontext():
            saving.save_data(MemoryEngine(), SaveData("s", "shop", (), volumes, ()), threading.Event())
        assert (len(made), stood) == (tries, [])
        assert listed == [["/data/www/kept"]] * outcomes[-1]  # once, of what is kept
        assert written == [f"id{n + 1}" for n, whole in enumerate(outcomes) if not whole]  # it goes on from there


def test_what_vanishes_once_programs_have_gone_on_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again, as all that took too long is; while they stand still it is told."""
    outcomes = [(False, "save"), (False, "list"), (True, "")]

    @contextlib.contextmanager
    def frozen(*_: Any) -> Iterator[Any]:
        yield lambda: outcomes.pop(0)[0]

    def fails(what: str) -> str:
        if outcomes[0][1] == what:
            raise OperationFailed("there is no such folder any more")
        return "id"

    monkeypatch.setattr(saving, "frozen", frozen)
    monkeypatch.setattr(saving.restic, "save", lambda *_: fails("save"))
    monkeypatch.setattr(saving, "_list_stored", lambda *_: fails("list"))
    monkeypatch.setattr(saving, "_count_stored", lambda *_: {})
    monkeypatch.setattr(saving, "list_links_again", lambda *_: None)
    written: list[str] = []
    monkeypatch.setattr(saving.restic, "write", lambda *words: written.append(words[2]))
    how = StoredRecords("kept/(.*)", r"\1")
    action = SaveData("s", "shop", (), (SavedVolumes("www", ("kept",), (("www", "shop-www-1"),), how),), ())
    saving.save_data(MemoryEngine(), action, threading.Event())
    assert outcomes == []
    assert written.count(saving.PARENT) == 1, "what was read as a list failed is there to go on from"
    for what in ("save", "list"):
        outcomes[:] = [(True, what)]
        with pytest.raises(OperationFailed, match="no such folder"):
            saving.save_data(MemoryEngine(), action, threading.Event())


def test_who_comes_back_without_what_belongs_to_his_moment_is_told() -> None:
    """Files and rows of different moments: named from either side, with what else the database holds."""
    world, page = World(), {"kind": "page", "domains": ["www.test"], "storage": "db", "keeps": True}
    world.up(shop(www=page, blog=page | {"domains": ["blog.test"]}))
    assert world.desired is not None
    files = Part("page", "i", "sha256:1", "volumes", ("kept",), True)
    parts = {"db": Part("depot", "i", "sha256:1", "dump", ("data",)), "www": files, "blog": files}
    manifest = Manifest("shop", None, "stack.yml", "r", "2024-05-01T03:00:00+00:00", "ada", parts)

    def told(*servers: str) -> list[str]:
        assert world.desired is not None
        return returning.torn(world.desired, returning.returned(run(NIGHT), manifest, world.desired, servers))

    assert told() == told("www", "blog", "db") == []
    (alone,) = told("www")
    assert "the data of www comes back, and what it has in db stays as it is" in alone
    assert "with `-s db` that comes back, too, and what blog has there" in alone
    (base,) = told("db")
    assert "the data of db comes back, and that of blog, www stays as it is" in base and "with `-s blog -s www`" in base
    assert told("www", "blog")[0].endswith("with `-s db` that comes back, too")
    saved_as_it_lay = manifest.parts | {"db": Part("depot", "i", "sha256:1", "volumes", ("data",))}
    still = Manifest("shop", None, "stack.yml", "r", manifest.began, "ada", saved_as_it_lay)
    assert returning.torn(world.desired, returning.returned(run(NIGHT), still, world.desired, ("www",))) == []


def test_a_newer_backup_and_whose_data_one_lacks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is surprised by an old one that has all, nor by one that was named and has not."""
    whole, part = run(NIGHT, "db mail"), run(NIGHT + timedelta(hours=1), "db")
    monkeypatch.setattr(restic, "snapshots", lambda *_: [])
    monkeypatch.setattr(snapshots, "runs_of", lambda _: [part, whole])
    said: list[str] = []

    def found(name: str, *servers: str) -> Run:
        said.clear()
        return reading.find(MemoryEngine(), "s", name, servers, ("db", "mail"), said.append)

    assert found("latest") == whole
    assert said == [f"note: the backup {part.run} is newer, and has the data of db only"]
    assert found(part.run) == part
    assert said == [f"warning: the backup {part.run} has no data of mail; {whole.run} has that of mail"]
    assert found("latest", "db") == part and said == []


def test_a_server_that_no_backup_has_is_named_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restic, "snapshots", lambda *_: [])
    monkeypatch.setattr(snapshots, "runs_of", lambda _: [run(NIGHT, "db www")])
    assert reading.find(MemoryEngine(), "s", "latest", ["www"]).servers == ("db", "www")
    with pytest.raises(UsageError, match="no backup of wwww") as error:
        reading.find(MemoryEngine(), "s", "latest", ["db", "wwww"])
    assert error.value.hint == "it has data of: db, www"
