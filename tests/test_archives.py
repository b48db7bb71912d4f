"""Archives of files: made while they are read, whole or an error, and never held."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from consolidate.errors import OperationFailed
from consolidate.files import FileSpec, archive
from consolidate.filters import SecretRef

LARGE = 64 * 2**20


def plain(address: str) -> str:
    return {"www/token": "s3cret"}[address]


def test_an_archive_has_what_was_asked_for(tmp_path: Path) -> None:
    """Files with content, mode, owner and time, folders above them once, links, secrets put in; long and odd names too."""
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    os.utime(tmp_path / "a", (1e9, 1e9))
    odd = "é" * 120 + "\udcff"
    secret = str(SecretRef.of("www/token", needs_filter=False))
    files = [
        FileSpec("content/deep/a", 0o555, 33, 34, source=tmp_path / "a"),
        FileSpec(f"content/{odd}", text=""),
        FileSpec("content/deep/l", 0o777, link="a"),
        FileSpec("token", 0o400, text=f"<{secret}>"),
    ]
    with archive(files, plain) as tar, tarfile.open(fileobj=tar, mode="r|") as read:
        found = {}
        for m in read:
            content = read.extractfile(m) if m.isfile() else None
            found[m.name] = (m.mode, m.uid, m.gid, m.mtime, content.read() if content else m.linkname)
    folder = (0o755, 0, 0, 0, "")
    assert found == {
        "content": folder,
        "content/deep": folder,
        "content/deep/a": (0o555, 33, 34, int(1e9), b"x" * 100_000),
        f"content/{odd}": (0o444, 0, 0, 0, b""),
        "content/deep/l": (0o777, 0, 0, 0, "a"),
        "token": (0o400, 0, 0, 0, b"<s3cret>"),
    }


def test_a_large_file_is_never_held(tmp_path: Path) -> None:
    """Neither for its hash nor for the archive."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE)
    spec, size = FileSpec("large", source=tmp_path / "large"), 0
    tracemalloc.start()
    try:
        assert len(spec.sha) == 64
        with archive([spec], plain) as tar:
            while piece := tar.read(2**14):
                size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == LARGE + 3 * tarfile.BLOCKSIZE
    assert peak < 2**20


def test_a_file_that_can_t_be_read_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    files = [FileSpec("a", source=tmp_path / "a"), FileSpec("gone", source=tmp_path / "gone")]
    with pytest.raises(FileNotFoundError):
        archive(files, plain)


def test_a_file_that_changes_meanwhile_is_no_archive(tmp_path: Path) -> None:
    """It is not filled up with anything, and not taken for a connection that breaks off. What is added is left out."""
    a, b = tmp_path / "a", tmp_path / "b"

    def sent(change: Callable[[], object]) -> int:
        for file in (a, b):
            file.write_bytes(bytes(200_000))
        with archive([FileSpec(f.name, source=f) for f in (a, b)], plain) as tar:
            head = tar.read(512)
            change()
            return len(head + tar.read())

    with pytest.raises(OperationFailed, match=f"{a} became shorter"):
        sent(lambda: os.truncate(a, 100_000))
    with pytest.raises(OperationFailed, match=f"{b} can't be read: No such file"):
        sent(b.unlink)
    whole = sent(lambda: None)
    assert sent(lambda: os.truncate(a, 300_000)) == whole


def test_files_without_content_are_an_archive() -> None:
    with archive([], plain) as tar, tarfile.open(fileobj=io.BytesIO(tar.read())) as read:
        assert read.getmembers() == []
