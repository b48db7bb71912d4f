"""What somebody reads who has interrupted a command: it names the verb that goes on, and none where none does."""

from __future__ import annotations

import pytest

from consolidate.cli.app import interrupted


@pytest.mark.parametrize("verb", ["up", "down", "restart", "update", "ship"])
def test_the_verb_that_goes_on_is_named(verb: str) -> None:
    again = "ship" if verb == "ship" else "up"
    assert interrupted([verb, "-s", "ship"]) == f"interrupted; the next `{again}` goes on from here"


@pytest.mark.parametrize(
    "words", [["backup"], ["rollback", "up"], ["logs", "ship"], ["restore", "latest", "--drill"], []]
)
def test_no_up_is_promised_to_go_on_with_what_is_none_of_its_work(words: list[str]) -> None:
    assert interrupted(words) == "interrupted"


def test_who_interrupts_a_restore_is_told_that_data_may_not_be_whole() -> None:
    assert "the next command says how to go on" in interrupted(["restore", "latest"])
