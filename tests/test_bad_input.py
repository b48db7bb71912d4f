"""Bad input: one clear message with its place, its YAML path and what to do; exit status 65; no traceback, no secret."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from consolidate.__main__ import main
from consolidate.kinds import data_folder
from tests.bad_cases import KINDS, Case, Said, cases

PROBLEM = re.compile(r"(?P<place>\S+:\d+:\d+): (?:(?P<path>(?:[\w-]+|\"[^\"]*\"|\[\d+\]|\.)+): )?(?P<what>.*)")
SECRET = "s3same"  # what the cases have for a password


def validate(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> tuple[int, str]:
    """The exit status of `consolidate validate`, and what it says on standard error with names below the file's folder."""
    status = main(["validate", str(file), "--templates", str(KINDS), *words])
    out, err = capsys.readouterr()
    assert (out == "") == (status != 0), "data on standard output goes with success"
    return status, err.replace(f"{file.parent}/", "")


def problems(err: str) -> list[Said]:
    """The problems that a message tells, each with its hint."""
    found: list[Said] = []
    for line in err.removeprefix("consolidate: ").splitlines():
        if match := PROBLEM.fullmatch(line):
            found.append(Said(match["place"], match["path"] or "", match["what"], ""))
        else:
            assert found, f"no problem begins before {line!r}"
            assert line.startswith("  "), f"no place, and no hint: {line!r}"
            last = found.pop()
            found.append(Said(last.place, last.path, last.what, f"{last.hint}\n{line.strip()}".strip()))
    return found


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in cases()])
def test_a_bad_stack_gets_one_clear_message(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each bad stack exits 65 and says what, where and what to do, once, and shows no secret."""
    folder = tmp_path / "stack"
    folder.mkdir()
    status, err = validate(capsys, case.write(folder), *case.words)
    assert status == 65
    assert "Traceback" not in err
    assert SECRET not in err
    said = problems(err)
    assert [(p.place, p.path) for p in said] == [(p.place, p.path) for p in case.said]
    for problem, expected in zip(said, case.said, strict=True):
        assert expected.what in problem.what
        assert expected.hint, "every problem says what to do"
        assert expected.hint in problem.hint


def test_every_case_says_something() -> None:
    """No case is without a problem, and no two have one name."""
    every = list(cases())
    assert len({c.name for c in every}) == len(every) > 200
    assert [c.name for c in every if not c.said] == []


GOOD = {
    "one domain of two servers, where nothing routes": """
        a: {kind: web, domains: [x.test]}
        b: {kind: web, domains: [x.test]}""",
    "a mail domain that is a site's as well": """
        edge: {kind: proxy}
        www: {kind: web, domains: [x.test]}
        mail: {kind: mail, domains: [x.test]}""",
    "one port of IPv4 and of IPv6": """
        a: {kind: web, publish: ["0.0.0.0:8080:80"]}
        b: {kind: web, publish: ["[::]:8080:80"]}""",
    "one port of two protocols": """
        a: {kind: web, publish: ["8080:80"]}
        b: {kind: web, publish: ["8080:80/udp"]}""",
    "one port of two addresses": """
        a: {kind: web, publish: ["10.0.0.1:8080:80"]}
        b: {kind: web, publish: ["10.0.0.2:8080:80"]}""",
    "variables that only sound like secrets": """
        a: {kind: web, environment: {MAX_TOKENS: "9", BYPASS: "no-auth", ALLOW_EMPTY_PASSWORD: "yes", TOKEN_TTL: 5m}}""",
    "a secret by its file": """
        a: {kind: web, secrets: {token: {}}, environment: {TOKEN: /run/secrets/token}}""",
    "an address with no password": """
        a: {kind: web, environment: {CACHE: "redis://cache:6379/0", HOME_PAGE: "https://a.test/a:b@c"}}""",
    "images": """
        a: {kind: container, image: "localhost:5000/a_b/c--d:V1.0"}
        b: {kind: container, image: "redis@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
        c: {kind: container, image: ghcr.io/acme/app}""",
    "an international domain": """
        a: {kind: web, domains: [bücher.test, "Пример.test"]}""",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_no_mistake_is_taken(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is refused that only looks like a mistake."""
    file = tmp_path / "stack.yml"
    file.write_text(f"stack: t\nservers:{GOOD[name]}\n", encoding="utf-8")
    assert validate(capsys, file) == (0, "")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """As a user to whom permissions apply."""
    if os.geteuid() != 0:
        yield
        return
    with redirect_stdout(StringIO()):  # imports now what lies where that user may not read
        assert main(["validate", str(data_folder("stacks") / "hello" / "stack.yml")]) == 0
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that isn't there is said so, and how to make one."""
    status, err = validate(capsys, tmp_path / "stack.yml")
    assert status == 65
    assert problems(err) == [
        Said("stack.yml:1:1", "", "there is no such file", "check its name, or write one: `consolidate init`")
    ]


def test_a_folder_without_a_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder stands for the stack.yml in it, which is missed by its name."""
    assert main(["validate", str(tmp_path)]) == 65
    assert f"{tmp_path}/stack.yml:1:1: there is no such file" in capsys.readouterr().err


def test_a_folder_in_place_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with the name of a stack file is said to be one."""
    (tmp_path / "stack.yml" / "stack.yml").mkdir(parents=True)
    status, err = validate(capsys, tmp_path / "stack.yml")
    assert status == 65
    assert "stack.yml/stack.yml:1:1: this is a folder, not a file" in err


@pytest.mark.usefixtures("unprivileged")
def test_a_file_that_may_not_be_read() -> None:
    """A file without permission to read it is said so."""
    with TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder, "stack.yml")
        file.write_text("stack: t\n")
        file.chmod(0)
        err = StringIO()
        with redirect_stderr(err):
            assert main(["validate", str(file)]) == 65
    assert (
        err.getvalue()
        == f"consolidate: {file}:1:1: the file can't be read: Permission denied\n  check its permissions\n"
    )


@pytest.mark.usefixtures("unprivileged")
def test_a_file_in_a_folder_that_may_not_be_entered() -> None:
    """A file that can't be reached is said so, whatever it is."""
    with TemporaryDirectory(dir="/tmp") as folder:
        inside = Path(folder, "inside")
        inside.mkdir(mode=0)
        err = StringIO()
        with redirect_stderr(err):
            assert main(["validate", str(inside / "stack.yml")]) == 65
            assert main(["validate", str(inside / "stack.yml"), "-e", "prod"]) in (64, 65)
    assert err.getvalue().count("Permission denied") >= 1
    assert "Traceback" not in err.getvalue()


HUGE = {
    "not UTF-8": (b"stack: t\nservers: {caf\xe9: 1}\n", "stack.yml:2:14", "", "the file isn't UTF-8 text"),
    "UTF-16": ("stack: t\n".encode("utf-16"), "stack.yml:1:1", "", "the file isn't UTF-8 text"),
    "a program": (b"\x7fELF\x02\x01\x01\0", "stack.yml:1:1", "", "the character U+007F can't stand in a YAML file"),
    "10 MB": (b"# filler\n" * 1_200_000, "stack.yml:1:1", "", "the file is larger than 1 MiB"),
    "an alias bomb": (
        b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 9)),
        "stack.yml:5:45",
        "a4[7]",
        "more than 100,000 values, aliases expanded",
    ),
    "nesting without end": (b"a: " + b"[" * 500_000, "stack.yml:1:1003", "", "nested deeper than 50 levels"),
    "deep nesting": (
        b"a: " + b"[" * 60 + b"]" * 60,
        "stack.yml:1:53",
        "a" + "[0]" * 49,
        "nested deeper than 50 levels",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_file_that_is_no_stack(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no text, too large or a trap is refused at once, with its place."""
    content, place, path, what = HUGE[name]
    (tmp_path / "stack.yml").write_bytes(content)
    began = time.monotonic()
    status, err = validate(capsys, tmp_path / "stack.yml")
    assert time.monotonic() - began < 2
    assert status == 65
    (said,) = problems(err)
    assert (said.place, said.path, said.what) == (place, path, what)
    assert said.hint


def test_a_missing_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment without its file is a mistake of the command line, not of the stack."""
    (tmp_path / "stack.yml").write_text("stack: t\nservers: {www: {kind: web}}\n")
    status, err = validate(capsys, tmp_path / "stack.yml", "-e", "prod")
    assert status == 64
    assert err.startswith("consolidate: there is no stack.prod.yml beside stack.yml")


def test_a_template_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A template in another encoding is named."""
    folder = tmp_path / "kinds" / "mine" / "files"
    folder.mkdir(parents=True)
    (folder.parent / "kind.yml").write_text("summary: Mine.\nimage: mine:1\n")
    (folder / "app.conf.j2").write_bytes(b"caf\xe9")
    (tmp_path / "stack.yml").write_text("stack: t\ntemplates: [kinds]\nservers: {app: {kind: mine}}\n")
    status, err = validate(capsys, tmp_path / "stack.yml")
    assert status == 65
    assert "kinds/mine/files/app.conf.j2:1:1: template: it isn't UTF-8 text\n  save it as UTF-8" in err
