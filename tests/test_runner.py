"""Whoever changes a stack has its lock, and the image that a lock is made of comes before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consolidate import naming
from consolidate.errors import Locked, OperationFailed
from consolidate.runner import Runner
from tests.memory_engine import MemoryEngine


def runner(engine: MemoryEngine, said: list[str]) -> Runner:
    def make_base(say: Callable[[str], None]) -> None:
        say("making it")
        engine.import_image(None, naming.BASE_IMAGE)  # type: ignore[arg-type]

    return Runner(engine, lambda _: None, make_base, said.append)


def test_a_lock_brings_its_image() -> None:
    """`docker image prune --all` takes it away: `down`, `restart` and `secret set` work all the same, and say so."""
    engine, said = MemoryEngine(), list[str]()
    for words in (["making it"], ["making it"]):
        with runner(engine, said).locked("shop"):
            assert "shop.lock" in engine.boxes
            with pytest.raises(Locked), runner(engine, said).locked("shop"):
                pass
        assert (engine.boxes, said) == ({}, words)


def test_without_the_image_there_is_no_lock() -> None:
    """It can't be had: the reason is told, and nothing is done."""

    def offline(_: Callable[[str], None]) -> None:
        raise OperationFailed("Can't make the base image")

    engine = MemoryEngine()
    with (
        pytest.raises(OperationFailed, match="Can't make"),
        Runner(engine, lambda _: None, offline, print).locked("shop"),
    ):
        pass
    assert engine.boxes == {}
