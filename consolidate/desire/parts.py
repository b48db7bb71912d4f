"""What a container was made from, told to people: its parts, and what the stack loosened."""

from __future__ import annotations

from collections.abc import Mapping

from consolidate import naming
from consolidate.desired import (
    Container,
)
from consolidate.files import FileSet, FileSpec
from consolidate.kinds import Kind
from consolidate.resolved import Server


def parts_of(
    kind: Kind, container: Container, config: FileSet, secrets: FileSet, ids: Mapping[str, str]
) -> dict[str, str]:
    """What a container was made from, by name, so that a plan can say what differs."""
    limits = container.limits
    content = [f for f in config.files if not _from_kind(f, kind)]
    rendered = {f"file {f.path}": f.sha[:8] for f in config.files if _from_kind(f, kind)}
    return {
        "image": container.image,
        "memory": str(limits.memory),
        "cpus": f"{limits.cpus:g}",
        "pids": str(limits.pids),
        "published ports": " ".join(map(str, container.publish)) or "none",
        "environment": naming.digest(container.environment, 8),
        "content": naming.digest([[f.path, f.sha] for f in content], 8),
        "secrets": naming.digest(sorted(ids.items()), 8),
        "health check": naming.digest(container.health, 8),
        "hardening": naming.digest([container.user, container.read_only, container.capabilities, container.tmpfs], 8),
        "command": naming.digest([container.command, container.entrypoint, container.working_dir], 8),
        **rendered,
    }


def _from_kind(file: FileSpec, kind: Kind) -> bool:
    """Whether it is a file of the kind's, and not copied from the stack's folder."""
    return file.text is not None or (file.source is not None and str(file.source).startswith(f"{kind.folder}/"))


def relaxed(container: Container, server: Server) -> tuple[str, ...]:
    """What the stack loosened against the hardened default; the plan shows each."""
    settings = server.source.kind.head.settings
    found = []
    if "read_only" in settings and not container.read_only:
        found.append("its root file system is writable")
    if "cap_add" in settings and container.capabilities:
        found.append(f"it has the capabilities {', '.join(container.capabilities)}")
    if any(p.address in ("0.0.0.0", "::") for p in server.publish):  # noqa: S104
        found.append("it publishes on every address of the host")
    return tuple(found)
