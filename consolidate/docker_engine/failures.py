"""The library's exceptions, told as ours."""

from __future__ import annotations

import contextlib
import functools
import http.client
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import requests
import urllib3
from docker import errors as docker_errors

from consolidate.errors import EngineUnavailable, OperationFailed

if TYPE_CHECKING:
    from consolidate.docker_engine.far import Line

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT = 120  # seconds for one answer of the engine; streams have none


def told(method: Callable[P, R]) -> Callable[P, R]:
    """Turn the library's exceptions into ours."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with telling(getattr(method, "__self__", None), *args[:1]):
            return method(*args, **kwargs)

    return call


@contextlib.contextmanager
def telling(*whose: object) -> Iterator[None]:
    """The same, for a part of a method; `whose` may be an engine or a client, which know what has broken off.

    Of an engine that has lost a stack's lock nothing more is asked.
    """
    for one in whose:
        if lost := getattr(one, "lost", None):
            raise lost
    try:
        yield
    except docker_errors.APIError as error:
        raise OperationFailed(explain(error)) from None
    except (
        requests.exceptions.RequestException,
        docker_errors.DockerException,
        urllib3.exceptions.HTTPError,  # of a stream that breaks off: the library reads those past requests
        http.client.HTTPException,
        ConnectionError,
    ) as error:
        raise unavailable(error, *whose) from None


def explain(error: docker_errors.APIError) -> str:
    return str(error.explanation or error)


def taken(error: docker_errors.APIError) -> bool:
    """Whether a name is another's. Podman has no status of its own for it."""
    return error.status_code == HTTPStatus.CONFLICT or "is already in use" in explain(error)


def unavailable(error: Exception, *whose: object, line: Line | None = None) -> EngineUnavailable:
    """Why an engine does not answer; its `line` knows, where it is elsewhere, which `whose` may have."""
    text, timeout = str(error), isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error)
    lines: list[Line | None] = [line, *(getattr(getattr(one, "client", one), "line", None) for one in whose)]
    if (found := next(filter(None, lines), None)) and not timeout:
        return found.broken()
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnavailable(
            "this user may not use the engine's socket", hint="run as root, or join the group docker and log in again"
        )
    if timeout:
        return EngineUnavailable(
            f"the engine has not answered for {TIMEOUT} s", hint="is its daemon frozen or its disk full?"
        )
    if "HTTP request to an HTTPS server" in text:
        hint = "set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem"
        return EngineUnavailable("the engine at this address wants TLS", hint=hint)
    hint = "start it, or name another one with -H; `consolidate doctor --fix` installs and starts one"
    return EngineUnavailable("no engine answers", hint=hint)
