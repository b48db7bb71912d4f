"""Secrets that come from elsewhere, content of odd names, and environments: what is wrong is told with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consolidate.__main__ import main
from consolidate.errors import StackInvalid, UsageError
from consolidate.naming import BASE_IMAGE
from consolidate.pipeline import prepare
from consolidate.source import Source, load_stack
from tests.memory_engine import MemoryEngine


def stack(folder: Path, servers: str) -> Source:
    (folder / "stack.yml").write_text(f"stack: t\nservers:\n{servers}")
    return Source(folder / "stack.yml")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("env: NOT_SET_ANYWHERE", "the secret's env 'NOT_SET_ANYWHERE' is not set"),
        (
            "command: [no-such-program]",
            "the secret's command 'no-such-program' can't be read: No such file or directory",
        ),
        ("command: [sh, -c, 'echo why >&2; exit 3']", "ends with status 3: why"),
        ("command: ['true']", "the secret's command 'true' prints nothing"),
        ("file: ./folder", "the secret's file './folder' can't be read: Is a directory"),
        ("file: ./empty", "the secret's file './empty' is empty"),
        ("file: ./latin", "the secret's file './latin' can't be read: it is no UTF-8"),
    ],
)
def test_a_source_that_gives_nothing_is_told_with_its_place(source: str, what: str, tmp_path: Path) -> None:
    """What the file, the variable or the command lacks stands at its line, with a hint; the engine is not touched."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    engine = MemoryEngine()
    engine.images.add(BASE_IMAGE)
    given = stack(tmp_path, f"  app: {{kind: container, image: 'x:1', secrets: {{token: {{{source}}}}}}}\n")
    with pytest.raises(StackInvalid) as refused:
        prepare(given, engine)
    (problem,) = refused.value.problems
    assert what in problem.what
    assert (problem.path, str(problem.place)) == ("servers.app.secrets.token", f"{given.file}:3:57")
    assert "token: {}" in problem.hint
    assert engine.boxes == {}


def test_content_of_any_name_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Old machines have names in Latin-1: the bytes stay as they are, and what shows them doesn't fail."""
    (tmp_path / "site").mkdir()
    (tmp_path / os.fsdecode(b"site/caf\xe9.html")).write_text("one")
    given = stack(tmp_path, "  www: {kind: web, content: ./site}\n")
    assert main(["render", str(given.file)]) == 0
    assert "caf\N{REPLACEMENT CHARACTER}.html" in capsys.readouterr().out
    assert main(["render", str(given.file), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / os.fsdecode(b"out/www/config/content/caf\xe9.html")).read_text() == "one"


def test_a_link_in_a_circle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A symbolic link that leads to itself leads to no content, and to no traceback."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/loop").symlink_to("loop")
    given = stack(tmp_path, "  www: {kind: web, content: ./site}\n")
    assert main(["validate", str(given.file)]) == 65
    assert "stack.yml:3:29: servers.www.content" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "Prod", "A B", "x" * 33, ""])
def test_an_environment_has_a_name_that_an_engine_takes(name: str, tmp_path: Path) -> None:
    """It becomes a part of every name on the engine."""
    with pytest.raises(UsageError):
        load_stack(Source(stack(tmp_path, "  a: {kind: web}\n").file, name))
