"""Stacks on a real engine. Each has a name of its own and is removed at the end; what is left then is an error.

Each worker of pytest-xdist has fixtures of its own, names and ports included; only images are everybody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from consolidate import base_image
from consolidate.actions import ProvideImage
from consolidate.docker_engine import DockerEngine, connect
from consolidate.execute import Executor
from consolidate.pipeline import prepare
from consolidate.source import Source
from tests.engine.support import KINDS, LABEL, STACKS, Acme, Stack, client_of, free_port, put_on_free_ports, run, tags
from tests.wordpress_client import WordPress

PYTHON_IMAGE = "consolidate-tests/python"
PYTHON_DOCKERFILE = """\
FROM debian:bookworm-slim
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \\
 && rm -rf /var/lib/apt/lists/*
"""
# Runs at each page; its event is due at once, so the next run of the timer brings it.
TICK = """\
if (!wp_next_scheduled('tick') && !get_option('ticked')) {
    wp_schedule_single_event(time() - 1, 'tick');
}
add_action('tick', fn () => update_option('ticked', 'by the timer'));
add_action('init', function () {
    if (isset($_GET['tick'])) {
        exit('ticked: ' . get_option('ticked', 'never'));
    }
});
"""


@contextlib.contextmanager
def one_at_a_time(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of all workers of a run only one does this at a time."""
    with (factory.getbasetemp().parent / "one-at-a-time").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept_image(daemon: Any, tag: str, dockerfile: str, factory: pytest.TempPathFactory) -> str:
    """An image of the tests' own, which is kept between runs: its tag."""
    with one_at_a_time(factory):
        try:
            daemon.images.get(tag)
        except docker.errors.ImageNotFound:
            daemon.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)
    return tag


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The engine without our code: a docker-py client, once the images are there that several workers would make at once."""
    engine = connect()
    with one_at_a_time(tmp_path_factory):
        base_image.ensure(engine, lambda _: None)
        if "PYTEST_XDIST_WORKER" in os.environ:
            make_images(engine, tmp_path_factory.mktemp("images"))
    engine.client.close()
    client = client_of(timeout=120)
    yield client
    client.close()


def make_images(engine: DockerEngine, folder: Path) -> None:
    """The images of all kinds. Without this the first `up` makes what it needs."""
    run("init", *KINDS, "--name", "images", cwd=folder)
    put_on_free_ports(folder / "stack.yml")
    plan = prepare(Source(folder / "stack.yml"), engine).plan
    images = plan.only(o.id for o in plan.operations if isinstance(o.action, ProvideImage))
    report = Executor(engine, {}, lambda _: None, lambda _: None).run(images)
    assert report.ok, report


@pytest.fixture(scope="session")
def token(daemon: Any) -> Iterator[str]:
    """What the names of this session's stacks begin with. At the end nothing of them may be left."""
    prefix = f"t{uuid.uuid4().hex[:5]}"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that fixtures clean up then, too
    yield prefix
    signal.signal(signal.SIGTERM, before)
    api, key = daemon.api, f"{LABEL}stack"
    rows = [*api.containers(all=True, filters={"label": key}), *api.networks(filters={"label": key})]
    rows += api.volumes(filters={"label": key})["Volumes"] or []
    left = [r.get("Name") or r["Names"] for r in rows if r["Labels"][key].startswith(prefix)]
    left += tags(daemon, f"consolidate/{prefix}")
    assert not left, f"the tests left {left}"


@pytest.fixture(scope="session")
def python_image(daemon: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Python and nothing else, kept between runs."""
    return kept_image(daemon, PYTHON_IMAGE, PYTHON_DOCKERFILE, tmp_path_factory)


StackFactory = Callable[[str], Stack]


@pytest.fixture
def make_stack(daemon: Any, token: str, tmp_path: Path) -> Iterator[StackFactory]:
    """Make empty stacks with a label of your choice; each goes with all its data when the test ends."""
    with ExitStack() as at_end:

        def make(label: str) -> Stack:
            folder = tmp_path / label
            folder.mkdir()
            stack = Stack(folder, f"{token}-{label}", daemon)
            at_end.callback(stack.purge)
            at_end.callback(stack.destroy)
            return stack

        yield make


@pytest.fixture
def one(make_stack: StackFactory) -> Stack:
    """A stack of one page on a port of its own, not up yet."""
    stack = make_stack("one")
    stack.write("  www: {kind: web, content: ./site, publish: ['" + str(free_port()) + ":80']}\n")
    stack.put("site/index.html", "<h1>One</h1>\n")
    return stack


@pytest.fixture(scope="session")
def acme(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """stacks/acme, up. Shared: a test may mail, post and read, but must leave the stack as it is."""
    stack = Acme.copy(tmp_path_factory.mktemp("shared") / "acme", f"{token}-acme", daemon)
    try:
        stack.up()
        stack.export_authority()
        yield stack
    finally:
        stack.destroy()
        stack.purge()


@pytest.fixture(scope="session")
def admin(acme: Acme) -> WordPress:
    """The administrator at acme's blog, logged in."""
    return logged_in(acme)


def logged_in(stack: Acme) -> WordPress:
    blog = WordPress(f"https://127.0.0.1:{stack.https}", f"blog.acme.test:{stack.https}", verify=str(stack.authority))
    blog.login("ada", stack.secret("blog/admin_password"))
    return blog


@pytest.fixture(scope="session")
def ticking(admin: WordPress) -> WordPress:
    """The blog with a plugin that waits for WordPress's timer: it comes each minute, so other tests run meanwhile."""
    from tests.wordpress_client import plugin_archive

    admin.install_plugin(plugin_archive("tick", TICK))
    admin.page("/")
    return admin


@pytest.fixture
def echo(make_stack: StackFactory, python_image: str) -> Stack:
    """A stack with a proxy and a server that says what it got; not up yet."""
    stack = make_stack("echo")
    shutil.copytree(Path(__file__).parent / "echo", stack.folder / "echo")
    stack.write(
        f"  edge: {{kind: proxy, http: {free_port()}, https: {free_port()}}}\n"
        "  echo:\n"
        "    kind: container\n"
        "    build: ./echo\n"
        "    domains: [echo.test]\n"
        "    http: 8000\n"
        "    user: '1000:1000'\n"
    )
    return stack


@pytest.fixture(params=sorted(f.parent.name for f in STACKS.glob("*/stack.yml")))
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of each folder of stacks/."""
    return Path(shutil.copytree(STACKS / request.param, tmp_path / request.param))
