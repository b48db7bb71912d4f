"""What `consolidate init` writes: valid for every choice of kinds, and readable."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from consolidate.cli.app import run
from consolidate.errors import UsageError
from consolidate.kinds import Catalogue, data_folder
from consolidate.schema import json_schema
from consolidate.starter import starter

CATALOGUE = Catalogue([data_folder("templates")])
KINDS = CATALOGUE.names
CHOICES = [
    (),
    *itertools.combinations(KINDS, 1),
    *itertools.combinations(KINDS, 2),
    KINDS,
    ("web", "web", "mysql", "php"),
]
COMMENTED = re.compile(r"^    # ([a-z_]+: .*)$", re.MULTILINE)


def write(folder: Path, *words: str) -> Path:
    file = folder / "stack.yml"
    assert run(["init", *words, "--file", str(file), "--name", "acme"]) == 0
    return file


@pytest.mark.parametrize("words", CHOICES, ids="+".join)
def test_it_is_valid(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, *words)
    assert run(["validate", str(file)]) == 0, capsys.readouterr().err
    text = file.read_text()
    data = yaml.safe_load(text)
    jsonschema.validate(data, json_schema(CATALOGUE))
    assert {s["kind"] for s in data["servers"].values()} >= set(words)
    assert max(map(len, text.splitlines())) <= 120
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_commented_out_is_valid_too(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, kind)
    text = file.read_text()
    file.write_text(COMMENTED.sub(r"    \1", text))
    assert run(["validate", str(file)]) == 0, capsys.readouterr().err


def test_settings_that_are_shown_have_their_defaults(tmp_path: Path) -> None:
    text = write(tmp_path, "proxy", "mysql").read_text()
    for kind in (CATALOGUE["proxy"], CATALOGUE["mysql"]):
        shown = yaml.safe_load("\n".join(COMMENTED.findall(text.split(f"  {kind.name}:\n")[1].split("\n\n")[0])))
        settings = {k: v for k, v in shown.items() if k in kind.head.settings}
        assert settings
        assert settings == {k: kind.head.settings[k].default for k in settings}


def test_what_a_kind_needs_comes_with_it() -> None:
    text, folders = starter(CATALOGUE, ["wordpress"], "acme")
    servers = yaml.safe_load(text)["servers"]
    assert list(servers) == ["proxy", "wordpress", "mysql"]
    assert servers["wordpress"]["database"] == "mysql"
    assert folders == {}


def test_links_that_can_be_made_are_made() -> None:
    servers = yaml.safe_load(starter(CATALOGUE, ["wordpress", "mail"], "acme")[0])["servers"]
    assert servers["wordpress"]["relay"] == "mail"
    assert servers["mail"]["mailboxes"] == {"you@acme.test": {}}


def test_a_kind_that_is_named_twice_makes_two_servers() -> None:
    text, folders = starter(CATALOGUE, ["web", "web"], "acme")
    servers = yaml.safe_load(text)["servers"]
    assert list(servers) == ["proxy", "web", "web-2"]
    assert list(folders) == ["sites/web", "sites/web-2"]
    assert text.count("listing:") == 1, "the second one repeats what can be set"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("acme", "acme"),
        ("My Servers!", "my-servers"),
        ("2026", "s-2026"),
        ("été", "t"),
        ("…", "stack"),
        ("x" * 60, "x" * 32),
    ],
)
def test_the_name_is_one_that_a_stack_can_have(given: str, name: str) -> None:
    data = yaml.safe_load(starter(CATALOGUE, [], given)[0])
    assert data["stack"] == name
    jsonschema.validate(data, json_schema(CATALOGUE))


def test_an_unknown_kind_has_a_hint() -> None:
    with pytest.raises(UsageError, match="there is no kind 'wordpres'") as raised:
        starter(CATALOGUE, ["wordpres"], "acme")
    assert raised.value.hint == "did you mean 'wordpress'?"


def test_it_writes_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "web")
    page = tmp_path / "sites" / "web" / "index.html"
    page.write_text("mine")
    before = file.read_text()
    assert run(["init", "mail", "--file", str(file)]) == 64
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == before
    file.unlink()
    write(tmp_path, "web")
    assert page.read_text() == "mine"


def test_kinds_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "kinds" / "clock"
    folder.mkdir(parents=True)
    (folder / "kind.yml").write_text(
        "summary: A clock.\nsettings: {zone: {type: string, required: true}}\nimage: clock\n"
    )
    file = tmp_path / "stack.yml"
    assert run(["init", "clock", "--file", str(file), "--templates", str(tmp_path / "kinds")]) == 0
    assert run(["validate", str(file), "--templates", str(tmp_path / "kinds")]) == 0


def test_the_schema_is_json() -> None:
    json.dumps(json_schema(CATALOGUE))
