"""What a stack file says: values with their places, and two environments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from rich.text import Text

    from consolidate.environments import Contrast, FilePair, Value
    from consolidate.explain import Row

WIDE = 120  # columns from which on each value of a comparison has its place beside it


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


def show_contrast(found: Contrast, format_: str, folder: str) -> None:
    """Two environments side by side: a table for each kind of difference, and lines of files that differ."""
    if format_ == "json":
        print_json(found.to_json())
        return
    from rich.text import Text

    console = console_for()
    sections = {
        "SERVER": found.servers,
        "SETTING": found.settings,
        "LIMIT": found.limits,
        "IMAGE": found.images,
        "PORTS": found.ports,
    }
    names = [f"{side.environment} ({side.overlay or 'no overlay'})" for side in (found.left, found.right)]
    for title, pairs in sections.items():
        if not pairs:
            continue
        table = table_of([title, *names])
        for pair in pairs:
            values = [_value(v, folder, wide=console.width >= WIDE) for v in (pair.left, pair.right)]
            table.add_row(Text(pair.key.removeprefix("servers.")), *values)
        console.print(table)
        console.print()
    for file in found.files:
        console.print(_file(file), soft_wrap=True)
    if found.secrets:
        _show_secrets(found)
    if not found:
        console.print(
            f"{found.left.environment} and {found.right.environment}: nothing differs but the name and the secrets"
        )


def _value(value: Value | None, folder: str, *, wide: bool) -> Text:
    from rich.text import Text

    if value is None:
        return Text("-", style="dim")
    text = Text(value.text)
    if wide and value.rows:
        places = dict.fromkeys(origin_text(row, folder).replace("\n", ", ") for row in value.rows)
        text.append(f"  {'; '.join(places)}", style="dim")
    return text


def _file(file: FilePair) -> Text:
    """The lines of a file that differ, in the colours that diffs have everywhere."""
    from rich.text import Text

    text = Text(f"{file.server}:\n", style="bold")
    if file.note:
        return text.append(f"  {file.file}: {file.note}\n", style="default")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in file.diff.splitlines():
        text.append(f"  {line}\n", style="bold" if line[:3] in ("+++", "---") else styles.get(line[:1], "default"))
    return text


def _show_secrets(found: Contrast) -> None:
    from rich.text import Text

    table = table_of(["VALUE", "SECRETS"])
    sides = {"only left": f"only in {found.left.environment}", "only right": f"only in {found.right.environment}"}
    states: dict[str, list[str]] = {}
    for secret in found.secrets:
        states.setdefault(sides.get(secret.state, secret.state), []).append(secret.secret)
    for state, names in sorted(states.items()):
        table.add_row(state, Text(", ".join(names)))
    console_for().print(table)
