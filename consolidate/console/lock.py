"""What a lock has, beside what it would have now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from consolidate.refresh import Difference

SHOWN = 5  # packages of a server in the table; JSON has all


def show_differences(found: Sequence[Difference], format_: str, otherwise: str) -> None:
    """A row for each server that differs, and a sentence below: where nothing differs it is all."""
    if format_ == "json":
        print_json([d.to_json() for d in found])
        return
    from rich.text import Text

    from consolidate.refresh import image_text

    console = console_for()
    if found:
        table = table_of(("SERVER", "WHY", "LOCKED", "NOW", "PACKAGES"))
        for each in found:
            changes = [f"{c.package} {c.old or 'none'} → {c.new or 'none'}" for c in each.packages]
            more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
            cells = (each.server, each.why, image_text(each.locked), image_text(each.now))
            table.add_row(*map(Text, cells), Text("\n".join([*changes[:SHOWN], *more])))
        console.print(table)
    console.print(Text(otherwise), soft_wrap=True)
