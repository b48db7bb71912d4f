"""Archives that are changed as they pass. Pure.

Of an image, as engines save it and load it, without layers that its reader has; and of files, taken apart by folders.

Engines that keep images by layers look each one up before they look for it in the archive, since Docker 1.10 (moby,
image/tarexport/load.go), so that one which is there may be missing from it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import groupby
from typing import IO

from consolidate.engine import ImageFacts
from consolidate.errors import OperationFailed
from consolidate.files import Pieces

PIECE = 2**18
MANIFEST = "manifest.json"
LAYER = "/layer.tar"

# Engines before 25 name each layer but the uppermost by a hash of this, of its chain, and of the name of the one below.
# Its time is the Unix epoch, in the time zone of the engine's host.
OLD_CONFIG = (
    '{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,'
    '"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"",'
    '"Entrypoint":null,"OnBuild":null,"Labels":null}'
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [timezone(timedelta(minutes=m)) for m in range(-12 * 60, 14 * 60 + 1, 15)]


def without_layers(archive: Iterable[bytes], image: ImageFacts, count: int) -> Iterator[bytes]:
    """The archive of an image without its `count` lowest layers, piece by piece.

    A layer whose name there isn't known stays. Raises OperationFailed where the archive isn't whole.
    """
    superfluous, everything = names_of(image, count), count == len(image.layers)
    pieces, whole = iter(archive), False
    try:
        with tarfile.open(fileobj=io.BufferedReader(Pieces(pieces), PIECE), mode="r|") as tar:
            for member in tar:
                whole = whole or member.name == MANIFEST
                if member.name in superfluous or (everything and member.name.endswith(LAYER)):
                    continue
                yield from _member(tar, member)
    except tarfile.TarError:
        whole = False
    if not whole:
        hint = "is the disk of that engine full? It writes the whole archive to it first"
        raise OperationFailed(f"the archive of {image.id} breaks off", hint=hint)
    deque(pieces, maxlen=0)  # so that the connection is free again
    yield bytes(2 * tarfile.BLOCKSIZE)


def by_folder(archive: IO[bytes], folders: Sequence[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """An archive as several, each with what comes in succession for one of `folders`, by its name in there; "": for none.

    Each has to be read to its end before the next. A folder's own entry is left out: it is there, with an owner of its own.
    """
    inner_first = sorted(folders, key=len, reverse=True)

    def folder_of(member: tarfile.TarInfo) -> str:
        return next((f for f in inner_first if member.name == f or member.name.startswith(f"{f}/")), "")

    def packed(folder: str, members: Iterable[tarfile.TarInfo]) -> Iterator[bytes]:
        for member in members:
            if member.name != folder:
                yield from _member(tar, _moved(member, f"{folder}/") if folder else member)
        yield bytes(2 * tarfile.BLOCKSIZE)

    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for folder, members in groupby(tar, folder_of):
            yield folder, packed(folder, members)


def _moved(member: tarfile.TarInfo, before: str) -> tarfile.TarInfo:
    """A member under its name below a folder; so is what a hard link names, which is in there as well."""
    member.name = member.name.removeprefix(before)
    if member.islnk():
        member.linkname = member.linkname.removeprefix(before)
    # As they were read: names that are long, or not ASCII, which would have priority.
    member.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in ("path", "linkpath")}
    return member


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """A member of an archive, as it comes."""
    yield member.tobuf(tarfile.PAX_FORMAT)
    if content := tar.extractfile(member) if member.isreg() else None:
        while piece := content.read(PIECE):
            yield piece
        yield bytes(-member.size % tarfile.BLOCKSIZE)


def names_of(image: ImageFacts, count: int) -> frozenset[str]:
    """What the `count` lowest layers may be called in an archive; not those whose files one of the others has as well.

    Of two layers with the same files an archive has one, under the name of the lower.
    """
    needed = set(image.layers[count:])
    alone = [i for i, layer in enumerate(image.layers[:count]) if layer not in needed]
    found = {f"blobs/{image.layers[i].replace(':', '/')}" for i in alone}
    for zone in ZONES if alone else ():
        names = _old_names(image.chains[:-1], zone)
        found |= {f"{names[i]}{LAYER}" for i in alone if i < len(names)}
    return frozenset(found)


def _old_names(chains: Iterable[str], zone: timezone) -> list[str]:
    created = EPOCH.astimezone(zone).isoformat().replace("+00:00", "Z")
    names: list[str] = []
    for chain in chains:
        below = f',"parent":"sha256:{names[-1]}"' if names else ""
        text = f'{{"container_config":{OLD_CONFIG},"created":"{created}","layer_id":"{chain}"{below}}}'
        names.append(hashlib.sha256(text.encode()).hexdigest())
    return names
