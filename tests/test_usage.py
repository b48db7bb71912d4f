"""What somebody reads who has mistyped a command line: it names the command, as one types it, and the option that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from consolidate.cli.app import run


@pytest.mark.parametrize(
    "words",
    [
        "backup stack.yml",
        "backup list acme.yaml",
        "restore latest stack.yml",
        "diff dev prod ./stack.yml",
        "secret stack.yml",
    ],
)
def test_a_stack_file_where_a_verb_has_no_place_for_it_goes_to_its_option(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 64
    assert "\n  the stack file is given with `-f` here; `consolidate " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("up one.yml two.yml", "up"),
        ("kinds stack.yml", "kinds"),
        ("restore latest stack", "restore"),
        ("backup list --nope", "backup list"),
        ("backup -s", "backup"),
        ("render --explain", "render"),
        ("stack.yml", ""),
    ],
)
def test_whatever_else_is_mistyped_the_help_of_that_command_is_named(
    words: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no option that it doesn't have, or that wasn't meant."""
    assert run(words.split()) == 64
    said = capsys.readouterr().err
    assert f"\n  `consolidate {command}{' ' * bool(command)}--help` says how it is used" in said and "-f" not in said


@pytest.mark.parametrize("words", ["up", "restore latest", "backup list", "render"])
def test_where_there_is_no_stack_file_the_option_is_named_that_every_verb_has(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words.split()) == 64
    said = capsys.readouterr().err
    assert "there is no stack.yml here or above" in said and "name one with `-f FILE`" in said
