"""A change: its plan before, and how it went after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from consolidate.console.live import teller
from consolidate.console.streams import console_for, print_json, say_progress, table_of

if TYPE_CHECKING:
    from rich.text import Text

    from consolidate.comparison import FileDiff
    from consolidate.plan import Plan
    from consolidate.refresh import News
    from consolidate.report import Report

SIGNS = {
    "create": "+",
    "replace": "~",
    "reload": "~",
    "start": "~",
    "connect": "~",
    "grant": "~",
    "limits": "~",
    "rename": "~",
    "remove": "-",
    "tidy": "~",
    "wait": "~",
    "image": "+",
    "save": "+",
    "read": "+",
    "restore": "~",
    "stop": "~",
}
STYLES = {"+": "green", "~": "yellow", "-": "red"}


def show_plan(
    plan: Plan,
    format_: str,
    warnings: Iterable[str] = (),
    files: Sequence[FileDiff] = (),
    *,
    error: bool = False,
) -> None:
    """A plan: a row for each server and image that changes, what changes in `files`, then what to know."""
    if format_ == "json":
        print_json(plan.to_json() | {"files": [f.to_json() for f in files]})
        return
    from rich.text import Text

    from consolidate.summary import summarise

    console = console_for(error=error)
    if not plan:
        console.print(f"{plan.stack}: nothing to change")
    else:
        table = table_of(("", "WHAT", "CHANGE", "WHY", "DOWNTIME"))
        for row in summarise(plan):
            sign = SIGNS[row.change]
            style = STYLES[sign]
            table.add_row(
                Text(sign, style=style), Text(row.what, style=style), row.change, Text(row.why), Text(row.downtime)
            )
        if table.rows:  # what a run has left may be of no server
            console.print(table)
        for file in files:
            console.print(_coloured(file), soft_wrap=True)
        console.print(f"{plan.stack}: {len(plan.operations)} operations")
    for note in (*plan.notes, *warnings):
        console.print(Text(f"note: {note}", style="dim"))


def _coloured(file: FileDiff) -> Text:
    """A diff below its server's name, in the colours that diffs have everywhere."""
    from rich.text import Text

    text = Text(f"{file.server}:\n", style="bold")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in file.diff.splitlines():
        text.append(f"  {line}\n", style="bold" if line[:3] in ("+++", "---") else styles.get(line[:1], "default"))
    return text


def show_news(news: News, format_: str, how: str) -> None:
    """What is new for each server: its packages, or the digest of its image.

    What could not be told is on standard error, as `how` progress is shown: between lines of JSON as one of them.
    """
    tell = teller(how)
    for server, error in news.failures.items():
        tell(f"failed: {server}: {error}")
        for line in error.log:
            tell(f"  | {line}")
    if format_ == "json":
        print_json(news.to_json())
        return
    from rich.text import Text

    console = console_for()
    if news.changes:
        table = table_of(("SERVER", "PACKAGE", "OLD", "NEW", "SECURITY"))
        for server, change in ((c.server, c.change) for c in news.changes):
            urgent = Text("yes", style="red") if change.security else Text("" if change.security is None else "no")
            table.add_row(*map(Text, (server, change.package, change.old or "none", change.new or "none")), urgent)
        console.print(table)
    elif not news.failures:
        console.print(f"{news.stack}: nothing to update")
    for note in news.notes:
        console.print(Text(f"note: {note}", style="dim"))


def announce(plan: Plan, how: str, warnings: Iterable[str] = (), *, changed: bool = False) -> None:
    """What is about to be done, on standard error: for people, so not where `how` progress is shown is JSON or quiet."""
    if how in ("json", "quiet"):
        return
    if changed:
        say_progress("the engine has changed since the plan was made; this is what is done now:")
    show_plan(plan, "table", warnings, error=True)


def _show_way_back(back: Report) -> None:
    """What went back, and what could not."""
    for outcome in back.failed:
        say_progress(f"could not be taken back: {outcome.operation.verb} {outcome.operation.server}: {outcome.message}")
        for line in outcome.log:
            say_progress(f"  | {line}")
    servers = sorted({o.operation.server for o in back.outcomes if o.status == "done" and o.operation.server})
    say_progress(f"taken back: {', '.join(servers) or 'nothing, since nothing had been replaced'}")
    for outcome in back.outcomes:
        if outcome.away is not None:
            say_progress(f"{outcome.operation.server}: the old one serves again, away for {outcome.away:.1f} s")
    for note in back.plan.notes:
        say_progress(note)


def show_report(report: Report, how: str) -> None:
    """How it went: failures with the last lines of their programs, what was kept, how much was done.

    `how` progress is shown: as JSON the events have said it all, and `quiet` is about failures alone.
    """
    if how == "json":
        return
    for outcome in report.failed:
        server = outcome.operation.server
        say_progress(f"\nfailed: {outcome.operation.verb} {server}: {outcome.message}")
        for line in outcome.log:
            say_progress(f"  | {line}")
        for undone in outcome.undone:
            say_progress(f"  taken back: {undone}")
        if outcome.away is not None:
            say_progress(f"  {server}: the old one serves again, away for {outcome.away:.1f} s")
    servers = sorted({o.operation.server for o in report.skipped if o.operation.server} - {""})
    if servers:
        say_progress(f"not done, since what they need failed: {', '.join(servers)}")
    if report.back is not None:
        _show_way_back(report.back)
    if how == "quiet":
        return
    for note in report.plan.notes if report.ok else ():
        say_progress(note)
    for outcome in report.outcomes:
        if outcome.away is not None and outcome.status == "done":
            server = outcome.operation.server
            change = "replaced" if server in report.replaced else "started again"
            say_progress(f"{server}: {change}, away for {outcome.away:.1f} s")
    ended = sum(1 for o in report.outcomes if o.status == "done")
    say_progress(f"{report.plan.stack}: {ended} of {len(report.outcomes)} operations done")
