"""Verbs that change what runs: plan (which only tells), up, down, restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consolidate import naming
from consolidate.cli import options

if TYPE_CHECKING:
    from consolidate.docker_engine import DockerEngine
    from consolidate.pipeline import Prepared
    from consolidate.plan import Plan
    from consolidate.report import Event
    from consolidate.runner import Runner
    from consolidate.saved import Saved
    from consolidate.source import Source

CHANGES = 2


def register(app: typer.Typer) -> None:
    for verb in (plan, up, down, restart):
        app.command()(verb)


def plan(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    format_: options.Format = "table",
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when something would change.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Keep the plan in a file, for `up FILE`.")
    ] = None,
    drift: options.DriftToo = False,
) -> int:
    """Show what `up` would do, and why, with a diff of each rendered file; nothing is written to the engine."""
    from consolidate import console
    from consolidate.source import ask

    if out is not None:
        from consolidate.saved import check_place

        check_place(out)
    source = options.source(argument, file, environment, templates)
    engine = options.engine(host, context)
    asked = ask(source, engine)
    from consolidate.comparison import file_diffs  # meanwhile
    from consolidate.pipeline import prepare
    from consolidate.runner import without_sessions

    prepared = without_sessions(prepare(source, engine, servers=servers or (), asked=asked, deep=drift, strict=True))
    console.show_plan(prepared.plan, format_, prepared.resolved.warnings, file_diffs(prepared, engine))
    if out is not None:
        from consolidate.saved import save

        save(out, source, servers or (), prepared, deep=drift)
    return CHANGES if detailed_exitcode and prepared.plan else 0


def up(
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
    drift: options.DriftToo = False,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="When one server fails, take back what was done for the others.")
    ] = False,
) -> int:
    """Make the engine as the stack says: show the plan, and carry it out. A plan of `plan --out` is done as it is."""
    from consolidate import console
    from consolidate.source import ask

    saved, source, servers = _planned_before(argument, file, environment, servers, templates)
    engine = options.engine(host, context)
    asked = ask(source, engine)
    from consolidate.pipeline import prepare  # meanwhile

    ids = saved.ids if saved else {}
    deep = drift or bool(saved and saved.deep)

    def again() -> Prepared:
        prepared = prepare(source, engine, servers=servers or (), ids=ids, deep=deep, strict=True)
        if saved:
            saved.check(prepared)
        return prepared

    prepared = prepare(source, engine, servers=servers or (), asked=asked, ids=ids, deep=deep, strict=True)
    if saved:
        saved.check(prepared)
    if nothing_to_change(engine, prepared, progress):
        return 0
    console.announce(prepared.plan, progress, prepared.resolved.warnings)
    return apply(engine, prepared, again, progress, format_, wait_timeout, all_or_nothing=all_or_nothing)


def nothing_to_change(engine: DockerEngine, prepared: Prepared, progress: str) -> bool:
    """Say so, where there is nothing.

    Raises Locked where somebody else is at work on the stack.
    """
    from consolidate import console
    from consolidate.runner import check_unlocked

    if prepared.plan:
        return False
    check_unlocked(engine, prepared.observed, console.teller(progress))
    console.say(f"{prepared.desired.stack}: nothing to change")
    return True


def apply(
    engine: DockerEngine,
    prepared: Prepared,
    again: Callable[[], Prepared],
    progress: str,
    format_: str,
    wait_timeout: float | None,
    *,
    all_or_nothing: bool = False,
) -> int:
    """Carry out a plan that was announced, which `again` makes anew should the engine have changed; the exit status."""
    from consolidate import console

    def changed(plan: Plan) -> None:
        console.announce(plan, progress, changed=True)

    if format_ == "table":
        console.load_soon()
    with console.progress(progress, prepared.plan) as report:
        run = runner(engine, report, console.teller(progress), wait_timeout, all_or_nothing=all_or_nothing)
        done = run.apply(prepared, again, changed)
    console.show_report(done, progress)
    if done.ok:
        console.show_addresses(prepared.resolved, engine, format_, ready=done.ready)
    return 0 if done.ok else 1


def _planned_before(
    argument: Path | None,
    file: Path | None,
    environment: str | None,
    servers: list[str] | None,
    templates: list[Path] | None,
) -> tuple[Saved | None, Source, list[str] | None]:
    """The plan that the command line names, and its stack and servers; else the stack that it means.

    Raises UsageError where both stand there.
    """
    from consolidate.errors import UsageError

    given = argument or file
    saved = None
    if given is not None and given.suffix not in naming.STACK_SUFFIXES:
        from consolidate.saved import load

        saved = load(given)
    if saved is None or given is None:
        return None, options.source(argument, file, environment, templates), servers
    if environment or servers or templates:
        raise UsageError(
            f"{given} is a plan, which says itself what it is for", hint="leave out -e, -s and --templates"
        )
    return saved, saved.source(given.parent), list(saved.servers)


def runner(
    engine: DockerEngine,
    report: Callable[[Event], None],
    tell: Callable[[str], None],
    wait_timeout: float | None = None,
    *,
    all_or_nothing: bool = False,
) -> Runner:
    from consolidate.runner import Runner

    def make_base(say: Callable[[str], None]) -> None:
        from consolidate import base_image  # seldom needed

        base_image.ensure(engine, say)

    return Runner(engine, report, make_base, tell, wait_timeout, all_or_nothing)


def down(
    argument: options.FileArgument = None,
    file: options.FileOption = None,
    environment: options.Environment = None,
    servers: options.Servers = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    volumes: Annotated[bool, typer.Option("--volumes", help="Remove the data as well; asks.")] = False,
    yes: options.Yes = False,
) -> int:
    """Stop and remove the stack's containers and networks; its data stays."""
    from consolidate import console
    from consolidate.actions import RemoveVolume
    from consolidate.cli.schedule import remind
    from consolidate.lifecycle import data_owners, down_plan
    from consolidate.listing import known
    from consolidate.runner import check_unlocked
    from consolidate.source import stack_name

    source = options.source(argument, file, environment, templates)
    stack = stack_name(source)
    engine = options.engine(host, context)
    observed = engine.observe(stack)
    tell = console.teller(progress)
    known(observed, servers or (), also=data_owners(observed) if volumes else ())
    wanted = down_plan(observed, volumes=volumes, servers=servers or ())
    lost = [o.action.name for o in wanted.operations if isinstance(o.action, RemoveVolume)] if volumes else []
    if lost:
        console.confirm_loss(stack, lost, yes=yes)
    if not wanted:
        check_unlocked(engine, observed, tell)
        for note in wanted.notes:
            console.say(note)
        console.say(f"{stack}: nothing to remove")
        return 0
    with console.progress(progress, wanted) as report:
        run = runner(engine, report, tell)
        with run.locked(stack):
            done = run.executor({}).run(wanted)
    console.show_report(done, progress)
    if lost and done.ok and not servers:
        remind(stack, tell)
    return 0 if done.ok else 1


def restart(
    server: Annotated[list[str], typer.Argument(help="The servers to restart, or replicas such as www.2.")],
    file: options.FileOption = None,
    environment: options.Environment = None,
    templates: options.Templates = None,
    host: options.Host = None,
    context: options.Context = None,
    progress: options.Progress = "auto",
    wait_timeout: options.WaitTimeout = None,
) -> int:
    """Stop and start servers, and wait until they are ready; replicas one after the other."""
    from consolidate import console
    from consolidate.lifecycle import restart_plan
    from consolidate.source import stack_name

    source = options.source(None, file, environment, templates)
    engine = options.engine(host, context)
    wanted, tell = restart_plan(engine.observe(stack_name(source)), server), console.teller(progress)
    with console.progress(progress, wanted) as report:
        run = runner(engine, report, tell, wait_timeout)
        with run.locked(wanted.stack):
            done = run.executor({}).run(wanted)
    console.show_report(done, progress)
    return 0 if done.ok else 1
