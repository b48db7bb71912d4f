"""Images: built, pulled, imported, saved and loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any

from docker import errors as docker_errors

from consolidate.docker_engine.archives import PIECE, without_layers
from consolidate.docker_engine.failures import explain, telling, told
from consolidate.docker_engine.looks import Looks
from consolidate.docker_engine.streams import imported
from consolidate.engine import Progress
from consolidate.errors import OperationFailed

if TYPE_CHECKING:
    from consolidate.desired import Image

HELPER_IMAGE = "consolidate/helper:1"  # empty: a container of it is never started, it only holds volumes


class Images(Looks):
    """Images of an engine."""

    _helper_made: threading.Lock
    _has_helper: bool

    @told
    def build(self, image: Image, context: IO[bytes], progress: Progress, *, cache: bool = True) -> None:
        """Build an image; without `cache` each of its steps is done anew, so that it gets today's packages.

        Where somebody else has built it meanwhile, as with two stacks that come up at once, theirs has the name and stays:
        else servers that were just made of it would be left on an image that has none.
        """
        said: list[str] = []
        error, built, before = "", "", self.id_of(image.tag)
        stream = self.client.build(
            fileobj=context, custom_context=True, nocache=not cache, rm=True, forcerm=True, decode=True, encoding=None
        )
        for event in stream:  # to its end, also after an error: only then is the connection free
            error = error or str(event.get("error", "")).strip()
            built = event.get("aux", {}).get("ID", built)
            if text := str(event.get("stream", "")).strip():
                said += text.splitlines()
                progress(said[-1])
        if error:
            raise OperationFailed(f"the build of {image.tag} failed: {error}", log=said[-20:])
        if self.id_of(image.tag) in (before, built):
            self.tag_image(built, image.tag)
        else:
            self.remove_image(built)

    def id_of(self, tag: str) -> str:
        """The id of the image that a tag names; nothing where there is none."""
        return self.image(tag).id if self.has_image(tag) else ""

    @told
    def pull(self, tag: str, progress: Progress) -> None:
        name, _, version = tag.rpartition(":") if "@" not in tag else tag.partition("@")
        why_not = ""
        try:
            for event in self.client.pull(name, tag=version or None, stream=True, decode=True):
                why_not = why_not or str(event.get("error", "")).strip()
                progress(" ".join(str(event.get(k, "")) for k in ("id", "status", "progress")).strip())
        except docker_errors.APIError as error:
            why_not = explain(error)
        if why_not:
            hint = "check its name, and that the engine reaches the registry (`consolidate doctor`)"
            raise OperationFailed(f"{tag} can't be pulled: {why_not}", hint=hint)

    @told
    def tag_image(self, image: str, tag: str) -> None:
        """Give an image a tag, which another may have had until now."""
        repository, _, version = tag.rpartition(":")
        self.client.tag(image, repository, tag=version)

    @told
    def remove_image(self, name: str) -> None:
        """Remove a tag, or an image by its id. One that a container was made of stays, and so does one that isn't there."""
        try:
            self.client.remove_image(name)
        except docker_errors.APIError as error:
            if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    @told
    def import_image(self, stream: IO[bytes], tag: str) -> None:
        # Named in a second call, since Podman tags what it imports `latest`. A kill in between leaves an image without a name.
        self.tag_image(imported(self.client.import_image_from_stream(stream, changes=['CMD ["bash"]'])), tag)

    def save_image(self, image: str, leave_out: int) -> Iterator[bytes]:
        """An archive of an image without its `leave_out` lowest layers and without its names, piece by piece.

        Raises OperationFailed where the engine does not save all of it.
        """
        client: Any = (
            self.client
        )  # get_image() waits for its timeout until the engine has written all of it to its disk
        with telling(self):
            facts = self.image(image)
            answer = client._get(client._url("/images/{0}/get", facts.id), stream=True, timeout=None)
            client._raise_for_status(answer)
            with contextlib.closing(answer):
                yield from without_layers(answer.iter_content(PIECE), facts, leave_out)

    @told
    def load_image(self, archive: Iterable[bytes], progress: Progress) -> None:
        """Take an image from its archive, which may lack layers that are here. What `archive` raises goes on, and nothing is loaded."""
        why_not = ""
        for event in self.client.load_image(iter(archive), quiet=False):
            why_not = why_not or str(event.get("error", "")).strip()
            progress(" ".join(str(event.get(k, "")) for k in ("id", "status", "progress")).strip())
        if why_not:
            hint = "free some space on the disk that its images are on" if "no space left" in why_not else ""
            raise OperationFailed(f"the image can't be loaded: {why_not}", hint=hint)

    def _helper_image(self) -> str:
        """The image of helpers. It is looked for once: who removes it meanwhile has the error of its absence."""
        with self._helper_made:
            if not self._has_helper and not self.has_image(HELPER_IMAGE):
                made = imported(self.client.import_image_from_data(bytes(10240)))  # a tar archive of nothing
                self.tag_image(made, HELPER_IMAGE)
            self._has_helper = True
        return HELPER_IMAGE
