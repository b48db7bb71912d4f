"""Which image a server is made of, and which images nothing is made of any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateContainer, RemoveContainer, RemoveImage
from consolidate.desired import Desired, DesiredServer
from consolidate.diff.reasons import changes, in_words
from consolidate.locked import LockedImage
from consolidate.observed import Observed, ObservedContainer
from consolidate.plan import FieldChange

if TYPE_CHECKING:
    from consolidate.diff.draft import Draft


LOCKED = "the lock has another image"


class Dump(Struct, frozen=True):
    """A dump that is there: its volume, and whether the server's program made it."""

    volume: str
    by_program: bool


class Refresh(Struct, frozen=True):
    """A server's move to a newer build or pull of its image: the image's name on the engine, and what is new in it.

    Or, with `back`, its return to an earlier generation's, and with `dump` also to the data that it had. `container` is
    the very one to return to, where it is still there.
    """

    image: str
    reason: str
    changes: tuple[FieldChange, ...] = ()
    back: bool = False
    generation: int = 0  # to which it goes back
    dump: Dump | None = None
    container: str = ""


def image_of(observed: Observed, server: DesiredServer, refresh: Refresh | None = None) -> str:
    """The image for a server's new container: that of a refresh or a lock, else the one that it has, else the newest.

    A server keeps its image when it is replaced for another reason: only `update` brings it a newer one. What a replica
    has that is new, the others have.
    """
    want = server.container.image
    if refresh:
        return refresh.image
    current = observed.current(server.name) or observed.one_of(server.server.name)
    if current and current.labels.get(naming.IMAGE) == want and current.image_id in observed.images:
        return _name(observed, current.image_id, want)
    newest = observed.newest(want)
    return want if newest is None or newest == naming.listed_image(want) else newest


def locked_name(observed: Observed, want: str, locked: LockedImage) -> str:
    """What the engine calls the image of a lock, or will call it: by its id where that is there, under whatever tag.

    Else it is pulled by its digest, or built again under a name that says what it has to have.
    """
    if locked.id in observed.images:
        return naming.listed_image(_name(observed, locked.id, want))
    if locked.context:
        return naming.locked_image(want, locked.content)
    return naming.listed_image(locked.digest) if locked.digest else locked.id


def locked_ids(desired: Desired, observed: Observed) -> set[str]:
    """The ids of all images of the lock that are there."""
    wanted = {s: i.tag for i in desired.images for s in i.servers}
    names = (locked_name(observed, wanted[s], image) for s, image in desired.locked.items() if s in wanted)
    return {observed.images[n] for n in names if n in observed.images}


def pins(desired: Desired, observed: Observed) -> dict[str, Refresh]:
    """The image that the lock has for each replica of a server."""
    wanted = ((n, s.container.image, desired.locked.get(s.server.name)) for n, s in desired.servers.items())
    return {n: Refresh(locked_name(observed, want, image), LOCKED) for n, want, image in wanted if image}


def moves(desired: Desired, observed: Observed, pinned: Mapping[str, Refresh]) -> dict[str, Refresh]:
    """Those of servers that have another image than the lock says, for what the stack asks for as it did."""
    found = {}
    for name, pin in pinned.items():
        server, current = desired.servers[name], observed.current(name)
        if current is None or current.labels.get(naming.IMAGE) != server.container.image:
            continue
        there = observed.images.get(pin.image, "")
        if current.image_id == there:
            continue
        new = there or desired.locked[server.server.name].id
        changed = (FieldChange("image", _short(current.image_id), _short(new)), *changes(server, current))
        found[name] = replace(pin, reason="; ".join([LOCKED, *map(in_words, changed)]), changes=changed)
    return found


def _short(id_: str) -> str:
    return id_.removeprefix("sha256:")[:12]


def _name(observed: Observed, image_id: str, want: str) -> str:
    """What to call an image of which only the id is certain: by the tag that the stack asks for, or by a refresh of it."""
    listed = naming.listed_image(want)
    if observed.images.get(listed) == image_id:
        return want
    found = (t for t in observed.refreshes.get(listed, ()) if observed.images[t] == image_id)
    return next(found, image_id)


def is_made_of(observed: Observed, container: ObservedContainer, refresh: Refresh | None) -> bool:
    """Whether a container has the image that a refresh wants for it; without one any will do."""
    return refresh is None or container.image_id == observed.images.get(refresh.image, "")


def add_image_removals(draft: Draft) -> None:
    """Remove what an update has left behind: builds that have a newer refresh, pulled images whose tag has moved on.

    Only what no container is made of once the plan has been carried out, whoever's it is: records of generations are
    containers, too.
    """
    observed = draft.observed
    removals = {o.action.name: o.id for o in draft.operations if isinstance(o.action, RemoveContainer)}
    made = {
        o.action.image or o.action.container.image for o in draft.operations if isinstance(o.action, CreateContainer)
    }
    used = set(observed.foreign_images) | locked_ids(draft.desired, observed)
    used |= {c.image_id for c in observed.containers if c.name not in removals}
    used |= {a.generation.image_id for each in draft.kept.values() for a in each}
    used |= {observed.images[i] for i in map(naming.listed_image, made) if i in observed.images}
    for name, servers in _left_behind(draft, removals).items():
        image_id = observed.images[name]
        if image_id not in used:
            needs = [removals[c.name] for c in observed.containers if c.image_id == image_id and c.name in removals]
            reason = "a newer one has taken its place"
            draft.add(f"remove-image:{name}", RemoveImage(name), ", ".join(servers), reason, needs=needs)


def _left_behind(draft: Draft, removals: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Names of images that something newer stands for → the servers that it was for."""
    observed = draft.observed
    found = {}
    for image in draft.desired.images:
        for tag in (*observed.refreshes.get(image.tag, ())[1:], *observed.rebuilt.get(image.tag, ())):
            found[tag] = image.servers
    named = {i for name, i in observed.images.items() if name != i and "@" not in name and name != naming.UNNAMED}
    for container in observed.containers:
        if container.name in removals and container.image_id in observed.images and container.image_id not in named:
            server = container.server or container.labels.get(naming.OF, "")
            found[container.image_id] = (*found.get(container.image_id, ()), server)
    return found
