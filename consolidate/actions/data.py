"""Data of servers: dumped, and brought back."""

from __future__ import annotations

from msgspec import Struct


class DumpData(Struct, frozen=True):
    """Dump a server's data into a new volume: by `command` in `container`, whose last line begins with `complete`, or,
    without a container, as archives of `data`, which are volumes with their short names."""

    volume: str
    stack: str
    server: str
    labels: tuple[tuple[str, str], ...]
    container: str
    command: tuple[str, ...]
    complete: str
    data: tuple[tuple[str, str], ...]
    verb = "dump"


class BeginRestore(Struct, frozen=True):
    """Leave word that a server's data is being replaced: until that has gone, nobody may believe what is there."""

    name: str
    stack: str
    server: str
    generation: int  # to which it goes back
    dump: str  # the volume that is brought back
    present: str | None  # that of the dump of what was there
    verb = "begin restore"


class RestoreVolumes(Struct, frozen=True):
    """Empty volumes, given with their short names, and fill them from the archives of the volume `dump`, if any."""

    stack: str
    server: str
    data: tuple[tuple[str, str], ...]
    dump: str
    verb = "restore"

    @property
    def name(self) -> str:
        return ", ".join(v for v, _ in self.data)


class LoadData(Struct, frozen=True):
    """Give a dump to a command in a server's container."""

    stack: str
    server: str
    name: str  # the container
    command: tuple[str, ...]
    dump: str
    verb = "load"
