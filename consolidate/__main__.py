"""The program's entry: exceptions become messages and exit statuses here, and nowhere else."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(100_000, 50, 100)  # a short life with many values: collecting them is a tenth of an `up`
    os.environ.setdefault(
        "PYDANTIC_DISABLE_PLUGINS", "1"
    )  # it looks through all that is installed for some; none is ours
    try:
        if words in (["--version"], ["-V"]):  # before anything is imported: it's asked for by scripts
            from consolidate import __version__

            print(f"consolidate {__version__}")  # noqa: T201
            return 0
        from consolidate.cli.app import run

        return run(words)
    except KeyboardInterrupt:  # before there was anything to interrupt
        return 130
    except BrokenPipeError:  # `consolidate logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # above all an output that is full
        of = f"{error.filename}: " if error.filename else ""
        os.write(2, f"consolidate: {of}{error.strerror or error}\n".encode())
        return 1


def entry() -> NoReturn:
    """The program as a process: it ends as soon as all is said.

    Python would first take its values apart, one by one: for 200 servers that is a sixth of an `up`.
    """
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # `consolidate ps | head`
        pass
    except OSError as error:
        os.write(2, f"consolidate: {error.strerror}\n".encode())
        status = status or 1
    os._exit(status)


if __name__ == "__main__":
    entry()
