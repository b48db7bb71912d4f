"""The program's entry: exceptions become messages and exit statuses here, and nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]):  # before anything is imported: it's asked for by scripts
        from consolidate import __version__

        print(f"consolidate {__version__}")  # noqa: T201
        return 0
    try:
        from consolidate.cli.app import run

        return run(words)
    except KeyboardInterrupt:  # before there was anything to interrupt
        return 130
    except BrokenPipeError:  # `consolidate logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
