"""Verbs that look into what runs: ps, logs, exec, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from consolidate.cli import options


def register(app: typer.Typer) -> None:
    app.command()(ps)
    app.command()(logs)
    app.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(exec_)
    app.command()(doctor)


def ps(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    format_: options.Format = "table",
) -> None:
    """Show the servers: state, health, addresses."""
    from consolidate import console
    from consolidate.source import known_stack

    resolved = known_stack(options.source(argument, file, environment, templates))
    console.show_addresses(resolved, options.engine(host, context), format_, servers or ())


def logs(
    server: Annotated[
        list[str] | None, typer.Argument(help="The servers, or replicas of them such as www.2; by default all.")
    ] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    follow: Annotated[bool, typer.Option("-F", "--follow", help="Go on with what comes.")] = False,
    tail: Annotated[int | None, typer.Option("-n", "--tail", min=0, help="Only so many last lines of each.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Not older, e.g. 10m or 2026-01-31T12:00.")] = None,
    timestamps: Annotated[bool, typer.Option("-t", "--timestamps", help="Show the time of each line.")] = False,
) -> None:
    """Show what servers say, their lines side by side in the order of their times."""
    from consolidate import console, listing

    source = options.source(None, file, environment, templates)
    stream = listing.log_lines(
        source, options.engine(host, context), server or (), follow=follow, tail=tail, since=since
    )
    console.show_logs(stream, timestamps=timestamps)


def exec_(
    server: Annotated[str, typer.Argument(help="The server; of several replicas the first, or a name such as www.2.")],
    command: Annotated[list[str] | None, typer.Argument(help="The command; by default a shell.")] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    no_tty: Annotated[bool, typer.Option("-T", "--no-tty", help="No terminal, even where there is one.")] = False,
) -> int:
    """Run a command in a server, as its own user; options of ours stand before the server's name."""
    from consolidate import listing

    source = options.source(None, file, environment, templates)
    engine = options.engine(host, context)
    container = listing.running_container(source, engine, server)
    tty = not no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    words = list(command or []) or ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash || exec sh"]
    return engine.attach(container, words[1:] if words[:1] == ["--"] else words, tty=tty, stdin=True)


def doctor(
    argument: Annotated[
        Path | None, typer.Argument(metavar="[STACK.YML]", help="A stack file, to see whether its ports are free.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-f",
            "--file",
            envvar=options.FILE_VARIABLE,
            help="The stack file; without one no stack's ports are looked at.",
            rich_help_panel=options.STACK,
        ),
    ] = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    format_: options.Format = "table",
    fix: Annotated[bool, typer.Option("--fix", help="Install and start an engine, make the base image.")] = False,
) -> int:
    """Check this machine and its engine: what works, what doesn't, what to do."""
    from consolidate import console, examine

    if fix:
        examine.mend(
            lambda: options.engine(host, context), console.say_progress, ours=not options.names_engine(host, context)
        )
    wanted = None
    if argument or file:
        wanted = options.source(argument, file, environment, templates)
    found = examine.look(lambda: options.engine(host, context), wanted)
    console.show_checks(found, format_)
    return examine.status(found)
