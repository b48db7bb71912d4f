"""The API's shapes: rows of its lists to observed things, a container to the body that creates it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from consolidate import naming
from consolidate.engine import Machine, is_podman
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
# Steps of a build that make no layer, as an image's history tells them: by the classic builder, and by BuildKit.
SETS = re.compile(
    r"^(/bin/sh -c #\(nop\)\s+)?"
    r"(ARG|CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME)\b"
)


LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
# Podman's further words for what Docker's engine calls otherwise.
STATES = {"stopped": "exited", "stopping": "running", "configured": "created", "initialized": "created"}


def observed_container(row: Mapping[str, Any]) -> ObservedContainer:
    networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
    return ObservedContainer(
        id=row["Id"],
        name=(row["Names"] or ["/"])[0].removeprefix("/"),
        image=naming.listed_image(row["Image"]),
        image_id=row["ImageID"],
        state=STATES.get(row["State"], row["State"]),
        status=row["Status"],
        created=row["Created"],
        labels=row["Labels"] or {},
        networks={n: (v or {}).get("IPAddress", "") for n, v in networks.items() if n != "none"},
        volumes=tuple(sorted(m["Name"] for m in row.get("Mounts") or [] if m.get("Type") == "volume")),
        ports=tuple(
            sorted({(p["IP"], p["PublicPort"], p["Type"]) for p in row.get("Ports") or [] if "PublicPort" in p})
        ),
        # Podman doesn't tell the mode. What has left its last network is taken for one that never had any.
        alone=row["HostConfig"].get("NetworkMode") == "none" if row.get("HostConfig") else not networks,
    )


def names_of(image: Mapping[str, Any]) -> list[str]:
    """What an image of the list is called: tags, digests, its id. Podman says docker.io where Docker says nothing."""
    names = [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]
    return [*map(naming.listed_image, names), image["Id"]]


def observed_network(row: Mapping[str, Any]) -> ObservedNetwork:
    pools = (row.get("IPAM") or {}).get("Config") or []
    subnets = tuple(p["Subnet"] for p in pools if p.get("Subnet"))
    return ObservedNetwork(row["Id"], row["Name"], row["Labels"] or {}, subnets)


def machine_of(info: Mapping[str, Any], version: Mapping[str, Any]) -> Machine:
    """Of containerd's store its driver's facts tell."""
    driver = {str(value) for pair in info.get("DriverStatus") or [] for value in pair}
    containerd = any(value.startswith("io.containerd.snapshotter") for value in driver)
    store: Literal["layers", "podman", "containerd"] = (
        "podman" if is_podman(version) else "containerd" if containerd else "layers"
    )
    # A machine that was cloned has the id of the other, and mostly a name of its own.
    own = f"{info['ID']} {info.get('Name', '')}" if info.get("ID") and store != "podman" else ""  # a new one each time
    return Machine(own, str(info.get("OSType", "")), str(info.get("Architecture", "")), store)


def layer_sizes(history: Sequence[Mapping[str, Any]], count: int) -> tuple[int, ...]:
    """The bytes of files in each of an image's `count` layers, the lowest first, by its history, the newest first.

    Steps that only set something have no layer, but nothing in the history says which these are. Where they can't be
    told from steps that changed no file, what lies above a layer may come out too large, never too small.
    """
    steps = [(int(s.get("Size") or 0), str(s.get("CreatedBy") or "")) for s in reversed(history)]
    for made in (
        [size for size, _ in steps],
        [size for size, by in steps if size or not SETS.search(by)],
        [size for size, _ in steps if size],
    ):
        if len(made) <= count:
            return (*[0] * (count - len(made)), *made)
    return (*[0] * (count - 1), sum(size for size, _ in steps))


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
    if creation.folders:  # the engine makes what a bind lacks, and refuses a mount without its source
        host = config["HostConfig"]
        host["Binds"] = [f"{there}:{here}" for there, here, made in creation.folders if made]
        bound = [{"Type": "bind", "Source": t, "Target": h} for t, h, made in creation.folders if not made]
        host["Mounts"] = [*host.get("Mounts", ()), *bound]
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
