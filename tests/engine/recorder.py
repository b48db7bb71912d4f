"""A stand-in for the engine's socket, which passes everything on and remembers what was asked."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ENGINE = "/var/run/docker.sock"
REQUEST = re.compile(rb"^(GET|HEAD|POST|PUT|DELETE|PATCH) (\S+) HTTP/1\.1\r\n")


@dataclass
class Recording:
    """`calls` are 'METHOD /path', in the order in which they came."""

    url: str
    calls: list[str] = field(default_factory=list)


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

        def pump(source: socket.socket, target: socket.socket, *, listen: bool) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if listen and (found := REQUEST.match(data)):
                        recording.calls.append(f"{found[1].decode()} {found[2].decode()}")
                    target.sendall(data)
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

        def serve(client: socket.socket) -> None:
            with client, socket.socket(socket.AF_UNIX) as engine:
                engine.connect(ENGINE)
                back = threading.Thread(target=pump, args=(engine, client), kwargs={"listen": False})
                back.start()
                pump(client, engine, listen=True)
                back.join()

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
