"""A container field by field, as text: what a plan tells of its changes, and what drift is found by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consolidate import naming
from consolidate.desired import HASHED, Container
from consolidate.resolved import Check

SHOWN = 160  # characters of a value; what is longer is told by its hash


def fields_of(container: Container) -> dict[str, str]:
    """The fields of a container but for its image and its files. An empty one counts as none."""
    limits = container.limits
    fields = {
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
        **{f"environment {k}": v for k, v in container.environment},
        **{f"tmpfs {path}": options for path, options in container.tmpfs},
        **{f"volume {m.target}": m.volume for m in container.mounts if not m.read_only},
    }
    return {k: v for k, v in fields.items() if v}


def shown(fields: Mapping[str, str]) -> dict[str, str]:
    """With long values told by their hashes."""
    return {k: v if len(v) <= SHOWN else hashed(v) for k, v in fields.items() if v}


def hashed(value: object) -> str:
    return HASHED + naming.digest(value, 8)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _words(words: Iterable[str] | None) -> str:
    return " ".join(words or ())


def _check(check: Check | None) -> str:
    if check is None:
        return ""
    return f"{_words(check.command)} (every {check.interval:g}s, {check.timeout:g}s, {check.retries} times)"
