"""Connections to an engine by ssh: OpenSSH's own client, as if it was typed, so that ~/.ssh/config and agents hold.

One ssh connection carries them all to the engine's socket. Where sshd forwards no sockets, or a key may run one command
only, each is a session with `docker system dial-stdio`, like those of Docker's own client. sshd gives no more than ten of
these (MaxSessions) to one ssh connection, so when they are taken there is another: whoever wants one never waits for a
stream that somebody else holds. Where sshd gives less, OpenSSH makes an ssh connection for the session alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from consolidate.errors import EngineUnavailable

SESSIONS = 8  # of one ssh connection: less than sshd's MaxSessions
LEFT = 5  # seconds that an ssh connection stays after its last use: so it goes when we do, however we do
LONGEST = 80  # bytes of the path of a control socket, to which ssh appends 17; the kernel takes 104 or 108
ANSWER = 20.0  # seconds for the engine's first answer through a forwarded socket, and for where its socket is
WHERE = "docker context inspect --format '{{.Endpoints.docker.Host}}'"
OPTIONS = {
    "ControlPersist": LEFT,
    "ConnectTimeout": 30,
    "ServerAliveInterval": 15,  # three times without an answer, and the connection is given up
    "LogLevel": "ERROR",
    # What ~/.ssh/config may have for people who log in:
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
FAILED = 255  # status of an ssh that has lost its connection
OLD = 60  # seconds
SETTLED = 0.3  # seconds in which an ssh connection that has broken off takes its socket away
WORDS = 300  # characters of what ssh has said that are told
NO_WORDS = ("@", "mux_client", "ControlSocket")  # how lines begin that say nothing, or only that another way is taken
NAMES = re.compile(r"[^\w.@:%+=,/\[\]-]")  # what may not stand in a command that we tell people to type

numbers = itertools.count()


@dataclass
class _Connection:
    """An ssh connection: the socket by which it is told what to carry, where it listens for the engine, its sessions."""

    control: Path
    forwarded: Path | None = None
    sessions: list[subprocess.Popen[bytes]] = field(default_factory=list)
    first: bool = False  # it has a connection that waits for the next call, and so never ends for want of one
    cut: bool = False

    def look(self) -> None:
        """See which sessions are still there, and whether it has ended under one."""
        ended = [s for s in self.sessions if s.poll() is not None]
        self.sessions = [s for s in self.sessions if s.returncode is None]
        there = self.control.exists()
        self.cut = self.cut or (not there and (self.first or any(s.returncode == FAILED for s in ended)))

    @property
    def free(self) -> bool:
        return (self.forwarded is not None or len(self.sessions) < SESSIONS) and self.control.exists()


class SshLine:
    """The way to the engine at an ssh:// address. Safe to use from several threads."""

    def __init__(self, url: str, folder: Path) -> None:
        """`folder` is for sockets: the user's alone, with a short path."""
        parts = urlsplit(url)
        self.url, self.folder, self.host = url, folder, parts.hostname or ""
        user, port = unquote(parts.username or ""), parts.port
        self.destination = [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", self.host]
        typed = [*(["-p", str(port)] if port else []), f"{user}@{self.host}" if user else self.host]
        self.typed = " ".join(NAMES.sub("", word) for word in typed)
        self.path = unquote(parts.path).rstrip("/")
        engine = f"docker -H {shlex.quote(f'unix://{self.path}')}" if self.path else "docker"
        self.dial = f"{engine} system dial-stdio"
        self.forwards = True  # until sshd has refused
        self._connections: list[_Connection] = []
        self._opening = threading.Lock()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 — for as long as there are connections

    def open(self) -> socket.socket:
        """A connection to the engine. Raises EngineUnavailable where ssh doesn't get there.

        Once an ssh connection has broken off there is no other: the stack's lock, which others then take for left, may have been
        on it.
        """
        with self._opening:
            for connection in self._connections:
                connection.look()
            if any(c.cut for c in self._connections):
                raise self.broken()
            connection = next((c for c in self._connections if c.free), None) or self._connect()
            if connection.forwarded is None:
                return self._session(connection)
            try:
                return _joined(connection.forwarded)
            except OSError:  # it has ended a moment ago
                raise self.broken() from None

    def broken(self) -> EngineUnavailable:
        """Why a connection has ended."""
        words, end = self._words(), time.monotonic() + SETTLED
        while not self._is_cut() and time.monotonic() < end:
            time.sleep(SETTLED / 10)
        if not self._is_cut():
            return self._explained(words or "it has closed the connection")
        what = f"the ssh connection to {self.host} has broken off" + (f": {words}" if words else "")
        return EngineUnavailable(what, hint=f"is that machine up, and the network? `ssh {self.typed} true` says it")

    def _is_cut(self) -> bool:
        return any(c.cut or (c.first and not c.control.exists()) for c in self._connections)

    def _connect(self) -> _Connection:
        """Another ssh connection. Only the first may ask the user something: later ones are made in the middle of the work."""
        made = _Connection(self.folder / f"{os.getpid()}-{next(numbers)}", first=not self._connections)
        quiet = ("-o", "BatchMode=yes") if self._connections else ()
        if self._ssh("-f", "-N", "-M", "-S", str(made.control), *quiet).wait():
            raise self._explained(self._words() or "ssh has ended without a word")
        if self.forwards:
            made.forwarded = self._forwarded(made)
            self.forwards = made.forwarded is not None
        self._connections = [*(c for c in self._connections if c.first or c.control.exists()), made]
        return made

    def _forwarded(self, connection: _Connection) -> Path | None:
        """Where the ssh connection listens for the engine, once that has answered there."""
        there = self.path or self._asked(connection, WHERE).removeprefix("unix://")
        if not there.startswith("/") or ":" in there:
            return None
        here = connection.control.with_suffix(".engine")
        if self._told(connection, "forward", "-L", f"{here}:{there}"):
            return None
        with contextlib.suppress(OSError), _joined(here) as probe:
            probe.settimeout(ANSWER)
            probe.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            if probe.recv(5) == b"HTTP/":
                return here
        here.unlink(missing_ok=True)
        return None

    def _asked(self, connection: _Connection, command: str) -> str:
        """What a command at the other end says, nothing where it fails."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                asked = self._ssh("-T", "-S", str(connection.control), *MUXED, command=command, end=theirs.fileno())
            ours.shutdown(socket.SHUT_WR)  # a key may be for another command, which would wait for us
            ours.settimeout(ANSWER)
            said = b""
            with contextlib.suppress(OSError):
                while piece := ours.recv(4096):
                    said += piece
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked.wait(timeout=1)
        return said.decode(errors="replace").strip() if asked.returncode == 0 else ""

    def _session(self, connection: _Connection) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            words = ["-T", "-S", str(connection.control), *MUXED]
            connection.sessions.append(self._ssh(*words, command=self.dial, end=theirs.fileno()))
        return ours

    def _ssh(self, *words: str, command: str | None = None, end: int | None = None) -> subprocess.Popen[bytes]:
        """ssh, with one end of a connection as its input and output."""
        options = [w for name, value in OPTIONS.items() for w in ("-o", f"{name}={value}")]
        return self._run(["ssh", *words, *options, *self.destination, *([command] if command else [])], end)

    def _told(self, connection: _Connection, what: str, *words: str) -> int:
        """Tell a connection something; not what ~/.ssh/config has to forward. Its exit status."""
        return self._run(
            ["ssh", "-F", "none", "-S", str(connection.control), "-O", what, *words, "--", self.host], None
        ).wait()

    def _run(self, argv: list[str], end: int | None) -> subprocess.Popen[bytes]:
        """An interrupt from the terminal is ours to handle: what is under way gets a moment to end."""
        near = subprocess.DEVNULL if end is None else end
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return subprocess.Popen(argv, stdin=near, stdout=near, stderr=self._said)
        except FileNotFoundError:
            hint = "apt-get install openssh-client"
            raise EngineUnavailable(f"for an engine at {self.url} the program ssh is needed", hint=hint) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Have all end at once, and wait for it; the connections have to be closed already."""
        for connection in self._connections:
            if connection.control.exists():
                self._told(connection, "exit")
            for session in connection.sessions:
                session.wait()
            if connection.forwarded:
                connection.forwarded.unlink(missing_ok=True)
        self._said.close()

    def _words(self) -> str:
        """The last line of what ssh and the program at its other end have complained of."""
        size = os.fstat(self._said.fileno()).st_size
        text = os.pread(self._said.fileno(), 4096, max(0, size - 4096)).decode(errors="replace")
        lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith(NO_WORDS)]
        return "".join(c if c.isprintable() else " " for c in lines[-1])[:WORDS] if lines else ""

    def _explained(self, words: str) -> EngineUnavailable:
        return EngineUnavailable(f"no engine answers at {self.url}: {words}", hint=hint(words, self.typed))


MUXED = ("-o", "ControlMaster=no", "-o", "BatchMode=yes")  # by an ssh connection that is there


def _joined(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def hint(words: str, host: str) -> str:
    """What to do about what ssh says of a host; `host` as it's typed after ssh."""
    port, _, name = host.rpartition(" ")
    scanned = f"{port} {name.rpartition('@')[2]}".strip()
    of_words = {
        "Host key verification failed": "make its key known: `ssh {host}` once, and compare the fingerprint that it shows; "
        "or, where the network can be trusted, `ssh-keyscan {scanned} >> ~/.ssh/known_hosts`",
        "HOST IDENTIFICATION HAS CHANGED": "it is another machine, or was installed anew; if that is so: `ssh-keygen -R`",
        "Permission denied (": "`ssh {host} true` has to work without a question: by a key in an agent, or by "
        "IdentityFile in ~/.ssh/config",
        "docker daemon socket": "that user may not use the engine there: `usermod -aG docker USER`, or name root@",
        "Cannot connect to the Docker daemon": "start it there: `ssh {host} systemctl start docker`",
        "not found": "`ssh {host} docker version` has to work: Docker's client is needed there, on the PATH",
        "resolve hostname": "is its name right? `ssh {host} true` says more",
    }
    found = next(
        (h for w, h in of_words.items() if w.lower() in words.lower()), "`ssh {host} docker version` says more"
    )
    return found.format(host=host, scanned=scanned)


def folder_for_sockets(temporary: Path) -> Path:
    """A folder that is this user's alone, with a path that leaves room for names; what killed runs have left is removed.

    Raises EngineUnavailable.
    """
    for above in (os.environ.get("XDG_RUNTIME_DIR"), temporary, "/tmp"):  # noqa: S108 — looked at below
        if not above or len(str(above)) > LONGEST - len("/consolidate-4294967295/4194304-99.engine"):
            continue
        folder = Path(above) / f"consolidate-{os.getuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
                _clear(folder)
                return folder
    raise EngineUnavailable(
        f"there is no folder for ssh's sockets: {temporary}/consolidate-{os.getuid()} has to be this user's alone",
        hint="remove it, or set XDG_RUNTIME_DIR to a folder of this user's",
    )


def _clear(folder: Path) -> None:
    """Remove sockets at which nobody listens. One that has just been made will be listened at in a moment."""
    for path in folder.iterdir():
        try:
            if time.time() - path.lstat().st_mtime > OLD:
                _joined(path).close()
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            continue
