"""The embedded base image: found, pulled or built, and never half of one."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from consolidate import apt, base_image
from consolidate.errors import OperationFailed
from consolidate.naming import BASE_IMAGE
from tests.raw_engine import SOCKET, RawEngine


@dataclass
class Store:
    """An engine's images as a set; what is imported is kept whole or not at all, as the engine does."""

    images: set[str] = field(default_factory=set)
    registry: set[str] = field(default_factory=set)
    layers_reachable: bool = True
    machine: str = platform.machine()
    content: bytes = b""

    def has_image(self, reference: str) -> bool:
        return reference in self.images

    def registry_error(self, reference: str, timeout: float) -> str:
        return "" if reference in self.registry else "no such host"

    def pull(self, reference: str, progress: apt.Progress) -> None:
        if not self.layers_reachable:
            raise OperationFailed("layers: connection refused")
        self.images.add(reference)

    def import_image(self, stream: IO[bytes], reference: str) -> None:
        self.content = stream.read()
        self.images.add(reference)

    def info(self) -> dict[str, str]:
        return {"Architecture": self.machine}


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the PATH, with a mmdebstrap that works."""
    program(tmp_path, "mmdebstrap", "echo I: working >&2; echo the file system")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def silent(_: str) -> None:
    pass


def test_an_image_that_is_there_is_used(builder: Path) -> None:
    """Nothing is asked of a registry or built when the engine has the image."""
    store = Store(images={BASE_IMAGE}, registry={BASE_IMAGE}, layers_reachable=False)
    base_image.ensure(store, silent)
    assert not store.content


def test_an_image_of_the_registry_is_pulled(builder: Path) -> None:
    """A registry that has the image is preferred to building it."""
    store = Store(registry={BASE_IMAGE})
    base_image.ensure(store, silent)
    assert store.images == {BASE_IMAGE}
    assert not store.content


@pytest.mark.parametrize("registry", [set(), {BASE_IMAGE}], ids=["no registry", "layers out of reach"])
def test_without_a_registry_it_is_built(builder: Path, registry: set[str]) -> None:
    """When the image can't be pulled, for whichever reason, the builder's output becomes the image."""
    store = Store(registry=registry, layers_reachable=False)
    said: list[str] = []
    base_image.ensure(store, said.append)
    assert store.images == {BASE_IMAGE}
    assert store.content == b"the file system\n"
    assert "I: working" in said


def test_a_builder_that_fails_leaves_no_image(builder: Path) -> None:
    """A builder that dies in the middle makes the import fail, and its last lines are in the error."""
    program(builder, "mmdebstrap", "echo half; echo E: mirror unreachable >&2; exit 25")
    store = Store()
    with pytest.raises(OperationFailed, match="status 25") as caught:
        base_image.ensure(store, silent)
    assert store.images == set()
    assert caught.value.log == ("E: mirror unreachable",)


def test_a_reader_that_gives_up_ends_the_builder(builder: Path) -> None:
    """When the engine breaks off, its error is what is raised, and the builder does not run on."""

    class Full(Store):
        def import_image(self, stream: IO[bytes], reference: str) -> None:
            stream.read(1)
            raise OperationFailed("no space left on device")

    program(builder, "mmdebstrap", "exec yes")
    with pytest.raises(OperationFailed, match="no space left"):
        base_image.ensure(Full(), silent)


def test_another_architecture_is_refused(builder: Path) -> None:
    """A root file system of this machine is not sent to an engine on a machine that can't run it."""
    store = Store(machine="riscv64")
    with pytest.raises(OperationFailed, match="riscv64") as caught:
        base_image.ensure(store, silent)
    assert BASE_IMAGE in caught.value.hint
    assert not store.images


def test_without_root_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the builder is missing and can't be installed, the message has the command that a person types."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(apt, "is_root", lambda: False)
    program(tmp_path, "apt-get", "exit 1")
    with pytest.raises(OperationFailed, match="only root") as caught:
        base_image.ensure(Store(), silent)
    assert "sudo apt-get install --yes mmdebstrap" in caught.value.hint


def test_packages_are_listed_anew_only_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt's lists are fetched when an installation fails, which is then tried once more."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "is_root", lambda: True)
    program(
        tmp_path,
        "apt-get",
        f'cd {tmp_path}; echo "$*" >> calls; case "$*" in *update) touch lists;; esac; test -e lists',
    )
    apt.install(["thing"], silent)
    calls = [line.rsplit(" ", 1)[-1] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == ["thing", "update", "thing"]


@pytest.fixture
def scratch() -> Iterator[tuple[RawEngine, str]]:
    engine, reference = RawEngine(), f"consolidate-test-base:{os.getpid()}"
    yield engine, reference
    engine.remove_image(reference)


@pytest.mark.engine
@pytest.mark.skipif(not SOCKET.exists(), reason="the engine is not on this machine")
def test_a_broken_stream_leaves_no_image_on_the_engine(scratch: tuple[RawEngine, str]) -> None:
    """The real engine keeps nothing of an import whose stream raises before its end."""
    engine, reference = scratch
    failing = [
        sys.executable,
        "-c",
        "import sys, tarfile; tarfile.open(fileobj=sys.stdout.buffer, mode='w|').close(); sys.exit(3)",
    ]
    with pytest.raises(OperationFailed, match="status 3"), base_image.output_of(failing, silent) as stream:
        engine.import_image(stream, reference)
    assert not engine.has_image(reference)


@pytest.mark.engine
@pytest.mark.skipif(not SOCKET.exists(), reason="the engine is not on this machine")
@pytest.mark.skipif(shutil.which("apt-get") is None or not apt.is_root(), reason="needs Debian's tools and root")
@pytest.mark.slow
@pytest.mark.long
def test_a_base_is_built_from_the_mirror(scratch: tuple[RawEngine, str]) -> None:
    """What is built is the Debian release that it is named after, without manuals, and can install packages."""
    engine, reference = scratch
    base_image.build(engine, silent, tag=reference)
    script = (
        ". /etc/os-release; echo $VERSION_CODENAME; apt-get --version | head -1; ls /usr/share/man /usr/share/doc/apt"
    )
    status, output = engine.run(reference, "bash", "-c", script)
    assert output.split()[:2] == [base_image.SUITE, "apt"], output
    assert "copyright" in output
    assert "changelog" not in output
    assert status == 0
