"""What a stack file says: values with their places, and two environments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from consolidate.explain import Row


def show_explained(rows: Sequence[Row], format_: str, folder: str) -> None:
    """Values, and where each comes from; files below `folder` by their names in it."""
    if format_ == "json":
        print_json([r.to_json() for r in rows])
        return
    from rich.text import Text

    table = table_of(["KEY", "VALUE", "FROM"])
    for row in rows:
        table.add_row(Text(row.shown), Text(value_text(row)), Text(origin_text(row, folder)))
    console_for().print(table)


def value_text(row: Row) -> str:
    if row.secret:
        return f"<secret {row.secret}>"
    if row.value is None:
        return "not set"
    return row.value if isinstance(row.value, str) else msgspec.json.encode(row.value).decode()


def origin_text(row: Row, folder: str) -> str:
    """Where a value comes from, in words; a line for each variable."""
    from consolidate.places import told

    place = str(row.place).removeprefix(f"{folder}/") if row.place else ""
    if row.origin == "kind" and row.place is not None:
        where = f"kind {row.kind}, kind.yml:{row.place.line}:{row.place.column}"
    elif row.origin == "link":
        where = f"the link at {place}"
    else:
        where = place or "default"
    loop = [f"{{{row.loop[0]}}} is {row.loop[1]}"] if row.loop else []
    return "\n".join([where, *loop, *(f"${{{u.name}}} {told(u).replace(f'{folder}/', '')}" for u in row.uses)])
