"""`consolidate ship`: the images of a stack to another engine."""

from __future__ import annotations

from typing import Annotated

import typer

from consolidate.cli import options


def register(app: typer.Typer) -> None:
    app.command()(ship)


def ship(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="ENGINE",
            help="Where they go: an address, e.g. ssh://root@host, or a Docker context.",
            rich_help_panel=options.ENGINE,
        ),
    ],
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    check: Annotated[bool, typer.Option("--check", help="Only tell what would be sent.")] = False,
) -> int:
    """Send the images that were tested to another engine, without a registry: what it lacks of them, and no more."""
    from consolidate import console
    from consolidate.shipping import work

    source = options.source(argument, file, environment, templates)
    here = options.engine(host, context)
    there = options.engine(to, None) if "://" in to else options.engine(None, to)
    found = work.look(here, there, source, servers or (), to)
    if check or not found.plan:
        console.show_shipment(found, format_)
        return 0
    if progress not in ("json", "quiet"):
        console.show_shipment(found, "table", error=True)
    with console.progress(progress, found.plan) as report:
        sent = work.send(found, here, there, report, console.teller(progress))
    for outcome in sent.report.failed:
        console.say_progress(f"failed: {outcome.operation.id.partition(':')[2]}: {outcome.message}")
    console.show_shipment(sent, format_)
    return 0 if sent.report.ok else 1
