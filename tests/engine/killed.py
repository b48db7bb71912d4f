"""A command line that is killed with -9 after each of its operations, and run again until it comes to its end.

    python -m tests.engine.killed FILE WORDS…

Each run is the whole program in a process of its own, forked where all is imported already. It has one worker, so that
nothing else happens while an operation is reported as done, and is killed in that moment, by itself: once for each
operation, whichever run it comes up in. FILE gets a line for each kill: the operation, or those that were one act on the
engine (volumes are filled together). The status is that of the last run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import consolidate.execute  # noqa: F401  # an `up` imports it when it knows that there is something to do
from consolidate import __main__, console, docker_engine

if TYPE_CHECKING:
    from consolidate.plan import Plan
    from consolidate.report import Event

MANY = 400  # runs, of which each has done something


def one(words: list[str], file: Path) -> None:
    """The program, up to the first operation that is not in the file yet."""
    seen = set(file.read_text().split())
    shown, act = console.progress, set[str]()

    @contextlib.contextmanager
    def progress(how: str, plan: Plan) -> Iterator[Callable[[Event], None]]:
        with shown(how, plan) as report:

            def last(event: Event) -> None:
                report(event)
                if event.status == "started":
                    act.add(event.operation.id)
                elif event.status == "done":
                    if not act <= seen:
                        with file.open("a") as out:
                            out.write(f"{' '.join(sorted(act))}\n")
                        os.kill(os.getpid(), signal.SIGKILL)
                    act.clear()

            yield last

    console.progress = progress
    docker_engine.SOCKET_CALLS = 1
    sys.argv[1:] = words
    __main__.entry()


def main() -> int:
    file, words = Path(sys.argv[1]), sys.argv[2:]
    file.touch()
    for _ in range(MANY):
        child = os.fork()
        if not child:
            one(words, file)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            return status
    return 1


if __name__ == "__main__":
    sys.exit(main())
