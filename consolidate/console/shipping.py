"""Images on their way to another engine: what there is to send, and what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consolidate.console.streams import console_for, print_json, table_of

if TYPE_CHECKING:
    from consolidate.shipping.work import Sent, Shipment

WHY = {
    "locked": "the lock has it",
    "runs": "runs here",
    "newest": "newest here",
    "base": "others are built from it",
    "tool": "makes backups",
}
STYLES = {"to send": "yellow", "to name": "yellow", "sent": "green", "named": "green", "failed": "red"}


def show_shipment(found: Shipment | Sent, format_: str, *, error: bool = False) -> None:
    """A row for each image: how many of its layers go over, and what became of it once it was sent."""
    told = found.to_json()
    if format_ == "json":
        print_json(told)
        return
    from rich.text import Text

    console = console_for(error=error)
    table = table_of(["IMAGE", "FOR", "WHY", "SIZE", "LAYERS", "BYTES", "STATE"])
    for row in told["images"]:
        state = Text(row["state"], style=STYLES.get(row["state"], ""))
        table.add_row(*map(Text, _cells(row)), state)
    console.print(table)
    for note in told["notes"]:
        console.print(Text(f"note: {note}", style="dim"))


def _cells(row: dict[str, Any]) -> list[str]:
    from consolidate.report import amount

    going = row["state"] == "to send"
    bytes_ = f"about {amount(row['bytes_to_send'])}" if going else amount(row["bytes_sent"])
    return [
        row["image"],
        ", ".join(row["servers"]),
        WHY[row["why"]],
        amount(row["size"]),
        f"{row['layers_to_send']} of {row['layers']}",
        bytes_ if going or row["bytes_sent"] else "",
    ]
