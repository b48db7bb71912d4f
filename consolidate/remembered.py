"""What was worked out of a stack's files, kept in the user's cache until one of the files changes.

Reading YAML, checking it and rendering every template is most of what an `up` with nothing to change does, and of the
same files it always makes the same. So what came out is kept, beside a digest of the names, sizes, inodes and times of
all that went in, the program itself included; that is how git's index tells what has changed, too. The values of the
variables that the file names are in the digest as well. What does not match is worked out anew. Nothing rests on the
cache: it may be removed at any time. No secret's value is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from consolidate.desired import Desired

FOLDER = "consolidate"
KEPT = 64  # stacks
PROGRAM = os.path.dirname(os.path.abspath(__file__))
RENDERING = ("jinja2", "markupsafe", "pydantic", "pydantic_core", "yaml")  # what has a part in what comes out
# A file that changed just before it was read may change again with the same times: clocks of file systems tick
# every 4 ms on Linux's own, every 2 s on FAT. git calls such an entry racy.
TICK = 2.0


class Remembered(Struct, frozen=True):
    """`desired`, and all in it, is free of what rendering needed; `ids` are those of the secrets that it holds."""

    desired: Desired
    ids: Mapping[str, str]


def recall(key: Sequence[str]) -> Remembered | None:
    """What is kept under `key`; None where nothing is, or anything that went into it has changed."""
    with contextlib.suppress(Exception):  # whatever is wrong with it, it's as good as none
        path = _path(key)
        if not _ours(os.lstat(path.parent)):
            return None
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            if not _ours(os.fstat(file.fileno())):
                return None
            roots, variables, digest = pickle.load(file)  # noqa: S301 — we alone can have written it
            found = pickle.load(file) if _with(state(roots)[0], variables) == digest else None  # noqa: S301
        return found if isinstance(found, Remembered) else None
    return None


def remember(
    key: Sequence[str], roots: Iterable[Path], since: float, remembered: Remembered, variables: Iterable[str] = ()
) -> None:
    """Keep what was worked out of the files at and below `roots`, which were read after `since` (seconds, Unix time),
    and of these variables of the environment."""
    with contextlib.suppress(Exception):  # no room, no home, no right: it's worked out again the next time
        names = sorted({str(r) for r in roots} | {PROGRAM})
        digest, changed = state(names)
        if changed > since - TICK:
            return
        target = _path(key)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent)  # of mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                pickle.dump((names, sorted(variables), _with(digest, sorted(variables))), file)
                pickle.dump(remembered, file)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        _forget_the_oldest(target.parent)


def _with(digest: str, variables: Sequence[str]) -> str:
    """A digest with the values of variables in it: they may be sensitive, so they stand nowhere else."""
    whole = [digest, *((name, os.environ.get(name)) for name in variables)]
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def _forget_the_oldest(folder: Path) -> None:
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
        path.unlink()


def _path(key: Sequence[str]) -> Path:
    """The file for `key`, seen from here, with this program, this Python and these libraries.

    Raises RuntimeError where the user has no home.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")  # a relative one is to be ignored: XDG Base Directory Specification
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    # A folder of packages has another time once something was installed, a package's own once its files were replaced.
    folders = [p for p in sys.path if p.endswith("-packages")]
    libraries = [_time(f) for p in folders for f in (p, *(f"{p}/{name}" for name in RENDERING))]
    whole = "\0".join([PROGRAM, sys.version, *libraries, os.getcwd(), *key])
    return base / FOLDER / hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()[:32]


def _time(folder: str) -> str:
    try:
        return str(os.stat(folder).st_mtime_ns)
    except OSError:
        return ""


def _ours(found: os.stat_result) -> bool:
    """Whether nobody else can have written it: unpickling runs what it says."""
    plain = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    return plain and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def state(roots: Iterable[str]) -> tuple[str, float]:
    """A digest of all files at and below `roots`, and when the latest change of any was (seconds, Unix time)."""
    rows, latest = [], 0.0
    for path, target, found in _walk(roots):
        row: tuple[object, ...] = (path, target)
        if found is not None:
            latest = max(latest, found.st_ctime)
            row += (found.st_mode,)
            if not stat.S_ISDIR(found.st_mode):  # a folder is what is in it
                row += (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        rows.append(row)
    return hashlib.sha256(repr(sorted(rows)).encode(errors="surrogateescape")).hexdigest(), latest


def _walk(roots: Iterable[str]) -> Iterator[tuple[str, str, os.stat_result | None]]:
    """(path, target of a symbolic link, what it leads to) of everything there; links are followed, but not in circles."""
    todo, seen = [(r, "") for r in roots], set()
    while todo:
        path, target = todo.pop()
        try:
            found = os.stat(path)
        except OSError:
            yield path, target, None
            continue
        yield path, target, found
        if stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            with contextlib.suppress(OSError), os.scandir(path) as entries:  # what may not be read isn't copied, either
                inside = (e for e in entries if not (e.name == "__pycache__" and path.startswith(PROGRAM)))
                todo += [(e.path, os.readlink(e.path) if e.is_symlink() else "") for e in inside]
