"""What a container was made from, told to people: its fields, and what the stack loosened."""

from __future__ import annotations

from collections.abc import Mapping

from consolidate.desired import ROUTED_PORT, Container
from consolidate.fields import fields_of, hashed, shown
from consolidate.files import FileSet, FileSpec
from consolidate.kinds import Kind
from consolidate.resolved import Server


def parts_of(
    kind: Kind, container: Container, config: FileSet, ids: Mapping[str, str], port: int | None
) -> dict[str, str]:
    """All that a container is made from, by the names of its fields, so that a plan can say what differs.

    `ids` are those of the secrets that it reads, `port` is where the proxy finds it. Files, content and secrets are told
    by hashes.
    """
    content = [[f.path, *_identity(f)] for f in config.files if not _from_kind(f, kind)]
    return shown(
        {
            "image": container.image,
            **fields_of(container),
            ROUTED_PORT: str(port or ""),
            "content": hashed(content) if content else "",
            **{f"file {f.path}": hashed(_identity(f)) for f in config.files if _from_kind(f, kind)},
            **{f"secret {a}": hashed(i) for a, i in ids.items()},
        }
    )


def _identity(file: FileSpec) -> list[object]:
    return [file.sha, file.mode, file.uid, file.gid]


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
