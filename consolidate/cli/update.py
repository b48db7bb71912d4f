"""`consolidate update`: today's packages and pulls for the servers that run."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.plan import Plan


def register(app: typer.Typer) -> None:
    app.command()(update)


def update(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    format_: options.Format = "table",
    wait_timeout: options.WaitTimeout = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell what would change; nothing is built or pulled.")
    ] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="With --check: exit 2 when something would change.")
    ] = False,
) -> int:
    """Bring servers today's packages, or the image that their tag has now, and move the lock on; those without news are left
    alone."""
    from consolidate import console, refresh
    from consolidate.cli.change import CHANGES, runner
    from consolidate.errors import EngineUnavailable, UsageError
    from consolidate.pipeline import prepare
    from consolidate.report import Report

    if detailed_exitcode and not check:
        raise UsageError("--detailed-exitcode goes with --check")
    source = options.source(argument, file, environment, templates)
    engine = options.engine(host, context)
    prepared, chosen = prepare(source, engine, strict=True), servers or ()
    if check:
        news = refresh.check(engine, prepared, chosen)
        console.show_news(news, format_, progress)
        return 1 if news.failures else CHANGES if detailed_exitcode and news.changes else 0
    refresh.check_up_to_date(prepared, chosen)
    tell = console.teller(progress)
    with runner(engine, lambda _: None, tell).locked(prepared.desired.stack):
        if engine.observe(prepared.desired.stack).essence != prepared.observed.essence:
            prepared = prepare(source, engine, strict=True)
            refresh.check_up_to_date(prepared, chosen)

        def carry_out(plan: Plan) -> Report:
            with console.progress(progress, plan) as report:
                return runner(engine, report, tell, wait_timeout).executor(prepared.secrets).run(plan)

        with refresh.updating(engine, prepared, chosen, datetime.now(UTC), tell) as change:
            provided = carry_out(wanted) if (wanted := change.provide()) else Report(wanted, ())
            plan = change.plan()
            console.show_news(change.news, format_, progress)
            if plan:
                console.announce(plan, progress)
            lock = refresh.Moving(source, engine, change)
            if moved := lock.begin():
                tell(f"{source.lock.name} moves on for {', '.join(moved)}")
            try:
                done = carry_out(plan) if plan else Report(plan, ())
            finally:
                with contextlib.suppress(EngineUnavailable):  # then `up` goes on to what the lock has by now
                    if stayed := lock.end():
                        tell(f"{source.lock.name} is as before for {', '.join(stayed)}")
    for report in (provided, done):
        if report.outcomes and (report is done or not report.ok):
            console.show_report(report, progress)
    return 0 if provided.ok and done.ok and not change.failures else 1
