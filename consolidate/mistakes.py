"""What a model refuses, told so that a person knows what to do. Knows pydantic's words, and no word of a stack."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from consolidate.errors import did_you_mean
from consolidate.loader import yaml_path

Path = tuple[str | int, ...]

# Names of what holds a password, a token or a key, and not of what only says something about one.
SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])pass$|passwords?$|passwd$|passphrase$|(^|_)pwd$|secret$|(^|[_.-])token$|credentials?$"
    r"|(^|[_.-])(api|access|private|secret|signing|encryption)_?key(_base)?$"
)
TYPES = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
LIMITS = {"greater_than_equal": "at least", "greater_than": "more than", "less_than_equal": "at most"}
SWITCHES = frozenset({"", "yes", "no", "on", "off", "true", "false", "y", "n", "1", "0"})


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that a model refuses. `path` leads to it from the model's root; `default`: a default is refused."""

    path: Path
    what: str
    hint: str = ""
    kind: str = ""  # pydantic's
    at_key: bool = False
    default: bool = False

    @property
    def path_shown(self) -> str:
        return yaml_path(self.path)


def mistakes(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], word: str = "key"
) -> list[Mistake]:
    """What `model` refuses in `data`, each once: a misspelt key is not missing as well, a union complains once."""
    found: dict[Path, Mistake] = {}
    wanted: dict[Path, list[str]] = {}
    for item in error.errors():
        mistake = _mistake(item, model, data, word)
        if mistake.kind in TYPES:
            names = wanted.setdefault(mistake.path, [])
            names += [TYPES[mistake.kind]] if TYPES[mistake.kind] not in names else []
        if mistake.kind != "missing":
            found.setdefault(mistake.path, mistake)
        elif not _misspelt(item, error):
            found.setdefault((*mistake.path, str(item["loc"][-1])), mistake)
    return [
        _typed(m, wanted[m.path], _value_at(data, m.path)) if m.kind in TYPES and not m.default else m
        for m in found.values()
    ]


def looks_secret(path: Path) -> bool:
    """Whether a value there may be a secret, which no message shows."""
    return any(isinstance(p, str) and (p == "secrets" or SECRET_NAME.search(p)) for p in path)


def shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else f"{value!r}"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _mistake(item: Any, model: type[BaseModel], data: Mapping[str, Any], word: str) -> Mistake:
    loc, kind = tuple(item["loc"]), item["type"]
    if loc and loc[0] in model.model_fields and loc[0] not in data and kind != "missing":
        field = model.model_fields[loc[0]]
        return Mistake(
            (loc[0],), f"the default {shown(field.default)} is refused: {item['msg']}", kind=kind, default=True
        )
    path = _path(loc, data)
    about = _description(model, path)
    context = item.get("ctx", {})
    value = _value_at(data, path)
    given = f", not {shown(value)}" if not looks_secret(path) else ""
    at_key = loc[-1:] == ("[key]",)
    what, hint = item["msg"], about
    if kind == "extra_forbidden":
        known = [f.alias or n for m in _models(model, path[:-1]) for n, f in m.model_fields.items()]
        what, at_key = f"unknown {word} '{path[-1]}'", True
        hint = did_you_mean(str(path[-1]), known) or (f"known here: {', '.join(known)}" if len(path) > 1 else "")
    elif kind == "missing":
        about = _description(model, (*path, loc[-1]))
        what, hint = f"'{loc[-1]}' is required", f"{loc[-1]}: {about}" if about else ""
    elif kind in LIMITS:
        limit = next(iter(context.values()))
        what = f"should be {LIMITS[kind]} {limit:g}{given}"
    elif kind == "literal_error":
        what = f"should be {context['expected']}{given}"
        hint = did_you_mean(str(value), re.findall(r"'([^']*)'", context["expected"])) or about
    elif kind == "string_pattern_mismatch":
        pattern = re.sub(r"^\^(?:\(\?:(.*)\))?(.*?)\$$", r"\1\2", context["pattern"])
        what = f"{shown(value) if given else 'this'} can't stand here"
        hint = f"{about} It matches {pattern}".strip()
        if at_key:
            what = f"{shown(path[-1])} can't be a key here"
    elif kind == "value_error":
        what, hint = str(context["error"]), getattr(context["error"], "hint", "") or about
    return Mistake(path, what, hint, kind, at_key)


def _typed(mistake: Mistake, names: list[str], value: Any) -> Mistake:
    given = f", not {shown(value)}" if not looks_secret(mistake.path) else ""
    hint = mistake.hint
    if names == ["text"] and isinstance(value, float):  # which may have been 3.10
        given, hint = "", "put quotes around it"
    elif names == ["text"] and isinstance(value, bool | int) and given:
        hint = f'put quotes around it: "{str(value).lower() if isinstance(value, bool) else value}"'
    elif names == ["true or false"] and str(value).lower() in SWITCHES:
        hint = "write true or false, without quotes"
    elif names == ["a list"] and isinstance(value, str) and given:
        hint = f"write it in brackets: [{shown(value)}]"
    return Mistake(mistake.path, f"should be {' or '.join(names)}{given}", hint, mistake.kind, mistake.at_key)


def _misspelt(missing: Any, error: ValidationError) -> bool:
    """Whether a key beside it is the missing one, misspelt."""
    *around, name = missing["loc"]
    return any(
        e["type"] == "extra_forbidden" and list(e["loc"][:-1]) == around and did_you_mean(str(e["loc"][-1]), [name])
        for e in error.errors()
    )


def _path(loc: Path, data: Any) -> Path:
    """The steps of `loc` that `data` has: pydantic adds the names of validators and of a union's members."""
    path: list[str | int] = []
    for step in loc:
        if (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            path.append(step)
            data = data[step]  # type: ignore[index]
    return tuple(path)


def _value_at(data: Any, path: Path) -> Any:
    for step in path:
        data = data[step]
    return data


def candidates(annotation: Any) -> Iterator[Any]:
    """The types that `annotation` may stand for."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from candidates(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from candidates(member)
    else:
        yield annotation


def _fields(annotation: Any, step: str | int) -> Iterator[tuple[Any, FieldInfo | None]]:
    """The annotations one step further, with the field if it is one."""
    for kind in candidates(annotation):
        if isinstance(kind, type) and not get_origin(kind) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                if step in (name, field.alias):
                    yield field.annotation, field
        elif get_origin(kind) in (dict, list):
            yield get_args(kind)[-1], None


def _models(model: Any, path: Path) -> list[type[BaseModel]]:
    found = [model]
    for step in path:
        found = [further for annotation in found for further, _ in _fields(annotation, step)]
    members = [kind for annotation in found for kind in candidates(annotation)]
    return [k for k in members if isinstance(k, type) and not get_origin(k) and issubclass(k, BaseModel)]


def _description(model: Any, path: Path) -> str:
    """What the nearest field around `path` is for."""
    about, found = "", [model]
    for step in path:
        further = [pair for annotation in found for pair in _fields(annotation, step)]
        about = next((f.description for _, f in further if f and f.description), about)
        found = [annotation for annotation, _ in further]
    return about
