"""A database server on an image of the user's own."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.engine.conftest import StackFactory

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
