"""Containers of ours that run for a while beside the servers: no address, no check, and no network but for backups."""

from __future__ import annotations

from consolidate import naming
from consolidate.actions import CreateContainer
from consolidate.desired import Container, Mount
from consolidate.resolved import Limits


def helper_container(
    name: str,
    stack: str,
    server: str,
    role: str,
    entrypoint: tuple[str, ...],
    command: tuple[str, ...],
    *,
    image: str = naming.BASE_IMAGE,
    capabilities: tuple[str, ...] = (),
    limits: Limits,
    mounts: tuple[Mount, ...] = (),
    environment: tuple[tuple[str, str], ...] = (),
    tmpfs: tuple[tuple[str, str], ...] = (),
    init: bool = True,
    read_only: bool = True,
    stop_grace: float = 1.0,
    folders: tuple[tuple[str, str, bool], ...] = (),
    processes_of: str = "",
    hostname: str = "",
    networks: tuple[str, ...] = (),
) -> CreateContainer:
    """A helper, run by root, of the role `role`; of a server where there is a name of one."""
    container = Container(
        stack=stack,
        server=hostname or server or role,
        kind="",
        image=image,
        user="0:0",
        command=command,
        entrypoint=entrypoint,
        working_dir=None,
        init=init,
        read_only=read_only,
        capabilities=capabilities,
        environment=environment,
        mounts=mounts,
        tmpfs=tmpfs,
        limits=limits,
        publish=(),
        dns_options=(),
        health=None,
        stop_signal="SIGTERM",
        stop_grace=stop_grace,
    )
    labels = ((naming.HELPER, role), (naming.OF, naming.server_of(server)), (naming.STACK, stack))
    return CreateContainer(name, 0, container, networks, labels, once=True, folders=folders, processes_of=processes_of)
