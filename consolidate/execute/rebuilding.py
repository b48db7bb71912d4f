"""An image built again as a lock says: with the packages of then, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from consolidate import dockerfile, packages
from consolidate.actions import ProvideImage
from consolidate.desired import DOCKERFILE, Image, is_dockerfile
from consolidate.engine import Engine, Progress
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.execute.writing import archive_of
from consolidate.files import FileSpec
from consolidate.inventory import packages_of
from consolidate.locked import BRING, LockedImage, not_to_be_had
from consolidate.packages import PackageChange

# Where the versions stand while the image is built. They hold for apt only where APT_CONFIG names the second file, and so
# not in the image that comes of it: an update has to find newer ones there.
PINS, CONFIG = "usr/share/consolidate/lock.pref", "usr/share/consolidate/lock.conf"
PINNED = f"ARG APT_CONFIG=/{CONFIG}"
ON_PINS = """\
FROM {base}
COPY usr /usr
"""
TO_PINS = f"""\
RUN export APT_CONFIG=/{CONFIG} DEBIAN_FRONTEND=noninteractive \\
 && apt-get update && apt-get -y --allow-downgrades dist-upgrade \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
"""


def rebuild(engine: Engine, action: ProvideImage, reveal: Callable[[str], str], progress: Progress) -> None:
    """Build an image with the versions that the lock has.

    Raises OperationFailed with what no longer is to be had, or with what came out otherwise; then nothing has its name.
    """
    assert action.locked is not None
    Rebuild(engine, action.image, action.locked, action, reveal, progress).run()


@dataclass
class Rebuild:
    """A rebuild under way."""

    engine: Engine
    image: Image
    locked: LockedImage
    action: ProvideImage
    reveal: Callable[[str], str]
    progress: Progress

    def run(self) -> None:
        wanted, trial = self.locked.packages, f"{self.image.tag}-try"
        if not wanted:
            raise not_to_be_had(", ".join(self.image.servers), self.locked, self.action.again)
        with self._on_its_base() as text:
            others = (f for f in self.image.context.files if not is_dockerfile(f))
            self._build(trial, *others, FileSpec(DOCKERFILE, text=text))
        try:
            found = packages_of(self.engine, self.action.stack, trial, trial) or {}
            if differs := packages.compared(wanted, found, {}):
                raise self._refused("a new build of it has other packages", differs, "FOUND")
            self.engine.tag_image(trial, self.image.tag)
        finally:
            self.engine.remove_image(trial)

    def _build(self, tag: str, *files: FileSpec) -> None:
        """Without the engine's cache, which knows neither the day nor what apt has."""
        with archive_of(files, self.reveal) as context:
            self.engine.build(replace(self.image, tag=tag), context, self.progress, cache=False)

    @contextlib.contextmanager
    def _on_its_base(self) -> Iterator[str]:
        """The Dockerfile on a base that has the lock's versions; where there is no apt, on the base of then."""
        text = self.image.dockerfile
        stage = dockerfile.last_base(text)
        if stage is None:
            yield text
            return
        base, same = self._base(stage.start)
        if not self._check(base):
            yield dockerfile.on(text, stage, base)
            return
        tag = f"{self.image.tag}-base"
        lines = ON_PINS.format(base=base) + ("" if same else TO_PINS)
        pins = packages.preferences(self.locked.packages or {})
        config = f'Dir::Etc::Preferences "/{PINS}";\n'
        self._build(tag, FileSpec(DOCKERFILE, text=lines), FileSpec(PINS, text=pins), FileSpec(CONFIG, text=config))
        try:
            yield dockerfile.on(text, stage, tag, PINNED)
        finally:
            self.engine.remove_image(tag)

    def _base(self, name: str) -> tuple[str, bool]:
        """What to build on, and whether that is the very base of then: by its id, by its digest, else by its name."""
        base = self.locked.base
        if base and base.id and self.engine.has_image(base.id):
            return base.id, True
        if base and base.digest:
            try:
                if not self.engine.has_image(base.digest):
                    self.engine.pull(base.digest, self.progress)
                return base.digest, True
            except ConsolidateError as error:
                self.progress(f"the base of then is not to be had: {error.what}")
        if not self.engine.has_image(name):
            self.engine.pull(name, self.progress)
        return name, False

    def _check(self, base: str) -> bool:
        """Whether apt has all that is to be installed; False where there is no apt to ask.

        Raises OperationFailed with what no longer is to be had.
        """
        wanted = self.locked.packages or {}
        have = packages_of(self.engine, self.action.stack, base, self.image.tag) or {}
        needed = sorted(n for n, version in wanted.items() if have.get(n) != version)
        try:
            status, said = self.engine.run_once(base, packages.ask_versions(needed))
        except OperationFailed as error:
            if "/bin/sh" in error.what:
                return False  # no shell, no apt
            raise
        if status == packages.NO_APT:
            return False
        there = packages.versions(said, status, base)
        gone = [
            PackageChange(n, wanted[n], next(iter(there.get(n, ())), None))
            for n in needed
            if wanted[n] not in there.get(n, ())
        ]
        if gone:
            count = "1 package is" if len(gone) == 1 else f"{len(gone)} packages are"
            raise self._refused(f"{count} no longer to be had in that version", gone, "TO BE HAD")
        return True

    def _refused(self, why: str, changes: list[PackageChange], title: str) -> OperationFailed:
        what = f"{self.locked.asks} can't be built as the lock says: {why}"
        hint = f"{BRING}; or lock what there is today: `{self.action.again}`"
        return OperationFailed(what, hint=hint, log=packages.as_table(changes, title))
