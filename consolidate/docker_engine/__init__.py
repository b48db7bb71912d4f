"""The Docker Engine behind the port, through docker-py. The only package that imports it.

Facts of the API are those of version 1.41 (Engine 20.10), the lowest that is supported.
"""

from __future__ import annotations

import os

import docker
import requests
from docker import errors as docker_errors
from docker.context import ContextAPI
from docker.utils import kwargs_from_env

from consolidate.docker_engine.containers import DockerEngine
from consolidate.docker_engine.failures import TIMEOUT, unavailable
from consolidate.docker_engine.images import HELPER_IMAGE
from consolidate.errors import UsageError

__all__ = ["HELPER_IMAGE", "DockerEngine", "connect", "named_engine"]

SOCKET_CALLS, SSH_CALLS = 16, 6  # sshd's MaxSessions is 10, and docker-py opens one for each call


def connect(host: str | None = None, context: str | None = None) -> DockerEngine:
    """The engine that `host`, `context`, DOCKER_HOST, DOCKER_CONTEXT or the current context name, in this order.

    Raises EngineUnavailable, and UsageError for a context that there isn't.
    """
    url, tls = host, None
    name = None if host or (os.environ.get("DOCKER_HOST") and not context) else named_engine(None, context)
    if name is not None:
        found = ContextAPI.get_context(name)
        if found is None:
            raise UsageError(f"there is no Docker context '{name}'", hint="`docker context ls` lists them")
        url, tls = found.Host, found.TLSConfig
    try:
        if url is None:
            client = docker.APIClient(version="auto", timeout=TIMEOUT, **kwargs_from_env())
        else:
            client = docker.APIClient(base_url=url, tls=tls or False, version="auto", timeout=TIMEOUT)
    except (docker_errors.DockerException, requests.exceptions.RequestException) as error:
        raise unavailable(error) from None
    return DockerEngine(
        client, SSH_CALLS if (url or os.environ.get("DOCKER_HOST", "")).startswith("ssh:") else SOCKET_CALLS
    )


def named_engine(host: str | None, context: str | None) -> str | None:
    """The address or the context that something names, or None where it is this machine's default engine."""
    name = host or context or os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
    if name is None:
        try:
            current = ContextAPI.get_current_context()
        except Exception:  # a broken ~/.docker is not our business: the default socket is
            return None
        name = current.Name if current is not None else None
    return None if name == "default" else name or None
