"""The embedded base image that every kind builds on: found on the engine, else pulled, else built from Debian's mirror.

So with no registry at all every kind still builds. The engine may be remote: what is built here goes to it as a stream.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, Protocol

from consolidate import apt, naming, packages
from consolidate.apt import Progress
from consolidate.desired import DOCKERFILE, Image
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.files import FileSpec, archive
from consolidate.naming import BASE_IMAGE

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in the standard library from Python 3.12

    from consolidate.engine import ImageFacts

SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # Ubuntu's apt does not trust it by itself
REGISTRY_TIMEOUT = 20.0
BLOCK = 1 << 18

# A server's image needs neither manuals nor translations; licences stay, as Debian's own slim image keeps them.
TRIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)

# What an engine calls the architectures, what Debian calls them, what Python calls them.
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "armhf"}


UPGRADE = """\
FROM {origin}
LABEL {label}={origin}
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get -y dist-upgrade \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
"""


class ImageStore(Protocol):
    """What is asked of the engine. Each method but `registry_error` may raise a ConsolidateError."""

    def info(self) -> Mapping[str, Any]:
        """GET /info"""

    def has_image(self, tag: str, /) -> bool:
        """Does the engine have it?"""

    def registry_error(self, tag: str, timeout: float, /) -> str:
        """Why the engine can't get `tag` from its registry, nothing when it can. Never raises."""

    def pull(self, tag: str, progress: Progress, /) -> None:
        """Pull it."""

    def import_image(self, stream: IO[bytes], tag: str, /) -> None:
        """Make an image of a root file system's tar stream; raises what the stream raises, and then keeps nothing."""


def ensure(engine: ImageStore, progress: Progress, *, tag: str = BASE_IMAGE) -> None:
    """Make sure that the engine has the base image. Raises OperationFailed, with what to do."""
    if engine.has_image(tag):
        return
    why_not = engine.registry_error(tag, REGISTRY_TIMEOUT) or pull_error(engine, tag, progress)
    if why_not:
        progress(f"No registry gives {tag} ({why_not}): building it from Debian's mirror")
        build(engine, progress, tag=tag)


class Refreshable(ImageStore, Protocol):
    """What a refresh asks of the engine besides."""

    def image(self, name: str, /) -> ImageFacts:
        """Its id, its labels and its layers."""

    def run_once(self, image: str, command: Sequence[str], /) -> tuple[int, str]:
        """Run a command as root in a container of its own: status and output."""

    def build(self, image: Image, context: IO[bytes], progress: Progress, /, *, cache: bool = True) -> None:
        """Build an image."""

    def remove_image(self, name: str, /) -> None:
        """Remove it, unless something was made of it."""


def refresh(engine: Refreshable, progress: Progress, *, tag: str = BASE_IMAGE) -> None:
    """Bring the base image up to date: pulled where a registry has it, and with what Debian has newer than that.

    A registry's image is some days or weeks behind Debian's security updates, and the Dockerfiles of kinds upgrade
    nothing that is there already. The upgrade is one layer on the image that was pulled or built first, however often
    this is done. Raises OperationFailed.
    """
    if not engine.registry_error(tag, REGISTRY_TIMEOUT):
        pull_error(engine, tag, lambda _: None)  # what is there will do
    status, said = engine.run_once(tag, packages.ASK)
    newer = packages.offered(said, status, tag)
    if not newer:
        return
    progress(f"Upgrading {tag}: {packages.in_words(newer)}")
    before = engine.image(tag)
    origin = _origin(engine, before)
    dockerfile = FileSpec(DOCKERFILE, text=UPGRADE.format(origin=origin, label=naming.BASE))
    with archive([dockerfile], lambda _: "") as context:
        engine.build(Image(tag, "build"), context, lambda _: None, cache=False)
    if before.id != origin:
        engine.remove_image(before.id)


def _origin(engine: Refreshable, image: ImageFacts) -> str:
    """What an upgrade was put on, in one layer; else the image itself, since what is built on an upgraded one has its label."""
    origin = image.labels.get(naming.BASE)
    if origin and engine.has_image(origin) and engine.image(origin).layers == image.layers[:-1]:
        return origin
    return image.id


def pull_error(engine: ImageStore, tag: str, progress: Progress) -> str:
    """Pull, and say why it failed. A registry may answer while the place that it keeps its layers in does not."""
    progress(f"Pulling {tag}")
    try:
        engine.pull(tag, progress)
    except ConsolidateError as error:
        return error.what
    return ""


def build(engine: ImageStore, progress: Progress, *, tag: str = BASE_IMAGE) -> None:
    """Build the base image with mmdebstrap on this machine and import it into the engine."""
    there, here = (debian_architecture(name) for name in (str(engine.info()["Architecture"]), platform.machine()))
    if there != here:
        raise failure(
            f"the engine's machine is {there} and this one is {here}",
            hint=f"Run `consolidate doctor --fix` on the engine's machine, or load {tag} into it.",
        )
    if shutil.which("mmdebstrap") is None:
        install_mmdebstrap(tag, progress)
    with output_of(mmdebstrap(), progress) as stream:
        engine.import_image(stream, tag)
    progress(f"Built {tag}")


def debian_architecture(name: str) -> str:
    """Debian's word for an architecture, whoever's word is given."""
    return ARCHITECTURES.get(name.lower(), name.lower())


def install_mmdebstrap(tag: str, progress: Progress) -> None:
    """Install it, with the keys that Debian signs its packages with (Ubuntu has them in a package of their own)."""
    packages = ("mmdebstrap", "debian-archive-keyring")
    if apt.obstacle():
        raise failure(
            f"mmdebstrap, which builds it, is missing and {apt.obstacle()}",
            hint=f"Type: {apt.command(packages)}\n"
            f"  or put the image on the engine by other means: docker pull {tag}, or docker load from a file.",
        )
    apt.install(packages, progress)


def mmdebstrap() -> list[str]:
    """The command that writes a small Debian's root file system to its standard output as a tar archive."""
    keys = [f"--keyring={KEYRING}"] if KEYRING.exists() else []
    trim = [f"--dpkgopt={option}" for option in TRIM]
    return ["mmdebstrap", "--variant=minbase", *keys, '--aptopt=Acquire::Languages "none"', *trim, SUITE, "-"]


class Output(io.RawIOBase):
    """The standard output of a program, whose end is an error when the program failed.

    An import that reads it then breaks off, where a plain end would leave half a file system under the image's name.
    """

    def __init__(self, output: IO[bytes], verdict: Callable[[], None]) -> None:
        self.output = output
        self.verdict = verdict

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        block = self.output.read(len(view))
        if not block:
            self.verdict()
        view[: len(block)] = block
        return len(block)


@contextmanager
def output_of(argv: Sequence[str], progress: Progress) -> Iterator[IO[bytes]]:
    """Run a program: its standard output as a stream that raises OperationFailed in place of its end when the program
    failed, its standard error as progress."""
    log: deque[str] = deque(maxlen=20)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        listener = Thread(target=pass_on, args=(process.stderr, log, progress), daemon=True)
        listener.start()

        def verdict() -> None:
            if process.wait() != 0:
                listener.join()
                raise failure(f"{argv[0]} failed with status {process.returncode}", log=log)

        try:
            yield io.BufferedReader(Output(process.stdout, verdict), BLOCK)
        finally:
            process.terminate()  # nothing when it has ended; else its reader has gone
            listener.join()


def pass_on(errors: IO[bytes], log: deque[str], progress: Progress) -> None:
    """Each line of a program's standard error to the log and the progress."""
    for raw in errors:
        line = raw.decode(errors="replace").rstrip()
        log.append(line)
        progress(line)


def failure(why: str, *, hint: str = "", log: Iterable[str] = ()) -> OperationFailed:
    """The base image can't be made: why, and what to do."""
    hint = (
        hint or "Is Debian's mirror reachable from this machine? Else put the image on the engine with `docker load`."
    )
    return OperationFailed(f"Can't make the base image: {why}.", hint=hint, log=tuple(log))
