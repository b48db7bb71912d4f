"""Make a Docker Engine answer on this machine: install Debian's package where it is missing, and start it."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from consolidate import apt
from consolidate.apt import Progress
from consolidate.doctor.facts import lines
from consolidate.errors import EngineUnavailable, OperationFailed

PACKAGES = ("docker.io", "iptables", "ca-certificates")
PATIENCE = 60.0  # seconds that a daemon may take until it answers; a cold disk with many containers is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """Where this machine's own engine is, and how it is started where there is no systemd."""

    command: tuple[str, ...] = ("dockerd",)
    socket: Path = Path("/var/run/docker.sock")
    pid_files: tuple[tuple[Path, str], ...] = (
        (Path("/var/run/docker.pid"), "dockerd"),
        (Path("/var/run/docker/containerd/containerd.pid"), "containerd"),
    )
    log: Path = Path("/var/log/dockerd.log")
    systemd: Path = Path("/run/systemd/system")  # there only while systemd really runs


def start(daemon: Daemon, progress: Progress) -> None:
    """Install the engine where it is missing and start it; return when it answers.

    Raises EngineUnavailable with what to type where this can't be done.
    """
    if answers(daemon.socket):
        return
    if daemon.socket.exists() and not os.access(daemon.socket, os.W_OK):
        raise EngineUnavailable(
            f"The engine's socket {daemon.socket} is not open to you.",
            hint="Type: sudo usermod -aG docker $USER, then log in again. Or run this as root.",
        )
    why_not = obstacle(daemon)
    if why_not:
        raise EngineUnavailable(f"No Docker Engine answers, and {why_not}.", hint=advice(daemon))
    if shutil.which(daemon.command[0]) is None:
        install(progress)
    if answers(daemon.socket):  # the package has started it
        return
    progress("Starting the Docker Engine")
    if daemon.systemd.is_dir():
        start_with_systemd(daemon, progress)
    else:
        start_in_background(daemon)


def install(progress: Progress) -> None:
    try:
        apt.install(PACKAGES, progress)
    except OperationFailed as error:
        raise EngineUnavailable(error.what, hint="\n    ".join((error.hint, *error.log[-5:]))) from error


def obstacle(daemon: Daemon) -> str:
    """Why this program can't start an engine here, or nothing."""
    if sys.platform != "linux":
        return "only on Linux can this program install and start one"
    if not apt.is_root():
        return "only root can install and start one"
    return apt.obstacle() if shutil.which(daemon.command[0]) is None else ""


def advice(daemon: Daemon) -> str:
    """What to type, on this machine."""
    if sys.platform != "linux":
        return "Start Docker Desktop (or Colima, Rancher Desktop …), or name an engine with DOCKER_HOST."
    if shutil.which(daemon.command[0]) is not None:
        return "Type: sudo systemctl start docker" if daemon.systemd.is_dir() else "Type: sudo dockerd &"
    if shutil.which("apt-get") is not None:
        return f"Type: {apt.command(PACKAGES)}"
    return "Install Docker Engine 20.10 or later with this system's package manager and start it."


def start_with_systemd(daemon: Daemon, progress: Progress) -> None:
    result = apt.run(("systemctl", "start", "docker"), progress)
    if result.status != 0 or not wait(daemon.socket, lambda: True):
        raise failure("systemd could not start it.", "journalctl -u docker", result.log)


def start_in_background(daemon: Daemon) -> None:
    """Start the daemon in a session of its own, so that it outlives this program and its terminal."""
    running = remove_stale(daemon.pid_files)
    if running:
        if not wait(daemon.socket, lambda: True):
            raise failure(
                f"dockerd (process {running}) does not answer.", f"tail {daemon.log}, or kill {running} and try again"
            )
        return
    daemon.log.parent.mkdir(parents=True, exist_ok=True)
    with daemon.log.open("ab") as log:
        process = subprocess.Popen(
            daemon.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    if wait(daemon.socket, lambda: process.poll() is None):
        process.returncode = 0  # it is meant to outlive us: no warning about a child that still runs
        return
    if process.poll() is None:
        process.terminate()
        process.wait()
    raise failure("dockerd did not start.", f"tail {daemon.log}", lines(daemon.log)[-3:])


def remove_stale(pid_files: Sequence[tuple[Path, str]]) -> int:
    """Remove the pid files of programs that died: a daemon refuses to start beside one, even when the number now
    belongs to another program. Returns the daemon's process id when it does run (the first file's), else 0."""
    running = 0
    for file, program in reversed(pid_files):
        text = "".join(lines(file)).strip()
        pid = int(text) if text.isdigit() else 0
        running = pid if pid and runs(pid, program) else 0
        if not running:
            file.unlink(missing_ok=True)
    return running


def runs(pid: int, program: str, proc: Path = Path("/proc")) -> bool:
    """Is process `pid` this program, and alive? A zombie has the name but not the life."""
    status = dict(line.split(":\t", 1) for line in lines(proc / str(pid) / "status") if ":\t" in line)
    return status.get("Name") == program and not status.get("State", "Z").startswith(("Z", "X"))


def wait(path: Path, alive: Callable[[], bool]) -> bool:
    """Wait until an engine answers; give up when it has died or its time is over."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lives = alive()  # asked first: when two start at once the loser dies, and the winner answers
        if answers(path):
            return True
        if not lives:
            return False
        time.sleep(0.1)
    return False


def answers(path: Path) -> bool:
    """Does an engine answer on this socket?"""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def failure(what: str, look: str, log: Sequence[str] = ()) -> EngineUnavailable:
    said = "".join(f"\n    {line}" for line in log)
    return EngineUnavailable(f"The Docker Engine is installed, but {what}", hint=f"Look: {look}{said}")
