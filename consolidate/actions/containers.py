"""Containers: made, checked, started, waited for, changed, stopped, and kept in mind."""

from __future__ import annotations

from msgspec import Struct

from consolidate.desired import Container
from consolidate.generations import Generation
from consolidate.resolved import Check, Limits


class CreateContainer(Struct, frozen=True):
    name: str
    generation: int
    container: Container
    networks: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    nameless: tuple[str, ...] = ()  # networks on which the server's name is not yet its own
    image: str = ""  # what it is made of, where that is not the image that the stack asks for but a refresh of it
    once: bool = False  # when it has ended the engine lets it be
    # Folders of the engine's host, where it sees them, and whether one that isn't there is made.
    folders: tuple[tuple[str, str, bool], ...] = ()
    processes_of: str = ""  # the container whose processes it sees beside its own
    verb = "create"


class CheckConfiguration(Struct, frozen=True):
    """Run a configuration's check in a container of its own, which goes afterwards, as does the volume `files`."""

    server: str
    creation: CreateContainer
    timeout: float
    files: str | None
    verb = "check"


class StartContainer(Struct, frozen=True):
    """`new`: the plan has made it, so nobody has stopped it yet."""

    name: str
    new: bool = False
    verb = "start"


class UpdateContainer(Struct, frozen=True):
    """Give a container its limits and its restart policy while it goes on."""

    name: str
    limits: Limits
    verb = "set limits"


class UnpauseContainer(Struct, frozen=True):
    name: str
    verb = "unpause"


class RenameContainer(Struct, frozen=True):
    """Give a container the name that it was made with."""

    found: str
    name: str
    verb = "rename"


class WaitReady(Struct, frozen=True):
    name: str
    check: Check | None
    verb = "wait"


class StopContainer(Struct, frozen=True):
    """`grace`: seconds that it has to end, None for those that it was made with."""

    name: str
    grace: float | None
    verb = "stop"


class RemoveContainer(Struct, frozen=True):
    """`nameless_volumes`: also those that the engine made by itself, since the image declares them."""

    name: str
    nameless_volumes: bool = False
    verb = "remove"


class KeepGeneration(Struct, frozen=True):
    """Leave a record of a generation: a container of its image that never starts, and holds its `volumes`.

    `covered` are the paths at which its image may declare volumes that it needn't have. In an undo the record tells
    of the failure.
    """

    name: str
    stack: str
    generation: Generation
    volumes: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    verb = "keep"
