"""The library's exceptions, told as ours."""

from __future__ import annotations

import contextlib
import functools
import http.client
import sys
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import requests
import urllib3
from docker import errors as docker_errors

from consolidate.errors import EngineUnavailable, OperationFailed

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT = 120  # seconds for one answer of the engine; streams have none


def told(method: Callable[P, R]) -> Callable[P, R]:
    """Turn the library's exceptions into ours."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with telling():
            return method(*args, **kwargs)

    return call


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """The same, for a part of a method."""
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
        raise unavailable(error) from None


def explain(error: docker_errors.APIError) -> str:
    return str(error.explanation or error)


def unavailable(error: Exception) -> EngineUnavailable:
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnavailable(
            "this user may not use the engine's socket", hint="run as root, or join the group docker and log in again"
        )
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in text:
        return EngineUnavailable(
            f"the engine has not answered for {TIMEOUT} s", hint="is its daemon frozen or its disk full?"
        )
    if "paramiko" in text:
        return EngineUnavailable(
            "an engine at an ssh:// address needs paramiko",
            hint=f"{sys.executable} -m pip install 'docker[ssh]'",
        )
    hint = "start it, or name another one with -H; `consolidate doctor --fix` installs and starts one"
    return EngineUnavailable("no engine answers", hint=hint)
