"""A host whose disk is full: one server fails with a message that says so, the rest goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consolidate import base_image
from consolidate.docker_engine import connect
from tests.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]

BASE = "debian:bookworm-slim"
KIND = """\
summary: A program that waits, for tests.
settings:
  content: {type: path}
command: [sleep, infinity]
files:
  - {copy: "{{ settings.content }}", target: content}
ready: {command: ["true"]}
stop: {signal: SIGKILL}
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SecondEngine]:
    base_image.ensure(connect(), lambda _: None)
    with second_engine(tmp_path, 700 * 2**20) as engine:
        engine.load(BASE)
        yield engine


def test_a_full_disk_fails_one_server_and_spares_the_others(small: SecondEngine, tmp_path: Path) -> None:
    """The server whose files do not fit fails with the engine's words; the other one runs, and the status is 1."""
    kind = tmp_path / "kinds" / "waiter"
    kind.mkdir(parents=True)
    (kind / "kind.yml").write_text(KIND)
    (kind / "Dockerfile.j2").write_text("FROM {{ base }}\n")
    for name, size in (("large", 64 * 2**20), ("little", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(b"x" * size)
    stack = tmp_path / "stack.yml"
    servers = "".join(f"  {n}: {{kind: waiter, content: ./{n}}}\n" for n in ("large", "little"))
    stack.write_text(f"stack: full\ntemplates: [./kinds]\nservers:\n{servers}")
    small.fill(leave=24 * 2**20)
    words = [sys.executable, "-m", "consolidate", "up", str(stack), "-H", small.url, "--progress", "plain"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "no space left on device" in done.stderr
    running = small.docker("ps", "--format", "{{.Names}}").split()
    assert running == ["full-little-1"]
    (small.disk / "filler").unlink()
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(small.docker("ps", "--format", "{{.Names}}").split()) == ["full-large-1", "full-little-1"]
