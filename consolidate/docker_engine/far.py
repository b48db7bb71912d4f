"""Engines elsewhere: docker-py gets a socket of this machine for each connection, and something else carries its bytes.

So what holds for this machine's engine holds for those as well: an input has an end of its own, a stream can be waited
for, and connections are kept for the next call. The library's own transports have none of that: by TLS the end of an
input breaks what comes back, by ssh each address of the API has connections of its own, and all of them are sessions of one
ssh connection, of which sshd gives no more than ten.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

import docker
import urllib3.connection
import urllib3.connectionpool
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.transport.unixconn import UnixHTTPAdapter

from consolidate.docker_engine.answers import Answer
from consolidate.docker_engine.failures import TIMEOUT
from consolidate.errors import EngineUnavailable

IDLE = 64  # connections that may wait for a next call: more than are ever made at once


class Line(Protocol):
    """A way to an engine."""

    def open(self) -> socket.socket:
        """Another connection. Raises EngineUnavailable."""

    def broken(self) -> EngineUnavailable:
        """Why a connection has ended before its time."""

    def close(self) -> None:
        """Have all connections end."""


class FarClient(docker.APIClient):
    """The library's client of an engine at the other end of a line. A new connection raises EngineUnavailable."""

    def __init__(self, line: Line) -> None:
        # Where it's told a version it asks for nothing yet.
        super().__init__(version=MINIMUM_DOCKER_API_VERSION, timeout=TIMEOUT)
        self.line = line
        self._custom_adapter = _Adapter(line)
        self.mount("http+docker://", self._custom_adapter)
        client: Any = self  # its stubs know nothing of it
        self._version = client._retrieve_server_version()


class _Adapter(UnixHTTPAdapter):
    """One pool for all that is asked; what is asked at the same time has a connection each."""

    def __init__(self, line: Line) -> None:
        super().__init__("http+unix:///", timeout=TIMEOUT)
        self.line = line
        self.pool = _Pool(line)

    def get_connection(self, url: Any, proxies: Any = None) -> Any:
        return self.pool

    def close(self) -> None:
        super().close()
        self.pool.close()
        self.line.close()


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, line: Line) -> None:
        super().__init__("localhost", timeout=TIMEOUT, maxsize=IDLE)
        self.line = line

    def _new_conn(self) -> Any:
        return _Connection(self.line)


class _Connection(urllib3.connection.HTTPConnection):
    response_class = Answer

    def __init__(self, line: Line) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.line = line

    def connect(self) -> None:
        self.sock = self.line.open()
        self.sock.settimeout(TIMEOUT)
