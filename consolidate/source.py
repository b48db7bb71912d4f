"""Where a stack is, and the way from its files to resolved servers."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.errors import Problem, StackInvalid, UsageError
from consolidate.remembered import Remembered, recall

if TYPE_CHECKING:
    from consolidate.desired import Desired
    from consolidate.engine import Engine
    from consolidate.kinds import Catalogue
    from consolidate.loader import Document
    from consolidate.observed import Observed
    from consolidate.resolved import Resolved

STACK_FILE, ENV_FILE = "stack.yml", ".env"
LOCK = "lock"  # no environment has this name: stack.lock.yml is the lock of them all


class Source(Struct, frozen=True):
    """Where a stack is: its file, its environment, and further folders of templates."""

    file: Path
    environment: str | None = None
    templates: tuple[Path, ...] = ()

    @property
    def overlay(self) -> Path | None:
        if self.environment is None:
            return None
        return self.file.with_name(f"{self.file.stem}.{self.environment}{self.file.suffix}")

    @property
    def lock(self) -> Path:
        """The file that says what servers are made of: one for all environments, so that what was tested in one runs in
        the others."""
        return self.file.with_name(f"{self.file.stem}.{LOCK}{self.file.suffix}")

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other source, seen from the current folder."""
        return (str(self.file), self.environment or "", *map(str, self.templates))


def in_environment(source: Source, environment: str) -> Source:
    """The same stack in an environment; one without an overlay is the stack's file alone.

    Raises UsageError for what can't be a name, or looks like another overlay's misspelt.
    """
    from consolidate.errors import did_you_mean

    found = replace(source, environment=environment)
    _check_environment(environment)
    if found.overlay is not None and os.path.isfile(found.overlay):  # noqa: PTH113
        return found
    stem, suffix = source.file.stem, source.file.suffix
    names = environments(source)
    if near := did_you_mean(environment, names):
        raise UsageError(f"there is no {stem}.{environment}{suffix} beside {source.file}", hint=near)
    return replace(source, environment=None)


def environments(source: Source) -> list[str]:
    """The names of all overlays beside the stack file."""
    stem, suffix = source.file.stem, source.file.suffix
    found = (p.name[len(stem) + 1 : -len(suffix)] for p in source.file.parent.glob(f"{stem}.*{suffix}"))
    return sorted(n for n in found if n != LOCK and naming.NAME.fullmatch(n))


def _check_environment(name: str) -> None:
    """Raises UsageError for what can't be an environment's name."""
    if name == LOCK:
        hint = "`consolidate lock` writes that file, and every environment keeps to it"
        raise UsageError(f"'{name}' can't be an environment's name: its overlay would be the stack's lock", hint=hint)
    if not naming.NAME.fullmatch(name):
        hint = "letters a-z, digits and dashes, beginning with a letter, at most 32"
        raise UsageError(f"'{name}' can't be an environment's name", hint=hint)


def find_file(given: Path | None, start: Path) -> Path:
    """The stack file: the one given, a folder's stack.yml, or the nearest stack.yml at `start` or above.

    Raises UsageError.
    """
    if given is not None:
        return given / STACK_FILE if os.path.isdir(given) else given  # noqa: PTH112 — false where it may not be entered
    for folder in (start, *start.parents):
        if os.path.isfile(folder / STACK_FILE):  # noqa: PTH113
            return folder / STACK_FILE
    raise UsageError(
        "there is no stack.yml here or above",
        hint="name one with `-f FILE`, or make one with `consolidate init`",
    )


def load_document(source: Source, *, as_written: bool = False) -> Document:
    """The stack's file with its overlay; `as_written`: without its variables filled in. Raises StackInvalid, UsageError."""
    from consolidate.loader import load  # a remembered stack needs no YAML

    if source.environment is not None:
        _check_environment(source.environment)
    overlay = source.overlay
    if overlay is not None and not os.path.isfile(overlay):  # noqa: PTH113
        raise UsageError(
            f"there is no {overlay.name} beside {source.file}", hint="an environment is a file of that name"
        )
    if as_written:
        return load(source.file, overlay)
    from consolidate.variables import Variables

    env_file = source.file.with_name(ENV_FILE)
    return load(source.file, overlay, variables=Variables(os.environ, env_file, str(env_file)))


class Asked(Struct, frozen=True):
    """A stack's file, read after `since`, or what is remembered of it; and what the engine will have said of the stack."""

    since: float
    remembered: Remembered | None
    document: Document | None
    answer: Future[Observed]

    def read(self) -> Document:
        """The file of a stack that isn't remembered."""
        assert self.document is not None, "a remembered stack's file has not been read"
        return self.document


def ask(source: Source, engine: Engine, *, afresh: bool = False) -> Asked:
    """Ask the engine what is there; it answers while we think, and while what we think with is imported.

    `afresh`: whatever is remembered. Raises StackInvalid for a file that is no YAML of ours.
    """
    since = time.time()
    remembered = None if afresh else recall(source.key)
    document = None if remembered else load_document(source)
    name = remembered.desired.stack if remembered else name_in(source, document) if document else None
    with_one = ThreadPoolExecutor(1, thread_name_prefix="observe")
    answer = with_one.submit(engine.observe, name or "")
    with_one.shutdown(wait=False)
    return Asked(since, remembered, document, answer)


def catalogue(source: Source, document: Document) -> Catalogue:
    """The kinds: folders of the command line, of the stack, and ours."""
    from consolidate.kinds import Catalogue, data_folder

    given = document.data.get("templates") or []
    own = [source.file.parent / t for t in given if isinstance(t, str)] if isinstance(given, list) else []
    return Catalogue([*source.templates, *own, data_folder("templates")])


def load_stack(source: Source) -> Resolved:
    """YAML to servers.

    Raises StackInvalid with every problem.
    """
    return resolve_document(source, load_document(source))


def known_stack(source: Source) -> Resolved:
    """The same, or what is remembered of it, which knows no places in the file: for who only looks. Raises StackInvalid."""
    remembered = recall(source.key)
    return remembered.desired.resolved if remembered else load_stack(source)


def resolve_document(source: Source, document: Document) -> Resolved:
    from consolidate.resolve import resolve

    return resolve(document, catalogue(source, document), source.file.parent, source.environment)


def described(source: Source) -> Desired:
    """What should be, with stand-ins for the secrets: no engine is asked. Raises StackInvalid."""
    from datetime import UTC, datetime

    from consolidate import vault
    from consolidate.desire import desire
    from consolidate.secret import Secret

    resolved, now = load_stack(source), datetime.now(UTC)
    return desire(resolved, {a: vault.record(a, Secret(""), now) for a in vault.needed(resolved)})


def with_lock(source: Source, desired: Desired, *, strict: bool = True) -> tuple[Desired, bool]:
    """The stack with the images of its lock, if it has one, and whether that fits it.

    Raises StackInvalid where the lock is damaged or does not fit. Unless `strict` a damaged one is none, and servers that
    one doesn't fit are without.
    """
    from consolidate import lock_file, pinned  # a remembered stack has no need of them

    try:
        lock = lock_file.read(source.lock)
    except StackInvalid:
        if strict:
            raise
        return desired, False  # what is remembered would be taken for one that fits
    if lock is None:
        return desired, True
    if strict:
        pinned.check_fits(desired, lock)
    return pinned.pinned(desired, lock), not pinned.unlocked(desired, lock)


def inputs(source: Source, resolved: Resolved) -> set[Path]:
    """All that the stack was made of: its files, its lock, the folders of kinds, and what it copies and builds."""
    assert resolved.places is not None, "a remembered stack has been made before"
    document = resolved.places.document
    copied = [e.copy_ for s in resolved.servers.values() for e in s.source.recipe.files if e.copy_ is not None]
    built = [s.build for s in resolved.servers.values() if s.build is not None]
    below = {resolved.folder / given for given in (*copied, *built)}
    return {*document.files, *catalogue(source, document).folders, *below, source.lock}


def name_in(source: Source, document: Document) -> str | None:
    """The stack's name on the engine, None where the file gives no good one."""
    name = document.data.get("stack") if isinstance(document.data, dict) else None
    if not isinstance(name, str) or not naming.NAME.fullmatch(name):
        return None
    return f"{name}-{source.environment}" if source.environment else name


def stack_name(source: Source) -> str:
    """The stack's name on the engine, for verbs that need no more of its file: a variable elsewhere may be unset.

    Raises StackInvalid.
    """
    document = load_document(source, as_written=True)
    if "$" in str(document.data.get("stack")):
        document = load_document(source)
    name = name_in(source, document)
    if name is None:
        hint = "letters a-z, digits and dashes, beginning with a letter"
        raise StackInvalid([Problem("the stack needs a name", document.place(("stack",)), "stack", hint)])
    return name
