"""A plan in a file: what was approved, and enough to tell whether it is still what would be done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from consolidate import naming
from consolidate.errors import OperationFailed, UsageError
from consolidate.pipeline import Prepared
from consolidate.source import Source

MAGIC = b'{"consolidate_plan":'
VERSION = 1
AGAIN = "make it again: consolidate plan --out"


class Saved(Struct, frozen=True):
    """The plan and what it was made of. Paths are seen from the file's folder; there is no secret in it."""

    consolidate_plan: int
    file: str
    environment: str | None
    templates: tuple[str, ...]
    servers: tuple[str, ...]
    ids: Mapping[str, str]  # of the secrets that were new
    desired: str
    observed: str
    plan: Mapping[str, Any]
    deep: bool = False  # whether it was looked into each server

    def source(self, folder: Path) -> Source:
        return Source(folder / self.file, self.environment, tuple(folder / t for t in self.templates))

    def check(self, prepared: Prepared) -> None:
        """Raises OperationFailed where `prepared` is not what was saved, with what differs."""
        if prepared.desired.digest != self.desired:
            what = "the stack's files have changed since the plan was made"
        elif _observed(prepared) != self.observed:
            what = "the engine has changed since the plan was made"
        elif _plan(prepared) != self.plan:
            what = "this version of consolidate would do something else than the plan says"
        else:
            return
        before, now = ({c["id"] for c in p["changes"]} for p in (self.plan, _plan(prepared)))
        log = [f"planned, and no longer to be done: {i}" for i in sorted(before - now)]
        log += [f"to be done now, and not planned: {i}" for i in sorted(now - before)]
        raise OperationFailed(f"{what}; nothing was done", hint="make the plan again, and look at it", log=log)


def check_place(file: Path) -> None:
    """Raises UsageError where a plan would take the place of something else, or would not be known as one."""
    if file.suffix in naming.STACK_SUFFIXES:
        raise UsageError(f"{file} would look like a stack file", hint="give the plan another name: --out change.plan")
    if file.exists() and load(file) is None:
        raise UsageError(f"{file} is there already, and no plan", hint="give the plan another name")


def save(file: Path, source: Source, servers: Sequence[str], prepared: Prepared, *, deep: bool) -> None:
    """Write a plan to `file`, whole or not at all.

    Raises UsageError where it can't be written.
    """

    def seen(path: Path) -> str:
        return os.path.relpath(path, file.parent)

    saved = Saved(
        VERSION,
        seen(source.file),
        source.environment,
        tuple(seen(t) for t in source.templates),
        tuple(servers),
        prepared.new_ids,
        prepared.desired.digest,
        _observed(prepared),
        _plan(prepared),
        deep,
    )
    try:
        beside = file.with_name(f"{file.name}.new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=0) + b"\n")
        beside.replace(file)
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}") from None


def load(file: Path | None) -> Saved | None:
    """The plan in `file`; None where it holds none, but perhaps a stack.

    Raises UsageError for a damaged one.
    """
    try:
        if file is None or not file.is_file():
            return None
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                return None
            saved = msgspec.json.decode(MAGIC + opened.read(), type=Saved)
    except OSError:
        return None  # whoever reads a stack from it says what is wrong
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is a damaged plan: {error}", hint=AGAIN) from None
    if saved.consolidate_plan != VERSION:
        raise UsageError(f"{file} is a plan of another version of consolidate", hint=AGAIN)
    return saved


def _observed(prepared: Prepared) -> str:
    return naming.digest(prepared.observed.essence, 16)


def _plan(prepared: Prepared) -> Any:
    return msgspec.to_builtins(prepared.plan.to_json())
