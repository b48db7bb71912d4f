"""Verbs about the description alone: init, validate, render."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.desired import Desired
    from consolidate.source import Source


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(validate)
    app.command()(render)


def init(
    kinds: Annotated[
        list[str] | None, typer.Argument(help="The kinds to begin with; by default web and its proxy.")
    ] = None,
    file: Annotated[Path, typer.Option("-f", "--file", help="Where to write it.")] = Path("stack.yml"),
    name: Annotated[str | None, typer.Option("--name", help="The stack's name; by default the folder's.")] = None,
    templates: options.Templates = None,
) -> None:
    """Write a commented stack file with servers of some kinds."""
    from consolidate.errors import UsageError
    from consolidate.kinds import Catalogue, data_folder
    from consolidate.starter import starter

    if file.exists():
        raise UsageError(f"{file} is there already", hint="name another one with -f, or edit it")
    catalogue = Catalogue([*(templates or ()), data_folder("templates")])
    text, folders = starter(catalogue, kinds or [], name or file.resolve().parent.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    for folder, index in folders.items():
        place = file.parent / folder
        if not place.exists():
            place.mkdir(parents=True)
            (place / "index.html").write_text(index)
    typer.echo(f"wrote {file}; `consolidate up {file}` brings it up")


def validate(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
) -> None:
    """Check a stack file, its lock if it has one, and all its templates; no engine is asked."""
    from consolidate.source import described, with_lock

    source = options.source(argument, file, environment, templates)
    desired, _ = with_lock(source, described(source))
    count = len(desired.resolved.servers)
    typer.echo(f"{desired.stack}: {count} server{'s' if count != 1 else ''}, all valid")


def render(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write into this folder.")] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="KEY",
            help="Tell instead where a value comes from, or each below a key: servers.www, host.reserve.memory.",
        ),
    ] = None,
    format_: options.Format = "table",
) -> None:
    """Show every file as it will be; secrets are redacted."""
    from consolidate.errors import UsageError
    from consolidate.listing import rendered_files
    from consolidate.source import described

    if explain is not None:
        if servers or out is not None:
            raise UsageError("--explain tells of values and not of files", hint="leave out --out and -s: servers.www")
        _explain(options.source(argument, file, environment, templates), explain, format_)
        return
    desired = described(options.source(argument, file, environment, templates))
    _check(desired, servers or [])
    files = rendered_files(desired, servers or [])
    if format_ == "json" and out is None:
        from consolidate import console

        rows = [(os.fsencode(path).decode(errors="replace"), _text(content)) for path, content in files]
        console.print_json([{"path": path, "text": text} for path, text in rows])
        return
    for path, content in files:
        if out is not None:
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
        else:
            typer.echo(f"# {os.fsencode(path).decode(errors='replace')}")
            typer.echo(_text(content))
    if out is not None:
        typer.echo(f"wrote {out}")


def _text(content: bytes | Path) -> str:
    return (content.read_bytes() if isinstance(content, Path) else content).decode(errors="replace")


def _explain(source: Source, key: str, format_: str) -> None:
    from consolidate import console
    from consolidate.explain import explained
    from consolidate.source import load_stack

    console.show_explained(explained(load_stack(source), key), format_, str(source.file.parent))


def _check(desired: Desired, servers: list[str]) -> None:
    from consolidate.pipeline import check_servers

    check_servers(desired.resolved, servers)
