"""Two environments of a stack side by side: what `consolidate diff` tells. Pure, but for files that the stack copies."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from consolidate import vault
from consolidate.desired import RENDERED, Desired, DesiredServer
from consolidate.explain import Row, all_rows, hidden
from consolidate.files import FileSpec
from consolidate.filters import hide, redact
from consolidate.loader import yaml_path
from consolidate.secret import SecretRecord, SecretSpec

LARGEST = 256 * 2**10  # bytes of a file of which lines are shown
Store: TypeAlias = Mapping[str, SecretRecord]
State: TypeAlias = Literal[
    "same", "different", "own in each", "not made in both", "only left", "only right", "another source"
]


class Side(Struct, frozen=True):
    """An environment: its name as it was given, its name on the engine, and its overlay, if it has one."""

    environment: str
    stack: str
    overlay: str | None

    def to_json(self) -> dict[str, Any]:
        return {"environment": self.environment, "stack": self.stack, "overlay": self.overlay}


class Value(Struct, frozen=True):
    """A value as text, and the rows that tell where it, or each item of a list, comes from."""

    text: str
    rows: tuple[Row, ...] = ()


class Pair(Struct, frozen=True):
    """What differs: a value of each side, None where it has none."""

    key: str
    left: Value | None
    right: Value | None

    def to_json(self, name: str) -> dict[str, Any]:
        return {name: self.key, "left": _json(self.left), "right": _json(self.right)}


def _json(value: Value | None) -> dict[str, Any] | None:
    return {"value": value.text, "from": [r.to_json() for r in value.rows]} if value is not None else None


class FilePair(Struct, frozen=True):
    """A file that differs: by lines, or in words where there are no lines to show."""

    server: str
    file: str
    diff: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"server": self.server, "file": self.file, "diff": self.diff, "note": self.note or None}


class SecretPair(Struct, frozen=True):
    secret: str
    state: State

    @property
    def differs(self) -> bool:
        """Whether the descriptions differ. That each environment has a value of its own is how it should be."""
        return self.state in ("only left", "only right", "another source")


class Contrast(Struct, frozen=True):
    """All that differs between two environments, and each secret that both have."""

    left: Side
    right: Side
    servers: tuple[Pair, ...]
    settings: tuple[Pair, ...]
    images: tuple[Pair, ...]
    limits: tuple[Pair, ...]
    ports: tuple[Pair, ...]
    files: tuple[FilePair, ...]
    secrets: tuple[SecretPair, ...]

    def __bool__(self) -> bool:
        """Whether anything differs that two environments needn't differ in."""
        pairs = (self.servers, self.settings, self.images, self.limits, self.ports, self.files)
        return any(pairs) or any(s.differs for s in self.secrets)

    def to_json(self) -> dict[str, Any]:
        return {
            "left": self.left.to_json(),
            "right": self.right.to_json(),
            "differs": bool(self),
            "servers": [p.to_json("server") for p in self.servers],
            "settings": [p.to_json("path") for p in self.settings],
            "images": [p.to_json("server") for p in self.images],
            "limits": [p.to_json("path") for p in self.limits],
            "ports": [p.to_json("server") for p in self.ports],
            "files": [f.to_json() for f in self.files],
            "secrets": [{"secret": s.secret, "state": s.state} for s in self.secrets],
        }


def contrast(
    left: tuple[Side, Desired],
    right: tuple[Side, Desired],
    servers: Iterable[str] = (),
    stores: tuple[Store, Store] | None = None,
) -> Contrast:
    """What differs, of these servers where any are named; `stores` has each side's secrets, where an engine was asked."""
    (one, a), (other, b) = left, right
    wanted = set(servers) or {*a.servers, *b.servers}
    names = [n for n in dict.fromkeys([*a.servers, *b.servers]) if n in wanted]
    both = [n for n in names if n in a.servers and n in b.servers]
    written = [_grouped(d, both, everything=not servers) for d in (a, b)]
    values = list(_pairs(*written))
    secret = hidden(a.resolved) | hidden(b.resolved)
    return Contrast(
        one,
        other,
        servers=tuple(_pairs(*({n: _kind(d, n) for n in names if n in d.servers} for d in (a, b)))),
        settings=tuple(p for p in values if not _elsewhere(p.key)),
        images=tuple(_images(a, b, both, secret)),
        limits=tuple(p for p in values if _elsewhere(p.key) == "resources"),
        ports=tuple(_pairs(*({n: _ports(d.servers[n], secret) for n in both} for d in (a, b)))),
        files=tuple(f for n in both for f in _files(n, (one, a), (other, b), secret)),
        secrets=tuple(_secrets(a, b, both, stores)),
    )


def _pairs(left: Mapping[str, Value], right: Mapping[str, Value]) -> Iterator[Pair]:
    keys = list(dict.fromkeys([*left, *right]))
    servers = list(dict.fromkeys(_server(k) for k in keys))
    for key in sorted(keys, key=lambda k: servers.index(_server(k))):  # what only one side has stands with its server
        one, other = left.get(key), right.get(key)
        if (one and one.text) != (other and other.text):
            yield Pair(key, one, other)


def _server(key: str) -> str:
    return ".".join(key.split(".")[:2]) if key.startswith("servers.") else key.split(".", maxsplit=1)[0]


def _elsewhere(key: str) -> str:
    """The section of its own in which a value under `servers.NAME` is told."""
    parts = key.split(".")
    word = parts[2] if len(parts) > 2 and parts[0] == "servers" else ""
    return word if word in ("resources", "publish", "image", "build") else ""


def _grouped(desired: Desired, servers: list[str], *, everything: bool) -> dict[str, Value]:
    """The values of the stack file by their paths; a list is one value. Secrets are told elsewhere."""
    found: dict[tuple[str | int, ...], list[Row]] = {}
    for row in all_rows(desired.resolved):
        ours = row.path[1] in servers if row.path[0] == "servers" else everything
        if ours and not row.secret and not row.unset:
            length = next((i for i, step in enumerate(row.path) if isinstance(step, int)), len(row.path))
            found.setdefault(row.path[:length], []).append(row)
    return {yaml_path(path): Value(_text(path, rows), tuple(rows)) for path, rows in found.items()}


def _text(path: tuple[str | int, ...], rows: list[Row]) -> str:
    if len(rows) == 1 and rows[0].path == path:
        return _word(rows[0].value)
    inside = [(yaml_path(r.path[len(path) + 1 :]), _word(r.value)) for r in rows]
    return ", ".join(f"{key}: {text}" if key else text for key, text in inside)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(desired: Desired, name: str) -> Value:
    return Value(desired.servers[name].server.kind)


def _ports(server: DesiredServer, secret: Set[str]) -> Value:
    return Value(hide("\n".join(map(str, server.container.publish)), secret))


def _images(a: Desired, b: Desired, servers: list[str], secret: Set[str]) -> Iterator[Pair]:
    """Images that differ: by name, or by what they are built from. The tag of a built one has the stack's name in it."""
    made = [{s: i for i in d.images for s in i.servers} for d in (a, b)]
    for name in servers:
        one, other = (m.get(name) for m in made)
        if one is None or other is None or one.tag == other.tag:
            continue
        if one.how == other.how == "build" and one.context.content == other.context.content:
            continue
        yield Pair(name, Value(hide(one.tag, secret)), Value(hide(other.tag, secret)))


def _files(name: str, left: tuple[Side, Desired], right: tuple[Side, Desired], secret: Set[str]) -> Iterator[FilePair]:
    one, other = (_specs(d, name) for _, d in (left, right))
    for file in sorted({*one, *other}):
        before, after = one.get(file), other.get(file)
        if before and after and _same(before, after):
            continue
        copied = any(f is not None and f.source is not None for f in (before, after))
        lines = [_lines(f, secret) for f in (before, after)]
        if lines[0] is None or lines[1] is None or (copied and not (before and after)):
            where = f"only in {(left if before else right)[0].environment}" if not (before and after) else ""
            yield FilePair(name, file, "", where or "its content differs")
            continue
        old, new = (
            f"{side.environment}: {file}" if f else "/dev/null" for (side, _), f in ((left, before), (right, after))
        )
        diff = "\n".join(difflib.unified_diff(lines[0], lines[1], old, new, lineterm=""))
        alike = before and after and before.sha == after.sha
        unseen = "its mode or owner differs" if alike else "it differs in what isn't shown"
        yield FilePair(name, file, diff, "" if diff else unseen)


def _specs(desired: Desired, name: str) -> dict[str, FileSpec]:
    """The files that a server is given, by their paths; the secrets' own are none of them."""
    server = desired.servers[name]
    sets = [v.files for v in server.files if v.role == "config"] + ([server.live.files] if server.live else [])
    return {f.path: f for files in sets for f in files.files if f.path != RENDERED}


def _same(one: FileSpec, other: FileSpec) -> bool:
    if (one.mode, one.uid, one.gid) != (other.mode, other.uid, other.gid):
        return False
    return (one.source is not None and one.source == other.source) or one.sha == other.sha


def _lines(file: FileSpec | None, secret: Set[str]) -> list[str] | None:
    """The lines of a text, secrets by their names; none of a file that isn't there; None for what is no text, or long.

    What variables with a secret's name put into a rendered one is hidden. One that is copied has nothing of them.
    """
    if file is None:
        return []
    if file.source is None:
        return hide(redact(file.text if file.text is not None else f"-> {file.link}"), secret).splitlines()
    if file.source.stat().st_size > LARGEST:
        return None
    try:
        text = file.source.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.splitlines()


def _secrets(a: Desired, b: Desired, servers: list[str], stores: tuple[Store, Store] | None) -> Iterator[SecretPair]:
    left, right = (
        {spec.address: spec for n in servers for spec in d.servers[n].server.secrets.values()} for d in (a, b)
    )
    known = [vault.needed(d.resolved) for d in (a, b)]
    for address in sorted({*left, *right}):
        if address not in known[0] or address not in known[1]:
            yield SecretPair(address, "only left" if address in known[0] else "only right")
        else:
            yield SecretPair(address, _state(known[0][address], known[1][address], stores))


def _state(one: SecretSpec, other: SecretSpec, stores: tuple[Store, Store] | None) -> State:
    if one.source != other.source:
        return "another source"
    found = [s.get(one.address) for s in stores] if stores else [None, None]
    if found[0] is not None and found[1] is not None:
        return "same" if found[0].value == found[1].value else "different"
    if one.source is not None and one.source.kind != "proxy's file":
        return "same"
    return "not made in both" if stores else "own in each"
