"""The API's shapes: rows of its lists to observed things, a container to the body that creates it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consolidate import naming
from consolidate.observed import (
    ObservedContainer,
    ObservedNetwork,
)

if TYPE_CHECKING:
    from consolidate.actions import CreateContainer
    from consolidate.desired import Container
    from consolidate.resolved import Limits

# Restart policies. What we stop gets another one before: `always` starts it with the engine, stopped or not.
SERVING, STOPPED = "always", "unless-stopped"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}


def observed_container(row: Mapping[str, Any]) -> ObservedContainer:
    networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
    return ObservedContainer(
        id=row["Id"],
        name=(row["Names"] or ["/"])[0].removeprefix("/"),
        image=row["Image"],
        image_id=row["ImageID"],
        state=row["State"],
        status=row["Status"],
        created=row["Created"],
        labels=row["Labels"] or {},
        networks={n: (v or {}).get("IPAddress", "") for n, v in networks.items() if n != "none"},
        volumes=tuple(sorted(m["Name"] for m in row.get("Mounts") or [] if m.get("Type") == "volume")),
        ports=tuple(
            sorted({(p["IP"], p["PublicPort"], p["Type"]) for p in row.get("Ports") or [] if "PublicPort" in p})
        ),
        alone=(row.get("HostConfig") or {}).get("NetworkMode") == "none",
    )


def observed_network(row: Mapping[str, Any]) -> ObservedNetwork:
    pools = (row.get("IPAM") or {}).get("Config") or []
    subnets = tuple(p["Subnet"] for p in pools if p.get("Subnet"))
    return ObservedNetwork(row["Id"], row["Name"], row["Labels"] or {}, subnets)


def same_stack(found: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a container is of the stack that `labels` tell: `a-b` and `c` make the same names as `a` and `b-c`."""
    return (found["Config"]["Labels"] or {}).get(naming.STACK) == labels.get(naming.STACK)


def container_config(creation: CreateContainer, cpus: int) -> dict[str, Any]:
    """The body of POST /containers/create."""
    want: Container = creation.container
    config: dict[str, Any] = {
        "Image": creation.image or want.image,
        # The engine makes a name of it on every network; a dot keeps it apart from those of servers.
        "Hostname": f"{want.server}.{creation.generation}" if creation.nameless else want.server,
        "Env": [f"{k}={v}" for k, v in want.environment],
        "Labels": dict(creation.labels),
        "StopSignal": want.stop_signal,
        "StopTimeout": int(want.stop_grace),
        "ExposedPorts": {f"{p.target}/{p.protocol}": {} for p in want.publish},
        "HostConfig": _host_config(want, cpus, restart="no" if creation.once else SERVING),
    }
    optional = {"User": want.user, "WorkingDir": want.working_dir, "Cmd": want.command, "Entrypoint": want.entrypoint}
    config |= {k: list(v) if isinstance(v, tuple) else v for k, v in optional.items() if v is not None}
    if want.health:
        check = want.health
        config["Healthcheck"] = {
            "Test": ["CMD", *check.command],
            "Interval": int(check.interval * 1e9),
            "Timeout": int(check.timeout * 1e9),
            "Retries": check.retries,
        }
    if creation.folders:
        config["HostConfig"]["Binds"] = [f"{there}:{here}" for there, here in creation.folders]
    if creation.processes_of:
        config["HostConfig"]["PidMode"] = f"container:{creation.processes_of}"
    if creation.networks:
        first = creation.networks[0]
        config["HostConfig"]["NetworkMode"] = first
        config["NetworkingConfig"] = {"EndpointsConfig": {first: {"Aliases": aliases_on(creation, first)}}}
    return config


def aliases_on(creation: CreateContainer, network: str) -> list[str]:
    return [] if network in creation.nameless else [naming.server_of(creation.container.server)]


def made_again(found: Mapping[str, Any], named: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The body that creates a container like one of this inspection, and what it is called on each further network.

    `named` is the id of the image that now has the name it was made with: where that is another one, the like is made of
    the image itself. Where it isn't, the name stays for people to read.
    """
    host, networks = found["HostConfig"], found["NetworkSettings"]["Networks"]
    own = found["Id"][:12]  # the engine's name for it, which is another's in its place
    names = {n: [a for a in (e or {}).get("Aliases") or () if a != own] for n, e in networks.items() if n != "none"}
    body = found["Config"] | {"HostConfig": host}
    if named != found["Image"]:
        body["Image"] = found["Image"]
    if body.get("Hostname") == own:
        del body["Hostname"]
    first = host["NetworkMode"]
    if first in names:
        body["NetworkingConfig"] = {"EndpointsConfig": {first: {"Aliases": names.pop(first)}}}
    return body, names


def limits_config(limits: Limits, cpus: int) -> dict[str, Any]:
    return {
        "Memory": limits.memory,
        "MemorySwap": limits.memory,  # equal: no swap on top, which is the engine's default
        "NanoCpus": int(min(limits.cpus, cpus) * 1e9),  # more than there are is refused, not capped
        "PidsLimit": limits.pids,
    }


def _host_config(want: Container, cpus: int, *, restart: str) -> dict[str, Any]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for publish in want.publish:
        key = f"{publish.target}/{publish.protocol}"
        bindings.setdefault(key, []).append({"HostIp": publish.address, "HostPort": str(publish.port)})
    return {
        "NetworkMode": "none",
        "PortBindings": bindings,
        "RestartPolicy": {"Name": restart},
        "LogConfig": {"Type": "local", "Config": LOG_OPTIONS},
        "CapDrop": ["ALL"],
        "CapAdd": list(want.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": want.read_only,
        "Init": want.init,
        **limits_config(want.limits, cpus),
        "Tmpfs": dict(want.tmpfs),
        "DnsOptions": list(want.dns_options),
        "Mounts": [
            {"Type": "volume", "Source": m.volume, "Target": m.target, "ReadOnly": m.read_only} for m in want.mounts
        ],
    }
