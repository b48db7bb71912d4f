"""Where each value of a stack comes from: a line of a file, a default of its kind, a `for`, a variable. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel

from consolidate import filters
from consolidate.errors import Place, UsageError, did_you_mean
from consolidate.kinds import Kind
from consolidate.loader import yaml_path
from consolidate.manifest import Setting
from consolidate.mistakes import SECRET_NAME, SWITCHES, candidates
from consolidate.places import Places
from consolidate.resolved import SECRETS_PATH, Resolved, Server
from consolidate.secret import SecretSpec
from consolidate.settings import server_model
from consolidate.stack import Stack
from consolidate.variables import Use

Path = tuple[str | int, ...]
HIDDEN = "(not shown: its name is a secret's)"


class Row(Struct, frozen=True):
    """A value and where it comes from. `kind` names the kind whose default it is; `loop` is what a `for` put into it;
    `secret` is an address, in place of the value."""

    path: Path
    value: Any
    origin: Literal["file", "overlay", "kind", "link", "default"]
    place: Place | None = None
    kind: str = ""
    loop: tuple[str, str] | None = None
    uses: tuple[Use, ...] = ()
    secret: str = ""

    @property
    def shown(self) -> str:
        return yaml_path(self.path)

    @property
    def unset(self) -> bool:
        """Whether nobody says anything of it."""
        return self.origin in ("kind", "default") and not self.secret and self.value in (None, [], {})

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.shown,
            "value": self.value,
            "secret": self.secret or None,
            "origin": self.origin,
            "kind": self.kind or None,
            **_place(self.place),
            "for": {self.loop[0]: self.loop[1]} if self.loop else None,
            "variables": [{"name": u.name, "origin": u.origin, **_place(u.place)} for u in self.uses],
        }


def _place(place: Place | None) -> dict[str, Any]:
    return {"file": place and place.file, "line": place and place.line, "column": place and place.column}


def explained(resolved: Resolved, key: str) -> list[Row]:
    """The rows of a key, or of all below it. Raises UsageError for one that there isn't."""
    rows = all_rows(resolved)
    wanted = key.replace('"', "").strip()
    found = [r for r in rows if _below(r.shown.replace('"', ""), wanted)]
    found = [r for r in found if not r.unset or r.shown.replace('"', "") == wanted]
    if found:
        return found
    assert resolved.places is not None
    for path, place in resolved.places.document.removed.items():
        if _below(wanted, yaml_path(path).replace('"', "")):
            raise UsageError(f"there is no '{key}' in {resolved.name}", hint=f"{place} removes it")
    known = {yaml_path(r.path[:n]): None for r in rows for n in range(1, len(r.path) + 1)}
    hint = did_you_mean(key, known) or "write it as servers.www.content; `--explain servers` has all of them"
    raise UsageError(f"there is no '{key}' in {resolved.name}", hint=hint)


def _below(path: str, around: str) -> bool:
    return path == around or path.startswith((f"{around}.", f"{around}["))


def all_rows(resolved: Resolved) -> list[Row]:
    """Every value of a stack that was read from its file, those that are not set included."""
    places = resolved.places
    assert places is not None, "a remembered stack has no places"
    return list(_Explainer(resolved, places).rows())


def hidden(resolved: Resolved) -> frozenset[str]:
    """What variables with a secret's name put into the values of a stack that was read from its file."""
    assert resolved.places is not None, "a remembered stack has no places"
    uses = [u for found in resolved.places.document.uses.values() for u in found if SECRET_NAME.search(u.name)]
    return frozenset(u.text for u in uses if u.text.lower() not in SWITCHES)


class _Explainer:
    def __init__(self, resolved: Resolved, places: Places) -> None:
        self.resolved, self.places, self.document = resolved, places, places.document
        self.overlay = str(self.document.files[1]) if resolved.environment is not None else ""
        self.hidden = hidden(resolved)

    def rows(self) -> Iterator[Row]:
        yield from self._model(Stack, self.document.data, (), None)
        for name, server in self.resolved.servers.items():
            yield from self._server(name, server)

    def _server(self, name: str, server: Server) -> Iterator[Row]:
        kind, entry, path = server.source.kind, self.places.entries[name], ("servers", name)
        implied = {row.path: row for row in self._implied(path, server, kind)}
        for row in self._model(server_model(kind), entry, path, kind):
            yield implied.pop(row.path, row) if row.origin not in ("file", "overlay") else row
        yield from (row for row in implied.values() if not self._given(entry, row.path[2:]))

    def _given(self, entry: Mapping[str, Any], path: Path) -> bool:
        """Whether the file says what stands there. A health check is one thing."""
        around = entry.get(str(path[0]))
        if len(path) == 1 or path[0] == "health":
            return path[0] in entry
        return isinstance(around, dict) and path[1] in around

    def _model(self, model: type[BaseModel], raw: Mapping[str, Any], path: Path, kind: Kind | None) -> Iterator[Row]:
        for name, field in model.model_fields.items():
            key = field.alias or name
            here = (*path, key)
            if here == ("servers",):
                continue
            if key in raw:
                yield from self._value(field.annotation, raw[key], here, kind)
            elif isinstance(field.default, BaseModel):
                yield from self._model(type(field.default), {}, here, kind)
            else:
                default = field.get_default(call_default_factory=True, validated_data={})
                yield self._default(here, default, kind)

    def _value(self, annotation: Any, raw: Any, path: Path, kind: Kind | None) -> Iterator[Row]:
        kinds = list(candidates(annotation))
        model = next((k for k in kinds if isinstance(k, type) and not get_origin(k) and issubclass(k, BaseModel)), None)
        inner = next((get_args(k)[-1] for k in kinds if get_origin(k) in (dict, list)), Any)
        if isinstance(raw, dict) and model is not None:
            if not raw:
                yield self._written(path, raw)
            yield from self._model(model, raw, path, kind)
        elif isinstance(raw, dict | list) and raw:
            for step, value in raw.items() if isinstance(raw, dict) else enumerate(raw):
                yield from self._value(inner, value, (*path, step), kind)
        else:
            yield self._written(path, raw)

    def _written(self, path: Path, value: Any) -> Row:
        place, uses = self.places.place(*path), self.places.uses(*path)
        loop = self.places.loop(*path)
        last = next((p for p in reversed(path) if isinstance(p, str)), "")
        plain = not isinstance(value, str) or value.lower() in SWITCHES or value.startswith(SECRETS_PATH)
        if any(SECRET_NAME.search(u.name) for u in uses) or (SECRET_NAME.search(last) and not plain):
            value = HIDDEN
        secret = ""
        if len(path) == 4 and path[2] == "secrets" and value == {}:
            secret, value = f"{path[1]}/{path[3]}", None
        origin: Literal["file", "overlay"] = "overlay" if place and place.file == self.overlay else "file"
        value = str(value) if isinstance(value, str) else value
        return Row(path, value, origin, place, loop=loop, uses=uses, secret=secret)

    def _default(self, path: Path, default: Any, kind: Kind | None) -> Row:
        """What holds where the file says nothing: the manifest's words, or what the program has."""
        found = _setting(kind, path[2:]) if kind is not None else None
        if kind is None or found is None:
            return Row(path, default, "default")
        at, setting = found
        place = kind.document.values.get((*at, "default"))
        return Row(path, setting.default, "kind", place or kind.place(*at), kind.name)

    def _implied(self, path: Path, server: Server, kind: Kind) -> Iterator[Row]:
        """What the rest of the manifest gives a server: it is no setting, but the file may say another thing."""

        def row(value: Any, at: Path, *word: str | int) -> Row:
            place = kind.document.values.get(word)
            if isinstance(value, str) and filters.hide(value, self.hidden) != value:
                value = HIDDEN
            return Row((*path, *at), value, "kind" if place else "default", place, kind.name if place else "")

        limits, health = server.limits, server.health
        yield row(f"{limits.memory / 2**20:g}M", ("resources", "memory"), "resources", "memory")
        yield row(
            int(limits.cpus) if limits.cpus.is_integer() else limits.cpus, ("resources", "cpus"), "resources", "cpus"
        )
        yield row(limits.pids, ("resources", "pids"), "resources", "pids")
        yield row(server.egress, ("egress",), "egress")
        if server.image is not None:
            yield row(server.image, ("image",), "image")
        if health is not None:
            word = "health" if "health" in kind.recipe else "ready"
            yield row(" ".join(health.command), ("health", "test"), word, "command")
            for field, value in (("interval", health.interval), ("timeout", health.timeout)):
                yield row(f"{value:g}s", ("health", field), word, field)
            yield row(health.retries, ("health", "retries"), word, "retries")
        for variable, text in server.environment.items():
            yield row(text, ("environment", variable), "environment", variable)
        for name, spec in server.secrets.items():
            yield self._secret(path, server, name, spec)

    def _secret(self, path: Path, server: Server, name: str, spec: SecretSpec) -> Row:
        kind, here = server.source.kind, (*path, "secrets", name)
        link = next((li for li in server.links if li.password == spec.address), None)
        if link is not None:
            place = self.places.place(*path, link.name.partition(".")[0])
            return Row(here, None, "link", place, secret=spec.address)
        return Row(here, None, "kind", kind.place("secrets", name), kind.name, secret=spec.address)


def _setting(kind: Kind, path: Path) -> tuple[Path, Setting] | None:
    """A setting of the kind, or a part of one, and where the manifest declares it."""
    setting = kind.head.settings.get(str(path[0]))
    if setting is None:
        return None
    at: Path = ("settings", path[0])
    for step in path[1:]:
        inner = setting.fields.get(str(step))
        inner, word = (inner, ("fields", step)) if inner is not None else (setting.items, ("items",))
        if inner is None:
            return None
        setting, at = inner, (*at, *word)
    return at, setting
