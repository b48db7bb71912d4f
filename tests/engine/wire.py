"""A stand-in for an engine's socket that counts what goes to it, can hold it back from some moment on, makes answers late, and cuts connections."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Connection:
    """Both ends of a connection, and when something last went over it, by the monotonic clock."""

    client: socket.socket
    engine: socket.socket
    used: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        for end in (self.client, self.engine):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Wire:
    """`sent` are the bytes that the engine got; from `hold_at` on, it gets none until the wire is released."""

    url: str
    sent: int = 0
    hold_at: int | None = None
    lag: float = 0.0  # seconds: what the engine says in such a time comes all at once
    connections: list[Connection] = field(default_factory=list)  # those that are there
    guard: threading.Lock = field(default_factory=threading.Lock)
    free: threading.Event = field(default_factory=threading.Event)

    @property
    def holding(self) -> bool:
        return self.hold_at is not None and self.sent >= self.hold_at

    def measure(self) -> int:
        """The bytes since the last time that they were measured."""
        with self.guard:
            sent, self.sent = self.sent, 0
        return sent

    def silent(self, seconds: float) -> list[Connection]:
        """The connections that are there, and over which nothing went for so long."""
        with self.guard:
            return [c for c in self.connections if time.monotonic() - c.used >= seconds]

    def cut(self, silent: float = 0.0) -> int:
        """Cut connections, as a network does that goes: those over which nothing went for so many seconds; how many."""
        found = self.silent(silent)
        for connection in found:
            connection.end()
        return len(found)

    def pass_on(self, it: Connection) -> None:
        """Both ways, until one side has nothing more to say."""

        def answers() -> None:
            with contextlib.suppress(OSError):
                while data := it.engine.recv(65536):
                    if self.lag:
                        time.sleep(self.lag)
                        with contextlib.suppress(BlockingIOError):
                            data += it.engine.recv(65536, socket.MSG_DONTWAIT)
                    it.used = time.monotonic()
                    it.client.sendall(data)
            it.end()

        with self.guard:
            self.connections.append(it)
        back = threading.Thread(target=answers, daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := it.client.recv(65536):
                it.used = time.monotonic()
                if self.holding:
                    self.free.wait()
                it.engine.sendall(data)
                with self.guard:
                    self.sent += len(data)
        with contextlib.suppress(OSError):
            it.engine.shutdown(socket.SHUT_WR)
        back.join()
        with self.guard:
            self.connections.remove(it)


def dial(engine: str) -> socket.socket:
    """A connection to the engine at a unix:// address."""
    with contextlib.ExitStack() as unless_connected:
        made = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
        made.connect(engine.removeprefix("unix://"))
        unless_connected.pop_all()
    return made


@contextlib.contextmanager
def wire_to(engine: str) -> Iterator[Wire]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "engine.sock"
        listener.bind(str(path))
        listener.listen()
        with _wire(f"unix://{path}", listener, lambda: dial(engine)) as wire:
            yield wire


@contextlib.contextmanager
def tcp_wire_to(dial: Callable[[], socket.socket]) -> Iterator[Wire]:
    """A wire at a tcp:// address of the loopback; `dial` makes connections to the engine."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, _wire(f"tcp://127.0.0.1:{listener.getsockname()[1]}", listener, dial) as wire:
        yield wire


@contextlib.contextmanager
def _wire(url: str, listener: socket.socket, dial: Callable[[], socket.socket]) -> Iterator[Wire]:
    wire = Wire(url)
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), dial() as there:
            wire.pass_on(Connection(client, there))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield wire
    finally:
        wire.free.set()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
        for thread in threads:
            thread.join(5)
