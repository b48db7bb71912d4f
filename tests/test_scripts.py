"""The scripts and the packaging that a fresh machine depends on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    ROOT / ".ci/run",
    ROOT / "stacks/acme/visit",
    *sorted(file for file in (ROOT / "scripts").iterdir() if file.is_file()),
]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name(requirement: str) -> str:
    """A requirement's distribution in normal form: `types_PyYAML>=6; …` is types-pyyaml."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[._-]+", "-", match[0]).lower()


def pins(lock: Path) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lock.read_text().splitlines())
    return {name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    """Every script is free of what shellcheck knows to be wrong."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; scripts/test installs it")
    result = subprocess.run(
        ["shellcheck", "--external-sources", str(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.suffix != ".sh"], ids=lambda s: s.name)
def test_scripts_stop_at_the_first_failure(script: Path) -> None:
    """Every script can be run and ends when one of its commands fails."""
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_hold_exact_versions_and_no_address(lock: Path) -> None:
    """A lock has one exact version a line, and neither a registry's address nor an option for pip."""
    for line in lock.read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][^\s;/:@]*( ; [a-z_]+ .*)?", line), line
        assert "://" not in line


def test_locks_cover_the_dependencies() -> None:
    """Each dependency in pyproject.toml is pinned, those of development in the larger lock."""
    runtime, development = map(pins, LOCKS)
    assert {name(one) for one in PROJECT["dependencies"]} <= set(runtime)
    assert {name(one) for one in PROJECT["optional-dependencies"]["dev"]} <= set(development)


def test_locks_are_complete() -> None:
    """What a pinned package needs is pinned too: no version is left to the day of installation."""
    runtime = pins(LOCKS[0])
    for package in (name(one) for one in PROJECT["dependencies"]):
        needed = {name(one) for one in requires(package) or () if ";" not in one}
        assert needed <= set(runtime), package


def test_locks_agree() -> None:
    """Tests run with the very versions that users get."""
    runtime, development = map(pins, LOCKS)
    assert runtime.items() <= development.items()


def test_a_second_installation_does_nothing(tmp_path: Path) -> None:
    """With an environment whose stamp matches, the scripts neither make nor install anything."""
    lib = ROOT / "scripts/lib.sh"
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "some.lock").write_text("one==1\n")
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    for program in ("python", "pip", "consolidate"):
        (binaries / program).write_text(f"#!/bin/sh\n# {binaries}/python\necho $0 $* >> {tmp_path}/ran\n")
        (binaries / program).chmod(0o755)

    def environment() -> list[str]:
        (tmp_path / "ran").write_text("")
        command = ["bash", "-euo", "pipefail", "-c", f". {lib}; python_environment some.lock"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=10, capture_output=True)
        return [line for line in (tmp_path / "ran").read_text().splitlines() if " -m pip " in line]

    assert len(environment()) == 2
    assert environment() == []
    (tmp_path / "some.lock").write_text("one==2\n")
    assert len(environment()) == 2


def test_without_python_the_scripts_say_what_is_needed(tmp_path: Path) -> None:
    """Where no Python 3.11 is found and none can be installed, the status is 69 and the message says what to do."""
    for program in ("bash", "id", "dirname", "cat", "sha256sum", "basename", "grep", "dpkg-query"):
        real = shutil.which(program)
        if real:
            (tmp_path / program).symlink_to(real)
    script = f". {ROOT}/scripts/lib.sh; can_install() {{ return 1; }}; python_environment requirements.lock"
    command = [str(tmp_path / "bash"), "-euo", "pipefail", "-c", script]
    for file in ("pyproject.toml", "requirements.lock"):
        (tmp_path / file).write_text("")
    result = subprocess.run(
        command, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=10
    )
    assert result.returncode == 69, result.stderr
    assert "Python 3.11" in result.stderr


@pytest.mark.parametrize("words", [["kinds", "list"], ["--version"], ["--help"]])
def test_an_output_that_is_full_is_no_traceback(words: list[str]) -> None:
    """What can't be written is told, and is no success."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "consolidate", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "consolidate: No space left on device\n")
