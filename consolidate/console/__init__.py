"""The only printing: tables, progress, reports. Data goes to standard output, everything else to standard error.

rich is imported where something is drawn with it; a no-op `up` needs none of it.
"""

from consolidate.console.change import announce, show_news, show_plan, show_report
from consolidate.console.described import show_contrast, show_explained
from consolidate.console.drill import show_drill
from consolidate.console.live import progress, teller
from consolidate.console.lock import show_differences
from consolidate.console.look import show_addresses, show_checks, show_history, show_logs, show_markdown, show_rows
from consolidate.console.shipping import show_shipment
from consolidate.console.streams import (
    confirm_loss,
    confirm_restore,
    confirm_return,
    confirm_schedule,
    load_soon,
    print_json,
    say,
    say_progress,
)

__all__ = [
    "announce",
    "confirm_loss",
    "confirm_restore",
    "confirm_return",
    "confirm_schedule",
    "load_soon",
    "print_json",
    "progress",
    "say",
    "say_progress",
    "show_addresses",
    "show_checks",
    "show_contrast",
    "show_differences",
    "show_drill",
    "show_explained",
    "show_history",
    "show_logs",
    "show_markdown",
    "show_news",
    "show_plan",
    "show_report",
    "show_rows",
    "show_shipment",
    "teller",
]
