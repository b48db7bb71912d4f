"""A Podman service of the tests' own, in namespaces of its own: what speaks Docker's API and is not Docker.

It needs root, Docker's engine, and Debian's podman with catatonit, netavark and aardvark-dns. All that it has is in one
folder, and is gone when the context ends. `python -m tests.podman` runs pytest on one; podman.txt has what fails there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from consolidate.doctor.podman import CLOSE_HOST, CLOSE_SERVERS, TELL_ADDRESSES
from consolidate.naming import BASE_IMAGE
from tests.second_engine import numbers, run

PATIENCE = 30.0
CGROUPS = Path("/sys/fs/cgroup")
# As on a machine without systemd: neither its cgroups nor its journal.
CONFIG = """\
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
# Containers' processes end with the namespace's first, which reaps them. Locks are in /dev/shm under a name that all share.
INIT = 'mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm; exec catatonit -- "$@"'


@dataclass
class Podman:
    """`url` is what `-H` takes; `network` the file of the network namespace in which it publishes ports."""

    url: str
    network: Path

    def load(self, *images: str) -> None:
        """Copy images of Docker's engine into this one, under the names that they have there.

        Of an archive it takes the first image alone. Names in there are of no registry to it, those of the API docker.io's.
        """
        api = docker.APIClient(base_url=self.url, version="auto", timeout=120)
        for image in images:
            with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
                for event in api.load_image(saving.stdout):
                    assert "error" not in event, event
            assert saving.returncode == 0
            name, _, tag = image.rpartition(":")
            api.tag(f"localhost/{image}", f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}", tag)
            api.remove_image(f"localhost/{image}")
        api.close()

    def inside(self, *words: str) -> list[str]:
        """The words of a program that runs where the service publishes its ports."""
        return ["nsenter", f"--net={self.network}", *words]


@contextlib.contextmanager
def network_of_its_own() -> Iterator[Path]:
    """A network namespace with no way out."""
    name = f"ct-{os.getpid()}-{next(numbers)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield Path("/run/netns", name)
    finally:
        run("ip", "netns", "del", name)


@contextlib.contextmanager
def network_with_a_way_out() -> Iterator[Path]:
    """That of a container on the default network of Docker's engine, for what builds of images fetch."""
    words = ["docker", "run", "--rm", "--detach", "--entrypoint", "sleep", BASE_IMAGE, "infinity"]
    container = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        words = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
        process = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        yield Path("/proc", process, "ns/net")
    finally:
        run("docker", "rm", "--force", container)


@contextlib.contextmanager
def podman(folder: Path, network: Path, *, in_memory: bool = False) -> Iterator[Podman]:
    """A service with its data in `folder`, in a network namespace that is there. Small data is in memory in half the time."""
    socket_, config, root = folder / "podman.sock", folder / "containers.conf", folder / "root"
    root.mkdir()
    if in_memory:
        run("mount", "-t", "tmpfs", "tmpfs", root)
    config.write_text(CONFIG.format(folder=folder))
    words = ["nsenter", f"--net={network}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork"]
    words += ["--kill-child=SIGKILL", "--mount-proc", "bash", "-c", INIT, "init", "podman", f"--root={root}"]
    words += ["--runroot=/run/podman", "--tmpdir=/run/libpod", "system", "service", "--time=0", f"unix://{socket_}"]
    with (folder / "log").open("ab") as log:
        service = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"CONTAINERS_CONF": str(config)}
        )
    try:
        wait(service, socket_, folder / "log")
        yield Podman(f"unix://{socket_}", network)
    finally:
        service.send_signal(signal.SIGKILL)  # unshare's child gets the same, and so all in its namespace
        service.wait()
        time.sleep(0.5)  # the kernel lets go of the mounts
        names = [f"*{container.name}*" for container in (root / "overlay-containers").glob("*/")]
        for name in (
            *names,
            "conmon",
            "",
        ):  # the last two are all services', and stay as long as one has something there
            for group in CGROUPS.glob(f"*/libpod_parent/{name}"):
                with contextlib.suppress(OSError):
                    group.rmdir()
        run("umount", root) if in_memory else shutil.rmtree(root)


def wait(service: subprocess.Popen[bytes], socket_: Path, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and service.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(socket_))
            return
        time.sleep(0.05)
    raise AssertionError(f"Podman does not answer: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def addresses_told() -> Iterator[None]:
    """As the doctor advises. It is the machine's, which has its own back afterwards."""
    setting = Path("/proc/sys", *TELL_ADDRESSES.split()[-1].partition("=")[0].split("."))
    before = setting.read_text()
    run(*TELL_ADDRESSES.split())
    try:
        yield
    finally:
        setting.write_text(before)


def main(*words: str) -> int:
    """Run pytest on a service, with these words; its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="consolidate-podman-") as folder,
        network_with_a_way_out() as network,
        addresses_told(),
        podman(Path(folder), network) as service,
    ):
        service.load(BASE_IMAGE)
        for rule in (*CLOSE_SERVERS, *CLOSE_HOST):  # as the doctor advises
            run(*service.inside(*rule.split()))
        words = ("-m", "pytest", "-m", "engine", "--podman", "--timeout", "900", *words)
        variables = os.environ | {"DOCKER_HOST": service.url, "TESTS_PATIENCE": "4"}
        return subprocess.run(service.inside(sys.executable, *words), env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
