"""`consolidate secret`: list, show, set, rotate."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options
from consolidate.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from consolidate.custody import Custody
    from consolidate.runner import Runner
    from consolidate.secret import Secret
    from consolidate.source import Source

secret = typer.Typer(help="Secrets: they live on the engine, and are addressed SERVER/NAME.", no_args_is_help=True)

Address = Annotated[str, typer.Argument(metavar="SERVER/NAME", help="The secret, e.g. blog/admin_password.")]


def register(app: typer.Typer) -> None:
    app.add_typer(secret, name="secret")


def _custody(
    file: Path | None, environment: str | None, templates: list[Path] | None, host: str | None, context: str | None
) -> Custody:
    from consolidate.cli.change import runner
    from consolidate.console import say_progress
    from consolidate.custody import Custody

    source = options.source(None, file, environment, templates)
    return Custody(source, runner(options.engine(host, context), lambda _: None, say_progress), _rekey)


def _rekey(source: Source, running: Runner, passphrase: Secret) -> None:
    from consolidate.backup.keys import set_passphrase

    set_passphrase(source, running, passphrase)


def _said(addresses: list[str], done: str) -> None:
    """What follows from secrets that were set or made anew."""
    from consolidate.naming import PASSPHRASE
    from consolidate.vault import OF_BACKUPS

    if read := [a for a in addresses if a not in OF_BACKUPS]:
        typer.echo(f"{done}: {', '.join(read)}; `consolidate up` applies it", err=True)
    if ours := [a for a in addresses if a not in read]:
        typer.echo(f"{done}: {', '.join(ours)}", err=True)
    if PASSPHRASE in ours:
        typer.echo(f"Keep it off this machine: consolidate secret show {PASSPHRASE}", err=True)


@secret.command("list")
def list_(
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    format_: options.Format = "table",
) -> None:
    """List secrets: names, age, who reads them. Never a value."""
    from consolidate import console

    rows = _custody(file, environment, templates, host, context).rows()
    console.show_rows(rows, format_, columns=("secret", "age", "expires", "readers", "about"))


@secret.command()
def show(
    address: Address,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="Of an authority or a certificate: without its private key.")
    ] = False,
) -> None:
    """Print a secret's value, alone, on standard output."""
    value = _custody(file, environment, templates, host, context).show(address)
    typer.echo(certificates(value) if certificate else value)


def certificates(text: str) -> str:
    """The certificates of a PEM text, without its keys.

    Raises UsageError where there is none.
    """
    found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    if not found:
        raise UsageError("this secret holds no certificate")
    return "\n".join(found)


@secret.command("set")
def set_(
    address: Address,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
) -> None:
    """Set a secret from standard input, or a prompt; `up` then applies it. That of backups: their repository has it at once."""
    custody = _custody(file, environment, templates, host, context)
    custody.check(address)
    if sys.stdin.isatty():
        value = typer.prompt(address, hide_input=True, confirmation_prompt=True, err=True)
    else:
        value = sys.stdin.read().removesuffix("\n")
    custody.set(address, value)
    _said([address], "set")


@secret.command()
def rotate(
    address: Annotated[list[str], typer.Argument(metavar="SERVER/NAME", help="The secrets to generate anew.")],
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
) -> None:
    """Generate secrets anew; `up` then applies them, everywhere they are read. That of backups: their repository has it at once."""
    _custody(file, environment, templates, host, context).rotate(address)
    _said(address, "new")
