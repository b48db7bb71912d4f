"""A stand-in for an engine's socket that counts what goes to it, and can hold it back from some moment on."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Wire:
    """`sent` are the bytes that the engine got; from `hold_at` on, it gets none until the wire is released."""

    url: str
    sent: int = 0
    hold_at: int | None = None
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


def pass_on(client: socket.socket, engine: socket.socket, wire: Wire) -> None:
    """Both ways, until one side has nothing more to say."""

    def answers() -> None:
        with contextlib.suppress(OSError):
            while data := engine.recv(65536):
                client.sendall(data)
        for end in (client, engine):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=answers, daemon=True)
    back.start()
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            if wire.holding:
                wire.free.wait()
            engine.sendall(data)
            with wire.guard:
                wire.sent += len(data)
    with contextlib.suppress(OSError):
        engine.shutdown(socket.SHUT_WR)
    back.join()


@contextlib.contextmanager
def wire_to(engine: str) -> Iterator[Wire]:
    """A wire to the engine at a unix:// address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "engine.sock"
        listener.bind(str(path))
        listener.listen()
        wire = Wire(f"unix://{path}")
        threads: list[threading.Thread] = []

        def serve(client: socket.socket) -> None:
            with client, socket.socket(socket.AF_UNIX) as there, contextlib.suppress(OSError):
                there.connect(engine.removeprefix("unix://"))
                pass_on(client, there, wire)

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
