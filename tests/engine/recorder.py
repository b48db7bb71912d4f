"""A stand-in for the engine's socket, which passes everything on and remembers what was asked. It can be slow, and cut."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
REQUEST = re.compile(rb"^(GET|HEAD|POST|PUT|DELETE|PATCH) (\S+) HTTP/1\.1\r\n")


@dataclass
class Recording:
    """`calls` are 'METHOD /path', in the order in which they came.

    Each is kept back for `delay` seconds. The connection of call number `cut_at` is cut: before the engine hears of it,
    or, with `heard`, when it answers.
    """

    url: str
    calls: list[str] = field(default_factory=list)
    delay: float = 0.0
    cut_at: int = 0
    heard: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)

    def note(self, call: str) -> bool:
        """Whether its connection is to be cut."""
        with self.guard:
            self.calls.append(call)
            cut = len(self.calls) == self.cut_at
        time.sleep(self.delay)
        return cut


def pass_on(client: socket.socket, engine: socket.socket, recording: Recording) -> None:
    """Both ways, until one side has nothing more to say, or it is cut."""
    cut = threading.Event()

    def answers() -> None:
        with contextlib.suppress(OSError):
            while (data := engine.recv(65536)) and not cut.is_set():
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR if cut.is_set() else socket.SHUT_WR)

    back = threading.Thread(target=answers)
    back.start()
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            found = REQUEST.match(data)
            if found and recording.note(f"{found[1].decode()} {found[2].decode()}"):
                cut.set()
                if not recording.heard:
                    engine.shutdown(socket.SHUT_RDWR)
                    break
            engine.sendall(data)
    with contextlib.suppress(OSError):
        engine.shutdown(socket.SHUT_WR)
    back.join()


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "engine.sock"
        listener.bind(str(path))
        listener.listen()
        recording = Recording(f"unix://{path}")
        threads: list[threading.Thread] = []

        def begin(work: object, *words: object) -> None:
            thread = threading.Thread(target=work, args=words, daemon=True)  # type: ignore[arg-type]
            threads.append(thread)
            thread.start()

        def serve(client: socket.socket) -> None:
            with client, socket.socket(socket.AF_UNIX) as engine:
                engine.connect(ENGINE)
                pass_on(client, engine, recording)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    begin(serve, listener.accept()[0])

        begin(accept)
        try:
            yield recording
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)
