"""What the facts about a host and its engine mean. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from consolidate.doctor.podman import PODMAN
from consolidate.doctor.verdict import Check, Status
from consolidate.engine import is_podman
from consolidate.errors import EngineUnavailable

MINIMUM_API = (1, 41)
GOOD_STORAGE = ("overlay2", "overlayfs", "overlay", "btrfs", "zfs", "fuse-overlayfs")
SYSTEMS = {"darwin": "macOS", "win32": "Windows", "linux": "Linux"}
GIB = 2**30

# New connections from a container's bridge to any address of the host pass INPUT. That includes the host's published
# ports, which a container reaches through the engine's userland proxy. Replies, clients from outside, the host's own
# connections to servers, and servers' connections to each other and to the outside do not match and go on working.
CLOSE_HOST = "iptables -I INPUT -i br-+ -m conntrack --ctstate NEW -j DROP"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and port of the host, and the program that listens there (empty when unknown)."""

    address: str
    port: int
    program: str = field(default="", compare=False)
    protocol: str = "tcp"

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{address}:{self.port}{protocol}" + (f" ({self.program})" if self.program else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read from the host and the engine. None: it could not be read, or it was not asked for."""

    platform: str  # sys.platform of this machine
    info: Mapping[str, Any] | None = None  # the engine's /info
    version: Mapping[str, Any] | None = None  # the engine's /version
    unavailable: EngineUnavailable | None = None  # why no engine answered
    local: bool = False  # the engine runs on this very machine, so the facts below are about its host
    disk_free: int | None = None
    memory_available: int | None = None
    listening: tuple[Endpoint, ...] = ()
    wanted: tuple[Endpoint, ...] = ()  # what a stack publishes and does not hold yet
    firewall: str = ""  # the host's firewall program, when it is switched on: ufw, firewalld
    registry_error: str | None = None  # empty: the registry has the base image
    base: str = ""
    base_present: bool | None = None


def checks(facts: Facts) -> list[Check]:
    """All that can be said, the most basic first. Without an engine only what needs none."""
    if facts.info is None or facts.version is None:
        return [platform_check(facts), no_engine(facts), *ports(facts)]
    return [
        platform_check(facts),
        engine(facts.version),
        *oddities(facts.info, facts.version),
        storage(facts.info),
        cgroups(facts.info),
        memory(facts, facts.info),
        *disk(facts),
        *ports(facts),
        *registry(facts),
        *base(facts),
        *firewall(facts),
        *host_services(facts),
    ]


def platform_check(facts: Facts) -> Check:
    """Servers are Linux programs: on another system they run in the Linux inside the engine."""
    system = SYSTEMS.get(facts.platform, facts.platform)
    kind = (facts.info or {}).get("OSType", "linux")
    if kind != "linux":
        hint = "Switch Docker Desktop to Linux containers."
        return Check("platform", "fail", f"{system}, with an engine that runs {kind} containers", hint)
    if facts.platform != "linux":
        return Check("platform", "ok", f"{system}: the servers run in the Linux inside the engine")
    if facts.info is None or facts.local:
        return Check("platform", "ok", system)
    name, release = facts.info.get("Name", "another machine"), facts.info.get("OperatingSystem", "Linux")
    return Check("platform", "ok", f"{system}; the servers run on {name} ({release}), whose ports can't be looked at")


def no_engine(facts: Facts) -> Check:
    error = facts.unavailable
    detail, hint = (error.what, error.hint) if error else ("no Docker Engine answers", "")
    return Check("engine", "fail", detail, hint or "Type: consolidate doctor --fix")


def engine(version: Mapping[str, Any]) -> Check:
    """The version, and whether its API has what is needed."""
    api = str(version.get("ApiVersion", "0"))
    minimum = ".".join(map(str, MINIMUM_API))
    detail = f"{'Podman' if is_podman(version) else 'Docker Engine'} {version.get('Version', '?')}, API {api}"
    if api_number(api) < MINIMUM_API:
        return Check("engine", "fail", detail, f"API {minimum} is needed: upgrade to Docker Engine 20.10 or later.")
    return Check("engine", "ok", detail)


def api_number(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


def oddities(info: Mapping[str, Any], version: Mapping[str, Any]) -> Iterator[Check]:
    """Engines that are not quite Docker's, and what the engine itself warns of."""
    if is_podman(version):
        yield from PODMAN
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        hint = "Publish ports from 1024 up, or set net.ipv4.ip_unprivileged_port_start."
        yield Check("rootless", "warn", "the engine runs without root: no ports below 1024", hint)
    for warning in info.get("Warnings") or ():
        yield Check("engine warning", "warn", str(warning).removeprefix("WARNING: "))


def storage(info: Mapping[str, Any]) -> Check:
    driver = str(info.get("Driver", "?"))
    if driver in GOOD_STORAGE:
        return Check("storage", "ok", driver)
    return Check("storage", "warn", f"{driver}: images take more space and time", "Use the driver overlay2.")


def cgroups(info: Mapping[str, Any]) -> Check:
    """Limits keep one server from starving the others; an engine whose kernel lacks them drops them silently."""
    version = f"cgroups v{info.get('CgroupVersion', '1')}"
    words = {"MemoryLimit": "memory", "CpuCfsQuota": "cpus", "PidsLimit": "pids"}
    missing = [word for key, word in words.items() if not info.get(key)]
    if not missing:
        return Check("cgroups", "ok", f"{version}, limits of memory, cpus and pids")
    hint = "Add `cgroup_enable=memory swapaccount=1` to the kernel's command line (Raspberry Pi: cmdline.txt); reboot."
    return Check("cgroups", "warn", f"{version}: no limit of {', '.join(missing)} will be in force", hint)


def memory(facts: Facts, info: Mapping[str, Any]) -> Check:
    total, free = int(info.get("MemTotal") or 0), facts.memory_available
    detail = f"{gib(total)} in all" + ("" if free is None else f", {gib(free)} free")
    detail += f", {info.get('NCPU', '?')} processors"
    if (total if free is None else free) < GIB // 2:
        return Check("memory", "warn", detail, "A WordPress with its database takes about half a GiB.")
    return Check("memory", "ok", detail)


def disk(facts: Facts) -> Iterator[Check]:
    if facts.disk_free is None:
        return
    root = (facts.info or {}).get("DockerRootDir", "the engine's folder")
    detail = f"{gib(facts.disk_free)} free in {root}"
    status: Status = "fail" if facts.disk_free < GIB else "warn" if facts.disk_free < 5 * GIB else "ok"
    hint = (
        "Free some: docker image prune --all; docker builder prune. "
        "Not `docker system prune`, which takes the records of what was granted; not `docker volume prune`."
    )
    yield Check("disk", status, detail, "" if status == "ok" else hint)


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def ports(facts: Facts) -> Iterator[Check]:
    """Are the wanted ports free?"""
    taken = clashes(facts.wanted, facts.listening)
    for want, holder in taken:
        hint = f"Stop {holder.program or 'the program that holds it'}, or give the server another port."
        yield Check("ports", "fail", f"{Endpoint(want.address, want.port)} is taken by {holder}", hint)
    if facts.wanted and not taken:
        yield Check("ports", "ok", f"{len(facts.wanted)} wanted, all free")


def clashes(wanted: Iterable[Endpoint], listening: Sequence[Endpoint]) -> list[tuple[Endpoint, Endpoint]]:
    """Each wanted endpoint that can't be had, with the one that holds it."""
    held = ((want, next((other for other in listening if overlap(want, other)), None)) for want in wanted)
    return [(want, holder) for want, holder in held if holder]


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """May not both be bound: one port, and one address or all addresses of a family (`::` has both families)."""
    if (one.port, one.protocol) != (other.port, other.protocol):
        return False
    mine, theirs = ipaddress.ip_address(one.address), ipaddress.ip_address(other.address)
    both_families = any(address.version == 6 and address.is_unspecified for address in (mine, theirs))
    same_family = mine.version == theirs.version
    wildcard = mine.is_unspecified or theirs.is_unspecified
    return mine == theirs or both_families or (same_family and wildcard)


def registry(facts: Facts) -> Iterator[Check]:
    """A private host without a registry is as good as any other."""
    if facts.registry_error is None:
        return
    if not facts.registry_error:
        yield Check("registry", "ok", "reachable")
    else:
        yield Check("registry", "ok", f"not reachable, so this host builds its own base ({facts.registry_error})")


def base(facts: Facts) -> Iterator[Check]:
    if facts.base_present is None:
        return
    if facts.base_present:
        yield Check("base image", "ok", facts.base)
    else:
        yield Check("base image", "warn", f"{facts.base} is not there yet", "Type: consolidate doctor --fix")


def firewall(facts: Facts) -> Iterator[Check]:
    """A published port is redirected before the firewall's own chains see it."""
    if not facts.firewall:
        return
    detail = f"{facts.firewall} does not filter published ports: the engine's rules come first"
    hint = "Publish on 127.0.0.1 (the default) where the network must not come in, or filter in the chain DOCKER-USER."
    yield Check("firewall", "warn", detail, hint)


def host_services(facts: Facts) -> Iterator[Check]:
    """What a server with egress can reach of the host: all that listens on more than the loopback."""
    if not facts.local or is_podman(facts.version or {}):  # of Podman's the doctor has said it
        return
    open_ = (e for e in facts.listening if e.protocol == "tcp")
    reachable = [e for e in open_ if not ipaddress.ip_address(e.address).is_loopback]
    if not reachable:
        yield Check("host services", "ok", "none listens on more than the loopback")
        return
    services = dict.fromkeys(f"{one.port} ({one.program})" if one.program else str(one.port) for one in reachable)
    hint = f"To close them to servers, this host's published ports included (until the next reboot): {CLOSE_HOST}"
    yield Check("host services", "warn", f"servers with egress can reach the host's ports {', '.join(services)}", hint)
