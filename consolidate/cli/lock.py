"""`consolidate lock`: what the servers are made of, in a file beside the stack's, and whether that is what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.locked import Lock
    from consolidate.pipeline import Prepared
    from consolidate.refresh import Choice

DIFFERS = 2


def register(app: typer.Typer) -> None:
    app.command()(lock)


def lock(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing, and exit 2 where the lock is not what runs and is asked for."),
    ] = False,
) -> int:
    """Write down which image each server is made of, for `up` to keep to: of those that run, what they run."""
    from consolidate import console, lock_file, refresh
    from consolidate.cli.change import runner
    from consolidate.locked import Lock
    from consolidate.pipeline import check_servers, prepare

    source = options.source(argument, file, environment, templates)
    engine, chosen = options.engine(host, context), servers or ()
    prepared, old = prepare(source, engine), lock_file.read(source.lock) or Lock()
    check_servers(prepared.resolved, chosen)

    def found(prepared: Prepared, wanted: list[Choice]) -> Lock:
        look = refresh.Look(engine, prepared.observed)
        return refresh.lock_of(look, prepared.desired, wanted, old, source, chosen)

    if check:
        new = found(prepared, refresh.choices(prepared.desired, prepared.observed, old))
        differ = refresh.differences(prepared.desired, old, new, chosen)
        differ += refresh.behind(prepared.desired, prepared.observed, old, chosen)
        what = "is not what runs and is asked for" if differ else "is what runs and what is asked for"
        console.show_differences(differ, format_, f"{source.lock.name} {what}")
        return DIFFERS if differ else 0
    tell = console.teller(progress)
    with runner(engine, lambda _: None, tell).locked(prepared.desired.stack):
        # What runs may have changed until now, and an update may have moved the lock.
        prepared, old = prepare(source, engine), lock_file.read(source.lock) or Lock()
        wanted = refresh.choices(prepared.desired, prepared.observed, old, chosen)
        if plan := refresh.missing(prepared.desired, wanted):
            with console.progress(progress, plan) as report:
                done = runner(engine, report, tell).executor(prepared.secrets).run(plan)
            if not done.ok:
                console.show_report(done, progress)
                return 1
            prepared = prepare(source, engine)
            wanted = refresh.choices(prepared.desired, prepared.observed, old, chosen)
        new = found(prepared, wanted)
        wrote = lock_file.write(source.lock, new, source.file.name)
    differ = refresh.differences(prepared.desired, old, new, chosen)
    console.show_differences(
        differ, format_, f"{source.lock}: nothing to change" if not wrote else f"wrote {source.lock}"
    )
    return 0
