"""A stack's lock: the name of a container that ends when our connection to its input does.

Who has made a container of the name has the lock. The holder's machine can always tell whether the holder lives; once
the container runs it ends with the connection, which every machine sees. A start costs the engine as much as that of a
server, so a lock that is let go soon never runs. What a dead holder has left stays until somebody takes it over.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
from docker import errors as docker_errors

from consolidate import naming, process
from consolidate.docker_engine.failures import taken, telling, told
from consolidate.docker_engine.streams import hang_up
from consolidate.engine import LOCK_GRACE, taken_over, tenure
from consolidate.errors import EngineUnavailable, Locked, OperationFailed

START_AFTER = 10.0  # seconds: an `up` that ends sooner never starts its lock; well below LOCK_GRACE


@contextlib.contextmanager
def held(
    client: docker.APIClient,
    stack: str,
    holder: str,
    remove: Callable[[str], None],
    tell: Callable[[str], None],
    lose: Callable[[EngineUnavailable], None],
) -> Iterator[None]:
    """Hold the lock of `stack`; `remove` removes a container, `tell` is for a word about others, `lose` for why the lock has
    ended before it was let go: others may have it by then.

    Raises Locked.
    """
    name = naming.helper(stack, "", "lock")
    made = _take(client, name, stack, holder, tell)
    done = threading.Event()

    def start() -> None:
        if done.wait(START_AFTER):
            return
        try:
            with telling(client):
                stream = client.attach_socket(made, {"stdin": 1, "stdout": 1, "stream": 1})
                threading.Thread(target=watch, args=(stream,), name="lock's end", daemon=True).start()
                client.start(made)
        except (
            EngineUnavailable,
            OperationFailed,
        ) as error:  # other machines will take one that never runs for remains
            if not done.is_set():
                lose(EngineUnavailable(f"the stack's lock can't be started: {error.what}", hint=error.hint))

    def watch(stream: Any) -> None:
        """Its end comes before we let go only where something is wrong."""
        raw = getattr(stream, "_sock", stream)
        with contextlib.suppress(OSError):
            raw.settimeout(None)
            while raw.recv(64):
                continue
        if not done.is_set():
            hint = f"the connection that held it has broken off, or somebody has ended the container {name}"
            lose(EngineUnavailable("this run has lost the stack's lock, so another may be at work by now", hint=hint))
            if gone := _gone(client):  # asked afterwards, since an engine that is frozen takes its time
                lose(gone)
        hang_up(stream)

    starting = threading.Thread(target=start, name="lock", daemon=True)
    starting.start()
    whole = True
    try:
        yield
    except (KeyboardInterrupt, EngineUnavailable):
        whole = False  # the lock stays, for the next run to know that this one did not come to its end
        raise
    finally:
        done.set()
        if whole:
            starting.join()
            with contextlib.suppress(OperationFailed, EngineUnavailable):
                remove(made)


def _gone(client: docker.APIClient) -> EngineUnavailable | None:
    """Why the engine has gone as a whole, if it has: then that is why a lock has ended, too."""
    try:
        with telling(client):
            client.ping()
    except (EngineUnavailable, OperationFailed) as error:
        return EngineUnavailable(error.what, hint=error.hint)
    return None


@told
def _take(client: docker.APIClient, name: str, stack: str, holder: str, tell: Callable[[str], None]) -> str:
    labels = {
        naming.STACK: stack,
        naming.HELPER: "lock",
        naming.HOLDER: holder,
        naming.PROCESS: process.identity(),
    }
    config = {
        "Image": naming.BASE_IMAGE,
        "Cmd": ["cat"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "Labels": labels,
        "HostConfig": {"NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"]},
    }
    seen, deadline = "", 0.0
    while True:
        try:
            return str(client.create_container_from_config(config, name)["Id"])
        except docker_errors.APIError as error:
            if not taken(error):
                raise
        try:
            met = client.inspect_container(name)
        except docker_errors.NotFound:  # it has just been let go
            continue
        theirs = met["Config"]["Labels"]
        who, since = theirs.get(naming.HOLDER, "somebody"), str(met["Created"])[:19].replace("T", " ")
        found = tenure(met["State"]["Status"], theirs.get(naming.PROCESS, ""))
        if found == "held":
            raise Locked.by(who, since)
        if met["Id"] != seen:  # each has its own time to run
            seen, deadline = met["Id"], time.monotonic() + LOCK_GRACE
            tell(taken_over(who, since) if found == "left" else _unsettled(who))
        elif found == "unsettled" and time.monotonic() > deadline:
            tell(taken_over(who, since))
            found = "left"
        if found == "left":
            labels[naming.BROKEN_OFF] = who
            with contextlib.suppress(docker_errors.APIError):
                client.remove_container(seen, force=True)
                continue
        time.sleep(0.1)


def _unsettled(who: str) -> str:
    return f"{who} has just begun to work on this stack, or has gone: that is clear within {LOCK_GRACE:g} s"
