"""Backups: a repository opened, data saved and brought back. A session is a container of the repository's program."""

from __future__ import annotations

from msgspec import Struct

from consolidate.counting import DumpedRecords, StoredRecords
from consolidate.files import FileSet
from consolidate.snapshots import Manifest


class BackupAct(Struct, frozen=True):
    """Whatever is done in a session."""


class OpenRepository(BackupAct, frozen=True):
    """Start a session that sees the `repository`, a folder of the host or a server, and volumes, given with their places.

    A repository that isn't there is made where `new`. Locks that this engine's sessions have left in it go where the caller is
    `alone` with it: they are told by the name of the `host`. To reach a server it has a `network` of its own.
    """

    name: str
    stack: str
    image: str
    repository: str
    volumes: tuple[tuple[str, str], ...]
    new: bool
    writes: bool = False
    alone: bool = False
    host: str = ""
    network: str = ""
    known_hosts: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()  # the names of those that it is opened with; the store may have others
    verb = "open"


class SavedVolumes(Struct, frozen=True):
    """A server's volumes by their short names; `freeze` are its replicas whose programs stand still meanwhile, with
    their containers, and the programs that do so first; most have one, or none. Records are counted at that moment, if
    `records` says how."""

    server: str
    volumes: tuple[str, ...]
    freeze: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    records: StoredRecords | None = None


class SavedDump(Struct, frozen=True):
    """What a command in a container says, whose last line begins with `complete`; its records are counted, if `records` says how."""

    server: str
    container: str
    command: tuple[str, ...]
    complete: str
    records: DumpedRecords | None = None


class ReadVolumes(BackupAct, frozen=True):
    """Save volumes while their servers go on: of those that don't stand still that is all, others have less to read later.

    `parent` is a snapshot of earlier, if any: files that are as they were there are not read.
    """

    session: str
    stack: str
    tags: tuple[str, ...]
    volumes: tuple[SavedVolumes, ...]
    parent: str
    verb = "read"


class SaveData(BackupAct, frozen=True):
    """Save the data of servers as it is at one moment: the volumes of some, which were read before, the dumps of others."""

    session: str
    stack: str
    tags: tuple[str, ...]
    volumes: tuple[SavedVolumes, ...]
    dumps: tuple[SavedDump, ...]
    verb = "save"


class CompleteBackup(BackupAct, frozen=True):
    """Save the stack's files, its secrets and the manifest: with these a backup is whole.

    The records of `counted` servers have been, on the way of their dumps or while they stood still.
    """

    session: str
    tags: tuple[str, ...]
    manifest: Manifest
    files: FileSet
    counted: tuple[str, ...] = ()
    verb = "complete"


class ForgetBackups(BackupAct, frozen=True):
    """Remove snapshots, and with `prune` what only they held."""

    session: str
    snapshots: tuple[str, ...]
    prune: bool
    verb = "forget"


class LeaveWord(BackupAct, frozen=True):
    """Leave word that a server's data is being replaced by that of a backup: until that has gone, nobody may believe
    what is there."""

    name: str
    stack: str
    server: str
    backup: str
    safety: str  # the backup of what was there, if any
    arguments: str = ""  # the options that lead to the backup, where it is in another stack's repository
    everything: bool = False  # all servers come up, also those without data
    verb = "begin restore"


class FillVolumes(BackupAct, frozen=True):
    """Empty volumes, given with their servers, and fill them from snapshots, if any; `manifest` is that of the backup.

    `aside`: somebody else may have the repository's lock meanwhile.
    """

    session: str
    volumes: tuple[tuple[str, str, str], ...]  # server, short name, snapshot
    manifest: str
    aside: bool = False
    verb = "restore"


class LoadDump(BackupAct, frozen=True):
    """Give a dump to a command in a server's container; `aside` as above."""

    session: str
    server: str
    snapshot: str
    name: str  # the container
    command: tuple[str, ...]
    aside: bool = False
    verb = "load"
