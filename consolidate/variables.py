"""`${VAR}` in text: Compose's syntax, and where the values of variables come from. Knows no YAML.

    $VAR ${VAR}                     its value; unset is an error, where Compose warns and takes nothing
    ${VAR:-word} ${VAR-word}        the word where VAR is unset or empty; where it is unset
    ${VAR:?word} ${VAR?word}        an error with the word in those cases
    ${VAR:+word} ${VAR+word}        the word where VAR is set and not empty; where it is set; else nothing
    $$                              a dollar

Words may have variables in them. After https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from consolidate.env_file import Line, read
from consolidate.errors import Place, did_you_mean

DEEPEST = 20  # words in words
LONGEST = 10  # lines of a .env file that one value needs at a time; each may have words in words
LARGEST = 4 * 2**20  # characters of all values that one stack is filled in with
ENVIRONMENT, ENV_FILE, WORD, UNSET = "environment", "file", "word", "unset"
DOLLAR = "write $$ for a dollar"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BEGIN = re.compile(rf"\$(?:(\$)|({NAME.pattern})|\{{({NAME.pattern})(?:(:?[-?+])|(?=\}})))", re.ASCII)


class Substituted(str):
    """Text with a variable's value in it. Where a model wants a number or a boolean it may be one: nobody can take the
    quotes off it."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Unfilled(ValueError):
    """What can't be filled in, and what to do; `place` where that is in the .env file, `name` of what is missing."""

    def __init__(self, what: str, hint: str, place: Place | None = None, name: str = "") -> None:
        super().__init__(what)
        self.hint, self.place, self.name = hint, place, name


class Use(Struct, frozen=True):
    """A variable in a value, and what gave its text: the environment, a line of the .env file, the word beside it,
    or nothing. `text` is what it put there; nothing where it only decided about its word."""

    name: str
    origin: Literal["environment", "file", "word", "unset"]
    place: Place | None = None
    text: str = ""


class Reference(Struct, frozen=True):
    name: str
    operator: str = ""
    word: tuple[str | Reference, ...] = ()


Template: TypeAlias = Sequence[str | Reference]
Find: TypeAlias = Callable[[str], tuple[str, Place | None] | None]


def parse(text: str, depth: int = 0) -> tuple[str | Reference, ...]:
    """A text's parts. Raises Unfilled for a `$` that is no variable, whatever the variables are."""
    parts: list[str | Reference] = []
    at = 0
    if depth > DEEPEST:
        raise Unfilled(f"variables are nested deeper than {DEEPEST} levels", "make it simpler")
    while (start := text.find("$", at)) >= 0:
        if start > at:
            parts.append(text[at:start])
        match = _BEGIN.match(text, start)
        if match is None:
            if text.startswith("${", start):
                raise Unfilled(
                    f"`{text[start : start + 20]}` is no variable", f"write ${{NAME}} or ${{NAME:-default}}; {DOLLAR}"
                )
            raise Unfilled("a `$` begins a variable, and here is none", DOLLAR)
        dollar, plain, braced, operator = match.groups()
        at = match.end()
        if dollar:
            parts.append("$")
        elif plain:
            parts.append(Reference(plain))
        elif not operator:
            parts.append(Reference(braced))
            at += 1
        else:
            end = _end(text, at)
            parts.append(Reference(braced, operator, parse(text[at:end], depth + 1)))
            at = end + 1
    if at < len(text):
        parts.append(text[at:])
    return tuple(parts)


def _end(text: str, at: int) -> int:
    """Where the brace closes that is open at `at`; braces in between come in pairs."""
    opened = 1
    for brace in re.compile(r"[{}]").finditer(text, at):
        opened += 1 if brace[0] == "{" else -1
        if not opened:
            return brace.start()
    raise Unfilled("a `${` isn't closed", f"write }} after its default; {DOLLAR}")


def fill(template: Template, find: Find, uses: list[Use]) -> str:
    """The text of a template; `uses` gets a note of each variable in it. Raises Unfilled."""
    return "".join([part if isinstance(part, str) else _value(part, find, uses) for part in template])


def _value(part: Reference, find: Find, uses: list[Use]) -> str:
    found = find(part.name)
    holds = found is not None and bool(found[0] or not part.operator.startswith(":"))
    kind = part.operator[-1:]
    if kind == "+":
        uses.append(_use(part.name, found))
        return fill(part.word, find, uses) if holds else ""
    if found is not None and holds:
        uses.append(_use(part.name, found, found[0]))
        return found[0]
    if kind == "-":
        inside: list[Use] = []
        text = fill(part.word, find, inside)
        uses += [Use(part.name, "word", text=text), *inside]
        return text
    what = f"the variable {part.name} is {'not set' if found is None else 'empty'}"
    said = " ".join(fill(part.word, find, []).split()) if kind else ""
    hint = "set it in the environment or in .env" + ("" if kind else f", or give a default: ${{{part.name}:-…}}")
    raise Unfilled(f"{what}: {said}" if said else what, hint, name=part.name)


def _use(name: str, found: tuple[str, Place | None] | None, text: str = "") -> Use:
    if found is None:
        return Use(name, "unset")
    return Use(name, "environment" if found[1] is None else "file", found[1], text)


class Variables:
    """The variables that a stack may use: those of an environment and, where it lacks one, of a .env file.

    Only what is asked for is looked at; `asked` has the names of it.
    """

    def __init__(self, environment: Mapping[str, str], file: Path, shown_as: str) -> None:
        self.file = file
        self.asked: set[str] = set()
        self._environment, self._shown_as = environment, shown_as
        self._lines: list[Line] | None = None
        self._texts: dict[int, str] = {}
        self._being_filled = 0  # lines
        self._left = LARGEST

    def find(self, name: str) -> tuple[str, Place | None] | None:
        """A variable's text, and its place in the .env file if that is where it stands.

        Raises Unfilled, and StackInvalid for a .env file that is none.
        """
        return self._find(name, None)

    def near(self, name: str) -> str:
        """A hint with a variable of the .env file that may have been meant."""
        return did_you_mean(name, {line.name for line in self._lines or ()} - {name})

    def _find(self, name: str, before: int | None) -> tuple[str, Place | None] | None:
        self.asked.add(name)
        found: tuple[str, Place | None] | None = None
        if name in self._environment:
            found = self._environment[name], None
        else:
            if self._lines is None:
                self._lines = read(self.file, self._shown_as)
            for index in range(len(self._lines) if before is None else before)[::-1]:
                if self._lines[index].name == name:  # the last one counts
                    found = self._text(index), self._lines[index].place
                    break
        if found is not None:
            self._left -= len(found[0])
            if self._left < 0:
                raise Unfilled(f"variables give more than {LARGEST >> 20} MiB of text", "is this the right value?")
        return found

    def _text(self, index: int) -> str:
        """What a line of the .env file gives, variables of the lines above it filled in."""
        assert self._lines is not None
        line = self._lines[index]
        if line.literal:
            return line.text
        if index not in self._texts:
            self._being_filled += 1
            try:
                if self._being_filled > LONGEST:
                    what = f"more than {LONGEST} lines use one another, each the one above it"
                    raise Unfilled(what, "write the value itself into one of them")
                self._texts[index] = fill(parse(line.text), lambda name: self._find(name, index), [])
            except Unfilled as error:
                hint = error.hint.replace(DOLLAR, f"{DOLLAR}, or put the value into 'single quotes'")
                raise Unfilled(f"{line.name}: {error}", hint, error.place or line.place, error.name) from None
            finally:
                self._being_filled -= 1
        return self._texts[index]
