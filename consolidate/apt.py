"""Debian packages on the machine that this program runs on: install what is missing, or say what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consolidate.errors import OperationFailed

Progress = Callable[[str], None]

GET = (
    "apt-get",
    "-qq",
    "--yes",
    "-oDPkg::Lock::Timeout=300",  # another apt may be at work, e.g. unattended-upgrades at boot
    "-oDpkg::Use-Pty=0",
)


def command(packages: Sequence[str]) -> str:
    """What a person types to install `packages`."""
    sudo = "" if is_root() else "sudo "
    return f"{sudo}apt-get install --yes {' '.join(packages)}"


def is_root() -> bool:
    """On systems without user ids nobody is root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def obstacle() -> str:
    """Why packages can't be installed here, or nothing."""
    if shutil.which("apt-get") is None:
        return "this machine has no apt-get (it is neither Debian nor Ubuntu)"
    return "" if is_root() else "only root can install packages"


def install(packages: Sequence[str], progress: Progress) -> None:
    """Install `packages`; the package lists are fetched only when the first attempt fails without them."""
    why_not = obstacle()
    if why_not:
        raise OperationFailed(f"Can't install {', '.join(packages)}: {why_not}.", hint=f"Type: {command(packages)}")
    progress(f"Installing {', '.join(packages)}")
    get = (*GET, "--no-install-recommends", "install", *packages)
    if run(get, progress).status == 0:
        return
    run((*GET, "update"), progress)
    result = run(get, progress)
    if result.status != 0:
        raise OperationFailed(
            f"apt-get could not install {', '.join(packages)}.",
            hint=f"Type: apt-get update && {command(packages)}",
            log=result.log,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended, and the last lines that it said."""

    status: int
    log: tuple[str, ...]


def run(argv: Sequence[str], progress: Progress) -> Result:
    """Run a program without a terminal, each line of its output passed to `progress`."""
    log: deque[str] = deque(maxlen=20)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line.rstrip())
            progress(line.rstrip())
    return Result(process.returncode, tuple(log))
