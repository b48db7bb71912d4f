"""`render --explain KEY`: each value is told with the line that it stands in, or with what else gave it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from consolidate.__main__ import main
from consolidate.explain import HIDDEN, all_rows, explained
from consolidate.source import Source, load_stack

ROOT = Path(__file__).resolve().parent.parent
STACK = """\
stack: shop
host: {reserve: {memory: "${C_MEMORY}"}}
x-site: &site {content: ./site, environment: {A: x}}
servers:
  edge: {kind: proxy, http: "${C_HTTP:-8080}"}
  site-{i}:
    for: {i: 1..2}
    kind: web
    domains: ["s{i}.${C_DOMAIN}", plain.a.test]
    <<: *site
  blog: {kind: wordpress, domains: [b.a.test], database: db, admin: {email: a@a.test}}
  db: {kind: mysql}
  mail: {kind: mail, domains: [a.test], mailboxes: {ada@a.test: {}, bob@a.test: {quota: 2G}}}
  job: {kind: container, image: "redis:7", secrets: {token: {}, more: {env: TOKEN}}}
"""
PROD = """\
servers:
  edge: {https: 8444}
  job: null
  site-{i}:
    domains: ["{i}.shop.test"]
    resources: {memory: 128M}
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "stack.yml").write_text(STACK.replace("plain.a.test]", "'plain{i}.a.test']"))
    (tmp_path / "stack.prod.yml").write_text(PROD)
    (tmp_path / ".env").write_text("C_DOMAIN=a.test\n\nC_MEMORY=1G\n")
    monkeypatch.delenv("C_HTTP", raising=False)
    monkeypatch.setenv("C_MEMORY", "2G")
    return tmp_path / "stack.yml"


def told(capsys: pytest.CaptureFixture[str], file: Path, key: str, *words: str) -> dict[str, dict[str, Any]]:
    assert main(["render", str(file), "--explain", key, "--format", "json", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return {row["path"]: row for row in json.loads(out)}


def place(row: dict[str, Any]) -> str:
    return f"{Path(row['file']).name}:{row['line']}:{row['column']}"


def test_each_kind_of_value_tells_where_it_comes_from(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the file, of the overlay, of an anchor, a `for`, a variable, a kind's default, the program's own."""
    rows = told(capsys, stack, "servers", "-e", "prod") | told(capsys, stack, "host", "-e", "prod")

    def row(path: str) -> tuple[Any, str, str]:
        found = rows[path]
        return found["value"], found["origin"], place(found) if found["file"] else found["origin"]

    assert row("servers.edge.kind") == ("proxy", "file", "stack.yml:5:16")
    assert row("servers.edge.https") == (8444, "overlay", "stack.prod.yml:2:17")
    assert row("servers.site-2.content") == ("./site", "file", "stack.yml:3:25")
    assert row("servers.site-2.domains[0]") == ("2.shop.test", "overlay", "stack.prod.yml:5:15")
    assert rows["servers.site-2.domains[0]"]["for"] == {"i": "2"}
    assert rows["servers.site-2.content"]["for"] is None
    assert row("servers.site-1.resources.memory") == ("128M", "overlay", "stack.prod.yml:6:25")
    assert "servers.site-1.domains[1]" not in rows and "servers.job.image" not in rows
    assert row("servers.blog.admin.email") == ("a@a.test", "file", "stack.yml:11:77")
    assert row('servers.mail.mailboxes."bob@a.test".quota') == ("2G", "file", "stack.yml:13:89")
    assert row("host.subnets") == ("10.213.0.0/16", "default", "default")
    assert row("host.reserve.memory") == ("2G", "file", "stack.yml:2:26")
    assert rows["host.reserve.memory"]["variables"] == [
        {"name": "C_MEMORY", "origin": "environment", "file": None, "line": None, "column": None}
    ]
    assert [(v["name"], v["origin"]) for v in rows["servers.edge.http"]["variables"]] == [("C_HTTP", "word")]
    (variable,) = told(capsys, stack, "servers.site-1.domains[0]")["servers.site-1.domains[0]"]["variables"]
    assert (variable["name"], variable["origin"], place(variable)) == ("C_DOMAIN", "file", ".env:1:1")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("servers.edge.tls", "internal", "default: internal"),
        ("servers.blog.admin.user", "admin", "default: admin"),
        ("servers.db.resources.memory", "384M", "memory: 384M"),
        ("servers.blog.egress", True, "egress: true"),
        ("servers.blog.environment.PHP_INI_SCAN_DIR", ":/config/php", "PHP_INI_SCAN_DIR:"),
    ],
)
def test_a_default_tells_its_line_in_the_manifest(
    stack: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, word: str
) -> None:
    """What a kind gives is told with the line of its manifest that says so."""
    row = told(capsys, stack, key)[key]
    kind = key.split(".")[1].replace("edge", "proxy").replace("blog", "wordpress").replace("db", "mysql")
    assert (row["value"], row["origin"], row["kind"]) == (value, "kind", kind)
    assert Path(row["file"]) == ROOT / "templates" / kind / "kind.yml"
    assert word in Path(row["file"]).read_text().splitlines()[row["line"] - 1]


def test_secrets_are_told_by_their_names(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret's value is there, nor that of a variable with a secret's name; what needs one is told."""
    monkeypatch.setenv("TOKEN", "s3same")
    monkeypatch.setenv("C_API_TOKEN", "s3same")
    more = "  last: {kind: web, redirects: {/a: '/$C_API_TOKEN'}}\n"
    stack.write_text(stack.read_text() + more)
    for words in ([], ["--format", "json"]):
        assert main(["render", str(stack), "--explain", "servers", *words]) == 0
        out = capsys.readouterr().out
        assert "s3same" not in out and "C_API_TOKEN" in out
    rows = told(capsys, stack, "servers")
    assert rows["servers.job.secrets.token"]["secret"] == "job/token"
    assert rows["servers.job.secrets.more.env"]["value"] == "TOKEN"
    link = rows["servers.blog.secrets.database_password"]
    assert (link["secret"], link["value"], link["origin"], place(link)) == (
        "blog/database_password", None, "link", "stack.yml:11:58",
    )  # fmt: skip


def test_what_a_kind_makes_of_a_secrets_variable_is_not_shown(
    stack: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind's environment is hidden where it was made of such a setting; the rest of it is told."""
    monkeypatch.setenv("C_API_TOKEN", "s3same")
    shutil.copytree(ROOT / "templates/web", stack.parent / "kinds/mine")
    with (stack.parent / "kinds/mine/kind.yml").open("a") as manifest:
        manifest.write('environment: {WHERE: "see {{ settings.redirects[\'/a\'] }}", HOW: "{{ settings.charset }}"}\n')
    last = "  last: {kind: mine, redirects: {/a: '/$C_API_TOKEN'}}\n"
    stack.write_text(stack.read_text().replace("servers:\n", "templates: [./kinds]\nservers:\n", 1) + last)
    rows = told(capsys, stack, "servers.last")
    assert rows["servers.last.environment.HOW"]["value"] == "utf-8"
    assert rows["servers.last.environment.WHERE"]["value"] == HIDDEN
    assert "s3same" not in json.dumps(rows)


@pytest.mark.parametrize(
    ("key", "hint", "words"),
    [
        ("servers.jbo", "did you mean 'servers.job'?", ()),
        ("servers.site-1.contnet", "did you mean 'servers.site-1.content'?", ()),
        ("hots", "did you mean 'host'?", ()),
        ("", "write it as servers.www.content", ()),
        ("servers.job.image", "stack.prod.yml:3:3 removes it", ("-e", "prod")),
    ],
)
def test_an_unknown_key_is_told(
    stack: Path, capsys: pytest.CaptureFixture[str], key: str, hint: str, words: tuple[str, ...]
) -> None:
    """A key that isn't there is a mistake of the command line, with the nearest one, or with the line that removes it."""
    assert main(["render", str(stack), "--explain", key, *words]) == 64
    out, err = capsys.readouterr()
    assert out == "" and f"there is no '{key}' in shop" in err and hint in err


def test_what_is_not_set_is_told_when_it_is_asked_for(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting without a value has a row of its own, and none among all of a server; quotes in a key may be left out."""
    assert main(["render", str(stack), "--explain", "servers.site-1.domains"]) == 0
    assert "{i} is 1" in capsys.readouterr().out
    assert told(capsys, stack, "servers.edge.email")["servers.edge.email"]["value"] is None
    assert "servers.edge.email" not in told(capsys, stack, "servers.edge")
    (row,) = told(capsys, stack, "servers.mail.mailboxes.bob@a.test.quota").values()
    assert row["value"] == "2G"
    assert 'servers.mail.mailboxes."ada@a.test"' in told(capsys, stack, "servers.mail")


@pytest.mark.parametrize("file", sorted(ROOT.glob("stacks/*/stack.yml")), ids=lambda f: f.parent.name)
def test_every_value_of_an_example_is_told_once_and_where_it_stands(file: Path) -> None:
    """Each scalar of a file has one row, and a row of the file leads to the text that it shows."""
    resolved = load_stack(Source(file))
    rows = all_rows(resolved)
    assert len({r.path for r in rows}) == len(rows)
    lines = file.read_text().splitlines()
    for row in rows:
        if row.origin == "file" and row.place and not row.loop and isinstance(row.value, str | int):
            assert lines[row.place.line - 1][row.place.column - 1 :].lstrip("\"'").startswith(str(row.value)), row.shown
    assert {r.path for n in resolved.servers for r in explained(resolved, f"servers.{n}")} <= {r.path for r in rows}


def test_explaining_is_not_for_files(stack: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`--explain` refuses what would be ignored beside it; without it `render` gives its files as JSON, too."""
    assert main(["render", str(stack), "--explain", "stack", "-o", str(tmp_path / "out")]) == 64
    capsys.readouterr()
    assert main(["render", str(stack), "--format", "json", "-s", "site-1"]) == 0
    files = json.loads(capsys.readouterr().out)
    assert {f["path"] for f in files} >= {"site-1/config/nginx.conf"}
    assert all(f["text"] for f in files)
