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
) -> int:
    """Drill the backup `name`, and show what was found; 0 where all has come back.

    Raises UsageError where it is to go into another stack as well.
    """
    from consolidate import console
    from consolidate.backup.drill import Drill
    from consolidate.cli.change import runner
    from consolidate.errors import UsageError
    from consolidate.plan import Plan

    if to is not None:
        raise UsageError("--drill brings nothing into another stack", hint="leave out --to, or --drill")
    with console.progress(progress, Plan("", ())) as report:
        found = Drill(source, runner(engine, report, console.teller(progress))).run(name, servers, given)
    console.show_drill(found, format_)
    return 0 if found.proved else 1
