"""Every stack of stacks/ loads, renders and plans; the small one comes up as the file says, the large one too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import StackFactory
from tests.engine.support import STACKS, Stack, curl, free_port

pytestmark = pytest.mark.engine


def named(folder: Path, name: str, daemon: Any) -> Stack:
    """The stack in `folder` under a name of ours, on ports that nobody has."""
    stack = Stack(folder, name, daemon)
    text = re.sub(r"(?m)^stack: \S+$", f"stack: {name}", stack.file.read_text())
    text = re.sub(r"(?<=http: )\d+|(?<=https: )\d+|(?<=[\"':.\[])\d{4,5}(?=:\d)", lambda _: str(free_port()), text)
    stack.file.write_text(text)
    return stack


def test_every_stack_loads_renders_and_plans(example: Path, daemon: Any, token: str, tmp_path: Path) -> None:
    stack = named(example, f"{token}-x", daemon)
    assert stack.run("validate").out.startswith(f"{stack.name}: ")
    stack.run("render", "--out", str(tmp_path / "out"))
    assert any((tmp_path / "out").rglob("*"))
    planned = stack.run("plan", "--format", "json").json
    created = {r["server"] for r in planned["changes"] if r["action"] == "create"}
    servers = yaml.safe_load(stack.file.read_text())["servers"]
    assert {s for s in servers if "{" not in s} <= created
    assert stack.left() == []


def test_hello_comes_up(make_stack: StackFactory) -> None:
    stack = make_stack("hello")
    for file in (STACKS / "hello").rglob("*"):
        if file.is_file():
            stack.put(str(file.relative_to(STACKS / "hello")), file.read_text())
    stack = named(stack.folder, stack.name, stack.daemon)
    stack.up()
    port = re.search(r'"(\d+):80"', stack.file.read_text())[1]  # type: ignore[index]
    answer = curl(f"http://localhost:{port}/")
    assert (answer.status, answer.body) == (200, (STACKS / "hello/site/index.html").read_text())


@pytest.mark.slow
def test_many_webs_come_up_and_down(make_stack: StackFactory) -> None:
    stack = make_stack("many")
    for file in (STACKS / "many-webs").rglob("*"):
        if file.is_file():
            stack.put(str(file.relative_to(STACKS / "many-webs")), file.read_text())
    stack = named(stack.folder, stack.name, stack.daemon)
    stack.up()
    port = re.search(r"http: (\d+)", stack.file.read_text())[1]  # type: ignore[index]
    for number in (1, 10, 20):
        assert curl(f"http://site-{number}.many.test:{port}/").status == 200
    assert curl(f"http://site-21.many.test:{port}/").status == 404
    assert "nothing to change" in stack.up().out
