"""The JSON Schema of a stack file, for editors. Made from the models; pure."""

from __future__ import annotations

from typing import Any, cast

from consolidate.kinds import Catalogue
from consolidate.naming import NAME
from consolidate.settings import server_model
from consolidate.stack import ServerEntry, Stack

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOR = {
    "type": "object",
    "description": "One server for each value: {i: 1..20} or {name: [red, green]}; write {i} or {name} where it goes.",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "pattern": r"^\d+\.\.\d+$"},
            {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
        ]
    },
}
# pydantic leaves limits of a union, and the second of two after a function, in its own words
LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "le": "maximum"}
VARIABLE = r"\$"  # a text with a variable in it, in whose place anything may come


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a stack file with these kinds.

    It takes whatever `validate` takes, but for a `{name}` of a `for` inside a value that must match a pattern, and a
    variable in place of a kind.
    """
    schema = Stack.model_json_schema()
    shared = ServerEntry.model_json_schema()["$defs"]
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    definitions |= shared
    choices = []
    for kind in catalogue:
        name = f"server-{kind.name}"
        # The models of a kind's settings have its name in front, or those of two kinds could be mixed up.
        model = server_model(kind).model_json_schema(ref_template=f"#/$defs/{kind.name}-{{model}}")
        own = model.pop("$defs", {})
        definitions |= {f"{kind.name}-{k}": d for k, d in own.items() if k not in shared}
        kind_word = {"const": kind.name, "description": kind.head.summary}
        others = {k: v for k, v in model["properties"].items() if k != "kind"}
        model |= {
            "properties": {"kind": kind_word, "for": FOR} | others,
            "description": kind.head.summary,
        }
        definitions[name] = _refer(model, {f"#/$defs/{kind.name}-{k}": f"#/$defs/{k}" for k in shared})
        this = {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]}
        choices.append({"if": this, "then": {"$ref": f"#/$defs/{name}"}})
    schema["properties"]["servers"] |= {
        "minProperties": 1,
        "propertyNames": {"pattern": rf"^{NAME.pattern}$|\{{"},  # with a brace it is the pattern of a `for`
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(catalogue.names), "description": "The kind: a folder of templates."}},
            "allOf": choices,
        },
    }
    schema = cast(dict[str, Any], _or_variable(_tidy(schema)))
    schema["patternProperties"] = {"^x-": {"description": "Anything: a place for YAML anchors."}}
    return {"$schema": DIALECT, "title": "consolidate stack file"} | schema


def _refer(schema: Any, renamed: dict[str, str]) -> Any:
    """A schema whose references to `renamed` definitions follow them."""
    if isinstance(schema, list):
        return [_refer(s, renamed) for s in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: renamed.get(v, v) if k == "$ref" else _refer(v, renamed) for k, v in schema.items()}


def _tidy(schema: Any) -> Any:
    """A schema without what only clutters an editor: made-up titles, defaults that are null or whole models, and a
    `null` that stands apart from the type beside it. Keys of a map with patterns are those patterns' alone."""
    if isinstance(schema, list):
        return [_tidy(s) for s in schema]
    if not isinstance(schema, dict):
        return int(schema) if isinstance(schema, float) and schema.is_integer() else schema
    told: dict[str, Any] = {}
    for word, value in schema.items():
        if word in ("properties", "patternProperties", "$defs"):  # names of the stack's, not words of the schema
            told[word] = {k: _tidy(v) for k, v in value.items()}
        elif word == "default" and (value is None or isinstance(value, dict)):
            continue
        elif word != "title":
            told[str(LIMITS.get(word, word))] = _tidy(value)
    if "patternProperties" in told:
        told.setdefault("additionalProperties", False)
    return _merge_types(told)


def _or_variable(schema: Any) -> Any:
    """The same, where a text with a variable in it is taken as well."""
    if isinstance(schema, list):
        return [_or_variable(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    names = ("properties", "patternProperties", "$defs")
    schema = {
        word: {k: _or_variable(v) for k, v in value.items()}
        if word in names
        else value
        if word in ("if", "propertyNames")
        else _or_variable(value)
        for word, value in schema.items()
    }
    if "enum" in schema:
        about = {k: v for k, v in schema.items() if k in ("description", "default")}
        rest = {k: v for k, v in schema.items() if k not in about}
        return about | {"anyOf": [rest, {"type": "string", "pattern": VARIABLE}]}
    if schema.get("type") == "string" and "pattern" in schema:
        return schema | {"pattern": f"(?:{schema['pattern']})|{VARIABLE}"}
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    if "string" not in types and {"integer", "number", "boolean"} & set(types):
        return schema | {"type": [*types, "string"], "pattern": VARIABLE}
    return schema


def _merge_types(schema: dict[str, Any]) -> dict[str, Any]:
    """`type: [string, "null"]` in place of an `anyOf` of the two."""
    options = schema.get("anyOf")
    if not isinstance(options, list):
        return schema
    rest = {k: v for k, v in schema.items() if k != "anyOf"}
    if all(set(o) == {"type"} for o in options):
        types = [o["type"] for o in options]
        return rest | {"type": "number" if set(types) == {"integer", "number"} else types}
    one = [o for o in options if o != {"type": "null"}]
    if len(one) == len(options) - 1 == 1 and "type" in one[0] and "enum" not in one[0]:
        kinds = one[0]["type"] if isinstance(one[0]["type"], list) else [one[0]["type"]]
        return cast(dict[str, Any], one[0] | rest | {"type": [*kinds, "null"]})
    return schema
