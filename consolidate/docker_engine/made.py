"""What a container was made from, read back from its inspection. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from consolidate.desired import Container, Mount
from consolidate.resolved import Check, Limits, Publish

# Fields that a container has from its image where nothing else was said.
FROM_IMAGES = {"command", "entrypoint", "working directory", "user", "health check", "stop signal"}
NANO = 1e9


def made_like(
    config: Mapping[str, Any], host: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]] = ()
) -> Container:
    """The container that would make one of this Config and HostConfig; also of an image's Config alone."""
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or 100_000
    cpus = (host.get("NanoCpus") or 0) / NANO or max(quota, 0) / period
    return Container(
        stack="",
        server="",
        kind="",
        image=config.get("Image", ""),
        user=config.get("User") or None,
        command=_words(config.get("Cmd")),
        entrypoint=_words(config.get("Entrypoint")),
        working_dir=config.get("WorkingDir") or None,
        init=bool(host.get("Init")),
        read_only=bool(host.get("ReadonlyRootfs")),
        capabilities=tuple(sorted(c.removeprefix("CAP_") for c in host.get("CapAdd") or ())),
        environment=tuple(sorted((e.partition("=")[0], e.partition("=")[2]) for e in config.get("Env") or ())),
        mounts=tuple(Mount(m["Name"], m["Destination"], not m["RW"]) for m in mounts if _named(m, config, host)),
        tmpfs=tuple(sorted((host.get("Tmpfs") or {}).items())),
        limits=Limits(host.get("Memory") or 0, cpus, host.get("PidsLimit") or 0),
        publish=_published(host.get("PortBindings") or {}),
        dns_options=tuple(host.get("DnsOptions") or ()),
        health=_check(config.get("Healthcheck") or {}),
        stop_signal=config.get("StopSignal") or "",
        stop_grace=float(config.get("StopTimeout") or 0),
    )


def also(host: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What we never set, or always in the same way; but for the restarts nothing is said of what is as always."""
    memory, swap, cpus = (host.get(k) or 0 for k in ("Memory", "MemorySwap", "CpusetCpus"))
    found = {
        "restart": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "swap": "" if swap == memory else "unlimited" if swap < 0 else f"{(swap - memory) / 2**20:g}M",
        "reserved memory": f"{host['MemoryReservation'] / 2**20:g}M" if host.get("MemoryReservation") else "",
        "processors": cpus or "",
        "processor shares": str(host["CpuShares"]) if host.get("CpuShares") not in (None, 0, 1024) else "",
        "block I/O weight": str(host["BlkioWeight"]) if host.get("BlkioWeight") else "",
        "privileged": "yes" if host.get("Privileged") else "",
        "kept capabilities": "" if "ALL" in (host.get("CapDrop") or ()) else "those of the engine's default",
        "new privileges": "" if "no-new-privileges" in (host.get("SecurityOpt") or ()) else "allowed",
        "devices": " ".join(d["PathOnHost"] for d in host.get("Devices") or ()),
        "processes of": host.get("PidMode") or "",
        **{f"host folder {m['Destination']}": m["Source"] for m in mounts if m["Type"] == "bind"},
    }
    return {k: v for k, v in found.items() if v}


def _named(mount: Mapping[str, Any], config: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a mount is a volume that was asked for; an image can bring nameless ones."""
    asked = mount.get("Name") in {m.get("Source") for m in host.get("Mounts") or ()}
    return mount["Type"] == "volume" and (asked or mount["Destination"] not in (config.get("Volumes") or {}))


def _words(words: Any) -> tuple[str, ...] | None:
    return tuple(words) if words else None


def _published(bindings: Mapping[str, Any]) -> tuple[Publish, ...]:
    found = []
    for target, each in bindings.items():
        port, _, protocol = target.partition("/")
        found += [Publish(b["HostIp"], int(b["HostPort"] or 0), int(port), protocol) for b in each or ()]
    return tuple(sorted(found, key=str))


def _check(word: Mapping[str, Any]) -> Check | None:
    kind, *command = word.get("Test") or ("NONE",)
    if kind == "NONE":
        return None
    command = command if kind == "CMD" else ["/bin/sh", "-c", *command]
    times = (word.get("Interval", 0) / NANO, word.get("Timeout", 0) / NANO)
    return Check(tuple(command), *times, word.get("Retries", 0))
