"""Networks and volumes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import docker
from docker import errors as docker_errors
from msgspec.structs import replace

from consolidate.docker_engine.failures import explain, told
from consolidate.docker_engine.looks import Looks
from consolidate.errors import OperationFailed
from consolidate.observed import (
    free_subnets,
)

if TYPE_CHECKING:
    from consolidate.actions import CreateNetwork

SUBNET_TRIES = 100  # for a network whose subnet others take at the same time
# What engines say then: with other networks, with bridges; Podman of both.
OVERLAP = ("overlaps", "overlapping", "already used on the host")

CONNECTED = ("already exists in network", "already connected to network")  # a container; Podman's word is the second


class Networks(Looks):
    """Networks and volumes of an engine."""

    @told
    def create_network(self, network: CreateNetwork) -> None:
        subnet, refused = network.subnet, []
        for last in (*[False] * SUBNET_TRIES, True):
            try:
                self._make_network(network, subnet)
                return
            except docker_errors.APIError as error:
                if last or not network.pool or not any(w in explain(error) for w in OVERLAP):
                    raise
            # Another stack has taken it since the plan was made: each try that fails is one that made a network. Or
            # the engine was killed as it made a network: its bridge is there, of which no list tells.
            refused.append(subnet)
            observed = self.observe("")
            try:
                taken = replace(observed, foreign_subnets=(*observed.foreign_subnets, *refused))
                subnet = free_subnets(taken, network.pool, 1)[0]
            except ValueError as error:
                raise OperationFailed(str(error)) from None

    def _make_network(self, network: CreateNetwork, subnet: str) -> None:
        options = {} if network.masquerade else {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        if network.internal:
            # No address of the host on the bridge: its services on 0.0.0.0 can't be reached from inside.
            options["com.docker.network.bridge.inhibit_ipv4"] = "true"
        self.client.create_network(
            network.name,
            driver="bridge",
            options=options,
            ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)]),
            internal=network.internal,
            check_duplicate=True,
            labels=dict(network.labels),
        )

    @told
    def remove_network(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_network(name)

    @told
    def connect(self, container: str, network: str, alias: str) -> None:
        try:
            self.client.connect_container_to_network(container, network, aliases=[alias])
        except docker_errors.APIError as error:
            if not any(w in explain(error) for w in CONNECTED):
                raise

    @told
    def disconnect(self, container: str, network: str) -> None:
        try:
            self.client.disconnect_container_from_network(container, network)
        except docker_errors.APIError as error:
            if "is not connected to" not in explain(error):
                raise

    @told
    def remove_volume(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_volume(name)
