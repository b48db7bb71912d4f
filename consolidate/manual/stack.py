"""The keys of a stack file, from its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consolidate.manual.text import explained, table
from consolidate.stack import (
    BackupKey,
    HealthCheck,
    Host,
    Keep,
    Part,
    Reserve,
    Resources,
    SecretSource,
    ServerEntry,
    Stack,
)


def stack_page(level: int = 3) -> str:
    """Every key of a stack file, from the models."""
    mark = "#" * level
    parts = [f"{mark} At the top\n\n{_model(Stack)}", f"{mark} `host`\n\n{_model(Host)}"]
    parts.append(f"{mark} `host.reserve`\n\n{_model(Reserve)}")
    parts += [f"{mark} `backup`\n\n{_model(BackupKey)}", f"{mark} `backup.keep`\n\n{_model(Keep)}"]
    parts.append(f"{mark} Every server\n\n{_model(ServerEntry)}")
    inner: dict[str, type[Part]] = {"resources": Resources, "health": HealthCheck, "secrets.NAME": SecretSource}
    parts += [f"{mark} `{name}`\n\n{_model(model)}" for name, model in inner.items()]
    return "\n".join(parts)


def _model(model: type[Part]) -> str:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    rows = []
    for name, about in schema["properties"].items():
        default, kind = about.get("default"), _schema_type(about)
        if kind == "duration" and default is not None:
            default = f"{default:g}s"
        of = schema.get("$defs", {}).get(about.get("$ref", "").rpartition("/")[2], {})
        help_ = about.get("description") or of.get("description", "")
        shown = None if isinstance(default, dict) else default
        rows.append((f"`{name}`", kind, explained(help_, shown, required=name in required)))
    return table(("key", "type", "what"), rows)


SCHEMA_TYPES = {  # by what the schema says of the type
    "a domain name": "domain",
    "a path below the stack's folder": "path",
    "512M": "size",
    "30s": "duration",
}


def _schema_type(about: Mapping[str, Any]) -> str:
    """The type of a property of a JSON Schema, in words."""
    if options := about.get("anyOf"):
        kinds = dict.fromkeys(_schema_type(o) for o in options if o != {"type": "null"})
        if "number" in kinds:
            kinds.pop("integer", None)
        return " or ".join(kinds)
    if "$ref" in about:
        return "map"
    for told in (about.get("description"), *about.get("examples", ())):
        if told in SCHEMA_TYPES:
            return SCHEMA_TYPES[told]
    kind = about.get("type", "any")
    if kind == "array":
        return f"list of {_schema_type(about['items'])}"
    if kind == "object":
        inner = about.get("additionalProperties")
        return f"map: string → {_schema_type(inner)}" if isinstance(inner, dict) else "map"
    return str(kind)
