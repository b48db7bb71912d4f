"""Verbs about earlier generations: history, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from consolidate.cli import options


def register(app: typer.Typer) -> None:
    app.command()(history)
    app.command()(rollback)


def history(
    server: Annotated[list[str] | None, typer.Argument(help="The servers; by default all.")] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    format_: options.Format = "table",
) -> None:
    """Show the generations of servers: when, by whom, what changed, what became of them."""
    from consolidate import console
    from consolidate.rollback import rows
    from consolidate.source import stack_name

    source = options.source(None, file, environment, templates)
    console.show_history(rows(options.engine(host, context).observe(stack_name(source)), server or ()), format_)


def rollback(
    server: Annotated[
        str | None, typer.Argument(help="The server; by default all that the last `up` replaced.")
    ] = None,
    generation: Annotated[
        int | None, typer.Argument(help="Which one, as `history` has it; by default the last that served.")
    ] = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    wait_timeout: options.WaitTimeout = None,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Also to its data, as it was dumped before an update; asks.")
    ] = False,
    yes: options.Yes = False,
) -> int:
    """Return a server to an earlier generation: its image, configuration and secrets; its data stays as it is."""
    from consolidate import console
    from consolidate.cli.change import apply, nothing_to_change
    from consolidate.pipeline import Prepared
    from consolidate.rollback import prepare_rollback

    source = options.source(None, file, environment, templates)
    engine = options.engine(host, context)

    def again() -> Prepared:
        return prepare_rollback(source, engine, server, generation, with_data=with_data)

    prepared = again()
    if nothing_to_change(engine, prepared, progress):
        return 0
    console.announce(prepared.plan, progress)
    if with_data and server is not None:
        console.confirm_restore(server, yes=yes)
    return apply(engine, prepared, again, progress, format_, wait_timeout)
