"""Documentation made from what the program reads: manifests, models, the command line. Pure text (Markdown).

`kinds show` prints a page of it, and docs/ holds the rest; docs/generate.py writes it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from consolidate.kinds import Catalogue, Kind, Recipe, ResourcesWord, Setting, Stop
from consolidate.render import is_expression
from consolidate.stack import HealthCheck, Host, Part, Reserve, Resources, SecretSource, ServerEntry, Stack


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; an empty text where there are no rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) + "\n" if lines else ""


def _plain(text: str) -> str:
    """Text of a manifest in one line, in which `<…>` is no HTML."""
    return " ".join(text.replace("<", "&lt;").split())


def _told(help_: str, default: object, *, required: bool) -> str:
    """What a key is for, and what holds where it isn't given."""
    told = "" if required or default in (None, [], {}) else f"Default {_code(default)}."
    return " ".join(filter(None, ["**Required.**" if required else "", _plain(help_), told]))


def _code(value: object) -> str:
    """A value as YAML would have it, in code."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


# A kind's page


def kind_page(kind: Kind, level: int = 1) -> str:
    """A kind: what it is, its settings and links, what it provides, its ports, data, secrets, and how it runs."""
    head, mark = kind.head, "#" * (level + 1)
    parts = [f"{'#' * level} {kind.name}\n", f"{_plain(head.summary)}\n"]
    if head.description:
        parts.append(head.description.strip().replace("<", "&lt;") + "\n")
    sections = {
        "Settings": table(("setting", "type", "what"), _settings(head.settings)),
        "Links": table(("link", "to a server that provides", "what"), _links(kind)),
        "Provides": table(("what", "port", "the consumer gets"), _provides(kind)),
        "Ports": _bullets(_ports(kind)),
        "Data": _bullets(_volumes(kind)),
        "Secrets": table(("secret", "made as", "what"), _secrets(kind)),
        "How it runs": table(("what", "by default"), _running(kind)),
    }
    parts += [f"{mark} {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join(parts)


def kinds_page(catalogue: Catalogue) -> str:
    """All kinds, one after the other."""
    return "\n".join(kind_page(kind, level=2) for kind in catalogue)


def _settings(settings: Mapping[str, Setting], before: str = "") -> Iterable[tuple[str, str, str]]:
    """A row for each setting, and one for each part of it, its path in front."""
    for name, setting in settings.items():
        path = f"{before}{name}"
        yield f"`{path}`", type_text(setting), _told(setting.help, setting.default, required=setting.required)
        yield from _settings(setting.fields, f"{path}.")
        if setting.items and setting.items.fields:
            inner = f"{path}.*." if setting.type == "map" else f"{path}[]."
            yield from _settings(setting.items.fields, inner)


def type_text(setting: Setting) -> str:
    """A setting's type in words."""
    if setting.type == "choice":
        return " or ".join(f"`{c}`" for c in setting.choices)
    if setting.type == "list":
        return f"list of {type_text(setting.items)}" if setting.items else "list"
    if setting.type == "map" and not setting.fields:
        key = setting.keys.type if setting.keys else "string"
        return f"map: {key} → {type_text(setting.items) if setting.items else 'any'}"
    low, high = (f"{v:g}" if v is not None else "" for v in (setting.minimum, setting.maximum))
    span = f", {low} to {high}" if low and high else f", from {low}" if low else f", to {high}" if high else ""
    return setting.type + span


def _links(kind: Kind) -> Iterable[tuple[str, str, str]]:
    for name, link in kind.head.links.items():
        need = ", **required**" if link.required else ", a list" if link.many else ""
        yield f"`{name}`", f"`{link.provides}`{need}", _plain(link.help)


def _provides(kind: Kind) -> Iterable[tuple[str, str, str]]:
    for name, offer in kind.head.provides.items():
        gets = ["host", *(["port"] if offer.port else []), *(["password"] if offer.password else []), *offer.values]
        yield f"`{name}`", str(offer.port), ", ".join(f"`{g}`" for g in gets)


def _bullets(rows: Iterable[str]) -> str:
    lines = [f"- {row}" for row in rows]
    return "\n".join(lines) + "\n" if lines else ""


def _ports(kind: Kind) -> Iterable[str]:
    if isinstance(ports := kind.recipe.get("ports"), dict):
        yield from (f"{port}: {name}" for name, port in ports.items())
    if (http := kind.recipe.get("http")) is not None:
        yield f"the proxy routes its domains to {_value(http)}"
    if isinstance(published := kind.recipe.get("publish"), list):
        yield from (f"published on the host: {_published(p)}" for p in published)


def _published(value: str) -> str:
    """An entry of `publish`: where, and which port of the server."""
    plain = re.fullmatch(r"\{\{ *settings\.(\w+) *\}\}:(\d+)", value)
    return f"{plain[2]}, at the setting `{plain[1]}`" if plain else _value(value)


def _volumes(kind: Kind) -> Iterable[str]:
    volumes = kind.recipe.get("volumes")
    if isinstance(volumes, dict):
        targets = {name: v if isinstance(v, str) else v["target"] for name, v in volumes.items()}
        yield from (f"`{target}`, in the volume `STACK_SERVER_{name}`" for name, target in targets.items())
    elif volumes is not None:
        yield f"{_setting(volumes)}; each in a volume `STACK_SERVER_NAME`"


def _secrets(kind: Kind) -> Iterable[tuple[str, str, str]]:
    for name, need in (kind.recipe.get("secrets") or {}).items():
        about = need.get("help") or (f"For {_value(need['name'])}" if "name" in need else "")
        told = [about.rstrip("."), *([_each(need["each"])] if "each" in need else [])]
        yield f"`SERVER/{name}`", need.get("generate", "password"), _plain("; ".join(t for t in told if t)) + "."
    for name in kind.head.links:
        yield f"`SERVER/{name}_password`", "password", f"What the link `{name}` logs in with."


def _each(value: Any) -> str:
    """For which items there is one: a setting's, or those of what templates see."""
    first = re.match(r"\{\{ *(?:settings\.)?(\w+)", value) if isinstance(value, str) else None
    return f"one for each of `{first[1]}`" if first else "where the settings ask for it"


def _running(kind: Kind) -> Iterable[tuple[str, str]]:
    """How the container is made by default; what the manifest doesn't say has the recipe's default."""

    def word(name: str) -> Any:
        return kind.recipe.get(name, Recipe.model_fields[name].get_default(call_default_factory=True))

    yield "user", _value(word("user")) if word("user") is not None else "the image's own"
    capabilities = word("capabilities")
    yield "capabilities", _value(capabilities) if capabilities else "none"
    read_only = word("read_only")
    yield "root file system", {True: "read-only", False: "writable"}.get(read_only) or _value(read_only)
    tmpfs = word("tmpfs")
    if isinstance(tmpfs, dict):
        shown = [f"`{path}` {(options or {}).get('size', '64M')}" for path, options in tmpfs.items()]
        yield "writable in memory", ", ".join(shown) or "nothing"
    else:
        yield "writable in memory", _setting(tmpfs)
    limits = ResourcesWord().model_dump() | (kind.recipe.get("resources") or {})
    yield "limits", ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in limits.items())
    egress = word("egress")
    yield "reaches the outside", f"if {_value(egress)}" if isinstance(egress, str) else "yes" if egress else "no"
    update = {"rolling": "the new one starts before the old one stops", "recreate": "the old one stops first"}
    yield "update", f"`{word('update')}`: {update[word('update')]}"
    if "ready" in kind.recipe:
        yield "has to be ready within", _value(kind.recipe["ready"].get("timeout", "60s"))
    stop = Stop().model_dump() | (kind.recipe.get("stop") or {})
    yield "stop", f"{_value(stop['signal'])}, then up to {_value(stop['grace'])}"
    files = kind.recipe.get("files") or []
    reloads = any(f.get("reload") for f in files)
    yield "new files without a restart", "yes" if reloads else "no"


def _value(value: Any) -> str:
    """A value of a manifest; an expression as the setting that it is, or as its code."""
    if isinstance(value, list):
        return ", ".join(_value(v) for v in value)
    if not isinstance(value, str) or not is_expression(value):
        return str(value)
    code = re.sub(r"^\{\{ *| *\}\}$", "", value.strip())
    name = re.fullmatch(r"settings\.(\w+)", code)
    return f"the setting `{name[1]}`" if name else "the item" if code == "item" else f"`{code}`"


def _setting(value: Any) -> str:
    """An expression that makes something of one setting, as that setting; else its code."""
    used = set(re.findall(r"settings\.(\w+)", str(value)))
    return f"the setting `{used.pop()}`" if len(used) == 1 else _value(value)


# The stack file


def stack_page(level: int = 3) -> str:
    """Every key of a stack file, from the models."""
    mark = "#" * level
    parts = [f"{mark} At the top\n\n{_model(Stack)}", f"{mark} `host`\n\n{_model(Host)}"]
    parts.append(f"{mark} `host.reserve`\n\n{_model(Reserve)}")
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
        rows.append((f"`{name}`", kind, _told(help_, shown, required=name in required)))
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


# The command line


def cli_page(command: Any, level: int = 2) -> str:
    """The commands below `command` (a click group): the options that several share, then how each is used."""
    leaves = [leaf for _, leaf in _commands(command, "") if not hasattr(leaf, "commands")]
    shared: dict[str, dict[str, Any]] = {}
    for parameter in (p for leaf in leaves for p in _options(leaf)):
        if panel := getattr(parameter, "rich_help_panel", None):
            shared.setdefault(panel, {}).setdefault(parameter.name, parameter)
    parts = []
    for panel, options in shared.items():
        rows = [(_option(p), _option_help(p)) for p in options.values()]
        parts.append(f"{'#' * level} {panel}: options of several verbs\n\n{table(('option', 'what'), rows)}")
    for words, sub in _commands(command, str(command.name)):
        depth = level + words.count(" ") - 1
        parts.append(f"{'#' * depth} `{words}`\n\n{_plain(sub.help or '')}\n")
        if not hasattr(sub, "commands"):
            parts += _usage(words, sub)
    return "\n".join(parts)


def _commands(group: Any, path: str) -> Iterable[tuple[str, Any]]:
    for name, sub in group.commands.items():
        words = f"{path} {name}"
        yield words, sub
        if hasattr(sub, "commands"):
            yield from _commands(sub, words)


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]


def _usage(words: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = _options(command)
    usage = [words, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    rows = [(f"`{_argument(p)}`", _plain(p.help or "")) for p in arguments]
    rows += [(_option(p), _option_help(p)) for p in options if not getattr(p, "rich_help_panel", None)]
    groups: dict[str, list[str]] = {}
    for p in options:
        if panel := getattr(p, "rich_help_panel", None):
            groups.setdefault(panel, []).append(f"`{p.opts[0]}`")
    told = [f"{panel}: {', '.join(names)}." for panel, names in groups.items()]
    return [f"    {' '.join(usage)}\n", *filter(None, [table(("", "what"), rows), " ".join(told) + "\n" * bool(told)])]


def _argument(parameter: Any) -> str:
    name = parameter.metavar or str(parameter.name).upper()
    more = "..." if parameter.nargs == -1 else ""
    return f"{name}{more}" if parameter.required or name.startswith("[") else f"[{name}]{more}"


VALUES = {"str": "TEXT", "text": "TEXT", "path": "PATH", "int range": "NUMBER", "float range": "NUMBER"}


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if not parameter.is_flag:
        kind = parameter.type.name
        choices = getattr(parameter.type, "choices", None)
        names[-1] += " " + ("|".join(map(str, choices)) if choices else VALUES.get(kind, kind.upper()))
    return ", ".join(f"`{n}`" for n in names)


def _option_help(parameter: Any) -> str:
    told = _plain(parameter.help or "")
    if parameter.envvar:
        told += f" Environment: `{parameter.envvar}`."
    if not parameter.is_flag and isinstance(parameter.default, str | int | float):
        told += f" Default: `{parameter.default}`."
    return told
