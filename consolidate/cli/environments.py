"""`consolidate diff`: two environments of a stack side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.environments import Side, Store
    from consolidate.source import Source

CHANGES = 2


def register(app: typer.Typer) -> None:
    app.command()(diff)


def diff(
    left: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="One, by the name of its overlay.")],
    right: Annotated[
        str,
        typer.Argument(metavar="ENVIRONMENT", help="The other; one of the two may have no overlay: the file alone."),
    ],
    file: options.FileOption = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    left_host: Annotated[
        str | None, typer.Option("--left-host", help="The first one's engine.", rich_help_panel=options.ENGINE)
    ] = None,
    left_context: Annotated[
        str | None, typer.Option("--left-context", help="The same, by its context.", rich_help_panel=options.ENGINE)
    ] = None,
    right_host: Annotated[
        str | None,
        typer.Option(
            "--right-host", help="The other one's engine, where that is not the same.", rich_help_panel=options.ENGINE
        ),
    ] = None,
    right_context: Annotated[
        str | None, typer.Option("--right-context", help="The same, by its context.", rich_help_panel=options.ENGINE)
    ] = None,
    format_: options.Format = "table",
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when something differs.")
    ] = False,
) -> int:
    """Compare two environments: settings, images, limits, ports, rendered files; of secrets only whether they are the same."""
    from consolidate import console
    from consolidate.environments import contrast
    from consolidate.errors import UsageError, did_you_mean
    from consolidate.source import described, in_environment

    source = options.source(None, file, None, templates)
    if left == right:
        raise UsageError(f"{left} and {right} are the same environment", hint="name two: consolidate diff dev prod")
    sources = [in_environment(source, name) for name in (left, right)]
    if sources[0] == sources[1]:
        overlay = f"{source.file.stem}.{right}{source.file.suffix}"
        hint = f"an environment's own is in a file such as {overlay}; one of the two may be {source.file.name} alone"
        raise UsageError(f"neither {left} nor {right} has an overlay beside {source.file}", hint=hint)
    one, other = (described(s) for s in sources)
    for name in servers or ():
        if name not in one.servers and name not in other.servers:
            hint = did_you_mean(name, {*one.servers, *other.servers})
            raise UsageError(f"neither environment has a server '{name}'", hint=hint)
    sides = [_side(n, s, d.stack) for n, s, d in zip((left, right), sources, (one, other), strict=True)]
    engines = [(left_host, left_context), (right_host, right_context)]
    engines = [(h, c) if h or c else (host, context) for h, c in engines]
    stores = _stores(*zip(engines, (one.stack, other.stack), strict=True))
    found = contrast((sides[0], one), (sides[1], other), servers or (), stores)
    console.show_contrast(found, format_, str(source.file.parent))
    return CHANGES if detailed_exitcode and found else 0


def _side(name: str, source: Source, stack: str) -> Side:
    from consolidate.environments import Side

    return Side(name, stack, source.overlay.name if source.overlay else None)


def _stores(*sides: tuple[tuple[str | None, str | None], str]) -> tuple[Store, Store] | None:
    """The secrets of both, where their engines answer; one that was named has to."""
    from consolidate import console
    from consolidate.errors import EngineUnavailable
    from consolidate.store import read_secrets

    found, engines = [], {}
    for named, stack in sides:
        try:
            if named not in engines:
                engines[named] = options.engine(*named)
            found.append(read_secrets(engines[named], engines[named].observe(stack)))
        except EngineUnavailable:
            if options.names_engine(*named):
                raise
            console.say_progress("no engine answers, so that no secret's value is compared")
            return None
    return found[0], found[1]
