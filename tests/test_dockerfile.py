"""Dockerfiles are read by their stages."""

from __future__ import annotations

import pytest

from consolidate.dockerfile import bases, last_base, on

SEVERAL = """\
FROM golang:1 AS build
RUN echo one \\
FROM nowhere
FROM build AS more
# a comment \\
FROM debian:bookworm AS base
FROM base
COPY --from=build /x /x
"""


def test_a_build_starts_from_what_is_no_stage_of_its_own() -> None:
    """In the order of the stages; a line that goes on from another begins none, and a comment goes on nowhere."""
    assert bases(SEVERAL) == ["golang:1", "debian:bookworm"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SEVERAL, "debian:bookworm"),
        ("FROM debian\n", "debian"),
        ("from --platform=linux/amd64 debian as last\n", "debian"),
        ("FROM debian AS a\nFROM a AS b\nFROM b\n", "debian"),
        ("FROM debian AS a\nFROM scratch\n", None),
        ("ARG V=1\nFROM debian:$V\n", None),
        ("FROM debian AS debian\n", None),
        ("# nothing\n", None),
    ],
)
def test_the_last_stage_leads_to_what_the_image_is_built_on(text: str, found: str | None) -> None:
    stage = last_base(text)
    assert (stage and stage.start) == found


def test_a_stage_gets_another_base_and_nothing_else_changes() -> None:
    stage = last_base(SEVERAL)
    assert stage
    changed = on(SEVERAL, stage, "mine:1", "ARG A=b")
    expected = SEVERAL.replace("FROM debian:bookworm AS base", "FROM mine:1 AS base\nARG A=b")
    assert changed == expected
