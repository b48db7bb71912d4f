"""Verbs about backups: backup, with list, check and files; restore."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.backup.access import Given

backup = typer.Typer(
    help="Save the data of servers, and all that is needed to rebuild them, into an encrypted repository.",
    invoke_without_command=True,
)

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file with the repository's passphrase, - for standard input; else the stack's own."
    ),
]
Credentials = Annotated[
    list[str] | None,
    typer.Option(
        "--credential",
        metavar="NAME=FILE",
        help="What a repository on a server needs: ssh_key, known_hosts, access_key, secret_key, password, rclone_config or ca, "
        "each in a file; may be repeated.",
    ),
]
WAIT = "Seconds to wait for another run that works on the stack"
LockTimeout = Annotated[float, typer.Option("--lock-timeout", min=0, help=f"{WAIT}.")]
LockTimeoutOrDrill = Annotated[
    float, typer.Option("--lock-timeout", min=0, help=f"{WAIT}; with --drill for another drill alone.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(backup, name="backup")
    app.command()(restore)


def given(passphrase_file: Path | None, credentials: list[str] | None) -> Given:
    """What opens the repository, in files.

    Raises UsageError where one can't be read.
    """
    from consolidate.backup.access import Given, check_name
    from consolidate.errors import UsageError

    found = {}
    for word in credentials or ():
        name, is_, file = word.partition("=")
        if not is_ or not file:
            raise UsageError(f"--credential: '{word}' is not NAME=FILE", hint="ssh_key=id_ed25519, for example")
        check_name(name)
        found[name] = _text(Path(file), "--credential")
    return Given(None if passphrase_file is None else _text(passphrase_file, "--passphrase-file"), found)


def _text(path: Path, option: str) -> str:
    from consolidate.errors import UsageError

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} can't be read: {getattr(error, 'strerror', error)}") from None
    if not text.strip():
        raise UsageError(f"{option}: {path} is empty")
    return text.strip("\r\n")


@backup.callback()
def make(
    called: typer.Context,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    passphrase_file: PassphraseFile = None,
    credentials: Credentials = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    lock_timeout: LockTimeout = 0.0,
) -> int:
    """Save the data of servers, and all that is needed to rebuild them, into an encrypted repository; nothing stops."""
    if called.invoked_subcommand is not None:
        return 0
    from consolidate import console
    from consolidate.backup.work import back_up, fresh
    from consolidate.cli.change import runner
    from consolidate.plan import Plan
    from consolidate.source import stack_name

    source = options.source(None, file, environment, templates)
    opens = given(passphrase_file, credentials)
    engine, tell = options.engine(host, context), console.teller(progress)

    def show(plan: Plan) -> None:
        console.announce(plan, progress)

    with console.progress(progress, Plan("", ())) as report:
        run = runner(engine, report, tell)
        with run.locked(stack_name(source), lock_timeout):
            done, made = back_up(source, run, fresh(source, engine), servers or (), show, given=opens)
    console.show_report(done, progress)
    if made.new_passphrase:
        tell("The repository has a passphrase, without which nothing can be restored. Keep it off this machine:")
        tell("  consolidate secret show backup/passphrase")
    if not done.ok:
        return 1
    if format_ == "json":
        console.print_json(made)
    else:
        console.say(f"backup {made.backup}: {', '.join(made.servers)} ({made.seconds:g} s)")
    return 0


@backup.command("list")
def list_(
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    passphrase_file: PassphraseFile = None,
    credentials: Credentials = None,
    format_: options.Format = "table",
) -> None:
    """List backups: when, how long ago, of which servers; the newest first."""
    from consolidate import console
    from consolidate.backup.reading import listed
    from consolidate.backup.work import fresh
    from consolidate.cli.change import runner

    source = options.source(None, file, environment, templates)
    engine = options.engine(host, context)
    run = runner(engine, lambda _: None, console.say_progress)
    rows = listed(run, fresh(source, engine, restoring=True), given(passphrase_file, credentials))
    if format_ == "table":
        rows = [row | {"servers": ", ".join(row["servers"])} for row in rows]
    console.show_rows(rows, format_, columns=("backup", "age", "servers", "reason", "state"))


@backup.command()
def check(
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    passphrase_file: PassphraseFile = None,
    credentials: Credentials = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
) -> None:
    """Read all of the repository, and see that nothing in it is damaged."""
    from consolidate import console
    from consolidate.backup.reading import checked
    from consolidate.backup.work import fresh
    from consolidate.cli.change import runner
    from consolidate.source import stack_name

    source = options.source(None, file, environment, templates)
    engine = options.engine(host, context)
    opens = given(passphrase_file, credentials)
    run = runner(engine, lambda _: None, console.teller(progress))
    with run.locked(stack_name(source)):
        prepared = fresh(source, engine, restoring=True)
        found = checked(run, prepared, opens, console.teller(progress, passing=True))
    if format_ == "json":
        console.print_json(found)
    else:
        console.say(f"the repository is whole: {found.backups} backup{'s' if found.backups != 1 else ''}")


@backup.command()
def files(
    name: Annotated[str, typer.Argument(metavar="BACKUP", help="As `backup list` has it, or `latest`.")],
    folder: Annotated[Path, typer.Argument(help="A folder that is made for them.")],
    repository: Annotated[
        str,
        typer.Option(
            "--repository",
            help="The stack's own, with its name at the end: /var/backups/consolidate/acme, sftp:backup@nas:/srv/acme.",
        ),
    ],
    passphrase_file: Annotated[
        Path, typer.Option("--passphrase-file", help="A file with the repository's passphrase, - for standard input.")
    ],
    credentials: Credentials = None,
    host: options.Host = None,
    context: options.Context = None,
) -> None:
    """Get a stack's files back from a repository alone: the stack file, overlays, content and kinds."""
    from consolidate import console
    from consolidate.backup.files import extract
    from consolidate.backup.reading import stored_files
    from consolidate.cli.change import runner

    engine = options.engine(host, context)
    run = runner(engine, lambda _: None, console.say_progress)
    with stored_files(run, name, repository, given(passphrase_file, credentials)) as (manifest, tar):
        extract(tar, folder)
    console.say(f"{folder / manifest.file}: {manifest.stack}, as it was at {manifest.began}")


def restore(
    name: Annotated[str, typer.Argument(metavar="BACKUP", help="As `backup list` has it, or `latest`.")],
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="STACK.YML",
            help="Another stack, by its file alone, whose servers get the data; -e is of the one that was saved.",
        ),
    ] = None,
    drill: Annotated[
        bool,
        typer.Option(
            "--drill",
            help="Prove that it can be brought back, in a stack beside this one; nothing of it stays but images.",
        ),
    ] = False,
    passphrase_file: PassphraseFile = None,
    credentials: Credentials = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    yes: options.Yes = False,
    lock_timeout: LockTimeoutOrDrill = 0.0,
) -> int:
    """Bring data back from a backup, on an empty engine too. What is there is saved before, and is back if that fails.

    With --drill it goes into a stack of its own, away from everybody, is compared with the backup, and is taken away again.
    """
    from msgspec.structs import replace

    from consolidate import console
    from consolidate.backup.restore import Restore
    from consolidate.cli.change import runner
    from consolidate.plan import Plan
    from consolidate.source import find_file, stack_name

    source = options.source(None, file, environment, templates)
    if drill:
        from consolidate.cli.drill import drilled

        return drilled(
            name,
            source,
            servers or (),
            options.engine(host, context),
            to,
            given(passphrase_file, credentials),
            progress,
            format_,
            lock_timeout,
        )
    target = source if to is None else replace(source, file=find_file(to, to.parent), environment=None)
    engine, tell = options.engine(host, context), console.teller(progress)
    opens = given(passphrase_file, credentials)

    def show(plan: Plan) -> None:
        console.announce(plan, progress)

    def confirm(stack: str, lost: Sequence[str], backup: str, when: str, whole: bool) -> None:
        console.confirm_return(stack, lost, backup, when, whole=whole, yes=yes)

    with console.progress(progress, Plan("", ())) as report:
        run = runner(engine, report, tell)
        with run.locked(stack_name(target), lock_timeout):
            done = Restore(source, target, run, show).run(name, servers or (), opens, confirm)
    if done.safety not in ("", done.backup):
        tell(f"What was there before is the backup {done.safety}")
    if format_ == "json":
        console.print_json(done)
    else:
        console.say(f"restored from {done.backup}: {', '.join(done.servers)}")
    return 0
