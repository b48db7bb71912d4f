"""What is turned into what Podman takes, and the list of tests that fail there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from consolidate.docker_engine.archives import by_folder
from consolidate.docker_engine.podman import tmpfs_options
from consolidate.files import FileSpec, archive

LONG = f"deep/{'n' * 120}"


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
    """Each file is in the part of the innermost folder, under its name in there, also a long one and one that isn't ASCII; and
    in none where its folder is another's beginning.
    """
    files = [FileSpec(path, text=path) for path in ("a/one", f"a/{LONG}", "a/ü", "ab/three", "a/b/four", "b/five")]
    found = []
    with archive(files, lambda _: "") as whole:
        for folder, part in by_folder(whole, ["a", "b", "a/b"]):
            with tarfile.open(fileobj=io.BytesIO(b"".join(part))) as tar:
                found.append((folder, {m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}))  # type: ignore[union-attr]
    assert found == [
        ("a", {"one": "a/one", LONG: f"a/{LONG}", "ü": "a/ü"}),
        ("", {"ab/three": "ab/three"}),
        ("a/b", {"four": "a/b/four"}),
        ("b", {"five": "b/five"}),
    ]


def test_a_hard_link_stays_with_what_it_names() -> None:
    """In the part of a folder both have their names in there."""
    link, whole = tarfile.TarInfo("a/link"), io.BytesIO()
    link.type, link.linkname = tarfile.LNKTYPE, f"a/{LONG}"
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(f"a/{LONG}"))
        tar.addfile(link)
    whole.seek(0)
    for folder, part in by_folder(whole, ["a"]):
        with tarfile.open(fileobj=io.BytesIO(b"".join(part))) as tar:
            assert (folder, [(m.name, m.linkname) for m in tar]) == ("a", [(LONG, ""), ("link", LONG)])


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
