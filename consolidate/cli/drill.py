"""`consolidate restore --drill`: a backup is tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from consolidate.backup.access import Given
    from consolidate.docker_engine import DockerEngine
    from consolidate.source import Source


def drilled(
    name: str,
    source: Source,
    servers: Sequence[str],
    engine: DockerEngine,
    to: Path | None,
    given: Given,
    progress: str,
    format_: Literal["table", "json"],
    lock_timeout: float,
) -> int:
    """Drill the backup `name`, and show what was found.

    Raises UsageError where it is to go into another stack as well, and OperationFailed with what has not come back as it was:
    that is told on standard error as well, which is what a scheduler sends on.
    """
    from consolidate import console
    from consolidate.backup import proofs
    from consolidate.backup.drill import Drill
    from consolidate.cli.change import runner
    from consolidate.errors import OperationFailed, UsageError
    from consolidate.plan import Plan

    if to is not None:
        raise UsageError("--drill brings nothing into another stack", hint="leave out --to, or --drill")
    with console.progress(progress, Plan("", ())) as report:
        found = Drill(source, runner(engine, report, console.teller(progress))).run(name, servers, given, lock_timeout)
    console.show_drill(found, format_)
    if not found.proved:
        hint = "`consolidate backup check` says whether the repository is damaged; another backup can be made and drilled at once"
        raise OperationFailed(proofs.failure(found), hint=hint, log=proofs.failures(found))
    return 0
