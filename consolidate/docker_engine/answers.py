"""Answers of the engine, whose head is read to its end and no further: what follows may be the words of a program.

Where a connection is handed over, for an `exec` or to a container's input, docker-py takes the socket from under the buffer that the
head was read through. What came together with the head stays in that and is lost: the first words of a command, the
beginning of a dump. It does come together wherever this process, or the network, is slower than the program.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any

import docker
import urllib3.connection
import urllib3.connectionpool
from docker.transport.unixconn import UnixHTTPConnection

PIECE = 4096  # bytes of a head that are looked at


class Answer(http.client.HTTPResponse):
    """The standard library's, but for how its head is read."""

    fp: Any

    def begin(self) -> None:
        buffered = self.fp
        if buffered is None or isinstance(buffered.raw._sock, ssl.SSLSocket):  # in which nothing can be looked at
            super().begin()
            return
        self.fp = _Head(buffered)
        super().begin()
        self.fp = buffered


class _Head:
    """Lines of a connection, taken from it once they are seen to be whole."""

    def __init__(self, buffered: Any) -> None:
        self.buffered, self.sock = buffered, buffered.raw._sock

    def readline(self, limit: int) -> bytes:
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            seen = self.sock.recv(min(limit - len(line), PIECE), socket.MSG_PEEK)
            if not seen:
                break
            line += self.sock.recv(seen.find(b"\n") + 1 or len(seen))
        return line

    def flush(self) -> None:
        """As a file has it."""

    def close(self) -> None:
        self.buffered.close()


UnixHTTPConnection.response_class = Answer  # the library has no other place for it


class _Connection(urllib3.connection.HTTPConnection):
    response_class = Answer


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


def over_tcp(client: docker.APIClient) -> None:
    """Have a client read answers like that which come over TCP in plain text."""
    adapter: Any = client.get_adapter("http://")
    manager = adapter.poolmanager
    manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "http": _Pool}
    manager.clear()
