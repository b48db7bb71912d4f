"""What is mended after a restore: nothing but what restic did not give back as it was. With the scripts as sessions run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from consolidate.execute import mending

OLD, NEW = b"old-\xff", b"new-\xfe"


def bash(script: str, kept: Path, folder: Path, listed: bytes = b"") -> None:
    script = script.replace(mending.LISTED, str(kept))
    subprocess.run(["bash", "-c", script, "test", str(folder)], input=listed, check=True)


def link(path: Path, target: bytes) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(os.fsdecode(target))


def restored(target: bytes) -> bytes:
    """As restic gives it back."""
    return target.decode(errors="replace").encode()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of links, one of which is no UTF-8."""
    folder = tmp_path / "data"
    folder.mkdir()
    link(folder / "bad", OLD)
    link(folder / "good", b"gr\xc3\xbc\xc3\x9fe")
    return folder


def test_a_link_that_has_changed_since_it_was_listed_is_left_as_it_was_saved(data: Path, tmp_path: Path) -> None:
    """Its old target would be nobody's data."""
    bash(mending.LIST, tmp_path / "kept", data)
    listed = (tmp_path / "kept").read_bytes()
    assert listed == b"link\0%s/bad\0%s\0" % (os.fsencode(data), OLD)
    for saved, back in ((restored(OLD), OLD), (b"now", b"now")):
        link(data / "bad", saved)
        bash(mending.MEND, tmp_path / "kept", data, listed)
        assert os.fsencode((data / "bad").readlink()) == back


def test_links_that_are_listed_again_are_as_they_were_last(data: Path, tmp_path: Path) -> None:
    """What was listed before stays for what is not read again; where there is no such link nothing changes."""
    kept = tmp_path / "kept"
    bash(mending.LIST, kept, data)
    first = kept.read_bytes()
    link(data / "bad", b"fine")
    bash(mending.AGAIN, kept, data)
    assert kept.read_bytes() == first and sorted(p.name for p in tmp_path.iterdir()) == ["data", "kept"]
    link(data / "bad", NEW)
    bash(mending.AGAIN, kept, data)
    assert kept.read_bytes() == first.replace(OLD, NEW) + first
    link(data / "bad", restored(NEW))
    bash(mending.MEND, kept, data, kept.read_bytes())
    assert os.fsencode((data / "bad").readlink()) == NEW
