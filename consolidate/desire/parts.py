"""What a container was made from, told to people: its fields, and what the stack loosened."""

from __future__ import annotations

from collections.abc import Mapping

from consolidate import naming
from consolidate.desired import HASHED, Container
from consolidate.files import FileSet, FileSpec
from consolidate.kinds import Kind
from consolidate.resolved import Check, Server

SHOWN = 160  # characters of a value; what is longer is told by its hash


def parts_of(kind: Kind, container: Container, config: FileSet, ids: Mapping[str, str]) -> dict[str, str]:
    """All that a container is made from, by the names of its fields, so that a plan can say what differs.

    `ids` are those of the secrets that it reads. Files, content and secrets are told by hashes.
    """
    limits = container.limits
    content = [[f.path, *_identity(f)] for f in config.files if not _from_kind(f, kind)]
    fields = {
        "image": container.image,
        "memory": f"{limits.memory / 2**20:g}M",
        "cpus": f"{limits.cpus:g}",
        "pids": str(limits.pids),
        "published ports": " ".join(map(str, container.publish)),
        "command": _words(container.command),
        "entrypoint": _words(container.entrypoint),
        "working directory": container.working_dir or "",
        "user": container.user or "",
        "init": _yes(container.init),
        "read-only root": _yes(container.read_only),
        "capabilities": " ".join(container.capabilities),
        "health check": _check(container.health),
        "stop signal": container.stop_signal,
        "stop grace": f"{container.stop_grace:g}s",
        "name resolution": " ".join(container.dns_options),
        "content": hashed(content) if content else "",
        **{f"environment {k}": v for k, v in container.environment},
        **{f"tmpfs {path}": options for path, options in container.tmpfs},
        **{f"volume {m.target}": m.volume for m in container.mounts if not m.read_only},
        **{f"file {f.path}": hashed(_identity(f)) for f in config.files if _from_kind(f, kind)},
        **{f"secret {a}": hashed(i) for a, i in ids.items()},
    }
    return {k: v if len(v) <= SHOWN else hashed(v) for k, v in fields.items() if v}


def hashed(value: object) -> str:
    return HASHED + naming.digest(value, 8)


def _identity(file: FileSpec) -> list[object]:
    return [file.sha, file.mode, file.uid, file.gid]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _words(words: tuple[str, ...] | None) -> str:
    return " ".join(words or ())


def _check(check: Check | None) -> str:
    if check is None:
        return ""
    return f"{_words(check.command)} (every {check.interval:g}s, {check.timeout:g}s, {check.retries} times)"


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
