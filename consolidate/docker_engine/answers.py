"""Answers of the engine, whose head is read to its end and no further: what follows may be the words of a program.

Where a connection is handed over, for an `exec` or to a container's input, docker-py takes the socket from under the buffer that the
head was read through. What came together with the head stays in that and is lost: the first words of a command, the
beginning of a dump. It does come together wherever this process, or the network, is slower than the program.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import docker
import urllib3.connection
import urllib3.connectionpool
from docker.transport.unixconn import UnixHTTPAdapter

from consolidate.docker_engine.failures import TIMEOUT

PIECE = 4096  # bytes of a head that are looked at
IDLE = 64  # connections that may wait for a next call: more than are ever made at once


class Answer(http.client.HTTPResponse):
    """The standard library's, but for how its head is read."""

    fp: Any

    def begin(self) -> None:
        buffered = self.fp
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


class _Connection(urllib3.connection.HTTPConnection):
    response_class = Answer


class Adapter(UnixHTTPAdapter):
    """One pool for all that is asked; what is asked at the same time has a connection each, which `dial` makes."""

    def __init__(self, dial: Callable[[], socket.socket], at_end: Callable[[], None] = lambda: None) -> None:
        super().__init__("http+unix:///", timeout=TIMEOUT)
        self.dial, self.at_end = dial, at_end
        self.pool = _DialledPool(dial)

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        return self.pool

    def close(self) -> None:
        super().close()
        self.pool.close()
        self.at_end()


class _DialledPool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        super().__init__("localhost", timeout=TIMEOUT, maxsize=IDLE)
        self.dial = dial

    def _new_conn(self) -> Any:
        return _Dialled(self.dial)


class _Dialled(_Connection):
    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.dial = dial

    def connect(self) -> None:
        self.sock = self.dial()
        self.sock.settimeout(TIMEOUT)


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


def use(client: docker.APIClient, adapter: Adapter) -> None:
    """Have a client of the library's ask through this."""
    its: Any = client  # its stubs know nothing of it
    its._custom_adapter = adapter
    its.mount("http+docker://", adapter)


def whole_heads(client: docker.APIClient) -> None:
    """Have a client read answers like that, from a socket of this machine or by TCP in plain text."""
    before: Any = client.get_adapter(client.base_url)
    if isinstance(before, UnixHTTPAdapter):
        before.close()
        use(client, Adapter(partial(_dial, before.socket_path)))
    elif client.base_url.startswith("http://"):
        manager = before.poolmanager
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "http": _Pool}
        manager.clear()


def _dial(path: str) -> socket.socket:
    with contextlib.ExitStack() as unless_connected:
        made = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
        made.settimeout(TIMEOUT)
        made.connect(path)
        unless_connected.pop_all()
    return made
