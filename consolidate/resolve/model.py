"""A resolved stack: servers with nothing left to look up. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consolidate.kinds import Kind, Recipe
from consolidate.loader import Document
from consolidate.resolve.places import Places
from consolidate.secret import SecretSpec
from consolidate.stack import Host, Publish

SECRETS_PATH = "/run/secrets"


@dataclass(frozen=True, slots=True)
class Limits:
    memory: int
    cpus: float
    pids: int


@dataclass(frozen=True, slots=True)
class Check:
    """A command whose exit status 0 means good; times in seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    retries: int


@dataclass(frozen=True, slots=True)
class Link:
    """A consumer's need, met: `provider` is a server's name."""

    name: str
    consumer: str
    provider: str
    provides: str
    port: int | None
    password: str | None  # the secret's address


@dataclass(frozen=True, slots=True)
class Route:
    server: str
    domains: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class Server:
    """One functional server, with nothing left to look up."""

    name: str
    kind: Kind
    recipe: Recipe
    context: Mapping[str, Any] = field(repr=False)
    domains: tuple[str, ...]
    environment: Mapping[str, str]
    image: str | None
    limits: Limits
    explicit_memory: bool
    explicit_cpus: bool
    publish: tuple[Publish, ...]
    egress: bool
    health: Check | None
    ready: Check | None
    links: tuple[Link, ...]
    secrets: Mapping[str, SecretSpec]
    mounted: tuple[str, ...]
    build: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A whole stack, resolved. `name` is its name on the engine, with the environment in it."""

    name: str
    environment: str | None
    folder: Path
    host: Host
    servers: Mapping[str, Server]
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    proxy: str | None
    document: Document = field(repr=False)
    places: Places = field(repr=False)
    warnings: tuple[str, ...] = ()
