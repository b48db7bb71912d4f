"""Lines of logs: what comes first from several servers, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consolidate.errors import EngineUnavailable, OperationFailed
from consolidate.listing import LogLine, _interleaved


def told(server: str, error: Exception | None = None) -> Iterator[LogLine]:
    yield LogLine("2026-11-27T00:00:00Z", server, "here")
    if error:
        raise error


def test_a_container_that_goes_ends_no_other_s_lines() -> None:
    found = list(_interleaved([told("a", OperationFailed("there is no a")), told("b")]))
    assert sorted(line.server for line in found) == ["a", "b"]


def test_an_engine_that_is_lost_is_told_to_whoever_follows() -> None:
    """It would look as if all servers had stopped."""
    with pytest.raises(EngineUnavailable, match="broke off"):
        list(_interleaved([told("a", EngineUnavailable("it broke off"))]))
