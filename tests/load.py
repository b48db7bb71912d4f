"""Visitors under load: real HTTP requests on many connections at once. Each one that fails is kept, none is tried again.

A request has failed when its connection is refused or reset, when its answer is cut short, comes too late or is none of
2xx, or when what it says is not what it should say. A server may close a connection after an answer that says so
(`Connection: close`), as HTTP/1.1 has it; the next request then takes a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

PIECE = 16384


@dataclass(frozen=True)
class Failure:
    """A request that failed: whose it was, when it began and ended (seconds since the load began), and how."""

    visitor: str
    begun: float
    ended: float
    what: str

    def __str__(self) -> str:
        return f"{self.visitor}: {self.begun:.2f}–{self.ended:.2f} s: {self.what}"


@dataclass(frozen=True)
class Visitor:
    """Somebody who asks for one thing again and again, `pause` seconds after each answer.

    `keep` holds on to the connection; else each request has its own. `body` is made anew for each request and sent
    within `sending` seconds; the answer is read within `reading`. `expect` judges the answer, and the body that was sent.
    """

    name: str
    host: str
    port: int
    path: str = "/"
    tls: ssl.SSLContext | None = None
    keep: bool = True
    pause: float = 0.1
    body: Callable[[], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sending: float = 0.0
    reading: float = 0.0
    expect: Callable[[bytes, bytes], bool] = lambda answer, sent: bool(answer)
    timeout: float = 20.0


@dataclass
class Load:
    """Visitors at work, each in a thread of its own: their good answers, their connections, and what failed."""

    answers: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    asked: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0  # seconds that anybody has waited for an answer, or for a failure

    def now(self) -> float:
        return time.monotonic() - self.begun

    def another_round(self, within: float = 30) -> None:
        """Wait until each visitor has asked once more and had its answer, or failed. Raises TimeoutError.

        What a visitor is in the middle of doesn't count, but for the first that it asks.
        """
        enough = {name: asked + (2 if asked else 1) for name, asked in self.asked.items()}
        end = time.monotonic() + within
        while lazy := [n for n in enough if self.asked[n] < enough[n]]:
            if time.monotonic() > end:
                raise TimeoutError(f"no answer within {within:g} s: {', '.join(lazy)}")
            time.sleep(0.05)

    def failed(self, prefix: str = "") -> list[str]:
        """The failures of visitors whose names begin with `prefix`, in words."""
        return [str(f) for f in sorted(self.failures, key=lambda f: f.ended) if f.visitor.startswith(prefix)]

    def visit(self, who: Visitor) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.stopping.is_set():
            begun = self.now()
            try:
                if connection is None:
                    connection = connected(who)
                    self.connections[who.name] += 1
                ask(who, connection)
                self.answers[who.name] += 1
            except (OSError, http.client.HTTPException, Refused) as error:
                on = f"on a connection {'kept' if who.keep else 'of its own'}"
                what = f"{type(error).__name__}: {error} ({on})"
                self.failures.append(Failure(who.name, begun, self.now(), what))
                if connection is not None:
                    connection.close()
                    connection.sock = None
            self.longest = max(self.longest, self.now() - begun)
            self.asked[who.name] += 1
            if connection is not None and (not who.keep or connection.sock is None):
                connection.close()
                connection = None
            self.stopping.wait(who.pause)
        if connection is not None:
            connection.close()


class Refused(Exception):
    """An answer came, but not the right one."""


def connected(who: Visitor) -> http.client.HTTPConnection:
    """A connection to where the visitor goes."""
    connection = http.client.HTTPConnection(who.host, who.port, timeout=who.timeout)
    plain = socket.create_connection(("127.0.0.1", who.port), timeout=who.timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        # A connection that ends without TLS's own good-bye is a truncated one.
        connection.sock = (
            who.tls.wrap_socket(plain, server_hostname=who.host, suppress_ragged_eofs=False) if who.tls else plain
        )
    except BaseException:
        plain.close()
        raise
    return connection


def ask(who: Visitor, connection: http.client.HTTPConnection) -> bytes:
    """One request, and its answer. Raises Refused, or what the connection or the protocol fails with."""
    body = who.body() if who.body else b""
    host = f"{who.host}:{who.port}"
    connection.putrequest("POST" if who.body else "GET", who.path, skip_host=True)
    for name, value in {"Host": host, **who.headers}.items():
        connection.putheader(name, value)
    if not who.keep:
        connection.putheader("Connection", "close")
    if who.body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    for piece in _slowly([body[i : i + PIECE] for i in range(0, len(body), PIECE)], who.sending):
        connection.send(piece)
    answer = connection.getresponse()
    said = _read(answer, who.reading)
    if not 200 <= answer.status < 300:
        raise Refused(f"status {answer.status}: {said[:200]!r}")
    if not who.expect(said, body):
        raise Refused(f"status {answer.status}, but not what was to be said: {len(said)} bytes, {said[:200]!r}")
    return said


def _slowly(pieces: Sequence[bytes], seconds: float) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        time.sleep(seconds / len(pieces))


def _read(answer: http.client.HTTPResponse, seconds: float) -> bytes:
    """The whole answer, spread over `seconds` where its length is known. Raises IncompleteRead when it is cut short."""
    length, said = answer.length, b""
    while length and seconds and len(said) < length and (piece := answer.read(PIECE)):
        said += piece
        time.sleep(seconds * len(piece) / length)
    said += answer.read()
    if length is not None and len(said) < length:
        raise http.client.IncompleteRead(said, length - len(said))
    return said


@contextlib.contextmanager
def visitors(*those: Visitor) -> Iterator[Load]:
    """Visitors from here to the end of the block. What they have begun by then, they end."""
    load = Load()
    load.asked.update({who.name: 0 for who in those})
    threads = [threading.Thread(target=load.visit, args=(who,), daemon=True) for who in those]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join(60)


def upload(size: int) -> Callable[[], bytes]:
    """Bodies of `size` bytes, each another one, all of them text."""
    return lambda: random.randbytes(size // 2).hex().encode()


def checksum(answer: bytes, sent: bytes) -> bool:
    """What the server counted and summed up is what was sent."""
    try:
        told = json.loads(answer)
    except ValueError:
        return False
    return bool(told == {"bytes": len(sent), "sha256": hashlib.sha256(sent).hexdigest()})


def saying(*words: str) -> Callable[[bytes, bytes], bool]:
    return lambda answer, sent: all(w.encode() in answer for w in words)
