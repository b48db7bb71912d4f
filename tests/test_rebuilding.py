"""What a lock has is built again with the versions of then, or it is said what no longer is to be had."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import pytest

from consolidate.actions import ProvideImage
from consolidate.desired import DOCKERFILE, Image
from consolidate.engine import Progress
from consolidate.errors import OperationFailed
from consolidate.execute.rebuilding import rebuild
from consolidate.files import FileSet, FileSpec
from consolidate.locked import Base, LockedImage
from consolidate.packages import DPKG, NO_APT
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Entry

TAG, BASE = "consolidate/web:0123456789ab", "debian:12"
NAME = f"{TAG}-lock-0123456789ab"
LOCKED = {"libc6": "2.36", "nginx": "1.0"}


class Distribution(MemoryEngine):
    """An engine whose base has the packages `has`, whose apt offers `offers`, and whose builds come out with `makes`."""

    def __init__(self, offers: Mapping[str, Sequence[str]], makes: Mapping[str, str] = LOCKED, status: int = 0) -> None:
        super().__init__()
        self.offers, self.makes, self.status = offers, makes, status
        self.built: list[tuple[str, str, bool]] = []
        self.images.add(BASE)
        self.install(BASE, {"libc6": "2.36"})

    def install(self, tag: str, packages: Mapping[str, str]) -> None:
        rows = (f"Package: {n}\nStatus: install ok installed\nVersion: {v}\n" for n, v in packages.items())
        entry = Entry(tarfile.REGTYPE, 0o644, 0, 0, "\n".join(rows).encode())
        self.images.files[self.images[tag]] = {DPKG.lstrip("/"): entry}

    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        rows = (
            f" {n} | {v} | http://mirror.test bookworm/main amd64 Packages"
            for n, all_ in self.offers.items()
            for v in all_
        )
        return self.status, "\n".join(rows)

    def build(self, image: Image, context: IO[bytes], progress: Progress, *, cache: bool = True) -> None:
        with tarfile.open(fileobj=context, mode="r|") as tar:
            files = {m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}  # type: ignore[union-attr]
        self.built.append((image.tag, files[DOCKERFILE], cache))
        self.images.add(image.tag)
        self.install(image.tag, self.makes)


def run(
    engine: Distribution, base: Base | None = None, dockerfile: str = f"FROM {BASE}\nRUN it\n", name: str = NAME
) -> None:
    image = Image(name, "build", FileSet((FileSpec(f"./{DOCKERFILE}", text=dockerfile),)), ("www",))
    locked = LockedImage("web:0123456789ab", f"sha256:{'e' * 64}", "", "0123456789ab", base, LOCKED)
    rebuild(engine, ProvideImage(image, locked=locked, stack="t", again="consolidate lock -s www"), str, lambda _: None)


def names(engine: MemoryEngine) -> set[str]:
    return {n for n in engine.images if n.startswith("consolidate/")}


def test_apt_takes_the_versions_of_the_lock_while_the_image_is_built() -> None:
    """On a base that has been brought to them first; what comes out has no trace of it in force, and nothing else stays."""
    engine = Distribution({"nginx": ["1.1", "1.0"]})
    run(engine)
    (base, on_base, _), (_, on_pins, _) = engine.built
    assert on_base.startswith(f"FROM {BASE}\nCOPY usr /usr\nRUN export APT_CONFIG=")
    assert on_pins == f"FROM {base}\nARG APT_CONFIG=/usr/share/consolidate/lock.conf\nRUN it\n"
    assert not any(cached for *_, cached in engine.built)
    assert names(engine) == {NAME}


def test_on_the_very_base_of_then_only_what_comes_new_is_told_to_apt() -> None:
    """It is known by its id, whatever its name means by now."""
    engine = Distribution({"nginx": ["1.0"]})
    engine.install(BASE, {"libc6": "2.36"})
    id_ = engine.images[BASE]
    run(engine, Base(BASE, id_))
    assert engine.built[0][1] == f"FROM {id_}\nCOPY usr /usr\n"


def test_what_no_longer_is_to_be_had_is_told_before_anything_is_built() -> None:
    """Each package, with what there is in its place; what the base has already needs not to be there."""
    engine = Distribution({"nginx": ["1.2", "1.1"]})
    with pytest.raises(OperationFailed, match=r"web:0123456789ab .*: 1 package is no longer to be had") as raised:
        run(engine)
    assert raised.value.log == ("PACKAGE  LOCKED  TO BE HAD", "nginx    1.0     1.2")
    assert "consolidate lock -s www" in raised.value.hint
    assert (engine.built, names(engine)) == ([], set())


def test_a_build_that_comes_out_otherwise_is_refused() -> None:
    """With the packages that differ, also those that are too many; the image is gone, and no server gets it."""
    engine = Distribution({"nginx": ["1.0"]}, {"libc6": "2.37", "nginx": "1.0", "more": "3"})
    with pytest.raises(OperationFailed, match="a new build of it has other packages") as raised:
        run(engine)
    assert raised.value.log == ("PACKAGE  LOCKED  FOUND", "libc6    2.36    2.37", "more     none    3")
    assert names(engine) == set()


def test_without_apt_the_build_alone_tells() -> None:
    """On Alpine there is nobody to tell a version to: what comes out is compared all the same."""
    engine = Distribution({}, status=NO_APT)
    run(engine)
    assert [text for _, text, _ in engine.built] == [f"FROM {BASE}\nRUN it\n"]
    with pytest.raises(OperationFailed, match="other packages"):
        run(Distribution({}, {"libc6": "2.36"}, NO_APT))


def test_a_mirror_that_does_not_answer_is_no_missing_package() -> None:
    with pytest.raises(OperationFailed, match="apt can't tell"):
        run(Distribution({}, status=1))


def test_what_starts_from_nothing_is_built_as_it_is() -> None:
    engine = Distribution({})
    run(engine, dockerfile="FROM scratch\n")
    assert engine.built[0][1] == "FROM scratch\n"


def test_two_that_are_built_at_once_read_their_base_each_for_itself() -> None:
    """By a container of its own: one that had the other's name would take it away."""
    names_: list[str] = []

    class Noting(Distribution):
        def create_helper(self, name: str, *words: Any, **more: Any) -> None:
            names_.append(name)
            super().create_helper(name, *words, **more)

    engine = Noting({"nginx": ["1.0"]})
    run(engine)
    run(engine, name=f"{TAG}-lock-abcdef012345")
    assert len(set(names_)) == len(names_) == 4
