"""The one live table that a terminal shows: what else is written stands above it, and a question has the terminal alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_shown: list[Live] = []  # the live table, while there is one; never more


def _begin(table: Any, console: Console) -> None:
    from rich.live import Live

    _shown.append(Live(table, console=console, refresh_per_second=8, transient=True))
    _shown[-1].start()


def _end() -> None:
    while _shown:
        _shown.pop().stop()


@contextlib.contextmanager
def showing(table: Any, console: Console) -> Iterator[None]:
    """Draw `table` again and again, at the bottom of what `console` has written. One that is shown already comes back
    afterwards, unless an error ends it all.
    """
    with still():
        _begin(table, console)
        try:
            yield
        finally:
            _end()


def shared() -> Console | None:
    """The console that writes above the live table; None where there is none."""
    return shown[0].console if (shown := _shown[:]) else None  # other threads ask, while it may end


@contextlib.contextmanager
def still() -> Iterator[None]:
    """Without the live table, so that what is typed stays to be seen; it comes back unless an error ends it all."""
    shown = _shown[:]
    _end()
    yield
    for live in shown:
        _begin(live.get_renderable(), live.console)
