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
    stores = _stores(host, context, one.stack, other.stack)
    found = contrast((sides[0], one), (sides[1], other), servers or (), stores)
    console.show_contrast(found, format_, str(source.file.parent))
    return CHANGES if detailed_exitcode and found else 0


def _side(name: str, source: Source, stack: str) -> Side:
    from consolidate.environments import Side

    return Side(name, stack, source.overlay.name if source.overlay else None)


def _stores(host: str | None, context: str | None, *stacks: str) -> tuple[Store, Store] | None:
    """The secrets of both, where their engine answers; an engine that was named has to."""
    from consolidate import console
    from consolidate.errors import EngineUnavailable
    from consolidate.store import read_secrets

    try:
        engine = options.engine(host, context)
        one, other = (read_secrets(engine, engine.observe(stack)) for stack in stacks)
    except EngineUnavailable:
        if options.names_engine(host, context):
            raise
        console.say_progress("no engine answers, so that no secret's value is compared")
        return None
    return one, other
