"""Start-up stays fast: what a command line does not use, it does not import. docs/performance.md has the cost of each."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from consolidate import remembered
from consolidate.execute import Executor
from consolidate.naming import BASE_IMAGE
from consolidate.pipeline import prepare
from consolidate.source import Source
from tests.memory_engine import MemoryEngine

ROOT = Path(__file__).resolve().parent.parent
HELLO = ROOT / "stacks/hello/stack.yml"
HEAVY = {
    "bcrypt",
    "cryptography",
    "docker",
    "jinja2",
    "paramiko",
    "pydantic",
    "requests",
    "rich",
    "typer",
    "urllib3",
    "yaml",
}
RUN = """
import sys
{before}
from consolidate.__main__ import main
status = main({words!r})
print(*sys.modules)
sys.exit(status)
"""
# The engine in memory, in the state that a first `up` left it in, stands for the one that is named.
BEFORE = """
import pickle
from tests.memory_engine import MemoryEngine
from consolidate.cli import options
engine = MemoryEngine()
engine.__dict__ |= pickle.loads(open({state!r}, "rb").read())
options.engine = lambda host, context: engine
"""


def modules(*words: str, before: str = "") -> set[str]:
    """The modules that a command line leaves in memory."""
    code = RUN.format(words=list(words), before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def heavy(found: set[str]) -> set[str]:
    return {m.partition(".")[0] for m in found} & HEAVY


def test_version_imports_nothing() -> None:
    """Scripts ask for it: no library, and nothing of ours but the version."""
    found = modules("--version")
    assert heavy(found) == set()
    assert {m for m in found if m.startswith("consolidate")} == {"consolidate", "consolidate.__main__"}


def test_help_imports_what_prints_it() -> None:
    """Help needs neither an engine nor a stack."""
    assert heavy(modules("--help")) == {"typer", "rich"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine in memory on which stacks/hello is up, in a file; what was worked out of the stack is remembered."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(remembered, "TICK", -3600.0)
    engine, state = MemoryEngine(), tmp_path / "state"
    engine.images.add(BASE_IMAGE)
    prepared = prepare(Source(HELLO), engine)
    assert Executor(engine, prepared.secrets, lambda event: None, lambda say: None).run(prepared.plan).ok
    prepare(Source(HELLO), engine)
    parts = ("boxes", "networks", "volumes", "images", "ticks")
    state.write_bytes(pickle.dumps({p: getattr(engine, p) for p in parts}))
    return state


@pytest.mark.parametrize(("verb", "needs"), [("up", set()), ("ps", {"rich", "listing"})])
def test_who_changes_nothing_imports_what_compares(state: Path, verb: str, needs: set[str]) -> None:
    """`up` with nothing to change, and `ps`: they read no YAML, render and execute nothing, make no secret and no image."""
    found = modules(verb, str(HELLO), before=BEFORE.format(state=str(state)))
    assert heavy(found) == {"typer"} | needs & HEAVY
    unused = {"authority", "base_image", "custody", "desire", "docker_engine", "doctor", "execute", "kinds", "listing"}
    unused |= {"loader", "render", "resolve", "stack", "starter", "values"}
    assert {m.split(".")[1] for m in found if m.startswith("consolidate.")} & unused == needs - HEAVY


def test_the_engine_comes_with_nothing_that_thinks() -> None:
    """What talks to it is docker-py and its own libraries: no YAML, no templates, no models, no tables."""
    code = "import sys, consolidate.docker_engine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert heavy(set(done.stdout.split())) == {"docker", "requests", "urllib3"}
