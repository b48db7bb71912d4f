"""Records of generations: a container of its image that never starts tells what it was, and holds its files."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from consolidate import naming
from consolidate.engine import Engine
from consolidate.generations import FAILED, record_label
from consolidate.plan import KeepGeneration
from consolidate.store import WRITE_PATH


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
    """The record of a failure, with what is known of it now."""
    told = {"result": FAILED, "detail": why, "log": log, "when": int(now)}
    who = {"by": stamp.get(naming.BY, ""), "run": stamp.get(naming.RUN, "")}
    return replace(action, generation=replace(action.generation, **told, **who))
