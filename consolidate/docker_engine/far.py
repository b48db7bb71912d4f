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
from docker.constants import MINIMUM_DOCKER_API_VERSION

from consolidate.docker_engine.answers import Adapter, use
from consolidate.docker_engine.failures import TIMEOUT
from consolidate.errors import EngineUnavailable


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
        use(self, Adapter(line.open, line.close))
        client: Any = self  # its stubs know nothing of it
        self._version = client._retrieve_server_version()
