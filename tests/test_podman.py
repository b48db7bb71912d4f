"""What is turned into what Podman takes, and the list of tests that fail there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from consolidate.docker_engine.archives import by_folder
from consolidate.docker_engine.podman import tmpfs_options
from consolidate.files import FileSpec, archive


@pytest.mark.parametrize(
    ("options", "user", "taken"),
    [
        ("rw,size=1,mode=0700", "33:33", "rw,size=1,mode=0700"),
        ("rw,mode=0700,uid=33,gid=33", "33:33", "rw,mode=0700,U"),
        ("rw,mode=0700,uid=33,gid=34", "33:33", "rw,mode=1777"),
        ("rw,mode=0700,uid=33,gid=33", "", "rw,mode=1777"),
        ("rw,mode=0700,uid=0,gid=0", "33:33", "rw,mode=0700"),
    ],
)
def test_a_tmpfs_is_its_users(options: str, user: str, taken: str) -> None:
    """Whoever was to have it can write there; nobody else where that can be had."""
    assert tmpfs_options(options, user) == taken


def test_an_archive_is_taken_apart_by_folders() -> None:
    """Each file is in the part of its folder, under its name in there, and in none where its folder is another's beginning."""
    files = [FileSpec(path, text=path) for path in ("a/one", "a/deep/two", "ab/three", "b/four")]
    found = []
    with archive(files, lambda _: "") as whole:
        for folder, part in by_folder(whole, ["a", "b"]):
            with tarfile.open(fileobj=io.BytesIO(b"".join(part))) as tar:
                found.append((folder, {m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}))  # type: ignore[union-attr]
    assert found == [
        ("a", {"one": "a/one", "deep/two": "a/deep/two"}),
        ("", {"ab/three": "ab/three"}),
        ("b", {"four": "b/four"}),
    ]


def test_what_fails_on_podman_is_there_and_has_a_reason() -> None:
    """A test that was renamed would be one that has to pass; each stands under a reason."""
    folder, reason = Path(__file__).parent, ""
    for line in filter(None, (folder / "podman.txt").read_text().splitlines()):
        if line.startswith("# "):
            reason = line
            continue
        file, _, test = line.removeprefix("- ").partition("::")
        assert reason, line
        assert (f"def {test.partition('[')[0]}(" if test else "def test_") in (folder / file).read_text(), line
