"""Networks and volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import docker
from docker import errors as docker_errors

from consolidate.docker_engine.failures import explain, told
from consolidate.docker_engine.looks import Looks
from consolidate.errors import OperationFailed
from consolidate.observed import (
    free_subnets,
)

if TYPE_CHECKING:
    from consolidate.plan import CreateNetwork

SUBNET_TRIES = 100  # for a network whose subnet others take at the same time


class Networks(Looks):
    """Networks and volumes of an engine."""

    @told
    def create_network(self, network: CreateNetwork) -> None:
        options = {} if network.masquerade else {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        if network.internal:
            # No address of the host on the bridge: its services on 0.0.0.0 can't be reached from inside.
            options["com.docker.network.bridge.inhibit_ipv4"] = "true"
        subnet = network.subnet
        for last in (*[False] * SUBNET_TRIES, True):
            try:
                self.client.create_network(
                    network.name,
                    driver="bridge",
                    options=options,
                    ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)]),
                    internal=network.internal,
                    check_duplicate=True,
                    labels=dict(network.labels),
                )
                return
            except docker_errors.APIError as error:
                if last or not network.pool or "overlaps" not in explain(error):
                    raise
            # Another stack has taken it since the plan was made: each try that fails is one that made a network.
            try:
                subnet = free_subnets(self.observe(""), network.pool, 1)[0]
            except ValueError as error:
                raise OperationFailed(str(error)) from None

    @told
    def remove_network(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_network(name)

    @told
    def connect(self, container: str, network: str, alias: str) -> None:
        try:
            self.client.connect_container_to_network(container, network, aliases=[alias])
        except docker_errors.APIError as error:
            if "already exists in network" not in explain(error):
                raise

    @told
    def disconnect(self, container: str, network: str) -> None:
        try:
            self.client.disconnect_container_from_network(container, network)
        except docker_errors.APIError as error:
            if "is not connected to" not in explain(error):
                raise

    @told
    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self.client.create_volume(name, labels=dict(labels))

    @told
    def remove_volume(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_volume(name)
