"""What the README says of a lost host, typed as it stands there: a whole acme goes, and is rebuilt from its repository."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import logged_in
from tests.engine.support import STACKS, Acme, Stack, environment, on_host, wait_until
from tests.engine.test_backup_rebuilt import meanwhile, sql
from tests.engine.test_drill import checks, of_drill
from tests.mail_client import MailServer, fetch

pytestmark = [pytest.mark.engine, pytest.mark.slow]

REPOSITORIES = Path("/var/backups/consolidate")  # where the README has them
PAUSE = 3.0  # seconds between two posts: the page that the README looks at has the last ten
GIF = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAA=")
ROWS = "SELECT {} FROM blog.wp_posts WHERE post_type = '{}' AND post_status IN ('publish', 'inherit') ORDER BY ID"


@dataclass
class Clone:
    """A folder as the README's reader stands in it, but that the stack has another name and other ports."""

    folder: Path
    stack: Acme
    exported: str = ""

    def type(self, commands: str) -> str:
        """What commands of the README print. Each has to end well, and what they export is known to later ones."""
        commands = commands.replace("8443", str(self.stack.https))
        commands = commands.replace(f"{REPOSITORIES}/acme", f"{REPOSITORIES}/{self.stack.name}")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-ec", self.exported + commands],
            cwd=self.folder,
            env=environment(PATH="/usr/bin:/bin"),
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        self.exported += "".join(re.findall(r"(?m)^export .*\n", commands))
        return done.stdout


@pytest.fixture
def clone(daemon: Any, token: str, tmp_path: Path) -> Iterator[Clone]:
    folder = tmp_path / "clone"
    program = folder / ".venv/bin/consolidate"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m consolidate "$@"\n')
    program.chmod(0o755)
    (folder / "stacks").mkdir()
    stack = Acme.copy(folder / "stacks/acme", f"{token}-readme", daemon)
    spare = shutil.copytree(stack.folder, tmp_path / "spare")
    try:
        yield Clone(folder, stack)
    finally:
        stack.folder = spare  # the other one may have gone
        stack.destroy()
        for left in (stack, Stack(spare, f"{stack.name}.drill", daemon, is_up=True)):
            left.purge()
        on_host(daemon, REPOSITORIES, f"rm -rf '/host/{stack.name}'")


def check_drill(stack: Acme, found: Any) -> None:
    """All of it was proved: rows, messages, files and pages; by a stack that has gone."""
    assert found["proved"] is True and [c for c in found["checks"] if not c["ok"]] == []
    assert {"blog", "db", "mail"} <= set(found["servers"])
    assert {c["server"] for c in found["checks"] if c["check"] == "ready"} == set(stack.containers())
    posts, _, _ = checks(found, "db", "rows")["blog.wp_posts"]
    assert posts > 3
    assert checks(found, "mail", "messages")["bob@acme.test"][1:] == (1, True)  # it may have been in the queue
    for server in ("blog", "mail"):
        files, bytes_ = ([c[0] for c in checks(found, server, what).values()] for what in ("files", "bytes"))
        assert sum(files) > 3 and sum(bytes_) > 100
    pages = {s: checks(found, s, "page") for s in ("www", "blog")}
    assert pages == {s: {f"http://{s}.acme.test/": (None, "status 200", True)} for s in pages}
    (page,) = (c["detail"] for c in found["checks"] if (c["server"], c["check"]) == ("blog", "page"))
    assert page.endswith("with the text 'Acme'")
    assert found["seconds"] > 1 and abs(found["seconds"] - sum(s["seconds"] for s in found["steps"])) < 0.1
    assert of_drill(stack) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_lost_host_is_rebuilt_by_what_the_readme_says(clone: Clone) -> None:
    """Meanwhile somebody posts pictures: those of before the backup are back, each with its post, and none in halves."""
    section = (STACKS.parent / "README.md").read_text().split("## A lost host, rebuilt\n")[1].split("\n## ")[0]
    save, prove, lose, rebuild = re.findall(r"(?s)```sh\n(.*?)```", section)
    stack, published = clone.stack, list[str]()
    stack.up()
    stack.export_authority()
    blog = logged_in(stack)

    def publish(stop: threading.Event) -> None:
        while not stop.is_set():
            number = len(published) + 1
            address = blog.upload(f"picture-{number}.gif", GIF + f"#{number}".encode(), "image/gif")
            blog.create_post(f"Picture {number}", f'<img src="{address}">')
            published.append("/" + address.split("/", 3)[3])
            stop.wait(PAUSE)

    with meanwhile(publish):
        wait_until(lambda: published, "somebody posts")
        before = len(published)
        clone.type(save)
        assert len(published) > before
    secrets = stack.stored_secrets()
    check_drill(stack, json.loads(clone.type(prove.replace("--drill", "--drill --format json"))))
    when = {r["server"]: r["backup"] for r in stack.run("ps", "--format", "json").json if r.get("backup")}
    assert {"blog", "db", "mail"} <= when.keys()

    clone.type(lose)
    assert stack.left() == [] and not stack.folder.exists()

    said = clone.type(rebuild)
    stack.folder = clone.folder / "rebuilt"
    for what in ("page", "post", "letter"):
        assert f"This {what} stays" in said
    assert {a: v for a, v in stack.stored_secrets().items() if a in secrets} == secrets

    assert "This page stays" in stack.get("www.acme.test", "/stays.html").body  # the authority of before has signed it
    assert logged_in(stack).page("/wp-admin/").ok
    titles = sql(stack, ROWS.format("post_title", "post")).splitlines()
    assert titles.count("This post stays") == 1
    pictures = [int(t.split()[1]) for t in titles if t.startswith("Picture ")]
    assert pictures == list(range(1, len(pictures) + 1)) and before <= len(pictures) <= len(published)
    rows = sql(stack, ROWS.format("post_title", "attachment")).splitlines()
    found = "cd /var/lib/wordpress/wp-content/uploads; find . -name 'picture-*' -printf '%f\\n'"
    files = stack.inside("blog", "bash", "-c", found)[1].split()
    assert {f"{r}.gif" for r in rows} <= set(files) and len(files) - len(rows) in (0, 1)  # one may be on its way
    assert len(rows) - len(pictures) in (0, 1)
    for number, path in enumerate(published[: len(pictures)], 1):
        assert stack.get("blog.acme.test", path).body.endswith(f"#{number}")

    mail = MailServer("mail.acme.test", stack.authority.read_text(), stack.submission, 0, stack.imaps, 0)
    password = secrets["mail/bob@acme.test"]
    letter = fetch(mail, "bob@acme.test", password, "This letter stays", within=30)
    assert f"https://blog.acme.test:{stack.https}/" in letter.get_content()
    with mail.read("bob@acme.test", password) as session:
        assert len(session.search(None, "ALL")[1][0].split()) == 1
    assert "nothing to change" in stack.run("up").out
    rows = stack.run("ps", "--format", "json").json
    assert {r["server"]: r["backup"] for r in rows if r.get("backup")} == when  # what there is, was saved then
