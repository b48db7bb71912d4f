"""Ways to engines elsewhere, without an engine: TLS with its ends, what ssh is asked for, and what its words mean."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from consolidate.docker_engine.address import meant
from consolidate.docker_engine.ssh import SshLine, folder_for_sockets, hint
from consolidate.docker_engine.tls import TlsLine
from consolidate.errors import EngineUnavailable, UsageError
from tests.certificates import Authority

SIZE = 3 * 2**20


@contextlib.contextmanager
def served(folder: Path, program: Callable[[ssl.SSLSocket], None]) -> Iterator[str]:
    """`program` answers each connection by TLS of whoever shows a certificate; its address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    raw, _ = listener.accept()
                    with (
                        raw,
                        contextlib.suppress(OSError),
                        context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as conn,
                    ):
                        conn.settimeout(10)
                        program(conn)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def line(url: str, folder: Path) -> TlsLine:
    address = meant(url, None, {"DOCKER_CERT_PATH": str(folder)}, folder)
    assert address.url and address.tls
    return TlsLine(address.url, address.tls)


def received(conn: socket.socket) -> bytes:
    found = b""
    while piece := conn.recv(2**16):
        found += piece
    return found


@pytest.fixture
def authority() -> Authority:
    return Authority("ours")


def test_an_input_has_its_own_end_by_tls(authority: Authority, tmp_path: Path) -> None:
    """A program that reads to the end of its input gets that end, and its answer comes back whole, however long both are.

    It also says something all the while: what is under way as the input ends is not lost.
    """
    heard: list[int] = []

    def program(conn: ssl.SSLSocket) -> None:
        conn.sendall(b"begin" * 1000)
        heard.append(len(received(conn)))  # raises where the end is that of the connection
        conn.sendall(b"x" * SIZE)

    authority.give(tmp_path / "server", server=True)
    with served(tmp_path / "server", program) as url:
        way = line(url, authority.give(tmp_path / "client", server=False))
        for _ in range(5):
            with way.open() as ours:
                ours.settimeout(10)
                ours.sendall(b"y" * SIZE)
                ours.shutdown(socket.SHUT_WR)
                assert len(received(ours)) == SIZE + 5000
    assert heard == [SIZE] * 5


def test_both_sides_talk_at_once_by_tls(authority: Authority, tmp_path: Path) -> None:
    """More than any buffer holds, both ways at the same time; neither waits for the other."""

    def program(conn: ssl.SSLSocket) -> None:
        sent = 0
        while sent < SIZE and (piece := conn.recv(2**14)):
            conn.sendall(piece)
            sent += len(piece)

    authority.give(tmp_path / "server", server=True)
    with (
        served(tmp_path / "server", program) as url,
        line(url, authority.give(tmp_path / "client", server=False)).open() as ours,
    ):
        ours.settimeout(10)
        sender = threading.Thread(target=ours.sendall, args=(bytes(range(256)) * (SIZE // 256),))
        sender.start()
        found = received(ours)
        sender.join()
    assert found == bytes(range(256)) * (SIZE // 256)


def test_a_silent_connection_by_tls_is_kept_alive(authority: Authority, tmp_path: Path) -> None:
    """The kernel asks the other side from 15 s on: a firewall forgets nobody, and who has gone is found out."""

    def program(conn: ssl.SSLSocket) -> None:
        received(conn)

    authority.give(tmp_path / "server", server=True)
    with served(tmp_path / "server", program) as url:
        way = line(url, authority.give(tmp_path / "client", server=False))
        with way.open():
            words = ["ss", "--tcp", "--numeric", "--options", "--no-header", "dst", f"127.0.0.1:{urlsplit(url).port}"]
            shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    asks = re.search(r"timer:\(keepalive,(\d+)(?:\.\d+)?sec", shown)
    assert asks and int(asks[1]) <= 15, shown


def test_an_engine_of_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    authority.give(tmp_path / "server", server=True)
    with served(tmp_path / "server", lambda _: None) as url:
        with pytest.raises(EngineUnavailable, match=r"certificate at tcp.* is not trusted") as told:
            line(url, Authority("other").give(tmp_path / "client", server=False)).open()
        assert f"signed by {tmp_path}/client/ca.pem" in told.value.hint


def test_a_client_without_a_certificate_is_told(authority: Authority, tmp_path: Path) -> None:
    """The refusal comes after the greeting (TLS 1.3), once the connection ends."""
    authority.give(tmp_path / "server", server=True)
    folder = authority.give(tmp_path / "client", server=False)
    (folder / "cert.pem").unlink()
    (folder / "key.pem").unlink()
    with served(tmp_path / "server", lambda _: None) as url:
        way = line(url, folder)
        with way.open() as ours, contextlib.suppress(OSError):
            ours.settimeout(10)
            ours.sendall(b"GET /version HTTP/1.1\r\n\r\n")
            assert received(ours) == b""
        error = way.broken()
    assert "refuses a client without a certificate" in error.what
    assert f"into {folder} as cert.pem and key.pem" in error.hint


def test_what_speaks_no_tls_is_told(authority: Authority, tmp_path: Path) -> None:
    folder = authority.give(tmp_path / "client", server=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            conn, _ = listener.accept()
            with conn:
                conn.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                received(conn)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(EngineUnavailable, match="does not speak TLS"):
            line(f"tcp://127.0.0.1:{listener.getsockname()[1]}", folder).open()
        thread.join()
    with pytest.raises(EngineUnavailable, match=r"no engine answers at tcp://127\.0\.0\.1:1: Connection refused"):
        line("tcp://127.0.0.1:1", folder).open()
    (folder / "ca.pem").write_text("none")
    with pytest.raises(UsageError, match="can't be used"):
        line("tcp://127.0.0.1:1", folder)


def test_nothing_of_an_address_is_taken_for_an_option_or_a_command(tmp_path: Path) -> None:
    """The host stands behind `--`; a socket's path is one word for the shell at the other end, and what is told is safe."""
    with contextlib.closing(SshLine("ssh://ada%3B@there:2222/run/my%20$(id)/docker.sock", tmp_path)) as way:
        assert way.destination == ["-l", "ada;", "-p", "2222", "--", "there"]
        assert way.dial == "docker -H 'unix:///run/my $(id)/docker.sock' system dial-stdio"
        assert way.typed == "-p 2222 ada@there"
    with contextlib.closing(SshLine("ssh://there", tmp_path)) as way:
        assert way.destination == ["--", "there"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Host key verification failed.", "ssh-keyscan -p 2222 there >> ~/.ssh/known_hosts"),
        ("ada@there: Permission denied (publickey).", "by a key in an agent"),
        ("Got permission denied while trying to connect to the Docker daemon socket at unix:///", "usermod -aG docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl start docker"),
        ("bash: line 1: docker: command not found", "Docker's client is needed there"),
        ("ssh: Could not resolve hostname there: Name or service not known", "is its name right?"),
        ("kex_exchange_identification: Connection closed", "`ssh -p 2222 ada@there docker version` says more"),
    ],
)
def test_what_ssh_says_has_an_answer(words: str, told: str) -> None:
    assert told in hint(words, "-p 2222 ada@there")


def test_the_folder_of_sockets_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that others can write to is not used, and a socket that nobody listens at any more is removed."""
    first, second = Path(tempfile.mkdtemp()), tmp_path  # its path is short
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(first))
    try:
        folder = folder_for_sockets(second)
        assert folder.parent == first and folder.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as used:
            used.bind(str(folder / "1-0"))
            used.listen()
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(folder / "2-0"))
            with socket.socket(socket.AF_UNIX) as new:
                new.bind(str(folder / "3-0"))
            for name in ("1-0", "2-0"):
                os.utime(folder / name, (0, 0))
            folder_for_sockets(second)
            assert {p.name for p in folder.iterdir()} == {"1-0", "3-0"}
        folder.chmod(0o777)
        assert folder_for_sockets(Path("/nowhere")) != folder
    finally:
        shutil.rmtree(first)
