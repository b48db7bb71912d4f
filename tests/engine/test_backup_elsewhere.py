"""Backups that are opened and brought back from elsewhere: into another stack, and with the passphrase from where it is kept."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import Stack, on_host, run
from tests.engine.test_backup import VAULT, killed_at, names, said, say, way_on

pytestmark = pytest.mark.engine

FILES = "  files: {kind: container, image: 'debian:bookworm-slim', command: sleep 999, volumes: ['data:/srv/data']}\n"
BOTH = f"{FILES}  vault: {{kind: vault}}\ntemplates: [kinds]\n"
KEY = "a $(phrase) of 'mine': \\ü"


@pytest.fixture
def repositories(daemon: Any, tmp_path: Path) -> Iterator[str]:
    yield f"{tmp_path}/repositories"
    on_host(daemon, tmp_path, "rm -rf /host/repositories")  # it is root's


def data(stack: Stack) -> list[str]:
    return [said(stack, server) for server in ("files", "vault")]


@pytest.mark.slow
@pytest.mark.long
def test_a_backup_goes_into_another_stack_and_what_that_had_is_saved_with_its_own(
    make_stack: StackFactory, repositories: str
) -> None:
    """The stack that it is of notices nothing. What fails, or is cut off, has its way back in the stack that it goes into."""
    origin, other = make_stack("origin"), make_stack("other")
    for stack in (origin, other):
        stack.put("kinds/vault/kind.yml", VAULT)
        stack.write(f"{BOTH}backup: {{repository: {repositories}}}\n")
    origin.up()
    say(origin, "files", "first")
    say(origin, "vault", "poison")
    origin.run("backup")
    say(origin, "files", "later")
    before = origin.identities()

    origin.run("restore", "latest", "-s", "files", "--to", other.file)  # nothing is lost there, so it asks nothing
    say(other, "vault", "mine")
    assert (data(other), data(origin), origin.identities()) == (["first", "mine"], ["later", "poison"], before)

    words = ("restore", "latest", "-s", "vault", "--to", other.file)
    assert "there is no terminal to ask on" in origin.run(*words, status=64).err
    assert "what was there before is back" in origin.run(*words, "--yes", status=1).err
    assert (data(other), data(origin), origin.identities()) == (["first", "mine"], ["later", "poison"], before)
    assert [reason for _, reason, _ in names(other)] == ["before a restore"]
    assert [reason for _, reason, _ in names(origin)] == ["asked for"]
    assert other.secret("backup/passphrase") != origin.secret("backup/passphrase")

    say(other, "files", "mine")
    more = ("restore", "latest", "-s", "files", "--to", str(other.file), "--yes", "--progress", "json")
    killed_at("restore:", origin.start(*more))
    told = way_on(other.run("up", status=1))
    run("restore", *shlex.split(told), "--yes", cwd=origin.folder.parent)  # from anywhere
    assert (data(other), data(origin), origin.identities()) == (["first", "mine"], ["later", "poison"], before)
    assert "nothing to change" in other.run("up").out
    assert other.orphans() == [] == origin.orphans()


@pytest.mark.slow
@pytest.mark.long
def test_the_passphrase_comes_from_where_the_stack_file_says(make_stack: StackFactory, repositories: str) -> None:
    """A file, a variable or a command: whichever has it now. One that is wrong, or missing, changes nothing."""
    stack = make_stack("keys")
    stack.put("key", f"{KEY}\n")
    sources = ("{file: key}", "{env: KEY}", "{command: [cat, key]}", "{env: KEY}")
    stack.write(f"{FILES}backup: {{repository: {repositories}, passphrase: {sources[0]}}}\n")
    stack.up()
    say(stack, "files", "first")
    for source, following in itertools.pairwise(sources):
        stack.run("backup", env={"KEY": KEY} if "env" in source else {})
        stack.edit(source, following)
    unset = stack.run("backup", status=65)
    assert "stack.yml:" in unset.err and "'KEY' is not set" in unset.err
    listed = stack.run("backup", "list", "--format", "json", env={"KEY": KEY}).json
    assert [row["state"] for row in listed] == ["whole"] * 3

    where = ("--repository", f"{repositories}/{stack.name}", "--passphrase-file", "-")
    stack.run("backup", "files", "latest", "out", *where, stdin=f"{KEY}\n")
    assert "{command: [cat, key]}" in (stack.folder / "out/stack.yml").read_text()
    assert not (stack.folder / "out/key").exists()  # what opens it does not lie in it
    say(stack, "files", "later")
    stack.run("restore", "latest", "--yes", env={"KEY": KEY})
    assert said(stack, "files") == "first"
