"""The Docker Engine behind the port, through docker-py. The only package that imports it.

Facts of the API are those of version 1.41 (Engine 20.10), the lowest that is supported.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import requests
from docker import errors as docker_errors

from consolidate.docker_engine.address import Address, meant
from consolidate.docker_engine.answers import whole_heads
from consolidate.docker_engine.containers import DockerEngine
from consolidate.docker_engine.failures import TIMEOUT, telling, unavailable
from consolidate.docker_engine.images import HELPER_IMAGE
from consolidate.docker_engine.podman import PodmanEngine
from consolidate.engine import is_podman
from consolidate.errors import EngineUnavailable

if TYPE_CHECKING:
    from consolidate.docker_engine.far import Line

__all__ = ["HELPER_IMAGE", "DockerEngine", "connect", "named_engine"]

SOCKET_CALLS, SSH_CALLS = 16, 6  # at once; by ssh each may be a session and a process at the other end


def connect(host: str | None = None, context: str | None = None) -> DockerEngine:
    """The engine that `host`, `context`, DOCKER_HOST, DOCKER_CONTEXT or the current context names, in this order.

    Raises EngineUnavailable, and UsageError for a context that there isn't.
    """
    address = _meant(host, context)
    line = _line(address)
    try:
        if line is not None:
            from consolidate.docker_engine.far import FarClient

            client: docker.APIClient = FarClient(line)
        else:
            client = docker.APIClient(base_url=address.url, version="auto", timeout=TIMEOUT)
            whole_heads(client)
    except (docker_errors.DockerException, requests.exceptions.RequestException) as error:
        # The library takes whatever there is for its own.
        said = error.__cause__ if isinstance(error.__cause__, EngineUnavailable) else unavailable(error, line=line)
        if line is not None:
            line.close()
        raise said from None
    with telling(client):
        make = PodmanEngine if is_podman(client.version(api_version=False)) else DockerEngine
    return make(client, SSH_CALLS if _by_ssh(address) else SOCKET_CALLS)


def named_engine(host: str | None, context: str | None) -> str | None:
    """The address or the context that something names, or None where it is this machine's default engine."""
    return _meant(host, context).name


def _meant(host: str | None, context: str | None) -> Address:
    return meant(host, context, os.environ, Path.home())


def _by_ssh(address: Address) -> bool:
    return address.url is not None and address.url.startswith("ssh://")


def _line(address: Address) -> Line | None:
    """What carries connections to an engine that docker-py does not reach well by itself."""
    if address.url is None:
        return None
    if _by_ssh(address):
        if sys.platform == "win32":
            raise EngineUnavailable("ssh:// addresses need Linux or macOS", hint="run consolidate within WSL")
        from consolidate.docker_engine.ssh import SshLine, folder_for_sockets

        return SshLine(address.url, folder_for_sockets(Path(tempfile.gettempdir())))
    if address.tls is not None:
        from consolidate.docker_engine.tls import TlsLine

        return TlsLine(address.url, address.tls)
    return None
