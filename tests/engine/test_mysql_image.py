"""A database server on an image of the user's own."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import wait_until

pytestmark = pytest.mark.engine


def test_an_image_without_a_packed_directory_makes_its_own(make_stack: StackFactory, daemon: Any) -> None:
    """The packed database directory saves time and is no need: without it the first start makes one, for good."""
    stack = make_stack("own-mysql")
    stack.write("  db: {kind: mysql}\n")
    stack.up()
    image = stack.containers()["db"]["Config"]["Image"]
    assert stack.inside("db", "mariadb", "-Ne", "SELECT 1") == (0, "1\n")
    assert stack.run("down", "--volumes", "--yes").status == 0
    tag = f"consolidate/{stack.name}-mysql:own"  # goes with the stack
    dockerfile = f"FROM {image}\nRUN rm /usr/local/share/mysql-data.tar.gz\n"
    daemon.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)
    stack.write(f"  db: {{kind: mysql, image: '{tag}'}}\n")
    stack.up()
    assert stack.inside("db", "mariadb", "-e", "CREATE DATABASE kept") == (0, "")
    assert stack.run("restart", "db").status == 0
    assert "kept" in stack.inside("db", "mariadb", "-Ne", "SHOW DATABASES")[1]


def test_a_database_that_is_told_to_stop_while_it_starts_ends_by_itself(make_stack: StackFactory, daemon: Any) -> None:
    """MariaDB hangs when the word comes between its socket and its service: the start script keeps it back so long."""
    stack = make_stack("stopped")
    stack.write("  db: {kind: mysql}\n")
    stack.up()
    container = daemon.containers.get(stack.containers()["db"]["Id"])

    def again() -> bool:
        container.reload()
        return container.attrs["RestartCount"] > 0 and container.status == "running"

    stop = "while [[ ! -S /run/mysqld/mysqld.sock ]]; do :; done; kill -TERM 1"
    for _ in range(2):
        container.restart()
        assert container.exec_run(["bash", "-c", stop])[0] in (0, 137)
        wait_until(again, "the engine sees its end, and starts it again")
    wait_until(lambda: stack.inside("db", "mariadb", "-Ne", "SELECT 1") == (0, "1\n"), "it serves again")
