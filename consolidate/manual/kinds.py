"""A kind's page, from its manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from consolidate.kinds import Catalogue, Kind
from consolidate.manifest import Recipe, ResourcesWord, Setting, Stop
from consolidate.manual.text import explained, in_line, table
from consolidate.render import is_expression


def kind_page(kind: Kind, catalogue: Catalogue, level: int = 1) -> str:
    """A kind: what it is, its settings and links, what it provides, its ports, data, secrets, and how it runs."""
    head, mark = kind.head, "#" * (level + 1)
    parts = [f"{'#' * level} {kind.name}\n", f"{in_line(head.summary)}\n"]
    if head.description:
        parts.append(head.description.strip().replace("<", "&lt;") + "\n")
    sections = {
        "Settings": table(("setting", "type", "what"), _settings(head.settings)),
        "Links": table(("link", "to a server that provides", "what"), _links(kind)),
        "Provides": table(("what", "port", "the consumer gets"), _provides(kind)),
        "Ports": _bullets(_ports(kind)),
        "Data": _bullets(_volumes(kind)),
        "Secrets": table(("secret", "made as", "what"), _secrets(kind, catalogue)),
        "How it runs": table(("what", "by default"), _running(kind)),
    }
    parts += [f"{mark} {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join(parts)


def kinds_page(catalogue: Catalogue) -> str:
    """All kinds, one after the other."""
    return "\n".join(kind_page(kind, catalogue, level=2) for kind in catalogue)


def _settings(settings: Mapping[str, Setting], before: str = "") -> Iterable[tuple[str, str, str]]:
    """A row for each setting, and one for each part of it, its path in front."""
    for name, setting in settings.items():
        path = f"{before}{name}"
        yield f"`{path}`", _type_text(setting), explained(setting.help, setting.default, required=setting.required)
        yield from _settings(setting.fields, f"{path}.")
        if setting.items and setting.items.fields:
            inner = f"{path}.*." if setting.type == "map" else f"{path}[]."
            yield from _settings(setting.items.fields, inner)


def _type_text(setting: Setting) -> str:
    """A setting's type in words."""
    if setting.type == "choice":
        return " or ".join(f"`{c}`" for c in setting.choices)
    if setting.type == "list":
        return f"list of {_type_text(setting.items)}" if setting.items else "list"
    if setting.type == "map" and not setting.fields:
        key = setting.keys.type if setting.keys else "string"
        return f"map: {key} → {_type_text(setting.items) if setting.items else 'any'}"
    low, high = (f"{v:g}" if v is not None else "" for v in (setting.minimum, setting.maximum))
    span = f", {low} to {high}" if low and high else f", from {low}" if low else f", to {high}" if high else ""
    return setting.type + span


def _links(kind: Kind) -> Iterable[tuple[str, str, str]]:
    for name, link in kind.head.links.items():
        need = ", **required**" if link.required else ", a list" if link.many else ""
        yield f"`{name}`", f"`{link.provides}`{need}", in_line(link.help)


def _provides(kind: Kind) -> Iterable[tuple[str, str, str]]:
    for name, offer in kind.head.provides.items():
        gets = ["host", *(["port"] if offer.port else []), *(["password"] if offer.password else []), *offer.values]
        yield f"`{name}`", str(offer.port or "–"), ", ".join(f"`{g}`" for g in gets)


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
    plain = re.fullmatch(r"\{\{.*?\bsettings\.(\w+)(?: *\}\}| ~ '):(\d+)(?:' *\}\})?", value)
    return f"{plain[2]}, at the setting `{plain[1]}`" if plain else _value(value)


def _volumes(kind: Kind) -> Iterable[str]:
    volumes = kind.recipe.get("volumes")
    if isinstance(volumes, dict):
        targets = {name: v if isinstance(v, str) else v["target"] for name, v in volumes.items()}
        yield from (f"`{target}`, in the volume `STACK_SERVER_{name}`" for name, target in targets.items())
    elif volumes is not None:
        yield f"{_setting(volumes)}; each in a volume `STACK_SERVER_NAME`"
    if volumes is not None:
        yield f"`backup` saves {_saved(kind.recipe.get('backup') or {})}"


def _saved(how: Mapping[str, Any]) -> str:
    """What a backup has of a kind's volumes."""
    if how.get("dump"):
        return f"what `{how['dump'][0]}` writes"
    return "the files, while the server's programs stand still" if how.get("freeze") else "the files as they lie"


def _secrets(kind: Kind, catalogue: Catalogue) -> Iterable[tuple[str, str, str]]:
    for name, need in (kind.recipe.get("secrets") or {}).items():
        about = need.get("help") or (f"For {_item(_value(need['name']))}" if "name" in need else "")
        told = [about.rstrip("."), *([_each(need["each"])] if "each" in need else [])]
        yield (
            f"`SERVER/{_item(name)}`",
            need.get("generate", "password"),
            in_line("; ".join(t for t in told if t)) + ".",
        )
    locked = {provides for k in catalogue for provides, offer in k.head.provides.items() if offer.password}
    for name in (n for n, link in kind.head.links.items() if link.provides in locked):
        yield f"`SERVER/{name}_password`", "password", f"What the link `{name}` logs in with."


def _item(text: str) -> str:
    return text.replace("{item}", "ITEM")


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
    default = ResourcesWord()
    limits = default.model_dump() | {"memory": f"{default.memory >> 20}M"} | (kind.recipe.get("resources") or {})
    yield "limits", ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in limits.items())
    egress = word("egress")
    yield "reaches the outside", f"if {_value(egress)}" if isinstance(egress, str) else "yes" if egress else "no"
    update = {"rolling": "the new one starts before the old one stops", "recreate": "the old one stops first"}
    way = word("update")
    yield "update", f"`{way}`: {update[way]}" if way in update else _value(way)
    replicas = word("replicas")
    yield "replicas", f"if {_value(replicas)}" if isinstance(replicas, str) else "yes" if replicas else "no"
    if "ready" in kind.recipe:
        yield "has to be ready within", _value(kind.recipe["ready"].get("timeout", "60s"))
    stop = Stop().model_dump() | {"grace": f"{Stop().grace:g}s"} | (kind.recipe.get("stop") or {})
    yield "stop", f"{_value(stop['signal'])}, then up to {_value(stop['grace'])}"
    files = kind.recipe.get("files") or []
    reloads = {f["reload"] for f in files if f.get("reload")}
    when = [f"if {_value(r)}" for r in sorted(map(str, reloads)) if is_expression(r)]
    yield "new files without a restart", "yes" if True in reloads else ", ".join(when) or "no"


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
