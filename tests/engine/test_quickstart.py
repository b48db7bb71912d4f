"""./scripts/quickstart, from a copy of what a clone has: no environment yet, and the stack under a name of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import STACKS, Acme, environment
from tests.wordpress_client import WordPress

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.long]

ROOT = STACKS.parent
NEEDED = ("consolidate", "scripts", "templates", "tools", "pyproject.toml", "requirements.lock", "README.md")


@pytest.fixture
def clone(daemon: Any, token: str, tmp_path: Path) -> Iterator[tuple[Path, Acme]]:
    """The files of a clone, with stacks/acme renamed and on other ports, also where the script speaks of them."""
    folder = tmp_path / "clone"
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "stacks").mkdir()
    stack = Acme.copy(folder / "stacks" / "acme", f"{token}-quick", daemon)
    for script in (folder / "scripts/quickstart", folder / "stacks/acme/visit"):
        script.write_text(re.sub(r"\b8443\b", str(stack.https), script.read_text()))
    try:
        yield folder, stack
    finally:
        stack.destroy()
        stack.purge()


def quickstart(folder: Path) -> str:
    """What the script prints on its standard output."""
    python = Path(sys.base_prefix) / "bin" / "python3"
    variables = environment(PYTHON=str(python))
    done = subprocess.run([folder / "scripts/quickstart"], env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_brings_acme_up_and_is_safe_to_run_again(clone: tuple[Path, Acme]) -> None:
    folder, stack = clone
    said = quickstart(folder)
    for server, kind in (("edge", "proxy"), ("www", "web"), ("blog", "wordpress"), ("db", "mysql"), ("mail", "mail")):
        assert re.search(rf"(?m)^{server} +{kind} +running +ready", said), said
    tries = re.findall(r"(?m)^  ((?:curl|consolidate) .*)$", said)
    assert len(tries) == 3
    words = {
        "cwd": folder,
        "capture_output": True,
        "text": True,
        "env": environment(PATH=f"{folder}/.venv/bin:/usr/bin:/bin"),
    }
    page, password, _ = [subprocess.run(["bash", "-c", t], timeout=60, **words).stdout for t in tries]  # type: ignore[call-overload]
    assert page == (folder / "stacks/acme/sites/www/index.html").read_text()
    stack.export_authority()
    blog = WordPress(f"https://127.0.0.1:{stack.https}", f"blog.acme.test:{stack.https}", verify=str(stack.authority))
    blog.login("ada", password.strip())

    before = stack.identities()
    assert "nothing to change" in quickstart(folder)
    assert stack.identities() == before

    (update,) = re.findall(r"(?s)## An update under load\n.*?```sh\n(.*?)```", (folder / "README.md").read_text())
    update = re.sub(r"(?m)^wait$", "echo visitors: $(jobs -r | wc -l)\nwait", update)
    done = subprocess.run(["bash", "-ec", update], timeout=120, **words)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "visitors: 2\n" in done.stdout, "they had gone before the update was through"
    assert re.findall(r"(?m)^ *(\d+ \d{3})$", done.stdout) == ["2000 200"] * 2
    changed = {name for name, id_ in stack.identities().items() if before[name] != id_}
    assert changed == {"www"}
    assert "Today" in stack.get("www.acme.test").body
