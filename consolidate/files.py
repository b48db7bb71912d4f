"""Files for containers: what they are, their hash, and the archive that carries them through the engine's API."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from msgspec import Struct, field

from consolidate import filters, naming
from consolidate.errors import OperationFailed, Problem, StackInvalid
from consolidate.observed import ObservedFile

PIECE = 2**16  # bytes of a file that are in memory at a time


class FileSpec(Struct, frozen=True, dict=True):
    """A file, a folder's file to copy, or a symbolic link; `path` is relative to where the archive is put.

    `text` may hold secrets' placeholders. Exactly one of `text`, `source` and `link` is given.
    """

    path: str
    mode: int = 0o444
    uid: int = 0
    gid: int = 0
    text: str | None = None
    source: Path | None = None
    link: str | None = None

    @cached_property
    def sha(self) -> str:
        """SHA-256 of the content, placeholders included; of a link its target."""
        if self.source is not None:
            with self.source.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256((self.text if self.text is not None else f"-> {self.link}").encode()).hexdigest()

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        return filters.addresses(self.text) if self.text else ()


class FileSet(Struct, frozen=True, dict=True):
    """Files that are written together. `content` is their hash: paths, modes, owners, texts, and secrets' ids."""

    files: tuple[FileSpec, ...]
    secret_ids: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def content(self) -> str:
        rows = [[f.path, f.mode, f.uid, f.gid, f.sha, [self.secret_ids[s] for s in f.secrets]] for f in self.files]
        return naming.digest(sorted(rows))

    def below(self, folder: str) -> FileSet:
        moved = tuple(
            FileSpec(f"{folder}/{f.path}", f.mode, f.uid, f.gid, f.text, f.source, f.link) for f in self.files
        )
        return FileSet(moved, self.secret_ids)

    def __bool__(self) -> bool:
        return bool(self.files)


def copied(folder: Path, given: str, target: str) -> list[FileSpec]:
    """The files below `given`, a folder or a file of the stack's `folder`, to stand under `target`.

    Raises StackInvalid for a symbolic link that leads out of it.
    """
    root = folder / given
    if root.is_file():
        return [FileSpec(PurePosixPath(target).as_posix(), source=root)]
    inside = root.resolve()
    found = []
    for path in sorted(root.rglob("*")):
        name = f"{target}/{path.relative_to(root).as_posix()}"
        if path.is_symlink():
            try:
                leads_out = not path.resolve().is_relative_to(inside)
            except (RuntimeError, OSError):  # in a circle: RuntimeError before Python 3.13
                raise StackInvalid(
                    [Problem(f"{path} is a symbolic link that leads nowhere", hint="remove it")]
                ) from None
            if leads_out:
                hint = "copy the file itself into the folder"
                raise StackInvalid([Problem(f"{path} is a symbolic link that leads out of {given}", hint=hint)])
            found.append(FileSpec(name, 0o777, link=path.readlink().as_posix()))
        elif path.is_file():
            mode = 0o555 if path.stat().st_mode & 0o100 else 0o444
            found.append(FileSpec(name, mode, source=path))
    return found


def archive(files: Iterable[FileSpec], reveal: Callable[[str], str]) -> IO[bytes]:
    """A tar of `files` with the secrets put in. It's made while it is read, so that none of it is held; it can be read once.

    A copied file keeps its time, since web servers make validators of it; a rendered one has the epoch's. Raises OSError
    for a file that can't be read, which is tried now; whoever reads the archive gets OperationFailed for one that goes or
    becomes shorter meanwhile.
    """
    files = tuple(files)
    for file in files:
        if file.source is not None:
            with file.source.open("rb"):
                pass
    return io.BufferedReader(Pieces(_archived(files, reveal)), PIECE)


def _archived(files: Iterable[FileSpec], reveal: Callable[[str], str]) -> Iterator[bytes]:
    made: set[str] = set()
    for file in files:
        for parent in reversed(PurePosixPath(file.path).parents[:-1]):
            if (name := parent.as_posix()) not in made:
                made.add(name)
                yield _header(_info(name, 0o755, tarfile.DIRTYPE))
        yield from _member(file, reveal)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(file: FileSpec, reveal: Callable[[str], str]) -> Iterator[bytes]:
    info = _info(file.path, file.mode)
    info.uid, info.gid = file.uid, file.gid
    if file.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, file.link
        yield _header(info)
    elif file.source is not None:
        # The library that sends it takes an OSError for one of the connection.
        try:
            with file.source.open("rb") as content:
                stat = os.fstat(content.fileno())
                info.size, info.mtime = stat.st_size, int(stat.st_mtime)
                yield _header(info)
                left = info.size
                while left and (piece := content.read(min(left, PIECE))):
                    yield piece
                    left -= len(piece)
        except OSError as error:
            raise OperationFailed(f"{file.source} can't be read: {error.strerror}") from None
        if left:
            raise OperationFailed(f"{file.source} became shorter while it was read", hint="try again once it is whole")
    else:
        data = filters.fill(file.text or "", reveal).encode()
        info.size = len(data)
        yield _header(info)
        yield data
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Pieces(io.RawIOBase):
    """Pieces of bytes as one file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces, self.rest = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest and (piece := next(self.pieces, None)) is not None:
            self.rest = memoryview(piece)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def lines(pieces: Iterable[bytes], end: bytes = b"\n") -> Iterator[bytes]:
    """Pieces of bytes cut at each `end` instead."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(end)
        yield from whole
    if rest:
        yield rest


def observed_files(archive: Iterable[bytes]) -> dict[str, ObservedFile]:
    """The files and links in a folder's archive, which has the folder's name in front of theirs."""
    found = {}
    with tarfile.open(fileobj=io.BufferedReader(Pieces(archive), 2**16), mode="r|") as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if member.issym():
                sha = hashlib.sha256(f"-> {member.linkname}".encode()).hexdigest()
                found[name] = ObservedFile(0o777, member.uid, member.gid, sha, member.linkname)
            elif name and (content := tar.extractfile(member)):
                digest = hashlib.sha256()
                while piece := content.read(2**16):
                    digest.update(piece)
                found[name] = ObservedFile(member.mode & 0o7777, member.uid, member.gid, digest.hexdigest())
    return found


def archive_of(name: str, data: bytes) -> IO[bytes]:
    """A tar of one file of bytes."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        info = _info(name, 0o400)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    spool.seek(0)
    return spool


def _info(name: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type = mode, kind
    return info
