"""The cases of tests/bad/*.txt: a bad stack, and what is said of it.

    === a title
    $ -e prod                       further words of the command line
    @ site/passwd -> /etc/passwd    a symbolic link
    stack: t …                      stack.yml
    +++ kinds/mine/kind.yml         another file
    --- 3:20 servers.www.domians    a problem's place (of stack.yml unless it says FILE:3:20) and YAML path
    unknown key 'domians'           a part of what it says
    did you mean 'domains'?         a part of what to do

Text before the first case is the stack.yml of those that have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BAD = Path(__file__).parent / "bad"
KINDS = BAD / "kinds"  # a kind with a setting of each type


@dataclass(frozen=True)
class Said:
    place: str
    path: str
    what: str
    hint: str


@dataclass
class Case:
    name: str
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write the files below `folder`; the stack file."""
        for name, target in self.links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return folder / "stack.yml"


def _case(table: str, text: str, default: str) -> Case:
    title, _, body = text.partition("\n")
    case = Case(f"{table}: {title}")
    body, *problems = re.split(r"^--- ", body, flags=re.MULTILINE)
    for problem in problems:
        where, what, hint, *more = problem.splitlines()
        assert not more, f"{case.name}: three lines for a problem"
        place, _, path = where.partition(" ")
        case.said.append(Said(place if place.count(":") == 2 else f"stack.yml:{place}", path, what, hint))
    lines = body.splitlines(keepends=True)
    while lines and lines[0][0] in "$@":
        sign, rest = lines[0][0], lines.pop(0)[2:].strip()
        if sign == "$":
            case.words += rest.split()
        else:
            name, _, target = rest.partition(" -> ")
            case.links[name] = target
    stack, *others = re.split(r"^\+\+\+ (.*)\n", "".join(lines), flags=re.MULTILINE)
    case.files = {"stack.yml": stack or default} | dict(zip(others[::2], others[1::2], strict=True))
    return case


def cases() -> Iterator[Case]:
    for table in sorted(BAD.glob("*.txt")):
        default, *texts = re.split(r"^=== ", table.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for text in texts:
            yield _case(table.stem, text, default)
