"""What servers are made of: images, secrets, networks, volumes and files."""

from __future__ import annotations

from msgspec import Struct

from consolidate.desired import FileVolume, Image, Live
from consolidate.locked import LockedImage
from consolidate.secret import SecretRecord


class ProvideImage(Struct, frozen=True):
    """Build, pull or make an image; `fresh`: with today's packages, whatever was built before.

    `locked`: as the lock of the `stack` says, or not at all; `again` is the command that locks another one.
    """

    image: Image
    fresh: bool = False
    locked: LockedImage | None = None
    stack: str = ""
    again: str = ""
    verb = "image"


class RemoveImage(Struct, frozen=True):
    """Remove a tag, or an image by its id; it stays where a container uses it."""

    name: str
    verb = "remove image"


class SendImage(Struct, frozen=True):
    """Bring an image from another engine, unless it is `there`, and give it `names`; `have` of its layers are left out.

    `size`: about how many bytes are sent.
    """

    image: str  # its id
    names: tuple[str, ...]
    have: int
    size: int
    there: bool
    verb = "ship"


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
