"""Backups: data of one moment saved, made whole, forgotten; and brought back."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from consolidate import naming, snapshots, vault
from consolidate.actions import (
    BackupAct,
    CompleteBackup,
    FillVolumes,
    ForgetBackups,
    LeaveWord,
    LoadDump,
    OpenRepository,
    ReadVolumes,
    SaveData,
    SavedDump,
    SavedVolumes,
)
from consolidate.counting import DumpCounter, StoredRecords, among_files
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute import restic
from consolidate.execute.commands import LOG_LINES, Interrupted
from consolidate.execute.ending import end_command
from consolidate.execute.freezing import LIMIT, frozen
from consolidate.execute.mending import LISTED, list_links_again, list_to_mend, mend
from consolidate.execute.paths import list_paths, listed_paths
from consolidate.execute.reaching import KEY
from consolidate.execute.writing import archive_of
from consolidate.secret import SecretRecord

TRIES = 3  # to read what has changed before the servers go on
TAIL = 1000  # bytes at the end of a dump in which its last line is
BEGIN = 60.0  # seconds within which a dump has to say its first word
STALL = 900.0  # seconds in which a dump has to come on a bit
GIVE_UP = 5.0  # seconds for a dump to end that is not wanted any more
PAUSE = 0.5
PARENT = f"{KEY}/parent"  # the snapshot in which most of it is already
WITH_PARENT = f'exec "$0" "$@" --parent "$(cat {PARENT})"'
PATHS = "/paths"  # of what is counted; the server's name follows, here as well
RECORDS = f"{KEY}/records"  # how many there are; the server's name follows
# The volume's own folder stays: it is what is mounted.
EMPTY = 'set -e; for folder in "$@"; do find "$folder" -mindepth 1 -delete; done'


def act(engine: Engine, action: BackupAct, secrets: Mapping[str, SecretRecord], stopping: threading.Event) -> None:
    match action:
        case OpenRepository():
            addresses = {naming.PASSPHRASE, *(f"{naming.BACKUP}/{n}" for n in action.credentials)}
            opens = {a.partition("/")[2]: secrets[a].value.reveal() for a in addresses if a in secrets}
            restic.open_repository(engine, action, opens)
        case ReadVolumes():
            read_volumes(engine, action)
        case SaveData():
            save_data(engine, action, stopping)
        case CompleteBackup():
            complete(engine, action, secrets)
        case ForgetBackups(session, ids, prune):
            restic.run(engine, session, "forget", "--quiet", *(["--prune"] if prune else []), *ids)
        case LeaveWord():
            labels = {naming.STACK: action.stack, naming.HELPER: "restore", naming.OF: action.server}
            labels |= {naming.SNAPSHOT: action.backup, naming.SAFETY: action.safety}
            labels |= {naming.ARGUMENTS: action.arguments, naming.EVERYTHING: "yes" if action.everything else ""}
            engine.create_helper(action.name, labels, {})
        case FillVolumes():
            fill(engine, action)
        case LoadDump():
            load(engine, action)


def read_volumes(engine: Engine, action: ReadVolumes) -> None:
    """This takes as long as it takes. Raises OperationFailed."""
    paths = [f"{snapshots.DATA}/{s.server}/{v}" for s in action.volumes for v in s.volumes]
    whole = tuple(f"{snapshots.SERVER}={s.server}" for s in action.volumes if not s.freeze)
    parent = ["--parent", action.parent] if action.parent else []
    command = restic.backup_command(action.stack, (*action.tags, snapshots.FIRST, *whole), *parent, *paths)
    again = [f"{snapshots.DATA}/{s.server}" for s in action.volumes if s.freeze]
    made = restic.save(engine, action.session, command, may_go=True, again=again)
    restic.write(engine, action.session, PARENT, made)
    list_to_mend(engine, action.session, paths)


def save_data(engine: Engine, action: SaveData, stopping: threading.Event) -> None:
    """Save what has changed since it was read, while the programs stand still. The dumps begin in that moment, and so tell
    of it however long they take.

    Raises OperationFailed, and Interrupted once `stopping` is set.
    """
    for _ in range(TRIES if action.volumes else 1):
        if stopping.is_set():
            raise Interrupted
        if _moment(engine, action, stopping):
            return
    names = ", ".join(s.server for s in action.volumes)
    hint = f"they may stand still for {LIMIT} s: is the disk of the repository slow, or the host busy?"
    raise OperationFailed(f"the data of {names} changes faster than it can be read while they stand still", hint=hint)


def _moment(engine: Engine, action: SaveData, stopping: threading.Event) -> bool:
    """Save it all once; whether it is of one moment."""
    paths = [f"{snapshots.DATA}/{s.server}/{v}" for s in action.volumes for v in s.volumes]
    freeze = [f for s in action.volumes for f in s.freeze]
    with contextlib.ExitStack() as at_end:
        pool = at_end.enter_context(ThreadPoolExecutor())
        dumps: list[Dumping] = []
        with frozen(engine, action.stack, freeze) as thaw:
            for each in action.dumps:
                dumps.append(Dumping(engine, action, each, stopping))
                at_end.callback(dumps[-1].end)
            for dump in dumps:
                dump.wait_begun()
            listing = [pool.submit(_list_stored, engine, action.session, s) for s in action.volumes if s.records]
            made, failure = "", None
            try:
                if paths:
                    tags = (*action.tags, *(f"{snapshots.SERVER}={s.server}" for s in action.volumes))
                    command = restic.backup_command(action.stack, tags, *paths)
                    made = restic.save(engine, action.session, ["bash", "-c", WITH_PARENT, *command])
                for listed in listing:
                    listed.result()
            except OperationFailed as error:
                failure = error
            of_one = thaw()
            if of_one and failure:  # once they have gone on files vanish under who reads them
                raise failure
        counted = {
            s.server: _count_stored(engine, action.session, s, s.records)
            for s in action.volumes
            if of_one and s.records
        }
        for dump in dumps:
            dump.wait()
            if dump.counter:
                counted[dump.dump.server] = dump.counter.counts()
        for server, counts in counted.items():  # the manifest will tell
            restic.write(engine, action.session, f"{RECORDS}.{server}", json.dumps(counts))
    if of_one and paths:
        list_links_again(engine, action.session, paths)
    elif made:
        restic.write(engine, action.session, PARENT, made)
    return of_one


def _list_stored(engine: Engine, session: str, saved: SavedVolumes) -> None:
    """List what is there of a server, whatever restic makes of it; that is counted later. Raises OperationFailed."""
    folders = [f"{snapshots.DATA}/{saved.server}/{v}" for v in saved.volumes]
    list_paths(engine, session, folders, f"{PATHS}.{saved.server}")


def _count_stored(engine: Engine, session: str, saved: SavedVolumes, how: StoredRecords) -> dict[str, int]:
    """The records that have been listed. Raises OperationFailed."""
    before = f"{snapshots.DATA}/{saved.server}/"
    return among_files(how, (p.removeprefix(before) for p in listed_paths(engine, session, f"{PATHS}.{saved.server}")))


class Dumping:
    """A dump on its way into the repository, in a thread of its own: nothing of it is kept here or on a disk."""

    def __init__(self, engine: Engine, action: SaveData, dump: SavedDump, stopping: threading.Event) -> None:
        self.engine, self.action, self.dump, self.stopping = engine, action, dump, stopping
        self.begun, self.given_up = threading.Event(), threading.Event()
        self.counter = DumpCounter(dump.records) if dump.records else None
        self.moved = time.monotonic()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=f"dump {dump.server}", daemon=True)
        self.thread.start()

    def wait_begun(self) -> None:
        """Until its first word has come: from then on it tells of one moment. Raises what went wrong."""
        if not self.begun.wait(BEGIN):
            raise OperationFailed(f"the dump of {self.dump.server} does not begin")
        if self.error:
            raise self.error

    def wait(self) -> None:
        """Until it is whole, however long that takes, as long as it comes on. Raises what went wrong, and Interrupted."""
        while self.thread.is_alive():
            self.thread.join(PAUSE)
            if self.stopping.is_set():
                raise Interrupted
            if time.monotonic() - self.moved > STALL:
                hint = f"see `consolidate logs {self.dump.server}`, and whether the disk of the repository answers"
                raise OperationFailed(f"the dump of {self.dump.server} has not come on for {STALL:g} s", hint=hint)
        if self.error:
            raise self.error

    def end(self) -> None:
        """Give it up, if it still goes on. One that says nothing is ended where it runs, else it would stay there; its
        session ends what waits for it."""
        self.given_up.set()
        self.thread.join(GIVE_UP)
        if self.thread.is_alive():
            with contextlib.suppress(ConsolidateError):
                end_command(self.engine, self.action.stack, self.dump.server, self.dump.container, self.dump.command)
            self.thread.join(GIVE_UP)

    def _run(self) -> None:
        name = f"{restic.DUMPS}/{self.dump.server}"
        tags = (*self.action.tags, f"{snapshots.SERVER}={self.dump.server}")
        command = restic.backup_command(self.action.stack, tags, "--stdin", "--stdin-filename", name)
        try:
            restic.saved(*self.engine.feed(self.action.session, command, self._said()))
        except Exception as error:  # told by whoever waits
            self.error = error
        finally:
            self.begun.set()

    def _said(self) -> Iterator[bytes]:
        tail, server = b"", self.dump.server
        try:
            with contextlib.closing(self.engine.output(self.dump.container, self.dump.command)) as said:  # type: ignore[type-var]
                for chunk in said:
                    if self.stopping.is_set() or self.given_up.is_set():
                        raise Interrupted
                    self.begun.set()
                    self.moved = time.monotonic()
                    tail = (tail + chunk)[-TAIL:]
                    if self.counter:
                        self.counter.feed(chunk)
                    yield chunk
        except OperationFailed as error:
            raise OperationFailed(f"{server} can't be dumped: {error.what}", hint=error.hint, log=error.log) from None
        last = tail.rstrip().rpartition(b"\n")[2].decode(errors="replace")
        if not last.startswith(self.dump.complete):
            what = f"the dump of {server} is not whole: it ends with {last[:80]!r}, not with {self.dump.complete!r}"
            raise OperationFailed(what, log=tail.decode(errors="replace").splitlines()[-3:])


def complete(engine: Engine, action: CompleteBackup, secrets: Mapping[str, SecretRecord]) -> None:
    """Save what makes a backup of the snapshots that were made before.

    Raises OperationFailed where one of them is missing.
    """
    rows = restic.snapshots(engine, action.session, f"{snapshots.RUN}={action.manifest.run}")
    try:
        manifest = action.manifest.located(rows)
    except LookupError as error:
        raise OperationFailed(f"the repository has no snapshot of {error}") from None
    manifest = manifest.counted({s: _records(engine, action.session, s) for s in action.counted})
    with archive_of(action.files.below(restic.STACK[1:]).files, lambda address: address) as tar:
        engine.put(action.session, "/", tar)
    engine.run(action.session, ["touch", LISTED])
    for name, text in zip(restic.TOLD, (snapshots.encode(manifest), vault.dump(secrets.values())), strict=True):
        restic.write(engine, action.session, f"{restic.PRIVATE}/{name}", text)
    tags = (*action.tags, snapshots.MANIFEST)
    restic.save(engine, action.session, restic.backup_command(manifest.stack, tags, restic.PRIVATE, restic.STACK))


def _records(engine: Engine, session: str, server: str) -> dict[str, int]:
    """What was counted of a server. Raises OperationFailed."""
    code, said = engine.run(session, ["cat", f"{RECORDS}.{server}"])
    if code:
        raise OperationFailed(f"the records of {server} have not been counted", log=said.splitlines())
    return dict(json.loads(said))


def fill(engine: Engine, action: FillVolumes) -> None:
    """Raises OperationFailed."""
    folders = {f"{snapshots.DATA}/{server}/{volume}": snapshot for server, volume, snapshot in action.volumes}
    code, said = engine.run(action.session, ["bash", "-c", EMPTY, "empty", *folders])
    if code:
        raise OperationFailed("the volumes can't be emptied", log=said.splitlines()[-LOG_LINES:])
    for snapshot in dict.fromkeys(filter(None, folders.values())):
        include = [w for f, s in folders.items() if s == snapshot for w in ("--include", f)]
        lock = ("--no-lock",) if action.aside else ()
        restic.run(engine, action.session, *lock, "restore", snapshot, "--quiet", "--target", "/", *include)
    if filled := [f for f, s in folders.items() if s]:
        listed = restic.dumped(engine, action.session, action.manifest, LISTED, _restic(action))
        mend(engine, action.session, filled, listed)


def load(engine: Engine, action: LoadDump) -> None:
    """Raises OperationFailed with what the command says, and where the repository is damaged."""
    dump = restic.dumped(engine, action.session, action.snapshot, f"{restic.DUMPS}/{action.server}", _restic(action))
    code, said = engine.feed(action.name, action.command, dump)
    if code:
        raise OperationFailed(f"{action.server} does not take its dump", log=said.splitlines()[-LOG_LINES:])


def _restic(action: FillVolumes | LoadDump) -> tuple[str, ...]:
    return restic.LOOK if action.aside else restic.RESTIC
