"""A Dockerfile's stages: what each starts from, and the same file on another base. Pure functions of text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

FROM = re.compile(r"(?i)^(\s*FROM\s+(?:--platform=\S+\s+)?)(\S+)(?:\s+AS\s+(\S+))?\s*$")
NO_IMAGE = "scratch"


class Stage(Struct, frozen=True):
    """A stage: the line in which it begins, what it starts from, and its name, empty where it has none."""

    line: int
    start: str
    name: str


def stages(text: str) -> list[Stage]:
    """The stages, in their order. A FROM in a line that goes on from another is none."""
    found, goes_on = [], False
    for number, line in enumerate(text.splitlines()):
        if not goes_on and (match := FROM.match(line)):
            found.append(Stage(number, match[2], match[3] or ""))
        comment = line.lstrip().startswith("#")
        goes_on = line.rstrip().endswith("\\") if not comment else goes_on
    return found


def bases(text: str) -> list[str]:
    """What a build starts from, in the order of its stages; not its own stages, and no name with a variable in it."""
    return [s.start for s in _outer(stages(text))]


def last_base(text: str) -> Stage | None:
    """The stage that starts from what the image in the end is built on; None where that is no image, or a variable's."""
    known = stages(text)
    if not known:
        return None
    stage = known[-1]
    by_name = {s.name.lower(): s for s in known if s.name}
    seen = set()
    while (before := by_name.get(stage.start.lower())) and before.line not in seen:
        seen.add(before.line)
        stage = before
    return stage if stage in list(_outer(known)) else None


def _outer(known: list[Stage]) -> Iterator[Stage]:
    names = {s.name.lower() for s in known if s.name} | {NO_IMAGE}
    return (s for s in known if s.start.lower() not in names and "$" not in s.start)


def on(text: str, stage: Stage, base: str, *then: str) -> str:
    """The same file with a stage on another base, and further lines right after that."""
    lines = text.splitlines()
    match = FROM.match(lines[stage.line])
    assert match, "it was found there"
    lines[stage.line] = f"{match[1]}{base}" + (f" AS {match[3]}" if match[3] else "")
    return "\n".join([*lines[: stage.line + 1], *then, *lines[stage.line + 1 :]]) + "\n"
