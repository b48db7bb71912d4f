"""A plan shows what changes in rendered files, and never a secret."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from consolidate import vault
from consolidate.comparison import file_diffs
from consolidate.desired import RENDERED
from consolidate.secret import Secret
from consolidate.store import save_secrets
from tests.memory_parts import Files
from tests.planned import Planned, planned
from tests.world import NOW

__all__ = ["planned"]


def diffs(planned: Planned) -> dict[str, str]:
    return {d.file: d.diff for d in file_diffs(planned.prepare(), planned.engine)}


def test_a_first_plan_has_nothing_to_compare_with(planned: Planned) -> None:
    """What isn't there yet is no change of a file."""
    assert diffs(planned) == {}


def test_a_changed_line_stands_between_its_neighbours(planned: Planned) -> None:
    """A file of a volume and one that is reloaded, as unified diffs."""
    planned.up()
    planned.stack(", words: good evening")
    found = diffs(planned)
    assert found["settings"].splitlines() == [
        "--- settings",
        "+++ settings",
        "@@ -1,3 +1,3 @@",
        " first",
        "-says 'good morning'",
        "+says 'good evening'",
        " last",
    ]
    assert "-told 'good morning' <secret own/key>" in found["told"]
    assert set(found) == {"settings", "told"}


def test_a_secret_has_its_name_on_both_sides(planned: Planned) -> None:
    """The file on the engine holds the value; neither it nor the next one is shown."""
    before = planned.up().secrets
    planned.put("kinds/mine/files/keys.j2", "new\nkey {{ secret('key') | shell }}\n")
    after = dict(before) | {"own/key": vault.record("own/key", Secret("entirely-another-value"), NOW)}
    save_secrets(planned.engine, "t", after)
    found = diffs(planned)
    assert found["keys"].splitlines()[-3:] == ["-old", "+new", " key <secret own/key>"]
    for records in (before, after):
        assert all(records["own/key"].value.reveal() not in text for text in found.values())


def test_a_file_that_no_record_tells_of_is_masked(planned: Planned) -> None:
    """Whatever became of the record: a value that the store knows isn't shown."""
    value = planned.up().secrets["own/key"].value.reveal()
    (volume,) = [v for name, v in planned.engine.volumes.items() if "_config_" in name]
    del volume.files[RENDERED]
    planned.put("kinds/mine/files/keys.j2", "new\n")
    assert "-key <secret own/key>" in diffs(planned)["keys"]
    assert value not in diffs(planned)["keys"]


def test_files_that_come_and_go(planned: Planned) -> None:
    """A new file is compared with nothing, and nothing with one that goes."""
    planned.up()
    (planned.folder / "kinds/mine/files/settings.j2").rename(planned.folder / "kinds/mine/files/renamed.j2")
    manifest = (planned.folder / "kinds/mine/kind.yml").read_text()
    planned.put("kinds/mine/kind.yml", manifest.replace("settings.j2", "renamed.j2"))
    found = diffs(planned)
    assert found["settings"].splitlines()[:2] == ["--- settings", "+++ /dev/null"]
    assert found["renamed"].splitlines()[:2] == ["--- /dev/null", "+++ renamed"]


def config(planned: Planned) -> Files:
    (files,) = [v.files for name, v in planned.engine.volumes.items() if "_config_" in name]
    return files


def test_lines_that_were_edited_by_hand_are_shown(planned: Planned) -> None:
    """With a closer look a file on the engine is compared with what it should be; what was added is told by its name."""
    planned.up()
    files = config(planned)
    files["settings"].data += b"by hand\n"
    files["private.key"] = replace(files["settings"], data=b"0123456789\n")
    prepared = planned.prepare(deep=True)
    (found,) = file_diffs(prepared, planned.engine)
    assert (found.file, found.diff.splitlines()[-1]) == ("settings", "-by hand")
    (create,) = [o for o in prepared.plan.operations if o.id == "create:own"]
    assert create.reason == "changed by hand: file settings changed; foreign file private.key removed"


@pytest.mark.parametrize("record", [None, b"{", b'{"keys": "old\\n"}'])
def test_an_edited_file_with_secrets_in_it_is_not_shown(planned: Planned, record: bytes | None) -> None:
    """Neither lines of it nor its hash, also where its record was edited as well: what was typed may be a secret."""
    value = planned.up().secrets["own/key"].value.reveal()
    files = config(planned)
    files["keys"].data = b"old\nkey typed-by-hand\nkey " + value.encode()
    if record is None:
        del files[RENDERED]
    else:
        files[RENDERED].data = record
    prepared = planned.prepare(deep=True)
    assert file_diffs(prepared, planned.engine) == ()
    (create,) = [o for o in prepared.plan.operations if o.id == "create:own"]
    assert create.reason.startswith("changed by hand: file keys changed")
    told = str(prepared.plan.to_json())
    assert not [w for w in ("typed", value, hashlib.sha256(files["keys"].data).hexdigest()[:8]) if w in told]
