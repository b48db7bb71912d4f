"""Which images are shipped, by which names, and whether `up` will take them there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.desired import Desired, DesiredServer, Image
from consolidate.diff.images import image_of, locked_name, pins
from consolidate.locked import LockedImage
from consolidate.observed import Observed, ObservedContainer

Why = Literal["locked", "runs", "newest", "base", "tool"]


class Choice(Struct, frozen=True):
    """An image by its id here, what it is to be called there, and for whom it is: servers, or replicas of them."""

    image: str
    names: tuple[str, ...]
    servers: tuple[str, ...]
    why: Why


class Chosen(Struct, frozen=True):
    """All that is shipped. `missing` are servers whose image isn't here; `digests` those whose image is named by one, which
    only a registry can give an image.
    """

    choices: tuple[Choice, ...]
    of_servers: Mapping[str, str]  # the id of each one's image
    missing: tuple[tuple[str, str], ...] = ()  # server, image
    digests: tuple[tuple[str, str], ...] = ()


def choose(desired: Desired, here: Sequence[Observed], servers: Iterable[str], tools: Iterable[Image]) -> Chosen:
    """The images of servers, of all where none is named; the base; and those of the `tools` that are here.

    `here` is the engine as each environment of the stack sees it, the one that is shipped first. With a lock it says which
    image that is. Without one what runs counts as tested: in that environment, else in the others, the youngest container first. Where a server never ran, the newest image that is
    here is what `up` would have made it of.
    """
    wanted = {naming.server_of(s) for s in servers} or set(desired.replicas)
    found: list[Choice] = []
    missing: list[tuple[str, str]] = []
    digests: list[tuple[str, str]] = []
    why: Why
    for name, server in desired.servers.items():
        if server.server.name not in wanted:
            continue
        tag = server.container.image
        locked, why = desired.locked.get(server.server.name), "locked"
        if locked is not None:
            image = _locked(desired.stack, here, server, locked)
        else:
            image, why = _tested(desired.stack, here, server)
        if "@" in tag:
            digests.append((name, tag))
        elif image is None:
            missing.append((name, f"{locked.asks} of the lock, {locked.id[:19]}" if locked else tag))
        else:
            found.append(Choice(image, _names(desired.stack, here, server, image, locked), (name,), why))
    extras: list[tuple[str, Why]] = [(naming.BASE_IMAGE, "base"), *((t.tag, "tool") for t in tools)]
    for extra, why in extras:
        newest = here[0].newest(extra)
        if newest is not None:
            found.append(Choice(here[0].images[newest], (newest,), (), why))
    ids = {s: c.image for c in found for s in c.servers}
    return Chosen(tuple(_merged(found, here[0])), ids, tuple(missing), tuple(digests))


def _tag_in(stack: str, other: str, server: str, tag: str) -> str:
    """What another environment calls the image of a server: the name of one that the stack builds has the stack's in it."""
    own = f"consolidate/{stack}-{server}:"
    return f"consolidate/{other}-{server}:{tag.removeprefix(own)}" if tag.startswith(own) else tag


def _tested(stack: str, here: Sequence[Observed], server: DesiredServer) -> tuple[str | None, Why]:
    """The id of the image that a server was tested with; None where there is none here."""
    running: list[tuple[bool, int, ObservedContainer]] = []
    for observed in here:
        tag = _tag_in(stack, observed.stack, server.server.name, server.container.image)
        current = observed.current(server.name) or observed.one_of(server.server.name)
        if current is None or current.state == "created" or current.labels.get(naming.IMAGE) != tag:
            continue
        if current.image_id in observed.images:
            running.append((observed is here[0], current.created, current))
    if running:
        return max(running, key=lambda r: r[:2])[2].image_id, "runs"
    for observed in here:
        newest = observed.newest(_tag_in(stack, observed.stack, server.server.name, server.container.image))
        if newest is not None:
            return observed.images[newest], "newest"
    return None, "newest"


def _locked(stack: str, here: Sequence[Observed], server: DesiredServer, locked: LockedImage) -> str | None:
    """The id of the lock's image, or of what was built again for it; None where neither is here."""
    for observed in here:
        tag = _tag_in(stack, observed.stack, server.server.name, server.container.image)
        if found := observed.images.get(locked_name(observed, tag, locked)):
            return found
    return None


def _names(
    stack: str, here: Sequence[Observed], server: DesiredServer, image: str, locked: LockedImage | None
) -> tuple[str, ...]:
    """What `up` there looks for: the name that the stack asks for, a refresh of it, or what was built again for a lock,
    whichever the image has here. `up` finds the lock's image by its id; a name of its own keeps it from being tidied away.
    """
    want, of = naming.listed_image(server.container.image), server.server.name
    found: set[str] = set()
    for observed in here:
        tag = _tag_in(stack, observed.stack, of, want)
        own = {tag, *observed.refreshes.get(tag, ()), *observed.rebuilt.get(tag, ())}
        found |= {want + t.removeprefix(tag) for t in own if observed.images.get(t) == image}
    built = locked is not None and locked.context
    return tuple(sorted(found)) or (naming.locked_image(want, locked.content) if locked and built else want,)


def _merged(choices: Sequence[Choice], here: Observed) -> Iterator[Choice]:
    """One for each image that gets a name.

    Of two that would get the same, as when a pulled tag has moved on under a server that runs, the one gets it that has it
    here. By nothing else could `up` there find the other.
    """
    owners: dict[str, str] = {}
    for choice in choices:
        for name in choice.names:
            if owners.setdefault(name, choice.image) != choice.image and here.images.get(name) == choice.image:
                owners[name] = choice.image
    for image in dict.fromkeys(c.image for c in choices):
        mine = [c for c in choices if c.image == image]
        names = tuple(dict.fromkeys(n for c in mine for n in c.names if owners[n] == image))
        if names:
            yield Choice(image, names, tuple(dict.fromkeys(s for c in mine for s in c.servers)), mine[0].why)


def surprises(desired: Desired, there: Observed, chosen: Chosen) -> list[str]:
    """What to know where `up` there would make a server of another image than the one that is shipped."""
    names = {n: c.image for c in chosen.choices for n in c.names} | {c.image: c.image for c in chosen.choices}
    after = replace(there, images={**there.images, **names})
    notes, pinned = [], pins(desired, after)
    for name, image in chosen.of_servers.items():
        took = image_of(after, desired.servers[name], pinned.get(name))
        found = after.images.get(naming.listed_image(took))
        if found == image:
            continue
        current = there.current(name) or there.one_of(naming.server_of(name))
        if current and current.image_id == found:
            notes.append(f"{name} has another image there, which `up` leaves as it is: `update` brings it the newest")
        else:
            notes.append(f"{name}: `up` there takes {took}, which is newer than what is shipped")
    return notes
