"""A plan: operations as values, in an order that their needs give. It says all that will happen, and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

from consolidate.desired import Container, FileVolume, Grant, Image, Live
from consolidate.generations import Generation
from consolidate.resolved import Check, Limits
from consolidate.secret import SecretRecord

Impact = Literal["none", "reload", "rolling", "restart"]


class ProvideImage(Struct, frozen=True):
    """Build, pull or make an image; `fresh`: with today's packages, whatever was built before."""

    image: Image
    fresh: bool = False
    verb = "image"


class RemoveImage(Struct, frozen=True):
    """Remove a tag, or an image by its id; it stays where a container uses it."""

    name: str
    verb = "remove image"


class StoreSecrets(Struct, frozen=True):
    """Write new secrets to the store on the engine; `records` is the whole store."""

    stack: str
    records: tuple[SecretRecord, ...]
    verb = "store secrets"


class CreateNetwork(Struct, frozen=True):
    """`subnet` was free when the plan was made; should another stack have taken it, any free one of `pool` will do."""

    name: str
    subnet: str
    internal: bool
    masquerade: bool
    labels: tuple[tuple[str, str], ...]
    pool: str = ""
    verb = "create network"


class RemoveNetwork(Struct, frozen=True):
    name: str
    verb = "remove network"


class CreateVolume(Struct, frozen=True):
    name: str
    labels: tuple[tuple[str, str], ...]
    verb = "create volume"


class RemoveVolume(Struct, frozen=True):
    name: str
    verb = "remove volume"


class WriteFiles(Struct, frozen=True):
    """Create a volume and fill it."""

    volume: FileVolume
    verb = "write files"


class WriteLive(Struct, frozen=True):
    """Write reloadable files for containers from `generation` on; `container` runs and is told, None where none does."""

    live: Live
    container: str | None
    generation: int = 0
    verb = "write live files"


class PointLive(Struct, frozen=True):
    """Make reloadable files current that are in their volume already; they were applied in `generation`."""

    stack: str
    server: str
    volume: str
    applied: str
    generation: int
    verb = "point to live files"


class CreateContainer(Struct, frozen=True):
    name: str
    generation: int
    container: Container
    networks: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    nameless: tuple[str, ...] = ()  # networks on which the server's name is not yet its own
    image: str = ""  # what it is made of, where that is not the image that the stack asks for but a refresh of it
    once: bool = False  # when it has ended the engine lets it be
    verb = "create"


class CheckConfiguration(Struct, frozen=True):
    """Run a configuration's check in a container of its own, which goes afterwards, as does the volume `files`."""

    server: str
    creation: CreateContainer
    timeout: float
    files: str | None
    verb = "check"


class DumpData(Struct, frozen=True):
    """Dump a server's data into a new volume: by `command` in `container`, whose last line begins with `complete`, or,
    without a container, as archives of `data`, which are volumes with their short names."""

    volume: str
    stack: str
    server: str
    labels: tuple[tuple[str, str], ...]
    container: str
    command: tuple[str, ...]
    complete: str
    data: tuple[tuple[str, str], ...]
    verb = "dump"


class BeginRestore(Struct, frozen=True):
    """Leave word that a server's data is being replaced: until that has gone, nobody may believe what is there."""

    name: str
    stack: str
    server: str
    generation: int  # to which it goes back
    dump: str  # the volume that is brought back
    present: str | None  # that of the dump of what was there
    verb = "begin restore"


class RestoreVolumes(Struct, frozen=True):
    """Empty volumes, given with their short names, and fill them from the archives of the volume `dump`, if any."""

    stack: str
    server: str
    data: tuple[tuple[str, str], ...]
    dump: str
    verb = "restore"

    @property
    def name(self) -> str:
        return ", ".join(v for v, _ in self.data)


class LoadData(Struct, frozen=True):
    """Give a dump to a command in a server's container."""

    stack: str
    server: str
    name: str  # the container
    command: tuple[str, ...]
    dump: str
    verb = "load"


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


class ConnectNetwork(Struct, frozen=True):
    container: str
    network: str
    alias: str
    verb = "connect"


class DisconnectNetwork(Struct, frozen=True):
    container: str
    network: str
    verb = "disconnect"


class NameOnNetwork(Struct, frozen=True):
    """Give a container the server's name on a network that it is on already: from now on it is found there.

    One that has the name keeps its connections: a killed run may have got so far, and requests are under way.
    """

    container: str
    network: str
    alias: str
    verb = "name"


class SwitchRoute(Struct, frozen=True):
    """Run the proxy's `switch` command; with `network`, the address of `container` on it goes in place of ADDRESS."""

    proxy: str
    command: tuple[str, ...]
    container: str = ""
    network: str = ""
    verb = "switch route"


ADDRESS = "ADDRESS"


class ApplyGrant(Struct, frozen=True):
    """Tell the provider about a consumer. `password_in`: not the store has the password, but a container, at a path."""

    stack: str
    grant: Grant
    container: str
    receipt: str
    password_in: tuple[str, str] | None = None
    verb = "grant"


class RevokeGrant(Struct, frozen=True):
    """Tell the provider that a consumer has gone; `container` is None where the provider has gone as well."""

    receipt: str
    container: str | None
    command: tuple[str, ...]
    input: str
    verb = "revoke"


Action = (
    ProvideImage
    | RemoveImage
    | StoreSecrets
    | CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | RemoveVolume
    | WriteFiles
    | WriteLive
    | PointLive
    | CreateContainer
    | CheckConfiguration
    | DumpData
    | BeginRestore
    | RestoreVolumes
    | LoadData
    | StartContainer
    | UnpauseContainer
    | UpdateContainer
    | RenameContainer
    | WaitReady
    | StopContainer
    | RemoveContainer
    | KeepGeneration
    | ConnectNetwork
    | DisconnectNetwork
    | NameOnNetwork
    | SwitchRoute
    | ApplyGrant
    | RevokeGrant
)


class FieldChange(Struct, frozen=True):
    """A field of a server that differs, None where it is new or gone; long values and secrets only as a hash of theirs."""

    field: str
    old: str | None
    new: str | None


class Operation(Struct, frozen=True):
    """One act on the engine.

    `needs` are ids of operations that must have succeeded; `after` ids that must have ended, however. When it fails,
    `undo` is done, in order. `downtime` is a sentence about what the server's users notice. `changes` are the fields
    that `reason` tells of.
    """

    id: str
    action: Action
    server: str
    reason: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    impact: Impact = "none"
    downtime: str = ""
    undo: tuple[Action, ...] = ()
    changes: tuple[FieldChange, ...] = ()

    @property
    def verb(self) -> str:
        return self.action.verb

    def to_json(self) -> dict[str, Any]:
        """The row that others build on; keys are stable."""
        return {
            "id": self.id,
            "action": self.verb,
            "server": self.server,
            "reason": self.reason,
            "impact": self.impact,
            "downtime": self.downtime,
            "needs": list(self.needs),
            "fields": [asdict(c) for c in self.changes],
        }


class Plan(Struct, frozen=True):
    """Operations, and notes for the reader: what is kept, what is loosened, what to know."""

    stack: str
    operations: tuple[Operation, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.operations)

    def only(self, ids: Iterable[str]) -> Plan:
        """These operations alone; what they need of the others counts as done."""
        chosen = set(ids)
        return Plan(self.stack, tuple(o for o in self.operations if o.id in chosen), self.notes)

    def to_json(self) -> dict[str, Any]:
        return {"stack": self.stack, "changes": [o.to_json() for o in self.operations], "notes": list(self.notes)}
