"""The model of a server of each kind: the keys that every server has, the kind's settings and its links."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, StrictStr, create_model

from consolidate.errors import Problem, StackInvalid
from consolidate.kinds import Kind
from consolidate.manifest import Setting
from consolidate.stack import Part, ServerEntry
from consolidate.values import TYPES

COMMON = frozenset(ServerEntry.model_fields)
RESERVED = COMMON | {"for"}
RENAME = "rename it in the manifest"


def setting_type(name: str, setting: Setting) -> Any:
    """The pydantic type of a setting; `name` names the models of its parts."""
    kind: Any = TYPES[setting.type]
    if setting.type == "choice":
        kind = _choice(setting.choices)
    elif setting.type == "list":
        kind = GenericAlias(list, setting_type(name, setting.items) if setting.items else Any)
    elif setting.type == "map" and setting.fields:
        # `ada@acme.test:` with nothing after it means the same as `{}` there.
        kind = Annotated[_model(name, setting.fields, Part), BeforeValidator(lambda v: {} if v is None else v)]
    elif setting.type == "map":
        keys = setting_type(name, setting.keys) if setting.keys else StrictStr
        kind = GenericAlias(dict, (keys, setting_type(name, setting.items) if setting.items else Any))
    limits: dict[str, Any] = {
        "pattern": f"^(?:{setting.pattern})$" if setting.pattern else None,
        "ge": setting.minimum,
        "le": setting.maximum,
    }
    given = {k: v for k, v in limits.items() if v is not None}
    return Annotated[kind, Field(**given)] if given else kind


def _choice(choices: list[str]) -> Any:
    return Literal[tuple(choices)]


def _field(name: str, setting: Setting) -> tuple[Any, Any]:
    kind = setting_type(name, setting)
    about: dict[str, Any] = {"description": setting.help} if setting.help else {}
    if setting.required:
        return kind, Field(..., **about)
    if setting.default is None:
        return kind | None, Field(default=None, **about)
    return kind, Field(default=setting.default, validate_default=True, **about)


def _model(name: str, settings: Mapping[str, Setting], base: type[BaseModel]) -> type[BaseModel]:
    fields: dict[str, Any] = {k: _field(f"{name}.{k}", s) for k, s in settings.items()}
    return cast(type[BaseModel], create_model(name, __base__=base, **fields))


@lru_cache(maxsize=128)
def _server_model(kind: Kind) -> type[ServerEntry]:
    fields: dict[str, Any] = {k: _field(f"{kind.name}.{k}", s) for k, s in kind.head.settings.items()}
    for name, link in kind.head.links.items():
        about = link.help or f"a server that provides {link.provides}"
        if link.many:
            fields[name] = list[StrictStr], Field(default_factory=list, description=about)
        elif link.required:
            fields[name] = StrictStr, Field(..., description=about)
        else:
            fields[name] = StrictStr | None, Field(default=None, description=about)
    return cast(type[ServerEntry], create_model(kind.name, __base__=ServerEntry, **fields))


def server_model(kind: Kind) -> type[ServerEntry]:
    """The model of a server of `kind`: the common keys, its settings and its links."""
    problems = [
        Problem(
            f"'{name}' is the name of {what} already", kind.document.key_place((word, name)), f"{word}.{name}", RENAME
        )
        for word, names in (("settings", kind.head.settings), ("links", kind.head.links))
        for name in names
        for what in [
            "a key that every server has"
            if name in RESERVED
            else "a setting"
            if word == "links" and name in kind.head.settings
            else ""
        ]
        if what
    ]
    if problems:
        raise StackInvalid(problems)
    return _server_model(kind)
