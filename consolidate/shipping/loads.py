"""What has to go over for each image, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec import Struct

from consolidate import naming
from consolidate.engine import ImageFacts
from consolidate.observed import Observed
from consolidate.shipping.choice import Choice


class Held(Struct, frozen=True):
    """An image here, and the bytes of files in each of its layers."""

    facts: ImageFacts
    sizes: tuple[int, ...]


class Load(Struct, frozen=True):
    """One image: `have` of its lowest layers are there once its turn has come. `names` are those that it lacks there."""

    choice: Choice
    layers: int
    have: int
    size: int
    left: int  # bytes of the layers that are sent, about
    there: bool
    names: tuple[str, ...]

    @property
    def todo(self) -> bool:
        return not self.there or bool(self.names)


def loads(
    choices: Iterable[Choice],
    here: Mapping[str, Held],
    there: Observed,
    layers_there: Iterable[ImageFacts],
    *,
    whole: bool,
) -> list[Load]:
    """The least first, the base before all, so that what is cut off in the middle has brought as much as it could.

    A layer that several images have goes with the first of them. With `whole` all layers of an image are sent.
    """
    known = {chain for image in layers_there for chain in image.chains}
    left, found = list(choices), []
    while left:
        made = [_load(c, here[c.image], there, known, whole=whole) for c in left]
        first = min(made, key=lambda m: (naming.BASE_IMAGE not in m.choice.names, m.left, m.choice.names))
        found.append(first)
        left.remove(first.choice)
        if not first.there:
            known.update(here[first.choice.image].facts.chains)
    return found


def _load(choice: Choice, held: Held, there: Observed, known: Set[str], *, whole: bool) -> Load:
    is_there = choice.image in there.images
    have = 0 if whole else held.facts.shared(known)
    # A base or a tool of its own is as good: what is built there starts from it, and nobody's is taken away.
    keeps = choice.why in ("base", "tool") and all(n in there.images for n in choice.names)
    names = () if keeps else tuple(n for n in choice.names if there.images.get(n) != choice.image)
    left = 0 if is_there or keeps else sum(held.sizes[have:])
    return Load(choice, len(held.facts.layers), have, sum(held.sizes), left, is_there or keeps, names)
