"""Fixtures that tests share. An engine is never skipped: where none answers, its tests fail."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from consolidate import base_image, naming
from consolidate.docker_engine import DockerEngine, connect
from consolidate.errors import OperationFailed

settings.register_profile("consolidate", deadline=None, print_blob=True)
settings.load_profile("consolidate")

counter = itertools.count()


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """The real engine, with the base image on it."""
    engine = connect()
    base_image.ensure(engine, lambda _: None)
    yield engine
    engine.client.close()


@pytest.fixture
def stack_name() -> str:
    """A stack's name that nobody else has on the engine."""
    return f"t{os.getpid():x}x{next(counter)}"


@pytest.fixture
def cleared(docker_engine: DockerEngine, stack_name: str) -> Iterator[None]:
    """Leave nothing of the stack on the real engine, however the test ends."""
    yield
    clear(docker_engine, stack_name)


def clear(engine: DockerEngine, stack: str) -> None:
    """Remove all that has the stack's label or its name in front."""

    def ours(name: str, labels: dict[str, str] | None) -> bool:
        return (labels or {}).get(naming.STACK) == stack or name.startswith((f"{stack}-", f"{stack}_", f"{stack}."))

    client = engine.client
    for row in client.containers(all=True):
        name = (row["Names"] or ["/"])[0].removeprefix("/")
        if ours(name, row["Labels"]):
            engine.remove(name)
    for row in client.networks():
        if ours(row["Name"], row["Labels"]):
            engine.remove_network(row["Name"])
    for row in client.volumes()["Volumes"] or []:
        if ours(row["Name"], row["Labels"]):
            engine.remove_volume(row["Name"])
    for tag in {t for row in client.images() for t in row["RepoTags"] or [] if stack in t}:
        try:
            client.remove_image(tag, force=True)
        except OperationFailed:
            raise AssertionError(f"{tag} is still in use") from None
