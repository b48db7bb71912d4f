"""A stack of one server in a folder of its own, whose files have a secret in them, on the engine in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from consolidate.naming import BASE_IMAGE
from consolidate.pipeline import Prepared, prepare
from consolidate.report import Report
from consolidate.runner import Runner
from consolidate.source import Source
from tests.memory_engine import MemoryEngine

KIND = """\
summary: mine
image: debian:bookworm
command: [cat]
ready: {command: ["true"]}
settings: {words: {type: string, default: good morning}}
secrets: {key: {}}
files: [{source: told.j2, reload: true}, {source: settings.j2}, {source: keys.j2}]
"""


class Planned:
    """The stack, and what verbs do with it. It has the kind `mine`: two files, and one that is reloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = MemoryEngine()
        for tag in (BASE_IMAGE, "debian:bookworm"):
            self.engine.images.add(tag)
        self.put("kinds/mine/kind.yml", KIND)
        self.put("kinds/mine/files/settings.j2", "first\nsays {{ settings.words | shell }}\nlast\n")
        self.put("kinds/mine/files/keys.j2", "old\nkey {{ secret('key') | shell }}\n")
        self.put("kinds/mine/files/told.j2", "told {{ settings.words | shell }} {{ secret('key') | shell }}\n")
        self.stack("")
        self.source = Source(folder / "stack.yml")

    def put(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stack(self, more: str) -> None:
        """The stack file, with `more` settings of the server."""
        self.put("stack.yml", f"stack: t\ntemplates: [./kinds]\nservers:\n  own: {{kind: mine{more}}}\n")

    def prepare(self, **more: object) -> Prepared:
        return prepare(self.source, self.engine, **more)  # type: ignore[arg-type]

    def apply(self, prepared: Prepared) -> Report:
        runner = Runner(self.engine, lambda _: None, lambda _: None, print, 0.01)
        return runner.apply(prepared, self.prepare, lambda _: None)

    def up(self) -> Prepared:
        prepared = self.prepare()
        assert self.apply(prepared).ok
        return prepared


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Planned(tmp_path / "stack")
