"""The bare calls: what `up` asks of the engine for servers with no link, replayed by docker-py with no thought between.

`python bare.py plan.pickle` replays; `write_plan` makes the file. The calls, their bodies and how many are under way at
once are those of `up`; only the deciding is left out. The process is timed as a whole, as ours is.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

START_AFTER = 10.0  # as docker_engine.lock has it
FIRST, SLOWEST, LATE = 0.1, 2.0, 0.08  # the executor's pauses between probes


def write_plan(stack_file: Path, target: Path) -> None:
    from consolidate import docker_engine, execute, files
    from consolidate.actions import CreateContainer, WaitReady, WriteFiles
    from consolidate.docker_engine.shapes import container_config
    from consolidate.naming import BASE_IMAGE
    from consolidate.pipeline import prepare
    from consolidate.source import Source

    engine = docker_engine.connect()
    prepared = prepare(Source(stack_file), engine)

    def reveal(address: str) -> str:
        return prepared.secrets[address].value.reveal()

    plan = prepared.plan
    creations, checks, volumes = [], {}, []
    for operation in plan.operations:
        match operation.action:
            case CreateContainer() as action:
                creations.append((action.name, container_config(action, engine.cpus())))
            case WaitReady(name, check):
                checks[name] = list(check.command) if check else None
            case WriteFiles(volume):
                volumes.append(volume)
    writers = []
    for group in execute.batches(volumes):
        mounts = [
            {
                "Type": "volume",
                "Source": v.name,
                "Target": f"/write/{v.name}",
                "VolumeOptions": {"Labels": {"bench": ""}},
            }
            for v in group
        ]
        config = {
            "Image": docker_engine.HELPER_IMAGE,
            "Cmd": ["-"],
            "HostConfig": {"NetworkMode": "none", "Mounts": mounts},
        }
        moved = [f for v in group for f in v.files.below(v.name).files]
        with files.archive(moved, reveal) as tar:
            writers.append((f"{group[0].name}.writer", config, tar.read()))
    target.write_bytes(
        pickle.dumps(
            {
                "stack": plan.stack,
                "parallel": docker_engine.SOCKET_CALLS,
                "writers": writers,
                "servers": [(name, config, checks.get(name)) for name, config in creations],
                "volumes": [v.name for v in volumes],
                "lock": BASE_IMAGE,
            }
        )
    )


def replay(plan: dict[str, Any]) -> None:
    import docker

    client = docker.APIClient(version="auto")
    labels = {"io.consolidate.stack": plan["stack"]}

    def observe(*also: Callable[[], Any]) -> None:
        label = f"io.consolidate.stack={plan['stack']}"
        with ThreadPoolExecutor(4) as pool:
            for call in (*also, client.networks, client.images, lambda: client.volumes(filters={"label": label})):
                pool.submit(call)
            client.containers(all=True)

    def write(job: tuple[str, dict[str, Any], bytes]) -> None:
        name, config, tar = job
        client.create_container_from_config(config | {"Labels": labels}, name)
        client.put_archive(name, "/write", tar)
        client.remove_container(name, force=True)

    def serve(job: tuple[str, dict[str, Any], list[str] | None]) -> None:
        name, config, check = job
        client.create_container_from_config(config, name)
        client.start(name)
        started, pause = time.monotonic(), FIRST
        while True:
            begun = time.monotonic()
            client.inspect_container(name)
            made = client.exec_create(name, check)["Id"]
            client.exec_start(made)
            if client.exec_inspect(made)["ExitCode"] == 0:
                return
            time.sleep(max(pause, time.monotonic() - begun))
            pause = min(FIRST + LATE * (time.monotonic() - started), SLOWEST)

    observe(client.info)
    config = {
        "Image": plan["lock"],
        "Cmd": ["cat"],
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "Labels": labels,
        "HostConfig": {"AutoRemove": True, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"]},
    }
    lock = client.create_container_from_config(config, f"{plan['stack']}.lock")["Id"]
    done, streams = threading.Event(), []

    def start() -> None:
        if not done.wait(START_AFTER):
            streams.append(client.attach_socket(lock, {"stdin": 1, "stream": 1}))
            client.start(lock)

    starting = threading.Thread(target=start)
    starting.start()
    observe()
    client.inspect_image("consolidate/helper:1")
    with ThreadPoolExecutor(plan["parallel"]) as pool:
        list(pool.map(write, plan["writers"]))
        list(pool.map(serve, plan["servers"]))
    done.set()
    starting.join()
    for stream in streams:
        stream.close()
    client.remove_container(lock, force=True)
    observe()  # the table of addresses at the end


def remove(plan: dict[str, Any]) -> None:
    import docker

    client = docker.APIClient(version="auto")
    with ThreadPoolExecutor(plan["parallel"]) as pool:
        list(pool.map(lambda s: client.remove_container(s[0], force=True), plan["servers"]))
        list(pool.map(client.remove_volume, plan["volumes"]))


if __name__ == "__main__":
    replay(pickle.loads(Path(sys.argv[1]).read_bytes()))
