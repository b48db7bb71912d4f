"""Paths of the files that a session has, as find tells them, to be counted or compared."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute.commands import LOG_LINES
from consolidate.files import lines

FOUND = ("-mindepth", "1", "!", "-type", "s", "-printf")
LIST = f'find "$@" {shlex.join(FOUND)} \'%p\\0\' > "$0"'


def list_paths(engine: Engine, session: str, folders: Sequence[str], file: str) -> None:
    """Write their paths alone into a file of the session's: nothing passes through here, however far the engine is.

    Raises OperationFailed.
    """
    code, said = engine.run(session, ["bash", "-c", LIST, file, *folders])
    if code:
        raise OperationFailed(f"{', '.join(folders)} can't be listed", log=said.splitlines()[-LOG_LINES:])


def listed_paths(engine: Engine, session: str, file: str) -> Iterator[str]:
    """What has been written there. Raises OperationFailed."""
    for line in lines(engine.output(session, ["cat", file]), b"\0"):
        yield printable(line.decode(errors="replace"))


def printable(path: str) -> str:
    """A path in which what is no UTF-8 looks the same, whoever has read it."""
    while "\ufffd\ufffd" in path:
        path = path.replace("\ufffd\ufffd", "\ufffd")
    return path
