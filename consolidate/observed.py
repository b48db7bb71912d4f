"""What is on the engine, as its lists show it. Values only; reading them costs a constant number of calls."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import cached_property

from msgspec import Struct, field

from consolidate import naming


class ObservedContainer(Struct, frozen=True):
    """A container; `state` is the engine's word (created, running, exited …), `status` its sentence."""

    id: str
    name: str
    image: str
    state: str
    status: str
    created: int
    labels: Mapping[str, str]
    networks: Mapping[str, str]  # name → IPv4 address, empty while it doesn't run
    volumes: tuple[str, ...]
    ports: tuple[tuple[str, int, str], ...] = ()  # published: address, port, protocol
    image_id: str = ""
    alone: bool = False  # made without a network: it can't join one

    @property
    def server(self) -> str | None:
        """The server that it is of; of several replicas the one that it is (naming.replica)."""
        return naming.replica_of(self.labels)

    @property
    def helper(self) -> str | None:
        return self.labels.get(naming.HELPER)

    @property
    def generation(self) -> int:
        return int(self.labels.get(naming.GENERATION, "0"))

    @property
    def fingerprint(self) -> str:
        return self.labels.get(naming.FINGERPRINT, "")

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def healthy(self) -> bool:
        """Whether the engine's own check has seen it well since its start."""
        return self.status.endswith("(healthy)")

    @property
    def alive(self) -> bool:
        """Whether it has a program that may hold data and ports: it is stopped before it is removed."""
        return self.state in ("running", "paused", "restarting")

    @property
    def own_name(self) -> str:
        """The name that it was made with, whatever somebody has called it since."""
        stack, of = self.labels.get(naming.STACK, ""), self.labels.get(naming.OF, "")
        if self.server is not None:
            return naming.container(stack, self.server, self.generation)
        if self.helper == "generation":
            return naming.record(stack, of, self.generation)
        role = self.labels.get(naming.FOR) if self.helper == "grant" else self.helper
        return naming.helper(stack, of, role) if role and self.helper in ("grant", "live", "secrets") else self.name


class ObservedFile(Struct, frozen=True):
    """A file or a link in a container; `sha` is that of its content, or of an arrow and where it leads."""

    mode: int
    uid: int
    gid: int
    sha: str
    link: str | None = None


class Details(Struct, frozen=True):
    """How a container is made, field by field as text, and what its image would have made of fields that nobody set."""

    fields: Mapping[str, str]
    defaults: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # its names on each network


class ObservedNetwork(Struct, frozen=True):
    id: str
    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...]


class ObservedVolume(Struct, frozen=True):
    name: str
    labels: Mapping[str, str]
    created: str = ""


class HostFacts(Struct, frozen=True):
    """What the engine says of its host: memory in bytes."""

    name: str
    memory: int
    cpus: int
    version: str = ""
    api: str = ""
    kernel: str = ""
    limits_swap: bool = True
    keeps_in: bool = True  # a server that publishes and has no egress reaches nothing outside


class Observed(Struct, frozen=True, dict=True):
    """One stack on an engine, and what of the engine's other things matters to it."""

    stack: str
    host: HostFacts
    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)  # by tag, by digest and by id → id
    foreign_subnets: tuple[str, ...] = ()
    foreign_ports: tuple[tuple[str, int, str, str], ...] = ()  # address, port, protocol, container
    foreign_names: frozenset[str] = field(default_factory=frozenset)  # containers of others
    foreign_images: frozenset[str] = frozenset()  # ids of those that containers of others were made of
    broken_off: bool = False  # an earlier run on the stack did not come to its end

    @cached_property
    def essence(self) -> tuple[object, ...]:
        """All that a plan rests on; clocks, images, our own lock and the times of backups don't count."""
        containers = [
            (c.name, c.state, dict(c.labels), sorted(c.networks))
            for c in self.containers
            if c.helper not in ("lock", "saved", "drilled")
        ]
        networks, volumes = [n.name for n in self.networks], [v.name for v in self.volumes]
        return (self.host.name, containers, networks, volumes, self.broken_off)

    @cached_property
    def servers(self) -> dict[str, list[ObservedContainer]]:
        """Containers of each server, and of each of its replicas, the newest generation first."""
        found: dict[str, list[ObservedContainer]] = {}
        for container in sorted(self.containers, key=lambda c: (-c.generation, c.name != c.own_name)):
            if container.server is not None:
                found.setdefault(container.server, []).append(container)
        return found

    @cached_property
    def replicas(self) -> Mapping[str, list[str]]:
        """The names of each server's replicas that have a container, in their order."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.servers, key=naming.replica_number):
            found.setdefault(naming.server_of(name), []).append(name)
        return found

    def of_server(self, server: str) -> list[ObservedContainer]:
        """The containers of all of a server's replicas."""
        return [c for name in self.replicas.get(server, ()) for c in self.servers[name]]

    def one_of(self, server: str) -> ObservedContainer | None:
        """What serves of the first of a server's replicas that is there."""
        return next((c for name in self.replicas.get(server, ()) if (c := self.current(name))), None)

    @cached_property
    def filled(self) -> frozenset[str]:
        """Volumes of files that are known to be full: a generation has them, which is made afterwards only."""
        return frozenset(v for c in self.containers if c.server or c.helper == "generation" for v in c.volumes)

    @cached_property
    def dumps(self) -> Mapping[str, list[ObservedVolume]]:
        """Volumes with dumps of each server's data."""
        found: dict[str, list[ObservedVolume]] = {}
        for volume in self.volumes:
            if volume.labels.get(naming.ROLE) == "dump":
                found.setdefault(volume.labels.get(naming.OF, ""), []).append(volume)
        return found

    @cached_property
    def refreshes(self) -> Mapping[str, list[str]]:
        """Of each built image what is there of it, the newest first: refreshes, and at the end itself."""
        found: dict[str, list[str]] = {}
        for tag in sorted(self.images, reverse=True):  # a tag sorts before its refreshes
            match = naming.REFRESHED.fullmatch(tag)
            plain = match["plain"] if match else tag
            if match or plain in found:
                found.setdefault(plain, []).append(tag)
        return found

    @cached_property
    def rebuilt(self) -> Mapping[str, list[str]]:
        """Of each built image what was built again for a lock."""
        found: dict[str, list[str]] = {}
        for tag in sorted(self.images):
            if match := naming.LOCKED.fullmatch(tag):
                found.setdefault(match["plain"], []).append(tag)
        return found

    def newest(self, tag: str) -> str | None:
        """The newest that is there of an image that the stack asks for, by the name that it has on the engine."""
        listed = naming.listed_image(tag)
        return next(iter(self.refreshes.get(listed, ())), listed if listed in self.images else None)

    @cached_property
    def network_names(self) -> frozenset[str]:
        return frozenset(n.name for n in self.networks)

    @cached_property
    def volume_names(self) -> frozenset[str]:
        return frozenset(v.name for v in self.volumes)

    @cached_property
    def on_network(self) -> dict[str, list[ObservedContainer]]:
        """The containers on each network."""
        found: dict[str, list[ObservedContainer]] = {}
        for container in self.containers:
            for name in container.networks:
                found.setdefault(name, []).append(container)
        return found

    @cached_property
    def with_volume(self) -> dict[str, list[ObservedContainer]]:
        """The containers that have each volume."""
        found: dict[str, list[ObservedContainer]] = {}
        for container in self.containers:
            for name in dict.fromkeys(container.volumes):
                found.setdefault(name, []).append(container)
        return found

    @cached_property
    def roles(self) -> dict[str, str]:
        """What each volume is for."""
        return {v.name: v.labels.get(naming.ROLE, "") for v in self.volumes}

    @cached_property
    def receipts(self) -> dict[str, list[ObservedContainer]]:
        """What tells of grants made, by provider."""
        return self._helpers_of("grant")

    @cached_property
    def records(self) -> dict[str, list[ObservedContainer]]:
        """What tells of earlier generations, by server."""
        return self._helpers_of("generation")

    def _helpers_of(self, role: str) -> dict[str, list[ObservedContainer]]:
        found: dict[str, list[ObservedContainer]] = {}
        for container in self.containers:
            if container.helper == role:
                found.setdefault(container.labels.get(naming.OF, ""), []).append(container)
        return found

    @cached_property
    def _helpers(self) -> dict[str, ObservedContainer]:
        return {c.name: c for c in self.containers if c.helper}

    def helper(self, name: str) -> ObservedContainer | None:
        return self._helpers.get(name)

    def live(self, server: str) -> ObservedContainer | None:
        """The receipt of a server's reloadable files."""
        return self.helper(naming.helper(self.stack, server, "live"))

    def applied(self, server: str) -> str:
        """The hash of the reloadable files that a server has now; empty for none."""
        receipt = self.live(server)
        return receipt.labels.get(naming.APPLIED, "") if receipt else ""

    def current(self, server: str) -> ObservedContainer | None:
        """The container that serves: the newest that runs, else the newest."""
        found = self.servers.get(server, [])
        return next((c for c in found if c.running), found[0] if found else None)


def free_subnets(observed: Observed, pool: str, count: int, prefix: int = 28) -> list[str]:
    """`count` subnets of `pool` that overlap none that the engine has.

    Raises ValueError when the pool is too small.
    """
    taken = [ipaddress.ip_network(s) for n in observed.networks for s in n.subnets]
    taken += [ipaddress.ip_network(s) for s in observed.foreign_subnets]
    used = sorted((int(n.network_address), int(n.broadcast_address)) for n in taken if n.version == 4)
    network, size = ipaddress.IPv4Network(pool), 1 << (32 - prefix)
    found: list[str] = []
    start, position = int(network.network_address), 0
    while len(found) < count and start + size - 1 <= int(network.broadcast_address):
        while position < len(used) and used[position][1] < start:
            position += 1
        blocker = used[position] if position < len(used) and used[position][0] < start + size else None
        if blocker is None:
            found.append(f"{ipaddress.IPv4Address(start)}/{prefix}")
            start += size
        else:
            start = max(start + size, (blocker[1] // size + 1) * size)
    if len(found) < count:
        raise ValueError(f"the pool {pool} has no room for {count} more networks; set host.subnets to a larger one")
    return found
