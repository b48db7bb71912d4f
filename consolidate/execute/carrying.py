"""Images brought from one engine to another: one at a time, as a stream through this process, seen to be the same there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from consolidate.actions import SendImage
from consolidate.engine import Engine
from consolidate.errors import EngineUnavailable, OperationFailed
from consolidate.execute.commands import Interrupted
from consolidate.report import amount

HERE = "the engine that images come from"
PAUSE = 0.25  # seconds between two words about how far it is


@dataclass
class Carrier:
    """Brings images from `source`. `sent` is what went over of each, by its id, also where that was in vain."""

    source: Engine
    sent: dict[str, int] = field(default_factory=dict)
    failed: bool = False  # something did not arrive, and with it layers that what follows was to find

    def carry(self, target: Engine, action: SendImage, say: Callable[[str], None], stopping: threading.Event) -> None:
        """Bring an image to `target`. An engine has it whole or not at all, and takes nothing that is another.

        Raises OperationFailed, and EngineUnavailable with the name of the engine that has gone, where that is the source.
        """
        if not action.there:
            have = self._found(target, action) if self.failed else action.have
            try:
                self._load(target, self._pieces(action, have, say, stopping))
            except OperationFailed:
                self.failed = True
                raise
        if not target.has_image(action.image):
            raise OperationFailed(f"{action.image} is not there, though the engine took it")
        for name in action.names:
            target.tag_image(action.image, name)
            if target.image(name).id != action.image:
                raise OperationFailed(f"{name} is another image there than {action.image}")

    def _found(self, target: Engine, action: SendImage) -> int:
        """How many of its layers are there by now, of those that were to be."""
        chains = {chain for image in target.all_images() for chain in image.chains}
        return min(action.have, self.source.image(action.image).shared(chains))

    def _load(self, target: Engine, pieces: Iterator[bytes]) -> None:
        try:
            target.load_image(pieces, lambda _: None)
        except EngineUnavailable as error:
            if error.what.startswith(HERE) or not _answers(target):
                raise
            # What it had to say was lost with the connection, on which we were still sending.
            hint = "is the disk full that its images are on? Its log says why"
            raise OperationFailed("the engine there broke off while it took the image", hint=hint) from None

    def _pieces(
        self, action: SendImage, have: int, say: Callable[[str], None], stopping: threading.Event
    ) -> Iterator[bytes]:
        told = time.monotonic()
        self.sent.setdefault(action.image, 0)
        say("its engine writes the archive")
        try:
            for piece in self.source.save_image(action.image, have):
                if stopping.is_set():
                    raise Interrupted
                yield piece
                self.sent[action.image] += len(piece)
                if time.monotonic() > told + PAUSE:
                    told = time.monotonic()
                    say(f"{amount(self.sent[action.image])} of about {amount(action.size)}")
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{HERE}: {error.what}", hint=error.hint) from None
        say(f"{amount(self.sent[action.image])} sent, the engine there unpacks them")


def _answers(engine: Engine) -> bool:
    try:
        engine.machine()
    except EngineUnavailable:
        return False
    return True
