"""Guards of the design: the code knows no kind by its name, and a kind is data that goes from plan to up."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import consolidate
from consolidate import naming
from consolidate.__main__ import main
from consolidate.docker_engine import DockerEngine
from consolidate.kinds import Catalogue, Kind, data_folder
from tests.conftest import clear
from tests.engine.support import free_port

CODE = sorted(Path(consolidate.__file__).parent.rglob("*.py"))
KINDS = {folder.name for folder in data_folder("templates").iterdir() if folder.is_dir()}
CATALOGUE = Catalogue([data_folder("templates")])
STACK = """\
stack: {name}
templates: [kinds]
servers:
  edge: {{kind: gate, http: {port}}}
  www: {{kind: page, domains: [www.test], storage: db}}
  db: {{kind: depot}}
"""


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each string of a module that is no docstring, with its line."""
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


@pytest.mark.parametrize("file", CODE, ids=lambda f: "/".join(f.parts[-2:]))
def test_no_code_knows_a_kind_by_its_name(file: Path) -> None:
    """No string in the code is the name of a shipped kind, so nothing can branch on one or look one up."""
    found = [(line, text) for line, text in texts(ast.parse(file.read_text())) if text in KINDS]
    assert found == []


def test_the_guard_sees_a_name() -> None:
    """The guard finds a kind's name in code and passes over one in a docstring."""
    name = min(KINDS)
    tree = ast.parse(f'"""{name}"""\ndef f(kind):\n    "{name}"\n    return kind == "{name}"\n')
    assert list(texts(tree)) == [(4, name)]


@pytest.mark.parametrize("kind", list(CATALOGUE), ids=lambda k: k.name)
def test_a_kind_with_data_says_how_it_is_saved(kind: Kind) -> None:
    assert not kind.recipe.get("volumes") or "backup" in kind.recipe


@pytest.mark.parametrize("kind", list(CATALOGUE), ids=lambda k: k.name)
def test_what_is_in_memory_keeps_its_mode(kind: Kind) -> None:
    """From the second start of a container on runc gives a tmpfs the mode of the folder below it: the image has that, too."""
    dockerfile = data_folder("templates") / kind.name / "Dockerfile.j2"
    for path, tmpfs in (kind.recipe.get("tmpfs") or {}).items() if dockerfile.exists() else ():
        made = re.search(rf"install -d [^&\n]*-m (\d+) {path}\b", dockerfile.read_text())
        assert path == "/tmp" or (made and made[1] == tmpfs["mode"]), path


def test_one_place_takes_locks() -> None:
    """It sees to the image that a lock is made of, for every verb."""
    calls = [
        f"{file.name}:{node.lineno}"
        for file in CODE
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "lock"
    ]
    assert [c.partition(":")[0] for c in calls] == ["runner.py"]


@pytest.mark.parametrize(
    ("file", "begin", "end"),
    [
        ("reload", r"# From here", r"while [^\n]*"),
        ("nginx.conf.j2", r"{% if publish %}\n *# Before a reload", r"{% endif %}"),
    ],
)
def test_what_two_kinds_say_in_the_same_words_is_the_same(file: str, begin: str, end: str) -> None:
    """Kinds have no files in common: what two of them need stands in both, and is mended in both."""
    texts = [(data_folder("templates") / kind / "files" / file).read_text() for kind in ("php", "web")]
    one, other = (re.findall(rf"^ *{begin}.*?\n *{end}$", text, re.DOTALL | re.MULTILINE) for text in texts)
    assert len(one) == 1 and one == other
    assert "the same words in the kinds php and web" in one[0].lower()


@pytest.mark.engine
def test_an_invented_kind_goes_from_plan_to_up(docker_engine: DockerEngine, stack_name: str, tmp_path: Path) -> None:
    """Kinds that only the tests know come up on a real engine, wired to each other, and change nothing the next time."""
    shutil.copytree(Path(__file__).parent / "kinds", tmp_path / "kinds")
    file = tmp_path / "stack.yml"
    file.write_text(STACK.format(name=stack_name, port=free_port()))
    try:
        for arguments, status in ((["plan", "--detailed-exitcode"], 2), (["up"], 0)):
            assert main([*arguments, str(file)]) == status
        found = {c.server: c for c in docker_engine.observe(stack_name).containers if c.server}
        assert {s: c.running for s, c in found.items()} == {"edge": True, "www": True, "db": True}
        assert found["www"].labels[naming.KIND] == "page"
        code, routes = docker_engine.run(found["edge"].name, ["cat", "/tmp/routes"])
        assert (code, routes.split()) == (0, ["www.test", "www:8000", "x", "1"])
        code, said = docker_engine.run(found["www"].name, ["cat", "/run/secrets/storage_password"])
        assert docker_engine.run(found["db"].name, ["cat", "/data/www_storage"]) == (0, f"{said}\n")
        assert main(["plan", "--detailed-exitcode", str(file)]) == 0
    finally:
        images = {c.image for c in docker_engine.observe(stack_name).containers if c.server}
        clear(docker_engine, stack_name)
        for image in images:
            docker_engine.client.remove_image(image)
