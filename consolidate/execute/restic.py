"""restic in a container of ours, a session: started, asked, told. The repository is a folder of the engine's host, or a server's.

Written for restic 0.14, Debian 12's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from consolidate.actions import OpenRepository
from consolidate.desired import Mount
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute import reaching
from consolidate.execute.helping import helper_container
from consolidate.execute.reaching import KEY, Unreachable
from consolidate.files import lines
from consolidate.repository import Repository, parse
from consolidate.resolved import Limits
from consolidate.snapshots import DATA

DUMPS, PRIVATE, STACK = "/dump", "/private", "/stack"  # where a session has what it saves
TOLD = ("manifest.json", "secrets.json")  # what is in PRIVATE
REPOSITORY, OTHER = "/repository", f"{KEY}/other"
RESTIC = ("restic", "--no-cache")  # a folder is as near as a cache would be, and a session's own would begin empty
LIMITS = Limits(memory=2 * 2**30, cpus=2.0, pids=200)
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
INCOMPLETE = 3  # status of a backup that could not read everything
GONE = 2  # ENOENT
LOG_LINES = 15
LIFETIME = "3d"  # of a session that nobody ends
# To look needs no lock, and would keep a backup that runs meanwhile from what it has to remove.
LOOK = (*RESTIC, "--no-lock")
FIRST = ("timeout", "--kill-after=5", "90")  # seconds for a server's first answer
PAUSES = (2.0, 6.0)  # before it is asked again, where it did not answer
LOCK = re.compile(r"[0-9a-f]{64}")
NOT_THERE = ("does not exist", "no such file or directory")  # Docker's words of a folder to mount, and Podman's
# With a line every five seconds about how far it is, and after each thing that it has been through; complaints among them.
CHECK = ("env", "RESTIC_PROGRESS_FPS=0.2", "bash", "-c", 'exec "$@" 2>&1', "check")
READ = re.compile(r"\[[\d:]+\] +([\d.]+%) +\d+ / \d+ packs")
DAMAGED = re.compile(r"^(Fatal: |error)", re.MULTILINE)


def open_repository(engine: Engine, action: OpenRepository, opens: Mapping[str, str]) -> None:
    """Start a session, and make the repository where it is new. `opens` has the passphrase and credentials by their names.

    Raises OperationFailed where it isn't there, or can't be reached.
    """
    place = parse(action.repository)
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
        environment=(
            *reaching.environment(place, opens),
            *(() if place.remote else (("RESTIC_REPOSITORY", REPOSITORY),)),
        ),
        tmpfs=((KEY, "rw,mode=0700,size=16m"), (PRIVATE, "rw,mode=0700,size=256m")),
        read_only=False,
        folders=() if place.remote else ((place.text, REPOSITORY, action.new),),
        hostname=action.host,
        networks=(action.network,) if action.network else (),
    )
    try:
        engine.create(helper)
        engine.start(action.name, new=True)
    except OperationFailed as error:
        if place.remote or place.text not in error.what:
            raise
        if not action.new and any(w in error.what.lower() for w in NOT_THERE):
            raise reaching.missing(place) from None
        raise reaching.unusable(place, error.what) from None
    for path, text in reaching.files(place, opens, action.known_hosts):
        write(engine, action.name, path, text)
    if place.remote:
        _open_there(engine, action, place)
    elif engine.run(action.name, ["test", "-e", f"{REPOSITORY}/config"])[0]:
        if engine.run(action.name, ["test", "-d", REPOSITORY])[0]:
            raise reaching.unusable(place, "it is a file")
        if not action.new:
            raise reaching.missing(place)
        run(engine, action.name, "init")
    elif action.alone:
        engine.run(action.name, ["bash", "-c", f"rm -f {REPOSITORY}/locks/*"])


def _open_there(engine: Engine, action: OpenRepository, place: Repository) -> None:
    """The same, where a server has it."""
    locks = _first_contact(engine, action.name, place)
    if locks is None:
        if not action.new:
            raise reaching.missing(place)
        code, said = engine.run(action.name, [*RESTIC, "init"])
        if code:
            raise refusal(said, f"no repository can be made in {place.text}", place)
    elif locks and action.alone:
        _unlock(engine, action, place)


def _first_contact(engine: Engine, session: str, place: Repository) -> list[str] | None:
    """The locks in the repository, which the passphrase opens; None where there is none.

    A server that does not answer is asked again, twice. Raises OperationFailed.
    """
    for pause in (*PAUSES, None):
        code, said = engine.run(session, [*FIRST, *reaching.first(place, *LOOK, "--quiet", "list", "locks")])
        if code == 0:
            return LOCK.findall(said)
        if reaching.is_missing(said):
            return None
        error = refusal(said, f"the repository {place.text} can't be opened", place)
        if code in (124, 137):  # timeout's own
            error = Unreachable(
                f"{place.server} does not answer", hint="see that it runs, and that this host may reach it"
            )
        if pause is None or not isinstance(error, Unreachable):
            raise error
        time.sleep(pause)
    raise AssertionError("the last try ends it")


def _unlock(engine: Engine, action: OpenRepository, place: Repository) -> None:
    """Remove the locks that sessions of this engine have left. Raises OperationFailed where another host has one."""
    run(engine, action.name, "unlock")  # what restic itself knows to be left: nobody has renewed it for half an hour
    for lock in LOCK.findall(run(engine, action.name, "--no-lock", "--quiet", "list", "locks")):
        told = _object(run(engine, action.name, "--no-lock", "--quiet", "cat", "lock", lock))
        if told.get("hostname") != action.host:
            who, when = told.get("hostname") or "somebody", str(told.get("time", ""))[:19]
            hint = "wait until it has ended; what was killed there is taken for left half an hour after its last word"
            raise OperationFailed(f"{who} works in the repository {place.text}, since {when}", hint=hint)
    run(engine, action.name, "unlock", "--remove-all")


def _object(text: str) -> dict[str, Any]:
    """A JSON object, whatever is said around it; an empty one where there is none."""
    try:
        return dict(json.loads(text[text.index("{") : text.rindex("}") + 1]))
    except ValueError:
        return {}


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


def refusal(said: str, what: str, place: Repository | None = None) -> OperationFailed:
    """restic's complaint, for people."""
    said = reaching.without_password(said)
    return reaching.complaint(said, what, place, [_told(li) for li in said.splitlines()[-LOG_LINES:]])


def _message(line: str) -> dict[str, Any]:
    """A message of restic's JSON; an empty one for any other line, and one within which it was killed."""
    try:
        return dict(json.loads(line)) if line.startswith("{") else {}
    except ValueError:
        return {}


def _told(line: str) -> str:
    """A line of restic's, or the error in a message of its JSON."""
    message = _message(line)
    error = message.get("error")
    if not isinstance(error, dict):
        return line
    if not error:
        return f"{message.get('item')} can't be read"
    return str(error.get("message") or f"{error.get('Op')} {error.get('Path')}: error {error.get('Err')}")


def snapshots(engine: Engine, session: str, *tags: str) -> list[Mapping[str, Any]]:
    """restic's list of snapshots; with all of `tags`, if any are given."""
    filters = ["--tag", ",".join(tags)] if tags else []
    said = run(engine, session, "--no-lock", "snapshots", "--json", *filters)
    return _listed(said, "snapshots")


def _listed(said: str, what: str) -> list[Mapping[str, Any]]:
    """One of restic's lists, which is there also where it is empty: `[]`, or `null`. Raises OperationFailed."""
    lines = [li for li in said.splitlines() if li.startswith(("[", "null"))]
    try:
        return list(json.loads(lines[-1]) or [])
    except (IndexError, ValueError):
        log = [li[-200:] for li in (lines or said.splitlines())[-1:]]
        raise OperationFailed(f"restic's list of {what} can't be read", log=log) from None


def dumped(engine: Engine, session: str, snapshot: str, path: str, restic: Sequence[str] = RESTIC) -> Iterator[bytes]:
    """A file of a snapshot. Raises OperationFailed at its end where the repository is damaged."""
    try:
        yield from engine.output(session, [*restic, "dump", snapshot, path])
    except OperationFailed as error:
        hint = "`consolidate backup check` says what is damaged; other backups may be whole"
        raise OperationFailed(f"{path} can't be read from the repository", hint=hint, log=error.log) from None


def check(engine: Engine, session: str, folder: str, tell: Callable[[str], None]) -> None:
    """Read all that the repository holds, and tell how far it is.

    Raises OperationFailed with what restic says of what is damaged, and where it ends before it has said anything.
    """
    said = []
    try:
        for line in lines(engine.output(session, [*CHECK, *RESTIC, "check", "--read-data"])):
            text = line.decode(errors="replace")
            if read := READ.match(text):
                tell(f"{read[1]} of the data has been read")
            else:
                said.append(text)
    except OperationFailed as error:  # it may have been killed as well, or its session
        text, unread = "\n".join(said), f"can't be read to its end, and nothing is known to be damaged: {error.what}"
        damaged = "is damaged" if DAMAGED.search(text) else unread
        raise refusal(text, f"the repository in {folder} {damaged}", parse(folder)) from None


def stack_files(engine: Engine, session: str, manifest: str) -> Iterator[bytes]:
    """The files of a stack in the snapshot `manifest`, as a tar archive. Raises OperationFailed."""
    run(engine, session, "--no-lock", "restore", manifest, "--quiet", "--target", "/", "--include", STACK)
    return engine.output(session, ["tar", f"--directory={STACK}", "--create", "."])


def use_passphrase(engine: Engine, session: str, passphrase: str) -> None:
    """Have a session go on with another passphrase."""
    write(engine, session, f"{KEY}/passphrase", passphrase)


def add_key(engine: Engine, session: str, passphrase: str) -> None:
    """Let the repository be opened by one more. Raises OperationFailed."""
    write(engine, session, OTHER, passphrase)
    run(engine, session, "key", "add", "--new-password-file", OTHER)


def key_of(engine: Engine, session: str, passphrase: str) -> str:
    """The id of the key that a passphrase opens; empty where it opens none. Raises OperationFailed."""
    write(engine, session, OTHER, passphrase)
    code, said = engine.run(session, [*LOOK, "--password-file", OTHER, "key", "list", "--json"])
    if code and "wrong password or no key found" in said:
        return ""
    if code:
        raise refusal(said, "the keys of the repository can't be listed")
    return next((str(k["id"]) for k in _listed(said, "keys") if k.get("current")), "")


def backup_command(host: str, tags: Iterable[str], *more: str) -> list[str]:
    return [*RESTIC, "backup", "--quiet", "--json", "--host", host, *(w for t in tags for w in ("--tag", t)), *more]


def save(
    engine: Engine, session: str, command: Sequence[str], *, may_go: bool = False, again: Sequence[str] = ()
) -> str:
    """Make a snapshot: its id. Files that go while they are read (`may_go`) are no error; nor is anything in the folders
    of `again`, which are read once more.

    Raises OperationFailed.
    """
    code, said = engine.run(session, command)

    def gone(path: str) -> bool:
        return bool(engine.run(session, ["bash", "-c", '[ -e "$0" ] || [ -L "$0" ]', path])[0])

    return saved(code, said, gone if may_go else None, again)


def saved(code: int, said: str, gone: Callable[[str], bool] | None = None, again: Sequence[str] = ()) -> str:
    """The id of the snapshot that a backup tells of. With `gone` files may go while they are read; of some that did restic
    names no more than the path. Raises OperationFailed."""
    messages = [m for li in said.splitlines() if (m := _message(li))]

    def forgiven(message: dict[str, Any]) -> bool:
        error, path = message.get("error"), str(message.get("item", ""))
        if gone is None or not isinstance(error, dict):
            return False
        return (
            error.get("Err") == GONE
            or any(path.startswith(f"{folder}/") for folder in again)
            or bool(path and not error and gone(path))
        )

    lost = [m for m in messages if m.get("message_type") == "error" and not forgiven(m)]
    summary = next((m for m in messages if m.get("message_type") == "summary"), None)
    if code not in (0, INCOMPLETE) or lost or summary is None:
        raise refusal(
            said, "not all of the data can be read" if code == INCOMPLETE else f"restic ended with status {code}"
        )
    return str(summary["snapshot_id"])
