"""What a drill has proved: a row for each thing that was looked at, and how long a restore takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from consolidate.backup.proofs import Check, Drilled

MOST = 25  # rows of one kind for each server; of more, those that are the same are shown as one


def show_drill(found: Drilled, format_: str) -> None:
    if format_ == "json":
        print_json(found)
        return
    from rich.text import Text

    from consolidate.backup.proofs import shown

    console = console_for()
    table = table_of(("SERVER", "CHECK", "WHAT", "BACKUP", "RESTORED", ""))
    for check in folded(found.checks):
        verdict = Text("same" if check.backup is not None and check.ok else "ok" if check.ok else "DIFFERS")
        verdict.stylize("green" if check.ok else "red")
        if not check.ok and check.restored is None and check.backup is None:
            verdict = Text("FAILED", style="red")
        what = Text("\n".join(filter(None, (check.what, check.detail))))
        cells = [Text(shown(v)) for v in (check.backup, check.restored)]
        table.add_row(Text(check.server), Text(check.check), what, *cells, verdict)
    console.print(table)
    steps = table_of(("STEP", "SERVERS", "SECONDS"))
    for step in found.steps:
        steps.add_row(Text(step.step), Text(", ".join(step.servers)), f"{step.seconds:.1f}")
    console.print(steps)
    if found.proved:  # else it is an error, with what failed
        named = ", ".join(found.servers)
        console.print(Text(f"proved: the backup {found.backup} of {found.began} brings back {named}"))
        console.print(Text(f"a restore takes {found.seconds:g} s here, and the time to save what is there before"))


def folded(checks: Sequence[Check]) -> Iterable[Check]:
    """The checks, with those that are the same as one where there are many of them."""
    from msgspec.structs import replace

    for _, group in groupby(checks, key=lambda c: (c.server, c.check)):
        rows = list(group)
        same = [r for r in rows if r.ok]
        if len(rows) <= MOST or len(same) < 2:
            yield from rows
            continue
        sums = [sum(v for r in same if isinstance(v := getattr(r, side), int)) for side in ("backup", "restored")]
        yield replace(same[0], what=f"{len(same)} of {len(rows)}", backup=sums[0], restored=sums[1], detail="")
        yield from (r for r in rows if not r.ok)
