"""What a plan changes in rendered files, line by line. Secrets stand there by their names."""

from __future__ import annotations

import difflib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from consolidate.actions import CreateContainer, WriteLive
from consolidate.desired import CONFIG_PATH, LIVE_PATH, RENDERED, DesiredServer
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.files import FileSpec
from consolidate.filters import redact
from consolidate.observed import Observed
from consolidate.pipeline import Prepared
from consolidate.plan import FieldChange
from consolidate.secret import SecretRecord, masked

LARGEST = 2**20  # bytes of a copied file whose lines are shown
FILE = "file "  # begins the name of a field that is a rendered file


class FileDiff(Struct, frozen=True):
    """A file of a server as it is and as it will be, as a unified diff."""

    server: str
    file: str
    diff: str

    def to_json(self) -> dict[str, Any]:
        return {"server": self.server, "file": self.file, "diff": self.diff}


def file_diffs(prepared: Prepared, engine: Engine) -> tuple[FileDiff, ...]:
    """The rendered files that a plan changes. Asks the engine for each; a file of a server that isn't there is no change.

    Replicas have the same: the first tells.
    """
    found: list[FileDiff] = []
    told: set[str] = set()
    for operation in prepared.plan.operations:
        server = prepared.desired.servers.get(operation.server)
        current = prepared.observed.current(operation.server)
        if server is None or current is None:
            continue
        reader = _Reader(engine, current.name, prepared.secrets)
        if isinstance(operation.action, CreateContainer) and server.server.name not in told:
            told.add(server.server.name)
            found += _configuration(server, operation.changes, reader)
        elif isinstance(operation.action, WriteLive):
            found += _reloadable(server, prepared.observed, reader, operation.changes)
    return tuple(found)


class _Reader:
    """The texts of files in a container, without its secrets."""

    def __init__(self, engine: Engine, container: str, secrets: Mapping[str, SecretRecord]) -> None:
        self.engine, self.container, self.secrets = engine, container, secrets

    def texts(self, path: str) -> dict[str, str]:
        """Of a file or a folder, by the paths in it; nothing where there is none."""
        try:
            archive = self.engine.get(self.container, path)
        except OperationFailed:
            return {}
        texts: dict[str, str] = {}
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                if member.isfile() and (content := tar.extractfile(member)):
                    texts[member.name.partition("/")[2] or member.name] = content.read().decode(errors="replace")
        return texts

    def record(self, folder: str) -> dict[str, str]:
        """The texts that were rendered with secrets in them."""
        return _recorded(self.texts(f"{folder}/{RENDERED}"))

    def masked(self, text: str) -> str:
        """For a text that no record tells of."""
        return masked(text, self.secrets)


def _configuration(server: DesiredServer, changes: Iterable[FieldChange], reader: _Reader) -> list[FileDiff]:
    names = [c.field.removeprefix(FILE) for c in changes if c.field.startswith(FILE)]
    if not names:
        return []
    files = {f.path: f for v in server.files if v.role == "config" for f in v.files.files}
    names = _tellable(names, files)
    new = {n: _text(files[n]) for n in names if n in files}
    recorded = reader.record(CONFIG_PATH)
    old = {name: recorded[name] for name in names if name in recorded}
    for name in names:
        if name not in recorded:
            old.update((name, reader.masked(text)) for text in reader.texts(f"{CONFIG_PATH}/{name}").values())
    return _diffs(server.server.name, old, new)


def _reloadable(
    server: DesiredServer, observed: Observed, reader: _Reader, changes: Sequence[FieldChange]
) -> list[FileDiff]:
    applied = observed.applied(server.server.name)
    if not applied or server.live is None:
        return []
    there = reader.texts(f"{LIVE_PATH}/{applied}")
    recorded = _recorded(there)
    files = {f.path: f for f in server.live.files.files if f.path != RENDERED}
    by_hand = [c.field.removeprefix(FILE) for c in changes if c.field.startswith(FILE)]
    names = _tellable(by_hand, files) if changes else sorted({*there, *files} - {RENDERED})
    old = {n: recorded.get(n) or reader.masked(there[n]) for n in names if n in there}
    return _diffs(server.server.name, old, {n: _text(files[n]) for n in names if n in files})


def _recorded(texts: Mapping[str, str]) -> dict[str, str]:
    try:
        return dict(json.loads(texts.get(RENDERED, "{}")))
    except ValueError:
        return {}  # somebody has edited it


def _tellable(names: Sequence[str], files: Mapping[str, FileSpec]) -> list[str]:
    """Without the record of what was rendered with secrets, and without such files where that record is changed itself.

    Also without large ones that were copied: nobody reads through their lines.
    """
    untrue = RENDERED in names
    known = [n for n in names if n != RENDERED and not (untrue and n in files and files[n].secrets)]
    return [n for n in known if n not in files or not _large(files[n])]


def _large(file: FileSpec) -> bool:
    return file.source is not None and file.source.stat().st_size > LARGEST


def _text(file: FileSpec) -> str:
    if file.source is not None:
        return file.source.read_text(errors="replace")
    return redact(file.text if file.text is not None else f"-> {file.link}")


def _diffs(server: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[FileDiff]:
    """Of files whose texts differ. One of which only a secret's value is new has no line to show."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, ""), new.get(name, "")
        lines = difflib.unified_diff(
            before.splitlines(),
            after.splitlines(),
            name if name in old else "/dev/null",
            name if name in new else "/dev/null",
            lineterm="",
        )
        if text := "\n".join(lines):
            found.append(FileDiff(server, name, text))
    return found
