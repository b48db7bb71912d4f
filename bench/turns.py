"""The same act again and again under a load, and what the load tells of it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

SETTLE = 1.5  # seconds between two acts


def in_turn(load: Any, side: str, repeat: int, act: Callable[[int], None]) -> dict[str, Any]:
    """Act `repeat` times while visitors ask, and count. `calm_wait_s` is the longest wait before the first act."""
    took = []
    load.another_round()
    assert not load.failures, load.failed()[:3]  # nothing changes yet
    calm, load.longest = load.longest, 0.0
    for turn in range(1, repeat + 1):
        begun = time.monotonic()
        act(turn)
        took.append(time.monotonic() - begun)
        time.sleep(SETTLE)
        print(f"  {side}: {turn}, {len(load.failures)} failed so far", file=sys.stderr)
    load.another_round()
    return {
        "side": side,
        "times": repeat,
        "requests": sum(load.asked.values()),
        "failed": len(load.failures),
        "on_kept": len(load.failed("kept")),
        "on_new": len(load.failed("new")),
        "longest_wait_s": round(load.longest, 2),
        "calm_wait_s": round(calm, 2),
        "command_s": round(statistics.median(took), 2),
    }


__all__ = ["in_turn"]
