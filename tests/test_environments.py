"""`diff ENVIRONMENT ENVIRONMENT`: all that differs between two environments of a stack is told, and nothing else."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consolidate import vault
from consolidate.__main__ import main
from consolidate.cli import options
from consolidate.docker_engine import DockerEngine
from consolidate.engine import Engine
from consolidate.environments import Contrast, Side, contrast
from consolidate.errors import EngineUnavailable, UsageError
from consolidate.secret import Secret, SecretRecord
from consolidate.source import Source, described, in_environment
from consolidate.store import read_secrets, save_secrets
from tests.conftest import clear
from tests.memory_engine import MemoryEngine

ROOT = Path(__file__).resolve().parent.parent
STACK = """\
stack: {name}
host: {{reserve: {{memory: "${{C_MEMORY:-512M}}"}}}}
servers:
  edge: {{kind: proxy, http: 8080, tls: "off"}}
  www: {{kind: web, domains: [www.a.test, a.test], content: ./site}}
  db: {{kind: mysql}}
  app: {{kind: container, build: ./app, secrets: {{a: {{}}, b: {{}}, c: {{file: token}}, d: {{env: D}}}}}}
  old: {{kind: container, image: "redis:7", secrets: {{gone: {{}}}}}}
"""
PROD = """\
servers:
  edge: {http: "0.0.0.0:80"}
  www: {domains: [www.a.example], content: ./site-prod, resources: {memory: 128M}, image: "nginx:1"}
  db: {max_connections: 300}
  app: {secrets: {d: {env: E}, e: {}}}
  old: null
  new: {kind: container, image: "redis:7"}
"""


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    for folder, page in (("site", "dev\n"), ("site-prod", "prod\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "index.html").write_text(f"<p>same\n<p>{page}")
        (tmp_path / folder / "same").write_bytes(b"\0same")
        (tmp_path / folder / "binary").write_bytes(b"\0" + page.encode())
        (tmp_path / folder / "large").write_text(page * 100_000)
    (tmp_path / "site" / "dev.txt").write_text("a line of dev\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "token").write_text("x")
    (tmp_path / "stack.yml").write_text(STACK.format(name="shop"))
    (tmp_path / "stack.prod.yml").write_text(PROD)
    return tmp_path / "stack.yml"


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(*_: Any) -> None:
        raise EngineUnavailable("no engine answers")

    monkeypatch.setattr(options, "engine", engine)
    monkeypatch.setattr(options, "names_engine", lambda *_: False)


def differences(file: Path, *names: str, servers: tuple[str, ...] = ()) -> Contrast:
    sources = [in_environment(Source(file), n) for n in names]
    left, right = ((Side(n, "", None), described(s)) for n, s in zip(names, sources, strict=True))
    return contrast(left, right, servers)


def texts(pairs: Any) -> dict[str, tuple[str | None, str | None]]:
    return {p.key: (p.left and p.left.text, p.right and p.right.text) for p in pairs}


def test_what_differs_is_told_with_both_values(stack: Path) -> None:
    """Servers, settings, limits, images and ports: each that differs once, with what each side has, and no other."""
    found = differences(stack, "dev", "prod")
    assert texts(found.servers) == {"old": ("container", None), "new": (None, "container")}
    assert texts(found.settings) == {
        "servers.edge.http": ("8080", "0.0.0.0:80"),
        "servers.www.domains": ("www.a.test, a.test", "www.a.example"),
        "servers.www.content": ("./site", "./site-prod"),
        "servers.db.max_connections": ("100", "300"),
        "servers.app.secrets.d.env": ("D", "E"),
    }
    assert texts(found.limits) == {"servers.www.resources.memory": ("64M", "128M")}
    (image,) = found.images
    assert image.key == "www" and image.left and image.right
    assert image.left.text.startswith("consolidate/web:") and image.right.text == "nginx:1"
    assert texts(found.ports) == {"edge": ("127.0.0.1:8080->80/tcp", "0.0.0.0:80->80/tcp")}


def test_each_value_tells_its_line(stack: Path) -> None:
    """A value of a comparison knows the line that it comes from, a list those of its items."""
    by_key = {p.key: p for p in differences(stack, "dev", "prod").settings}
    domains = by_key["servers.www.domains"]
    assert domains.left and domains.right
    assert [(r.place and Path(r.place.file).name, r.origin) for r in domains.left.rows] == [("stack.yml", "file")] * 2
    assert [(r.place and r.place.line, r.origin) for r in domains.right.rows] == [(3, "overlay")]
    connections = by_key["servers.db.max_connections"].left
    assert connections and [r.kind for r in connections.rows] == ["mysql"]


def test_rendered_and_copied_files_are_compared(stack: Path) -> None:
    """Texts line by line, whatever else in words; what is the same, and secrets' own files, not at all."""
    found = {(f.server, f.file): f for f in differences(stack, "dev", "prod").files}
    assert "+max_connections = 300" in found["db", "running.cnf"].diff.splitlines()
    assert found["www", "content/index.html"].diff.splitlines()[:2] == [
        "--- dev: content/index.html",
        "+++ prod: content/index.html",
    ]
    assert {"-<p>dev", "+<p>prod", " <p>same"} <= set(found["www", "content/index.html"].diff.splitlines())
    for name in ("binary", "large"):
        assert (found["www", f"content/{name}"].diff, found["www", f"content/{name}"].note) == (
            "",
            "its content differs",
        )
    assert found["www", "content/dev.txt"].note == "only in dev"
    assert ("www", "content/same") not in found
    assert {server for server, _ in found} <= {"edge", "www", "db"}


def test_what_is_stated_twice_differs_in_nothing(
    stack: Path, no_engine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An overlay that says what the file says, and an empty one, differ from the file in nothing, though names differ."""
    shutil.copytree(ROOT / "stacks/acme", stack.parent / "acme")
    for file in (stack, stack.parent / "acme/stack.yml"):
        for text in ("{}\n", file.read_text()):
            file.with_name("stack.same.yml").write_text(text)
            assert main(["diff", "dev", "same", "-f", str(file), "--detailed-exitcode", "--format", "json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert told.pop("secrets")
            assert not any(v for k, v in told.items() if k not in ("left", "right"))


def test_only_the_servers_that_are_named(stack: Path, no_engine: None, capsys: pytest.CaptureFixture[str]) -> None:
    """With `-s` nothing of other servers and of the host is compared."""
    stack.with_name("stack.prod.yml").write_text(f"host: {{reserve: {{memory: 1G}}}}\n{PROD}")
    assert main(["diff", "dev", "prod", "-f", str(stack), "-s", "db", "-s", "new", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [p["server"] for p in told["servers"]] == ["new"]
    assert [p["path"] for p in told["settings"]] == ["servers.db.max_connections"]
    assert {f["server"] for f in told["files"]} == {"db"} and told["limits"] == told["ports"] == []
    assert main(["diff", "dev", "prod", "-f", str(stack), "-s", "dbb"]) == 64
    assert "did you mean 'db'?" in capsys.readouterr().err


def test_secrets_are_the_same_or_different(stack: Path, engine: Engine, stack_name: str) -> None:
    """The stores of both environments on an engine are compared, and tell of each secret whether its value is the same."""
    stack.write_text(STACK.format(name=stack_name))
    sources = [in_environment(Source(stack), n) for n in ("dev", "prod")]
    values = {"dev": {"a": "s3same", "b": "s3one"}, "prod": {"a": "s3same", "b": "s3other", "e": "s3more"}}
    sides, stores = [], []
    try:
        for (name, given), source in zip(values.items(), sources, strict=True):
            desired = described(source)
            records = {f"app/{k}": vault.record(f"app/{k}", Secret(v), datetime.now(UTC)) for k, v in given.items()}
            save_secrets(engine, desired.stack, records)
            sides.append((Side(name, desired.stack, None), desired))
            stores.append(read_secrets(engine, engine.observe(desired.stack)))
    finally:
        if isinstance(engine, DockerEngine):
            clear(engine, f"{stack_name}-prod")  # the other one is the fixture's
    found = contrast(sides[0], sides[1], (), (stores[0], stores[1]))
    told = {s.secret.removeprefix("app/"): s.state for s in found.secrets if s.secret.startswith("app/")}
    assert told == {"a": "same", "b": "different", "c": "same", "d": "another source", "e": "only right"}
    assert "s3" not in json.dumps(found.to_json())


def test_secrets_without_an_engine(stack: Path) -> None:
    """Without an engine each environment has its own; one that is made in one alone is told; the same source is the same."""
    left, right = ((Side(n, "", None), described(in_environment(Source(stack), n))) for n in ("dev", "prod"))
    made: dict[str, SecretRecord] = {"app/a": vault.record("app/a", Secret("s3"), datetime.now(UTC))}
    for stores, state in ((None, "own in each"), ((made, {}), "not made in both")):
        told = {s.secret: s.state for s in contrast(left, right, ("app",), stores).secrets}
        assert (told["app/a"], told["app/c"], told["app/d"]) == (state, "same", "another source")


@pytest.mark.engine
def test_a_comparison_on_an_engine(
    stack: Path, docker_engine: DockerEngine, stack_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command compares the secrets on the real engine, prints none, changes nothing there, and exits 2."""
    stack.write_text(STACK.format(name=stack_name))
    names = (stack_name, f"{stack_name}-prod")
    try:
        for name in names:
            record = vault.record("app/a", Secret("s3same"), datetime.now(UTC))
            save_secrets(docker_engine, name, {"app/a": record})
        before = [docker_engine.observe(name).essence for name in names]
        assert main(["diff", "dev", "prod", "-f", str(stack), "--detailed-exitcode", "--format", "json"]) == 2
        out = capsys.readouterr().out
        assert "s3same" not in out
        told = json.loads(out)
        assert [told[side]["stack"] for side in ("left", "right")] == list(names)
        assert {"secret": "app/a", "state": "same"} in told["secrets"]
        assert [docker_engine.observe(name).essence for name in names] == before
    finally:
        for name in names:
            clear(docker_engine, name)


def test_a_comparison_for_people(
    stack: Path, no_engine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables with a column for each side, never wider than the terminal; where there is room each value has its line."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["diff", "dev", "prod", "-f", str(stack)]) == 0
    out, err = capsys.readouterr()
    assert "no engine answers, so that no secret's value is compared" in err
    tables = [line for line in out.splitlines() if not line.startswith("  ")]
    assert max(map(len, tables)) <= 80
    assert "SETTING" in out and "dev (no overlay)" in out and "prod (stack.prod.yml)" in out
    assert "only in prod" in out and "+<p>prod" in out
    assert "stack.prod.yml:4:" not in out
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["diff", "dev", "prod", "-f", str(stack)]) == 0
    assert "300  stack.prod.yml:4:25" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["also-s3cret", "s3same"])
def test_what_a_secrets_variable_put_somewhere_is_in_no_file(
    stack: Path, no_engine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """What settings don't show isn't shown in files either; but that it differs is."""
    monkeypatch.setenv("OLD_TOKEN", "s3same")
    monkeypatch.setenv("NEW_TOKEN", other)
    stack.write_text(stack.read_text().replace("content: ./site", "content: ./site, redirects: {/a: '/x?$OLD_TOKEN'}"))
    overlay = stack.with_name("stack.prod.yml")
    overlay.write_text("servers: {www: {redirects: {/a: '/x?$NEW_TOKEN', /b: '/else'}}}\n")
    for words in ([], ["--format", "json"]):
        assert main(["diff", "dev", "prod", "-f", str(stack), *words]) == 0
        out = capsys.readouterr().out
        assert "s3" not in out and "/else" in out and "<not shown>" in out
    overlay.write_text("servers: {www: {redirects: {/a: '/x?$NEW_TOKEN'}}}\n")
    notes = {f.file: (f.diff, f.note) for f in differences(stack, "dev", "prod").files}
    expected = {} if other == "s3same" else {"nginx.conf": ("", "it differs in what isn't shown")}
    assert notes == expected


@pytest.mark.parametrize(
    ("names", "what", "hint"),
    [
        (("dev", "prdo"), "there is no stack.prdo.yml", "did you mean 'prod'?"),
        (("dev", "test"), "neither dev nor test has an overlay", "stack.test.yml"),
        (("prod", "prod"), "the same environment", "diff dev prod"),
        (("../x", "prod"), "'../x' can't be an environment's name", "letters a-z"),
    ],
)
def test_environments_that_can_t_be_compared(
    stack: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str], what: str, hint: str
) -> None:
    """A misspelt environment is never taken for the file alone, and a name is no path."""
    assert main(["diff", *names, "-f", str(stack)]) == 64
    out, err = capsys.readouterr()
    assert out == "" and what in err and hint in err


def test_an_environment_without_an_overlay_is_the_file_alone(stack: Path) -> None:
    """In a comparison, where there is another one beside it; `up -e` refuses it, or a typing mistake would make a stack."""
    assert in_environment(Source(stack), "dev").environment is None
    assert in_environment(Source(stack), "prod").environment == "prod"
    with pytest.raises(UsageError, match=r"there is no stack\.dev\.yml"):
        described(Source(stack, "dev"))


def test_an_engine_that_is_named_has_to_answer(
    stack: Path, no_engine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `-H` a comparison without that engine is none."""
    monkeypatch.setattr(options, "names_engine", lambda host, _: host is not None)
    assert main(["diff", "dev", "prod", "-f", str(stack), "-H", "unix:///nowhere"]) == 69
    assert "no engine answers" in capsys.readouterr().err


def test_environments_on_two_engines(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side's secrets are those of its own engine, by address or by context; a side without one has that of -H."""
    engines: dict[tuple[str | None, str | None], MemoryEngine] = {}
    for name, named, value in (
        ("shop", ("unix:///dev", None), "s3same"),
        ("shop-prod", (None, "prod"), "s3same"),
        ("shop-prod", ("unix:///dev", None), "s3stale"),
    ):
        engine = engines.setdefault(named, MemoryEngine())
        save_secrets(engine, name, {"app/a": vault.record("app/a", Secret(value), datetime.now(UTC))})
    monkeypatch.setattr(options, "engine", lambda host, context: engines[host, context])

    def state(*words: str) -> str:
        assert main(["diff", "dev", "prod", "-f", str(stack), "-s", "app", "--format", "json", *words]) == 0
        return next(str(s["state"]) for s in json.loads(capsys.readouterr().out)["secrets"] if s["secret"] == "app/a")

    assert state("-H", "unix:///dev", "--right-context", "prod") == "same"
    assert state("--left-host", "unix:///dev", "--right-context", "prod") == "same"
    assert state("-H", "unix:///dev") == "different"
    assert state("--left-context", "prod", "--right-host", "unix:///dev") == "not made in both"
