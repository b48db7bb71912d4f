"""restic in a container of ours, a session: started, asked, told. The repository is a folder of the engine's host.

Written for restic 0.14, Debian 12's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from consolidate.actions import OpenRepository
from consolidate.desired import Mount
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute.helping import helper_container
from consolidate.resolved import Limits
from consolidate.snapshots import DATA

DUMPS, PRIVATE, STACK = "/dump", "/private", "/stack"  # where a session has what it saves
TOLD = ("manifest.json", "secrets.json")  # what is in PRIVATE
KEY, REPOSITORY = "/run/restic", "/repository"
RESTIC = ("restic", "--no-cache")  # the repository is as near as a cache would be
LIMITS = Limits(memory=2 * 2**30, cpus=2.0, pids=200)
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
INCOMPLETE = 3  # status of a backup that could not read everything
GONE = 2  # ENOENT
LOG_LINES = 15
LIFETIME = "3d"  # of a session that nobody ends
# To look needs no lock, and would keep a backup that runs meanwhile from what it has to remove.
LOOK = (*RESTIC, "--no-lock")


def open_repository(engine: Engine, action: OpenRepository, passphrase: str) -> None:
    """Start a session, and make the repository where it is new.

    Raises OperationFailed where it isn't there.
    """
    helper = helper_container(
        action.name,
        action.stack,
        "",
        "backup",
        ("sleep",),
        (LIFETIME,),
        image=action.image,
        capabilities=CAPABILITIES,
        limits=LIMITS,
        mounts=tuple(Mount(v, f"{DATA}/{place}", read_only=not action.writes) for v, place in action.volumes),
        environment=(("RESTIC_PASSWORD_FILE", f"{KEY}/passphrase"), ("RESTIC_REPOSITORY", REPOSITORY)),
        tmpfs=((KEY, "rw,mode=0700,size=16m"), (PRIVATE, "rw,mode=0700,size=256m")),
        read_only=False,
        folders=((action.folder, REPOSITORY),),
    )
    engine.create(helper)
    engine.start(action.name, new=True)
    write(engine, action.name, f"{KEY}/passphrase", passphrase)
    if engine.run(action.name, ["test", "-e", f"{REPOSITORY}/config"])[0]:
        if not action.new:
            hint = "`consolidate backup` makes the first; a repository elsewhere is told by `backup: {repository: …}`"
            raise OperationFailed(f"there is no repository of backups in {action.folder}: is it mounted?", hint=hint)
        run(engine, action.name, "init")
    elif action.alone:
        engine.run(action.name, ["bash", "-c", f"rm -f {REPOSITORY}/locks/*"])


def write(engine: Engine, session: str, path: str, text: str) -> None:
    """Write a file for root alone, through no place that is kept."""
    code, said = engine.run(session, ["bash", "-c", f"umask 077; cat > {path}"], text.encode())
    if code:
        raise OperationFailed(f"{path} can't be written", log=said.splitlines())


def run(engine: Engine, session: str, *words: str) -> str:
    """What restic says to a command.

    Raises OperationFailed where it fails.
    """
    code, said = engine.run(session, [*RESTIC, *words])
    if code:
        raise refusal(said, f"restic {next(w for w in words if w[0] != '-')} ended with status {code}")
    return said


def refusal(said: str, what: str) -> OperationFailed:
    """restic's complaint, for people."""
    if "wrong password or no key found" in said:
        hint = "the one that it was made with is the secret backup/passphrase of then: see your copy of it"
        return OperationFailed("the passphrase does not open the repository of backups", hint=hint)
    hint = (
        "the disk of the repository is full: free some space, or keep fewer backups" if "no space left" in said else ""
    )
    return OperationFailed(what, hint=hint, log=[_told(li) for li in said.splitlines()[-LOG_LINES:]])


def _message(line: str) -> dict[str, Any]:
    """A message of restic's JSON; an empty one for any other line, and one within which it was killed."""
    try:
        return dict(json.loads(line)) if line.startswith("{") else {}
    except ValueError:
        return {}


def _told(line: str) -> str:
    """A line of restic's, or the error in a message of its JSON."""
    error = _message(line).get("error")
    if not isinstance(error, dict):
        return line
    return str(error.get("message") or f"{error.get('Op')} {error.get('Path')}: error {error.get('Err')}")


def snapshots(engine: Engine, session: str, *tags: str) -> list[Mapping[str, Any]]:
    """restic's list of snapshots; with all of `tags`, if any are given."""
    filters = ["--tag", ",".join(tags)] if tags else []
    said = run(engine, session, "--no-lock", "snapshots", "--json", *filters)
    lines = [li for li in said.splitlines() if li.startswith(("[", "null"))]
    try:
        return list(json.loads(lines[-1]) or []) if lines else []
    except ValueError:
        raise OperationFailed("restic's list of snapshots can't be read", log=[lines[-1][-200:]]) from None


def dumped(engine: Engine, session: str, snapshot: str, path: str, restic: Sequence[str] = RESTIC) -> Iterator[bytes]:
    """A file of a snapshot. Raises OperationFailed at its end where the repository is damaged."""
    try:
        yield from engine.output(session, [*restic, "dump", snapshot, path])
    except OperationFailed as error:
        hint = "`consolidate backup check` says what is damaged; other backups may be whole"
        raise OperationFailed(f"{path} can't be read from the repository", hint=hint, log=error.log) from None


def check(engine: Engine, session: str, folder: str) -> None:
    """Read all that the repository holds. Raises OperationFailed with what restic says of what is damaged."""
    code, said = engine.run(session, [*RESTIC, "check", "--read-data"])
    if code:
        raise refusal(said, f"the repository in {folder} is damaged")


def stack_files(engine: Engine, session: str, manifest: str) -> Iterator[bytes]:
    """The files of a stack in the snapshot `manifest`, as a tar archive. Raises OperationFailed."""
    run(engine, session, "--no-lock", "restore", manifest, "--quiet", "--target", "/", "--include", STACK)
    return engine.output(session, ["tar", f"--directory={STACK}", "--create", "."])


def backup_command(host: str, tags: Iterable[str], *more: str) -> list[str]:
    return [*RESTIC, "backup", "--quiet", "--json", "--host", host, *(w for t in tags for w in ("--tag", t)), *more]


def save(engine: Engine, session: str, command: Sequence[str], *, may_go: bool = False) -> str:
    """Make a snapshot: its id. Files that go while they are read (`may_go`) are no error.

    Raises OperationFailed.
    """
    code, said = engine.run(session, command)
    return saved(code, said, may_go=may_go)


def saved(code: int, said: str, *, may_go: bool = False) -> str:
    """The id of the snapshot that a backup tells of. Raises OperationFailed."""
    messages = [m for li in said.splitlines() if (m := _message(li))]
    errors = [m.get("error") for m in messages if m.get("message_type") == "error"]
    lost = [e for e in errors if not (may_go and isinstance(e, dict) and e.get("Err") == GONE)]
    summary = next((m for m in messages if m.get("message_type") == "summary"), None)
    if code not in (0, INCOMPLETE) or lost or summary is None:
        raise refusal(
            said, "not all of the data can be read" if code == INCOMPLETE else f"restic ended with status {code}"
        )
    return str(summary["snapshot_id"])
