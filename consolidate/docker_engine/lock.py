"""A stack's lock: the name of a container that goes when our connection to its input does."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import docker
from docker import errors as docker_errors

from consolidate import naming
from consolidate.docker_engine.failures import told
from consolidate.errors import Locked
from consolidate.resolve import BASE_IMAGE

LOCK_GRACE = 5.0  # seconds that a lock's remains get to go away by themselves


@told
def take_lock(client: docker.APIClient, name: str, stack: str, holder: str) -> Any:
    config = {
        "Image": BASE_IMAGE,
        "Cmd": ["cat"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "Labels": {naming.STACK: stack, naming.HELPER: "lock", naming.HOLDER: holder},
        "HostConfig": {"AutoRemove": True, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"]},
    }
    deadline = time.monotonic() + LOCK_GRACE
    while True:
        try:
            made = client.create_container_from_config(config, name)["Id"]
            stream = client.attach_socket(made, {"stdin": 1, "stream": 1})
            client.start(made)
            return stream
        except docker_errors.APIError as error:
            if error.status_code != 409:
                raise
        _refuse_if_held(client, name)
        if time.monotonic() > deadline:  # remains of a holder that died before its lock ran
            with contextlib.suppress(docker_errors.APIError):
                client.remove_container(name, force=True)
            deadline = time.monotonic() + LOCK_GRACE
        time.sleep(0.1)


def _refuse_if_held(client: docker.APIClient, name: str) -> None:
    try:
        found = client.inspect_container(name)
    except docker_errors.NotFound:
        return
    if found["State"]["Status"] == "running":
        since = str(found["State"]["StartedAt"])[:19].replace("T", " ")
        who = found["Config"]["Labels"].get(naming.HOLDER, "somebody")
        raise Locked.by(who, since)
