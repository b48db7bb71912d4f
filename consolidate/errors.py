"""What can go wrong, in a tree whose leaves carry the exit status.

    ConsolidateError
      UsageError            64  the command line
      StackInvalid          65  the stack or a kind's manifest: a list of `Problem`
      EngineUnavailable     69  no engine answers, or it can't do what is needed
      NoScheduler           69  nothing on this machine runs commands at set times
      Locked                75  somebody else works on this stack
      OperationFailed        1  an operation failed on the engine

Exit statuses 64 to 78 are those of sysexits.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct


class Place(Struct, frozen=True, order=True):
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(Struct, frozen=True):
    """One thing that is wrong: what, where, and what to do about it.

    `path` is the YAML path, e.g. `servers.blog.title`; empty where there is none.
    """

    what: str
    place: Place | None = None
    path: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        path = f"{self.path}: " if self.path else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{where}{path}{self.what}{hint}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the known word that is nearest, or nothing."""
    from difflib import get_close_matches

    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean '{by_lower[near[0]]}'?" if near else ""


class ConsolidateError(Exception):
    """The root: a message for a person, a hint, and an exit status."""

    status = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UsageError(ConsolidateError):
    """The command line asks for what can't be."""

    status = 64


class StackInvalid(ConsolidateError):
    """The stack file, an overlay or a manifest is wrong; `problems` in the order of their places."""

    status = 65

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.place is None, p.place or Place("", 0, 0))))
        super().__init__("\n".join(str(p) for p in self.problems))


class EngineUnavailable(ConsolidateError):
    """No engine answers, or this one can't do what is needed."""

    status = 69

    def in_the_middle(self) -> EngineUnavailable:
        """The same, of an engine that has answered before."""
        before = "; it did before" if self.what.startswith("no engine answers") else ""
        return EngineUnavailable(f"{self.what}{before}", hint=f"{self.hint}\n  then `up` goes on from here")


class NoScheduler(ConsolidateError):
    """Nothing on this machine runs commands at set times."""

    status = 69


class Locked(ConsolidateError):
    """Another `consolidate` works on the same stack."""

    status = 75

    @classmethod
    def by(cls, who: str, since: str) -> Locked:
        """`since` in UTC."""
        return cls(f"{who} works on this stack since {since} UTC", hint="wait until it has ended, and try again")


class OperationFailed(ConsolidateError):
    """The engine, or a program in a container, refused an operation.

    `log` has the last lines of what the program said, newest last.
    """

    status = 1

    def __init__(self, what: str, *, hint: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(what, hint=hint)
        self.log = tuple(log)
