"""The documentation says what the program does: commands parse, YAML is valid, links lead somewhere, words are complete."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer._click.exceptions import MissingParameter
from typer.main import get_command

from consolidate import errors, filters, lock_file, manifest, values
from consolidate.actions import ProvideImage
from consolidate.cli.app import INTERRUPTED, app, run
from consolidate.errors import ConsolidateError
from consolidate.kinds import Catalogue, data_folder
from consolidate.loader import load
from consolidate.manifest import Head, Recipe
from consolidate.schema import json_schema
from consolidate.source import Source, load_stack
from consolidate.stack import ServerEntry
from tests.memory_engine import MemoryEngine
from tests.world import World

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / n for n in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CATALOGUE = Catalogue([data_folder("templates")])
# Programs in examples that are not ours; their lines are read by people, and run when the example is made.
OTHERS = {
    "cd",
    "apt-get",
    "systemctl",
    "curl",
    "docker",
    "export",
    "cp",
    "mkdir",
    "ssh",
    "tar",
    "python",
    "python3",
    "ruff",
    "mypy",
    "lint-imports",
    "pytest",
    "sed",
    "wait",
    "echo",
    "install",
    "rm",
    "grep",
}


def page_id(page: Path) -> str:
    return page.name


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """The command lines of a page's `sh` blocks, as words, without redirections."""
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:&&|\|)\s", line):
                words = shlex.split(re.split(r"\s[<>]\s", part)[0])
                if words:
                    yield words


def parse(words: list[str]) -> None:
    """Raises where the command line doesn't take `words`; runs nothing."""
    command: Any = get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        known = {o for p in command.params for o in p.opts} | {"-h", "--help"}
        assert {w for w in words if w.startswith("-")} <= known
    else:
        command.make_context("x", list(words))


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date() -> None:
    for file, text in generator().files().items():
        assert file.read_text() == text, f"{file.name} is out of date: run `python docs/generate.py`"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_parse(page: Path) -> None:
    for words in commands(page):
        program, *rest = words
        if Path(program).name == "consolidate":
            parse(rest)
        elif program.startswith("./"):
            assert os.access(ROOT / program, os.X_OK), program
        else:
            assert program in OTHERS or program.startswith(".venv/bin/"), f"what is {program}?"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_the_text_parse(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for line in re.findall(r"`consolidate ([a-z][^`]*)`", text):
        with contextlib.suppress(MissingParameter):  # a verb that is only named
            parse(shlex.split(re.split(r"\s[<>]\s", line)[0]))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", linked.read_text()), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w./-])((?:tests|consolidate|scripts|docs)/[\w./]*\w)", BLOCK.sub("", page.read_text()))
    for name in named:
        assert (ROOT / name).exists() or name.startswith("consolidate/helper"), name


def make_paths(data: dict[str, Any], folder: Path) -> None:
    """The folders and files that a stack's entries name."""
    for server in data.get("servers", {}).values():
        for key in ("content", "build"):
            if server and isinstance(server.get(key), str):
                (folder / server[key]).mkdir(parents=True, exist_ok=True)
                (folder / server[key] / "Dockerfile").write_text("FROM scratch\n")
        for source in ((server or {}).get("secrets") or {}).values():
            if "file" in source:
                (folder / source["file"]).write_text("x")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_stacks_in_it_are_valid(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each YAML block with `stack:` is a whole file; one that says so is the overlay of the block before it. A block of
    `ini` is the .env file of what follows."""
    folder = tmp_path / "stack"
    folder.mkdir()
    write_kinds(folder)
    file = folder / "stack.yml"
    for text in blocks(page, "yaml", "ini"):
        if text.startswith("# .env"):
            (folder / ".env").write_text(text)
            continue
        overlay = re.match(r"# stack\.(\w+)\.yml\n", text)
        if overlay:
            (folder / f"stack.{overlay[1]}.yml").write_text(text)
            assert run(["validate", str(file), "-e", overlay[1]]) == 0, capsys.readouterr().err
        elif text.startswith("stack:"):
            file.write_text(text)
            data = yaml.safe_load(text)
            make_paths(data, folder)
            assert run(["validate", str(file)]) == 0, f"{text}\n{capsys.readouterr().err}"
            if "templates" not in data:
                jsonschema.validate(data, json_schema(CATALOGUE))
        elif text.startswith("lock:"):
            (folder / "a.lock.yml").write_text(text)
            assert lock_file.read(folder / "a.lock.yml")
        else:
            assert text.startswith("summary:"), f"a block that nothing checks:\n{text}"


def write_kinds(folder: Path) -> None:
    """The kind that CONTRIBUTING.md makes, file by file."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.findall(r"^`(kinds/\S+)`[^\n]*(?:\n[^\n`]+)*\n\n```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    for name, content in found:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def test_the_kind_that_contributing_makes_renders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kinds(tmp_path)
    stack = next(b for b in blocks(ROOT / "CONTRIBUTING.md", "yaml") if b.startswith("stack:"))
    (tmp_path / "stack.yml").write_text(stack)
    assert run(["render", str(tmp_path / "stack.yml"), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert "maxmemory 67108864\n" in (tmp_path / "out/cache/config/redis.conf").read_text()
    capsys.readouterr()
    assert run(["kinds", "show", "redis", "--templates", str(tmp_path / "kinds")]) == 0
    assert "`max_memory`" in capsys.readouterr().out


def test_the_manifest_page_has_every_word() -> None:
    page = (ROOT / "docs" / "manifest.md").read_text()
    block = next(b for b in blocks(ROOT / "docs" / "manifest.md", "yaml"))
    data = yaml.safe_load(block)
    assert set(data) == manifest.HEAD_WORDS | manifest.RECIPE_WORDS
    Head.model_validate({k: v for k, v in data.items() if k in manifest.HEAD_WORDS})
    plain = {k: v for k, v in data.items() if k in manifest.RECIPE_WORDS and "{{" not in str(v)}
    Recipe.model_validate(plain)
    for name, model in inspect.getmembers(manifest, inspect.isclass):
        if issubclass(model, manifest.Word) and model is not manifest.Word:
            for field, about in model.model_fields.items():
                assert re.search(rf"\b{about.alias or field}\b", block), f"{name}.{field}"
    for name in [*values.TYPES, *filters.TEXT_FILTERS, *filters.SECRET_FILTERS, "json"]:
        assert re.search(rf"\b{name}\b", page), name


def test_the_page_of_kinds_has_every_type_and_kind() -> None:
    text = (ROOT / "docs" / "kinds.md").read_text()
    types, images = text.split("## Types of settings")[1], text.split("## What an image must offer")[1]
    for name in values.TYPES:
        assert re.search(rf"^\|[^|]*\b{name}\b[^|]*\|", types, re.MULTILINE), name
    for kind in CATALOGUE.names:
        assert f"\n| {kind} |" in images, kind
        assert f"({'#' + kind})" in text, kind


def test_the_page_of_the_stack_has_every_key() -> None:
    text = (ROOT / "docs" / "stack.md").read_text()
    for key in ServerEntry.model_fields:
        assert f"| `{key}` |" in text, key


@pytest.mark.parametrize("trap", ["no", "off", "22:22", "012", "1_000", "0x1F", "1e3"])
def test_yaml_traps_are_errors(trap: str, tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    file.write_text(f"stack: a\nx-a: {trap}\n")
    with pytest.raises(errors.StackInvalid, match="quote it"):
        load(file)
    assert f"`{trap}`" in (ROOT / "docs" / "stack.md").read_text()


def test_exit_statuses_are_told() -> None:
    text = (ROOT / "README.md").read_text().split("## Exit statuses")[1]
    told = {int(n) for n in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    leaves = {c.status for c in [ConsolidateError, *ConsolidateError.__subclasses__()]}
    assert told == leaves | {0, 2, INTERRUPTED}


def test_what_readme_shows_fits_a_terminal() -> None:
    for text in blocks(ROOT / "README.md", ""):
        assert max(map(len, text.splitlines())) <= 80


def test_readme_tells_as_many_operations_as_there_are(tmp_path: Path) -> None:
    """Of acme before it is up, with its images there, and after the edit that README shows."""
    shutil.copytree(ROOT / "stacks" / "acme", tmp_path / "acme")
    file, world = tmp_path / "acme" / "stack.yml", World(MemoryEngine())
    operations = world.make_plan(load_stack(Source(file))).operations
    counted = [len([o for o in operations if not isinstance(o.action, ProvideImage)])]
    assert not world.run().failed

    with (tmp_path / "acme" / "sites" / "www" / "index.html").open("a") as page:
        page.write("<p>more</p>\n")
    text, bob = file.read_text(), "      bob@acme.test: {aliases: [sales@acme.test]}\n"
    memory = "resources: {memory: 512M, cpus: 1}"
    assert text.count(bob) == text.count(memory) == 1
    file.write_text(
        text.replace(bob, f"{bob}      cleo@acme.test: {{}}\n").replace(memory, memory.replace("512M", "768M"))
    )
    counted.append(len(world.make_plan(load_stack(Source(file))).operations))
    told = re.findall(r"^acme: (\d+) operations$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [int(n) for n in told] == counted


# The schema


def problems(data: Any) -> list[str]:
    return [e.message for e in jsonschema.Draft202012Validator(json_schema(CATALOGUE)).iter_errors(data)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(CATALOGUE))


@pytest.mark.parametrize("file", sorted(ROOT.glob("stacks/*/stack.yml")), ids=lambda f: f.parent.name)
def test_the_schema_takes_the_examples(file: Path) -> None:
    assert problems(load(file).data) == []


GOOD = [
    "{kind: web, content: null}",
    "{kind: wordpress, database: db, admin: {email: a@b.test}}",
    "{kind: container, image: a, cap_add: [CAP_CHOWN, ALL], resources: {cpus: 0.01}, healthcheck: {test: [CMD, x], interval: 5}, volumes: [data:/data]}",
    "{kind: mail, domains: [a.test], mailboxes: {a@a.test: {quota: 2G}}, relayhost: null}",
    '{kind: proxy, http: "0.0.0.0:80", tls: "off", resources: {cpus: 2}}',
    "{kind: web, redirects: {/old: /new}, secrets: {a: {}, b: {env: B}, c: {command: [pass, c]}}}",
]
BAD = {
    "an unknown key": "{kind: web, contnet: ./site}",
    "an unknown kind": "{kind: webb}",
    "no kind": "{content: ./site}",
    "a wrong type": "{kind: web, spa: 'yes'}",
    "a setting of another kind": "{kind: web, mailboxes: {}}",
    "an unknown key inside": "{kind: wordpress, database: db, admin: {mail: a@b.test}}",
    "a missing link": "{kind: wordpress, admin: {email: a@b.test}}",
    "a missing part": "{kind: wordpress, database: db, admin: {user: ada}}",
    "a number out of bounds": "{kind: mysql, max_connections: 1}",
    "a limit of nothing": "{kind: web, resources: {cpus: 0}}",
    "a limit that no engine sets": "{kind: web, resources: {cpus: 0.001}}",
    "no capability": "{kind: container, image: a, cap_add: [ROOT]}",
    "no choice": "{kind: proxy, tls: maybe}",
    "a key that breaks its pattern": "{kind: web, redirects: {old: /new}}",
    "two sources": "{kind: web, secrets: {a: {env: A, file: b}}}",
    "a domain alone": "{kind: web, domains: a.test}",
    "a number in the environment": "{kind: web, environment: {A: 1}}",
    "a for without values": "{kind: web, for: {i: []}}",
    "a for with two names": "{kind: web, for: {i: 1..2, j: 1..2}}",
}


@pytest.mark.parametrize("entry", GOOD)
def test_the_schema_takes_a_server(entry: str) -> None:
    assert problems({"stack": "a", "x-anchors": 1, "servers": {"s": yaml.safe_load(entry)}}) == []


@pytest.mark.parametrize("what", BAD)
def test_the_schema_refuses_a_server(what: str) -> None:
    assert problems({"stack": "a", "servers": {"s": yaml.safe_load(BAD[what])}})


@pytest.mark.parametrize(
    "text",
    [
        "{stack: A, servers: {s: {kind: web}}}",
        "{stack: a}",
        "{stack: a, servers: {}}",
        "{stack: a, servers: {S: {kind: web}}}",
    ],
)
def test_the_schema_refuses_a_stack(text: str) -> None:
    assert problems(yaml.safe_load(text))


def test_the_schema_explains_every_key() -> None:
    schema = json_schema(CATALOGUE)
    for name, definition in schema["$defs"].items():
        for key, about in definition.get("properties", {}).items():
            described = about.get("description") or schema["$defs"].get(about.get("$ref", "")[8:], {}).get(
                "description"
            )
            assert described, f"{name}.{key}"
