"""Which image a server is made of, and which images nothing is made of any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from consolidate import naming
from consolidate.actions import CreateContainer, RemoveContainer, RemoveImage
from consolidate.desired import DesiredServer
from consolidate.observed import Observed, ObservedContainer
from consolidate.plan import FieldChange

if TYPE_CHECKING:
    from consolidate.diff.draft import Draft


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
    """The image for a server's new container: that of a refresh, else the one that it has, else the newest.

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
    used = set(observed.foreign_images)
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
        for tag in observed.refreshes.get(image.tag, ())[1:]:
            found[tag] = image.servers
    named = {i for name, i in observed.images.items() if name != i and "@" not in name and name != naming.UNNAMED}
    for container in observed.containers:
        if container.name in removals and container.image_id in observed.images and container.image_id not in named:
            server = container.server or container.labels.get(naming.OF, "")
            found[container.image_id] = (*found.get(container.image_id, ()), server)
    return found
