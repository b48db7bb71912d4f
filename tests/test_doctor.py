"""The doctor: what facts mean, how they are read, and an engine that is made to answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate import doctor
from consolidate.doctor import Check, Daemon, Endpoint, Facts, checks, clashes, engine_setup, facts, listeners
from consolidate.doctor.podman import PODMAN
from consolidate.errors import EngineUnavailable
from tests.raw_engine import SOCKET, RawEngine

INFO: dict[str, Any] = {
    "OSType": "linux",
    "Name": "bigbox",
    "KernelVersion": "6.1.0",
    "OperatingSystem": "Debian GNU/Linux 12",
    "Driver": "overlay2",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "NCPU": 8,
    "MemTotal": 16 * 2**30,
    "DockerRootDir": "/var/lib/docker",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Warnings": None,
}
VERSION: dict[str, Any] = {"Version": "20.10.24", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]}
WELL = Facts(
    platform="linux",
    info=INFO,
    version=VERSION,
    local=True,
    disk_free=50 * 2**30,
    memory_available=8 * 2**30,
    registry_error="",
    base="debian:bookworm-slim",
    base_present=True,
)


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def info(**changes: Any) -> Facts:
    return replace(WELL, info={**INFO, **changes})


def silent(_: str) -> None:
    pass


def test_a_good_host_passes() -> None:
    """Nothing is said against a host that has all that is needed."""
    assert {check.status for check in checks(WELL)} == {"ok"}


def test_an_engine_is_called_by_its_name() -> None:
    """Podman's socket gives Podman's own version; what doesn't hold there is said."""
    podman = replace(WELL, version={**VERSION, "Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]})
    (found,) = (check for check in checks(podman) if check.name == "engine")
    assert found.detail.startswith("Podman 4.3.1,")
    assert tuple(check for check in checks(podman) if check.status != "ok") == PODMAN


@pytest.mark.parametrize(
    ("unwell", "name", "status", "words"),
    [
        (info(OSType="windows"), "platform", "fail", "windows containers"),
        (replace(WELL, version={**VERSION, "ApiVersion": "1.40"}), "engine", "fail", "API 1.40"),
        (replace(WELL, version={**VERSION, "ApiVersion": "1.9"}), "engine", "fail", "API 1.9"),
        (info(SecurityOptions=["name=rootless"]), "rootless", "warn", "1024"),
        (info(Warnings=["WARNING: No swap limit support"]), "engine warning", "warn", "No swap limit support"),
        (info(Driver="vfs"), "storage", "warn", "vfs"),
        (info(MemoryLimit=False), "cgroups", "warn", "no limit of memory"),
        (info(PidsLimit=False, CpuCfsQuota=False), "cgroups", "warn", "no limit of cpus, pids"),
        (replace(WELL, memory_available=2**28), "memory", "warn", "0.2 GiB free"),
        (replace(WELL, disk_free=2 * 2**30), "disk", "warn", "2.0 GiB free"),
        (replace(WELL, disk_free=2**29), "disk", "fail", "0.5 GiB free"),
        (replace(WELL, base_present=False), "base image", "warn", "not there yet"),
        (replace(WELL, firewall="ufw"), "firewall", "warn", "ufw does not filter published ports"),
        (
            replace(WELL, wanted=(Endpoint("127.0.0.1", 8080),), listening=(Endpoint("127.0.0.1", 8080, "apache2"),)),
            "ports",
            "fail",
            "127.0.0.1:8080 is taken by 127.0.0.1:8080 (apache2)",
        ),
        (
            replace(WELL, listening=(Endpoint("127.0.0.1", 631, "cupsd"), Endpoint("::", 22, "sshd"))),
            "host services",
            "warn",
            "the host's ports 22 (sshd)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_is_wrong_is_named(unwell: Facts, name: str, status: str, words: str) -> None:
    """One thing that is not well changes one verdict, which names it and says what to do."""
    found = checks(unwell)
    check = named(found, name)
    assert (check.status, words in check.detail) == (status, True), check
    assert check.hint or name == "engine warning"
    assert [other for other in found if other.status != "ok"] == [check]


def test_no_registry_is_no_fault() -> None:
    """A private host without a registry is well."""
    check = named(checks(replace(WELL, registry_error="no such host")), "registry")
    assert check.status == "ok"
    assert "builds its own base" in check.detail


@pytest.mark.parametrize(("platform", "word"), [("darwin", "macOS"), ("win32", "Windows")])
def test_elsewhere_servers_run_in_the_engines_linux(platform: str, word: str) -> None:
    """On macOS and Windows it is said that servers run in the Linux inside the engine."""
    check = named(checks(replace(WELL, platform=platform, local=False)), "platform")
    assert check.status == "ok"
    assert check.detail == f"{word}: the servers run in the Linux inside the engine"


def test_without_an_engine_the_reason_is_passed_on() -> None:
    """Where no engine answers, the check fails with the reason and what to do, and nothing else raises."""
    error = EngineUnavailable("Connection refused.", hint="Start it.")
    check = named(checks(Facts(platform="linux", unavailable=error)), "engine")
    assert (check.status, check.detail, check.hint) == ("fail", "Connection refused.", "Start it.")


ADDRESSES = st.sampled_from(["0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "::1", "10.1.2.3"])


@given(ADDRESSES, ADDRESSES, st.sampled_from([80, 81]), st.sampled_from([80, 81]))
def test_clashes_are_mutual(one: str, other: str, port: int, other_port: int) -> None:
    """If one endpoint keeps another from being had, the other keeps it too."""
    mine, theirs = Endpoint(one, port), Endpoint(other, other_port)
    assert bool(clashes([mine], [theirs])) == bool(clashes([theirs], [mine]))


@pytest.mark.parametrize("bound", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::1"])
@pytest.mark.parametrize("want", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::1"])
def test_clashes_are_what_the_kernel_says(bound: str, want: str) -> None:
    """A clash is foretold exactly where the kernel refuses the second listener."""

    def listen(address: str, port: int = 0) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the engine does
        if ":" in address:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            made.bind((address, port))
            made.listen()
        except OSError:
            made.close()
            raise
        return made

    try:
        first = listen(bound)
    except OSError:
        pytest.skip(f"this machine has no {bound}")
    with first:
        port = first.getsockname()[1]
        foretold = bool(clashes([Endpoint(want, port)], [one for one in listeners() if one.port == port]))
        try:
            listen(want, port).close()
            refused = False
        except OSError:
            refused = True
    assert foretold == refused


def test_listeners_are_read_with_their_program() -> None:
    """A socket that listens is found, with its address and the program that holds it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = [one for one in listeners() if one.port == port]
    comm = Path("/proc/self/comm").read_text().strip()
    assert [(one.address, one.program) for one in found] == [("127.0.0.1", comm)]


def test_mapped_addresses_are_ipv4() -> None:
    """A program that binds ::ffff:127.0.0.1 listens on the IPv4 loopback."""
    assert facts.parse_address("0000000000000000FFFF00000100007F") == "127.0.0.1" or sys.byteorder == "big"


def test_unreadable_facts_are_none(tmp_path: Path) -> None:
    """What can't be read is no error: it is not known."""
    assert facts.memory_available(tmp_path / "missing") is None
    assert facts.active_firewall(tmp_path / "missing") == ""
    assert listeners(tmp_path) == ()
    assert facts.disk_free({"DockerRootDir": str(tmp_path / "missing")}) is None


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A private place with no engine in it."""
    return Daemon(
        command=(str(tmp_path / "dockerd"),),
        socket=tmp_path / "docker.sock",
        pid_files=((tmp_path / "docker.pid", "dockerd"), (tmp_path / "containerd.pid", "containerd")),
        log=tmp_path / "log/dockerd.log",
        systemd=tmp_path / "systemd",
    )


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consolidate.apt.is_root", lambda: True)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consolidate.apt.is_root", lambda: False)


PING = """#!{python}
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind("{folder}/docker.sock")
server.listen()
open("{folder}/started", "w").write(str(os.getpid()))
while True:
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
    client.close()
"""


def install(daemon: Daemon, text: str) -> None:
    """Put a program in the daemon's place."""
    file = Path(daemon.command[0])
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def answering(daemon: Daemon) -> Iterator[Path]:
    """A daemon that answers once it is started; ended afterwards. The file appears when it starts."""
    folder = daemon.socket.parent
    install(daemon, PING.format(python=sys.executable, folder=folder))
    started = folder / "started"
    yield started
    if started.exists():
        os.kill(int(started.read_text()), 9)


@pytest.mark.usefixtures("root")
def test_a_missing_engine_is_started(daemon: Daemon, answering: Path) -> None:
    """Where none answers the daemon is started, in a session of its own, and answers when `start` returns."""
    engine_setup.start(daemon, silent)
    assert engine_setup.answers(daemon.socket)
    assert os.getsid(int(answering.read_text())) != os.getsid(0)


@pytest.mark.usefixtures("root")
def test_an_engine_that_answers_is_left_alone(daemon: Daemon, answering: Path) -> None:
    """A second start does nothing."""
    engine_setup.start(daemon, silent)
    before = answering.read_text()
    engine_setup.start(daemon, silent)
    assert answering.read_text() == before


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("holder", ["nobody", "another program", "garbage"])
def test_stale_pid_files_are_removed(daemon: Daemon, answering: Path, holder: str) -> None:
    """A pid file whose process is gone, or is by now another program, does not keep the engine from starting."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    text = {"nobody": str(ended.pid), "another program": str(os.getpid()), "garbage": "x"}[holder]
    for file, _ in daemon.pid_files:
        file.write_text(text)
    engine_setup.start(daemon, silent)
    assert not any(file.exists() for file, _ in daemon.pid_files)


@pytest.mark.usefixtures("root")
def test_a_daemon_that_runs_keeps_its_pid_file(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, answering: Path
) -> None:
    """A daemon that runs and does not answer is reported with its process id; no second one is started beside it."""
    monkeypatch.setattr(engine_setup, "PATIENCE", 0.3)
    comm = Path("/proc/self/comm").read_text().strip()
    daemon = replace(daemon, pid_files=((daemon.pid_files[0][0], comm),))
    daemon.pid_files[0][0].write_text(str(os.getpid()))
    with pytest.raises(EngineUnavailable, match=str(os.getpid())):
        engine_setup.start(daemon, silent)
    assert daemon.pid_files[0][0].exists()
    assert not answering.exists()


def test_a_zombie_does_not_run() -> None:
    """A process that has ended and was not waited for counts as dead, though /proc still names it."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()  # its answer: from here on it has its name
    assert engine_setup.runs(process.pid, "cat")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not engine_setup.runs(process.pid, "cat")
    process.communicate()


@pytest.mark.usefixtures("root")
def test_a_daemon_that_dies_is_quoted(daemon: Daemon) -> None:
    """The last words of a daemon that dies at its start are in the error."""
    install(daemon, "#!/bin/sh\necho devices cgroup is not mounted >&2; exit 1\n")
    with pytest.raises(EngineUnavailable) as caught:
        engine_setup.start(daemon, silent)
    assert "devices cgroup is not mounted" in caught.value.hint
    assert caught.value.status == 69


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("installed", "systemd", "command"),
    [(True, True, "systemctl start docker"), (True, False, "sudo dockerd"), (False, False, "apt-get install")],
)
def test_without_root_it_says_what_to_type(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, installed: bool, systemd: bool, command: str
) -> None:
    """Who is not root is told the command that fits the machine, with status 69."""
    if installed:
        install(daemon, "#!/bin/sh\n")
    if systemd:
        daemon.systemd.mkdir()
    apt_get = daemon.socket.parent / "apt-get"
    apt_get.write_text("#!/bin/sh\n")
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(daemon.socket.parent))
    with pytest.raises(EngineUnavailable, match="only root") as caught:
        engine_setup.start(daemon, silent)
    assert command in caught.value.hint


def test_a_named_engine_is_not_started() -> None:
    """Whoever names an engine that does not answer gets that error; this machine's own is not started in its place."""

    def connect() -> RawEngine:
        raise EngineUnavailable("ssh://elsewhere does not answer.")

    with pytest.raises(EngineUnavailable, match="elsewhere"):
        doctor.fix(connect, silent, daemon=None)


def test_a_socket_that_hangs_is_no_answer(tmp_path: Path) -> None:
    """Something that accepts and says nothing like HTTP is no engine, and is found out without an error."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def close() -> None:
            server.accept()[0].close()

        thread = Thread(target=close)
        thread.start()
        assert not engine_setup.answers(path)
        thread.join()


@pytest.mark.engine
@pytest.mark.skipif(not SOCKET.exists(), reason="the engine is not on this machine")
def test_the_real_engine_is_read() -> None:
    """The facts of the engine at hand are complete and no check fails."""
    gathered = doctor.gather(RawEngine())
    found = checks(gathered)
    assert [check for check in found if check.status == "fail"] == []
    assert named(found, "engine").detail.startswith("Docker Engine ")
    assert gathered.base_present is True
