"""A plan in a file is done as it is, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from consolidate import naming
from consolidate.errors import OperationFailed, UsageError
from consolidate.saved import Saved, check_place, load, save
from tests.planned import Planned, planned

__all__ = ["planned"]


def kept(planned: Planned) -> Saved:
    file = planned.folder / "plan"
    save(file, planned.source, (), planned.prepare(), deep=False)
    saved = load(file)
    assert saved is not None
    return saved


def test_a_plan_that_still_holds_is_done(planned: Planned) -> None:
    """New secrets get other values than when it was made, and the same ids: every name of the plan is the same."""
    saved = kept(planned)
    assert saved.ids.keys() == {"own/key"}
    prepared = planned.prepare(ids=saved.ids)
    saved.check(prepared)
    assert planned.apply(prepared).ok
    assert not planned.prepare().plan


def test_there_is_no_secret_in_it(planned: Planned) -> None:
    """Not even of those that are there already."""
    value = planned.up().secrets["own/key"].value.reveal()
    planned.stack(", words: good evening")
    kept(planned)
    assert value not in (planned.folder / "plan").read_text()


def test_a_change_of_the_files_makes_it_stale(planned: Planned) -> None:
    """Also one that the operations' names don't tell: the text of a file that is reloaded."""
    planned.up()
    planned.put("kinds/mine/files/told.j2", "told once\n")
    saved = kept(planned)
    planned.put("kinds/mine/files/told.j2", "told twice\n")
    with pytest.raises(OperationFailed, match="files have changed"):
        saved.check(planned.prepare(ids=saved.ids))


def test_a_change_of_the_engine_makes_it_stale(planned: Planned) -> None:
    """What differs from the plan is named."""
    planned.up()
    planned.stack(", words: good evening")
    saved = kept(planned)
    planned.engine.stop(naming.container("t", "own", 1), 1)
    with pytest.raises(OperationFailed, match="the engine has changed") as stale:
        saved.check(planned.prepare(ids=saved.ids))
    assert "planned, and no longer to be done: stop:t-own-1" in stale.value.log


def test_a_plan_of_another_engine_is_stale(planned: Planned) -> None:
    """Two empty engines look alike, but for their names."""
    saved = kept(planned)
    planned.engine.name = "another"
    with pytest.raises(OperationFailed, match="the engine has changed"):
        saved.check(planned.prepare(ids=saved.ids))


def test_it_names_its_stack_from_where_it_lies(planned: Planned, tmp_path: Path) -> None:
    """The folder with both can be moved."""
    saved = kept(planned)
    assert saved.source(tmp_path / "moved").file == tmp_path / "moved/stack.yml"


def test_what_is_no_plan(tmp_path: Path) -> None:
    """A stack file isn't taken for one, whatever it is called; half a plan is refused."""
    file = tmp_path / "file"
    assert load(file) is None
    file.write_text("stack: t\n")
    assert load(file) is None
    for damaged in (b'{"consolidate_plan":1,"file":', b'{"consolidate_plan":1,"file":"\xff"}'):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged"):
            load(file)


def test_a_plan_of_another_version_is_refused(planned: Planned) -> None:
    """It may mean something else by the same words."""
    kept(planned)
    file = planned.folder / "plan"
    file.write_text(file.read_text().replace('"consolidate_plan": 1', '"consolidate_plan": 0'))
    with pytest.raises(UsageError, match="another version"):
        load(file)


def test_a_plan_takes_the_place_of_no_other_file(planned: Planned) -> None:
    """Least of all of the stack; an earlier plan is written over."""
    kept(planned)
    check_place(planned.folder / "plan")
    check_place(planned.folder / "new")
    planned.put("notes", "mine")
    for name in ("stack.yml", "new.yaml", "notes"):
        with pytest.raises(UsageError, match="another name"):
            check_place(planned.folder / name)
