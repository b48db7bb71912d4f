"""A resolved stack: servers with nothing left to look up. Values only; no library is needed to read them back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from consolidate.errors import Problem
from consolidate.secret import SecretSpec

if TYPE_CHECKING:
    from consolidate.kinds import Kind
    from consolidate.manifest import Recipe
    from consolidate.places import Places

SECRETS_PATH = "/run/secrets"
SUBNETS = "10.213.0.0/16"


class Publish(Struct, frozen=True):
    """A port of a container on an address of the host."""

    address: str
    port: int
    target: int
    protocol: str = "tcp"

    @property
    def host(self) -> str:
        """ADDRESS:PORT on the host."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def __str__(self) -> str:
        return f"{self.host}->{self.target}/{self.protocol}"


class Limits(Struct, frozen=True):
    memory: int
    cpus: float
    pids: int


class Check(Struct, frozen=True):
    """A command whose exit status 0 means good; times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int


class Link(Struct, frozen=True):
    """A consumer's need, met: `provider` is a server's name."""

    name: str
    consumer: str
    provider: str
    provides: str
    port: int | None
    password: str | None  # the secret's address


class Route(Struct, frozen=True):
    server: str
    domains: tuple[str, ...]
    port: int
    replicas: int = 1


class Making(Struct, frozen=True, eq=False):
    """What a server's files are rendered from. Once they are it is not needed: a remembered server has None instead."""

    kind: Kind
    recipe: Recipe
    context: Mapping[str, Any]

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class Server(Struct, frozen=True):
    """One functional server, with nothing left to look up. `kind` is its name."""

    name: str
    kind: str
    making: Making | None
    domains: tuple[str, ...]
    environment: Mapping[str, str]
    image: str | None
    limits: Limits
    explicit_memory: bool
    explicit_cpus: bool
    ports: Mapping[str, int]
    publish: tuple[Publish, ...]
    egress: bool
    health: Check | None
    ready: Check | None
    links: tuple[Link, ...]
    provides: tuple[str, ...]
    revokes: tuple[tuple[str, ...], ...]  # the commands by which it takes back what consumers got
    switch: tuple[str, ...]  # the command that sends a route's requests to another container; empty: it has none
    secrets: Mapping[str, SecretSpec]
    mounted: tuple[str, ...]
    build: str | None = None
    replicas: int = 1

    @property
    def source(self) -> Making:
        """What its files are rendered from; not asked of a remembered server."""
        assert self.making is not None, "a remembered server has been rendered"
        return self.making


class Host(Struct, frozen=True):
    """What the stack says of the machine: memory in bytes and processors that are not for servers."""

    reserved_memory: int
    reserved_cpus: float
    subnets: str


class Keep(Struct, frozen=True):
    """The last backup of so many days, weeks and months is kept."""

    daily: int = 7
    weekly: int = 4
    monthly: int = 12


class Backups(Struct, frozen=True):
    """Where a stack's backups go: its own `repository`, and what that takes beside its passphrase. A session that has to
    reach a server gets a network of `subnets`."""

    repository: str
    passphrase: SecretSpec
    keep: Keep = Keep()
    credentials: tuple[SecretSpec, ...] = ()
    known_hosts: tuple[str, ...] = ()
    subnets: str = SUBNETS

    @property
    def secrets(self) -> tuple[SecretSpec, ...]:
        return (self.passphrase, *self.credentials)


class Resolved(Struct, frozen=True):
    """A whole stack, resolved. `name` is its name on the engine, with the environment in it.

    A remembered one has no `places`, and tells of no place where something is wrong.
    """

    name: str
    environment: str | None
    folder: Path
    host: Host
    servers: Mapping[str, Server]
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    proxy: str | None
    places: Places | None
    backups: Backups
    generations: int = 3  # of each server, that are kept beside the one that serves
    warnings: tuple[str, ...] = ()

    def problem(self, what: str, *path: str | int, hint: str = "") -> Problem:
        """A problem with what stands at `path` in the stack file."""
        return self.places.problem(what, *path, hint=hint) if self.places else Problem(what, hint=hint)
