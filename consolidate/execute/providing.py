"""An image that servers are made of, brought to the engine: the base, pulled, built, or as the lock says."""

from __future__ import annotations

import threading
from collections.abc import Callable

from consolidate.actions import ProvideImage
from consolidate.engine import Engine, Progress
from consolidate.errors import OperationFailed
from consolidate.execute.commands import Interrupted
from consolidate.execute.rebuilding import rebuild
from consolidate.execute.writing import archive_of
from consolidate.locked import not_to_be_had


def provide_image(
    engine: Engine,
    action: ProvideImage,
    progress: Progress,
    *,
    make_base: Callable[[Progress], None],
    reveal: Callable[[str], str],
    builds: threading.Semaphore,
    stopping: threading.Event,
) -> None:
    """Bring it; of builds no more at once than `builds` has places.

    Raises OperationFailed, and Interrupted where `stopping` was set while it waited for other builds.
    """
    image, locked = action.image, action.locked
    if locked is not None and not locked.can_be_had:
        raise not_to_be_had(", ".join(image.servers), locked, action.again)
    if image.how == "base":
        make_base(progress)
    elif image.how == "pull":
        try:
            engine.pull(image.tag, progress)
        except OperationFailed as error:
            if locked is None:
                raise
            raise not_to_be_had(", ".join(image.servers), locked, action.again, error) from error
    else:
        with builds:
            if stopping.is_set():
                raise Interrupted
            if locked is not None:
                rebuild(engine, action, reveal, progress)
                return
            with archive_of(image.context.files, reveal) as context:
                engine.build(image, context, progress, cache=not action.fresh)
