"""Records of generations: a container of its image that never starts tells what it was, and holds its files."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import KeepGeneration
from consolidate.desired import WRITE_PATH
from consolidate.engine import Engine
from consolidate.generations import FAILED, record_label

# What a label may hold of a failure: it is read with every look at the stack.
LONGEST_DETAIL, LONGEST_LINE, MOST_LINES = 1000, 300, 20


def keep_generation(engine: Engine, action: KeepGeneration) -> None:
    generation = action.generation
    labels = {
        naming.STACK: action.stack,
        naming.HELPER: "generation",
        naming.OF: generation.server,
        naming.GENERATION: str(generation.number),
        naming.RECORD: record_label(generation),
    }
    holds = {v: f"{WRITE_PATH}/{v}" for v in action.volumes}
    engine.create_helper(action.name, labels, holds, image=generation.image_id or None, covered=action.covered)


def failed(
    action: KeepGeneration, why: str, log: tuple[str, ...], stamp: Mapping[str, str], now: float
) -> KeepGeneration:
    """The record of a failure, with what is known of it now: `why` and the last lines of its `log`, cut where they are long."""
    lines = tuple(_cut(li, LONGEST_LINE) for li in log[-MOST_LINES:])
    told = {"result": FAILED, "detail": _cut(why, LONGEST_DETAIL), "log": lines, "when": int(now)}
    who = {"by": stamp.get(naming.BY, ""), "run": stamp.get(naming.RUN, "")}
    return replace(action, generation=replace(action.generation, **told, **who))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
