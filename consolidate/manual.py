"""Documentation made from manifests: what `kinds show` prints and docs/kinds.md holds. Pure text."""

from __future__ import annotations

from consolidate.kinds import Catalogue, Kind, Setting


def kind_page(kind: Kind, level: int = 1) -> str:
    """A kind as Markdown: summary, settings, links, ports, data, secrets."""
    head, recipe = kind.head, kind.recipe
    parts = [f"{'#' * level} {kind.name}\n\n{head.summary}\n\n{head.description.strip()}\n"]
    if head.settings:
        rows = [_row(name, s) for name, s in head.settings.items()]
        parts.append("| setting | type | default | what |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    if head.links:
        rows = [
            f"| `{name}` | a server that provides `{link.provides}` | {'required' if link.required else '–'} | {link.help} |"
            for name, link in head.links.items()
        ]
        parts.append("| link | to | default | what |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    if head.provides:
        parts.append("Provides: " + ", ".join(f"`{p}` on port {o.port}" for p, o in head.provides.items()) + ".\n")
    parts += _lists(recipe)
    return "\n".join(parts)


def _lists(recipe: object) -> list[str]:
    assert isinstance(recipe, dict)
    parts = []
    if isinstance(ports := recipe.get("ports"), dict):
        parts.append("Ports: " + ", ".join(f"{name} {port}" for name, port in ports.items()) + ".\n")
    if isinstance(volumes := recipe.get("volumes"), dict):
        parts.append("Data: " + ", ".join(f"`{name}` at {v['target']}" for name, v in volumes.items()) + ".\n")
    if isinstance(secrets := recipe.get("secrets"), dict):
        rows = [f"- `SERVER/{name}`: {s.get('help') or s.get('generate', 'password')}" for name, s in secrets.items()]
        parts.append("Secrets:\n\n" + "\n".join(rows) + "\n")
    return parts


def _row(name: str, setting: Setting) -> str:
    default = "required" if setting.required else "–" if setting.default is None else f"`{_plain(setting.default)}`"
    return f"| `{name}` | {_type(setting)} | {default} | {setting.help.strip()} |"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(setting: Setting) -> str:
    if setting.type == "choice":
        return " or ".join(f"`{c}`" for c in setting.choices)
    if setting.type == "list" and setting.items:
        return f"list of {_type(setting.items)}"
    if setting.type == "map" and setting.fields:
        return "map: " + ", ".join(f"`{n}`" for n in setting.fields)
    if setting.type == "map" and setting.items:
        return f"map of {_type(setting.items)}"
    return setting.type


def kinds_page(catalogue: Catalogue) -> str:
    return "\n".join(kind_page(kind, level=2) for kind in catalogue)
