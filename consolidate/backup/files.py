"""The files that a stack is made of, to travel with its backups."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from consolidate import process
from consolidate.errors import OperationFailed, UsageError
from consolidate.files import FileSet, FileSpec, Pieces, copied
from consolidate.resolved import Resolved
from consolidate.source import Source

BESIDE = (".env",)  # files beside the stack file that it may be read with
SCRATCH, WHOSE = "consolidate-drill-", "process"  # a folder for a while, and the file in it that tells whose it is
FROM_COMMAND_LINE = "templates"  # the folder for those of `--templates`, which may be anywhere


def stack_files(source: Source, resolved: Resolved) -> FileSet:
    """The stack file and what is beside it: overlays, the lock; folders of kinds, what servers copy and what they build.

    Raises StackInvalid for a link that leads out of what is copied.
    """
    folder, stem, suffix = source.file.parent, source.file.stem, source.file.suffix
    beside = [source.file, *sorted(folder.glob(f"{stem}.*{suffix}")), *(folder / n for n in BESIDE)]
    found = [FileSpec(f.name, f.stat().st_mode & 0o777, source=f) for f in beside if f.is_file()]
    for given in _given(source, resolved):
        name = os.path.normpath(given)
        found += [f for f in copied(folder, given, "" if name == "." else name) if f.link is None or f.path]
    for number, templates in enumerate(source.templates):
        found += copied(templates.parent, templates.name, f"{FROM_COMMAND_LINE}.{number}/{templates.name}")
    once = {os.path.normpath(f.path.lstrip("/")): f for f in reversed(found)}
    return FileSet(tuple(replace(f, path=path) for path, f in once.items()))


def _given(source: Source, resolved: Resolved) -> list[str]:
    """Paths that the stack file names."""
    assert resolved.places is not None, "it has just been read"
    copied_ = [e.copy_ for s in resolved.servers.values() for e in s.source.recipe.files if e.copy_ is not None]
    built = [s.build for s in resolved.servers.values() if s.build is not None]
    kinds = resolved.places.document.data.get("templates") or []
    return sorted({*copied_, *built, *kinds})


def extract(parts: Iterator[bytes], folder: Path) -> None:
    """Unpack a tar archive, as it comes, into a folder that isn't there or is empty.

    Raises UsageError, and OperationFailed where the archive is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"there is something in {folder} already", hint="name a folder that is to be made")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BufferedReader(Pieces(parts)), mode="r|") as tar:
            tar.extractall(folder, filter="data")
    except OSError as error:
        raise UsageError(f"{error.filename or folder} can't be written: {error.strerror}") from None
    except tarfile.TarError as error:
        raise OperationFailed(f"the files in the repository can't be unpacked: {error}") from None


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a while, of this account alone. What runs that were killed have left of such goes."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError, ValueError):
            if left.lstat().st_uid == os.geteuid() and process.fate((left / WHOSE).read_text()) == "ended":
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        (Path(folder) / WHOSE).write_text(process.identity())
        yield Path(folder)
