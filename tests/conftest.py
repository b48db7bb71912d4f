"""Fixtures that tests share. An engine is never skipped: where none answers, its tests fail."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from consolidate import base_image, naming
from consolidate.docker_engine import DockerEngine, connect
from consolidate.engine import Engine
from consolidate.naming import BASE_IMAGE
from tests.contract_parts import on_this_machine
from tests.memory_engine import MemoryEngine
from tests.shop import shop
from tests.world import World

settings.register_profile("search", deadline=None, print_blob=True)
# A change lands or not for what is in it: there the examples are the same each time. Elsewhere they are new ones.
settings.register_profile("ci", settings.get_profile("search"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "search")

# Whoever starts the tests in a shell's background has interrupts ignored, and so would each command that is to be stopped.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

counter = itertools.count()
UNEXPECTED = re.compile(r"Traceback \(most recent call last\)|TimeoutExpired|^Failed: Timeout")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--podman", action="store_true", help="the engine is Podman's: what podman.txt lists has to fail")
    parser.addoption("--without-long", action="store_true", help="leave out what is marked long")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that share what takes long to make stay together where several workers share the work (--dist loadgroup).

    Such are those of one module that use fixtures of the module, and all that use stacks/acme. The slow ones come first,
    so that none is begun when all others are through. With --without-long those stay out that take too long for each change.
    """
    if config.getoption("--without-long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    if config.getoption("--podman"):
        expect_failures(items, Path(__file__).with_name("podman.txt"))
    for item in items:
        known = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        if "acme" in known:
            item.add_marker(pytest.mark.xdist_group("acme"))
        elif any(found[-1].scope == "module" for found in known.values()):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def expect_failures(items: Iterable[pytest.Item], file: Path) -> None:
    """Tests that a file lists have to fail, and those whose line begins with `- ` are left out. A line that begins with `#`
    has the reason for all that follow. Names without parameters mean all parameters."""
    reason, listed = "", {}
    for line in filter(None, file.read_text().splitlines()):
        if line.startswith("#"):
            reason = line.removeprefix("# ")
        else:
            listed[line.removeprefix("- ")] = (reason, not line.startswith("- "))
    for item in items:
        name = f"{item.path.relative_to(file.parent)}::{item.name}"
        if found := listed.get(name) or listed.get(name.partition("[")[0]) or listed.get(name.partition("::")[0]):
            item.add_marker(pytest.mark.xfail(reason=found[0], strict=True, run=found[1]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What is expected to fail has to do so as a program does: neither with a traceback, nor by never ending."""
    report = yield
    if hasattr(report, "wasxfail") and call.excinfo and UNEXPECTED.search(call.excinfo.exconly()):
        report.outcome = "failed"
        del report.wasxfail
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Groups are heeded: xdist tells them by the end of a test's id."""
    if getattr(session.config.option, "loadgroup", False):
        alone = [i.nodeid for i in session.items if i.get_closest_marker("xdist_group") and "@" not in i.nodeid]
        assert not alone, "this pytest and this pytest-xdist don't go together: no group stays together"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of stacks is the tests' own, also in the commands that they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """The real engine, with the base image on it."""
    engine = connect()
    base_image.ensure(engine, lambda _: None)
    yield engine
    engine.client.close()


@pytest.fixture
def stack_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A stack's name that nobody else has on the engine; nothing of it is left there, whoever asks for that engine."""
    name = f"t{os.getpid():x}x{next(counter)}"
    real = request.getfixturevalue("docker_engine") if "docker_engine" in request.fixturenames else None
    yield name
    if real is not None:
        clear(real, name)


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest, stack_name: str) -> Iterator[Engine]:
    """Each engine in turn; nothing of the stack is left on the real one, however the test ends."""
    if request.param == "memory":
        made = MemoryEngine(on_this_machine)
        made.images.add(BASE_IMAGE)
        yield made
        return
    real = request.getfixturevalue("docker_engine")
    yield real
    clear(real, stack_name)


def clear(engine: DockerEngine, stack: str) -> None:
    """Remove all that has the stack's label or its name in front."""

    def ours(name: str, labels: Mapping[str, str] | None) -> bool:
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
    images = engine._image_rows()  # on Podman it takes some tries while others remove theirs
    for tag in {t for row in images for t in row["RepoTags"] or [] if stack in t}:
        client.remove_image(tag, force=True)


@pytest.fixture
def world() -> World:
    """The stack of the planner's examples is up, in memory."""
    made = World()
    made.up(shop())
    return made
