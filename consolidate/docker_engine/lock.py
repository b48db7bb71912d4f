"""A stack's lock: the name of a container that goes when our connection to its input does.

Who has made a container of the name has the lock. While it does not run, the holder's machine can tell whether the
holder lives; once it runs it ends with the connection, which every machine sees. A start costs the engine as much as
that of a server, so a lock that is let go soon never runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import docker
import requests
from docker import errors as docker_errors

from consolidate import naming, process
from consolidate.docker_engine.failures import told
from consolidate.docker_engine.streams import hang_up
from consolidate.engine import LOCK_GRACE
from consolidate.errors import EngineUnavailable, Locked, OperationFailed

START_AFTER = 10.0  # seconds: an `up` that ends sooner never starts its lock; well below LOCK_GRACE


@contextlib.contextmanager
def held(client: docker.APIClient, stack: str, holder: str, remove: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `stack`; `remove` removes a container.

    Raises Locked.
    """
    name = naming.helper(stack, "", "lock")
    made = _take(client, name, stack, holder)
    done, streams = threading.Event(), []

    def start() -> None:
        if done.wait(START_AFTER):
            return
        # Should it not start, its name still keeps others of this machine away, for as long as this process lives.
        with contextlib.suppress(docker_errors.DockerException, requests.exceptions.RequestException):
            streams.append(client.attach_socket(made, {"stdin": 1, "stream": 1}))
            client.start(made)

    starting = threading.Thread(target=start, name="lock", daemon=True)
    starting.start()
    try:
        yield
    finally:
        done.set()
        starting.join()
        with contextlib.suppress(OperationFailed, EngineUnavailable):
            remove(made)
        for stream in streams:
            hang_up(stream)


@told
def _take(client: docker.APIClient, name: str, stack: str, holder: str) -> str:
    config = {
        "Image": naming.BASE_IMAGE,
        "Cmd": ["cat"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "Labels": {
            naming.STACK: stack,
            naming.HELPER: "lock",
            naming.HOLDER: holder,
            naming.PROCESS: process.identity(),
        },
        "HostConfig": {"AutoRemove": True, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"]},
    }
    deadline, seen = time.monotonic() + LOCK_GRACE, ""
    while True:
        try:
            return str(client.create_container_from_config(config, name)["Id"])
        except docker_errors.APIError as error:
            if error.status_code != 409:
                raise
        met = _met(client, name, late=time.monotonic() > deadline)
        if met != seen:  # each has its own time to run
            deadline, seen = time.monotonic() + LOCK_GRACE, met
        time.sleep(0.1)


def _met(client: docker.APIClient, name: str, *, late: bool) -> str:
    """The id of the lock that is there, which is removed where its holder has left it behind.

    Raises Locked where somebody holds it.
    """
    try:
        found = client.inspect_container(name)
    except docker_errors.NotFound:
        return ""
    labels, status = found["Config"]["Labels"], found["State"]["Status"]
    fate = process.fate(labels.get(naming.PROCESS, ""))
    if status == "running" or (status == "created" and fate == "lives"):
        since = str(found["Created"])[:19].replace("T", " ")
        raise Locked.by(labels.get(naming.HOLDER, "somebody"), since)
    if not late and (status, fate) != ("created", "ended"):  # it is about to run, or to go by itself
        return str(found["Id"])
    with contextlib.suppress(docker_errors.APIError):
        client.remove_container(found["Id"], force=True)
    return str(found["Id"])
