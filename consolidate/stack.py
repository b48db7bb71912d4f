"""The models of a stack file, and of a server of each kind. They are also the published JSON Schema."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, create_model

from consolidate.kinds import Catalogue, Kind, Setting
from consolidate.naming import NAME
from consolidate.values import TYPES, Command, Domain, Duration, Number, RelativePath, Size


class Part(BaseModel):
    """A part of the stack file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of a container on an address of the host."""

    address: str
    port: int
    target: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}->{self.target}/{self.protocol}"


def parse_publish(text: str) -> Publish:
    """`[ADDRESS:]PORT:TARGET[/udp]`; without an address 127.0.0.1, which is safer than Compose's 0.0.0.0.

    Raises ValueError.
    """
    ports, _, protocol = text.partition("/")
    head, _, target = ports.rpartition(":")
    address, _, port = head.rpartition(":")
    if not port.isdigit() or not target.isdigit():
        raise ValueError(f"should be PORT:TARGET or ADDRESS:PORT:TARGET, not '{text}'")
    if not all(1 <= int(p) <= 65535 for p in (port, target)):
        raise ValueError(f"a port is a number from 1 to 65535, in '{text}'")
    if protocol not in ("", "tcp", "udp"):
        raise ValueError(f"the protocol is tcp or udp, not '{protocol}'")
    address = address.strip("[]") or "127.0.0.1"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"'{address}' is not an IP address") from None
    return Publish(address=address, port=int(port), target=int(target), protocol=protocol or "tcp")


def _check_publish(text: str) -> str:
    parse_publish(text)
    return text


class Reserve(Part):
    """What is left for the operating system."""

    cpus: Number = 0
    memory: Size = 0


class Host(Part):
    reserve: Reserve = Reserve()
    subnets: Annotated[StrictStr, AfterValidator(lambda v: str(ipaddress.IPv4Network(v)))] = Field(
        default="10.213.0.0/16", description="Where the stack's networks get their subnets from."
    )


class Resources(Part):
    """Limits of a container."""

    memory: Size | None = Field(default=None, description="e.g. 512M; swap is not added to it")
    cpus: Annotated[Number, Field(gt=0)] | None = Field(default=None, description="e.g. 0.5")
    pids: Annotated[int, Field(gt=0)] | None = Field(default=None, description="processes and threads")


class HealthCheck(Part):
    """The engine's own check, with Compose's words."""

    test: Command
    interval: Duration = 30.0
    timeout: Duration = 5.0
    retries: int = Field(default=3, ge=1)


class SecretSource(Part):
    """Where a secret's value comes from, instead of being generated. One of the three."""

    file: RelativePath | None = None
    env: StrictStr | None = None
    command: Command | None = None

    def model_post_init(self, _context: Any) -> None:
        if sum(v is not None for v in (self.file, self.env, self.command)) > 1:
            raise ValueError("give one of file, env, command")


class ServerEntry(Part):
    """The keys that a server of every kind has."""

    kind: StrictStr = Field(description="The kind: a folder of templates.")
    domains: list[Domain] = Field(default_factory=list, description="The domains that this server answers for.")
    resources: Resources = Field(default=Resources(), description="Limits; the kind has defaults.")
    publish: list[Annotated[StrictStr, AfterValidator(_check_publish)]] = Field(
        default_factory=list, description="[ADDRESS:]PORT:TARGET on the host; 127.0.0.1 unless an address is given."
    )
    egress: StrictBool | None = Field(default=None, description="May it reach the outside? The kind has a default.")
    environment: dict[str, StrictStr] = Field(default_factory=dict, description="Environment variables, no secrets.")
    image: StrictStr | None = Field(default=None, description="Use this image instead of building one.")
    health: HealthCheck | None = Field(default=None, description="A health check instead of the kind's.")
    secrets: dict[str, SecretSource] = Field(
        default_factory=dict, description="Where secrets come from; files under /run/secrets."
    )


class Stack(Part):
    """The whole file."""

    stack: Annotated[StrictStr, Field(pattern=rf"^{NAME.pattern}$", description="Prefix of all that it owns.")]
    host: Host = Host()
    templates: list[RelativePath] = Field(default_factory=list, description="Folders of kinds of your own.")
    servers: dict[str, Any]


COMMON = frozenset(ServerEntry.model_fields)


def setting_type(name: str, setting: Setting) -> Any:
    """The pydantic type of a setting; `name` names the models of its parts."""
    kind: Any = TYPES[setting.type]
    if setting.type == "choice":
        kind = _choice(setting.choices)
    elif setting.type == "list":
        kind = _list_of(setting_type(name, setting.items) if setting.items else Any)
    elif setting.type == "map" and setting.fields:
        kind = _model(name, setting.fields, Part)
    elif setting.type == "map":
        keys = setting_type(name, setting.keys) if setting.keys else StrictStr
        kind = dict[keys, setting_type(name, setting.items) if setting.items else Any]  # type: ignore[valid-type]
    limits: dict[str, Any] = {
        "pattern": f"^(?:{setting.pattern})$" if setting.pattern else None,
        "ge": setting.minimum,
        "le": setting.maximum,
    }
    given = {k: v for k, v in limits.items() if v is not None}
    return Annotated[kind, Field(**given)] if given else kind


def _list_of(item: Any) -> Any:
    return GenericAlias(list, item)


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
        fields[name] = (
            (StrictStr, Field(..., description=about))
            if link.required
            else (
                StrictStr | None,
                Field(default=None, description=about),
            )
        )
    return cast(type[ServerEntry], create_model(kind.name, __base__=ServerEntry, **fields))


def server_model(kind: Kind) -> type[ServerEntry]:
    """The model of a server of `kind`: the common keys, its settings and its links."""
    return _server_model(kind)


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a stack file with these kinds, for editors."""
    schema = Stack.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    choices = []
    for kind in catalogue:
        model = server_model(kind).model_json_schema(ref_template="#/$defs/{model}")
        definitions |= model.pop("$defs", {})
        model["properties"]["kind"] = {"const": kind.name, "description": kind.head.summary}
        model["properties"]["for"] = FOR_SCHEMA
        model["title"] = kind.name
        definitions[f"server-{kind.name}"] = model
        choices.append(
            {
                "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/server-{kind.name}"},
            }
        )
    schema["properties"]["servers"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(catalogue.names)}},
            "allOf": choices,
        },
    }
    schema["patternProperties"] = {"^x-": {"description": "Anything: a place for YAML anchors."}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "consolidate stack file"} | schema


FOR_SCHEMA = {
    "type": "object",
    "description": "One server for each value: {i: 1..20} or {name: [red, green]}; write {i} or {name} where it stands.",
    "minProperties": 1,
    "maxProperties": 1,
}
