"""Read the facts: of the engine through its API, of the host from /proc and files. Nothing here changes anything."""

from __future__ import annotations

import ipaddress
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from consolidate.doctor.checks import Endpoint, Facts
from consolidate.errors import EngineUnavailable
from consolidate.naming import BASE_IMAGE

LISTEN = {"tcp": "0A", "udp": "07"}  # the state of a socket that takes what comes, in /proc/net/tcp and /proc/net/udp
REGISTRY_TIMEOUT = 5.0


class Probe(Protocol):
    """What is asked of an engine that answers."""

    def info(self) -> Mapping[str, Any]:
        """GET /info"""

    def version(self) -> Mapping[str, Any]:
        """GET /version"""

    def has_image(self, tag: str, /) -> bool:
        """Does the engine have it?"""

    def registry_error(self, tag: str, timeout: float, /) -> str:
        """Why the engine can't get `tag` from its registry, nothing when it can. Never raises."""


def gather(engine: Probe | EngineUnavailable, *, wanted: Iterable[Endpoint] = (), base: str = BASE_IMAGE) -> Facts:
    """All facts. `engine` may be the reason why there is none; `wanted` are the ports to be checked for holders."""
    here = sys.platform
    if isinstance(engine, EngineUnavailable):
        listening = listeners() if here == "linux" else ()
        return Facts(platform=here, unavailable=engine, wanted=tuple(wanted), listening=listening)
    info = engine.info()
    local = is_local(info)
    return Facts(
        platform=here,
        info=info,
        version=engine.version(),
        local=local,
        disk_free=disk_free(info) if local else None,
        memory_available=memory_available() if local else None,
        listening=listeners() if local else (),
        wanted=tuple(wanted),
        firewall=active_firewall() if local else "",
        registry_error=engine.registry_error(base, REGISTRY_TIMEOUT),
        base=base,
        base_present=engine.has_image(base),
    )


def is_local(info: Mapping[str, Any]) -> bool:
    """Does the engine run on this machine? Asked of the facts, not of the address: a socket can lead into a virtual
    machine (Docker Desktop) or out of a container, and ssh:// can lead back home."""
    return sys.platform == "linux" and (info.get("Name"), info.get("KernelVersion")) == (
        platform.node(),
        platform.release(),
    )


def disk_free(info: Mapping[str, Any]) -> int | None:
    try:
        return shutil.disk_usage(str(info["DockerRootDir"])).free
    except (OSError, KeyError):
        return None


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    for line in lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def active_firewall(ufw: Path = Path("/etc/ufw/ufw.conf")) -> str:
    return "ufw" if "ENABLED=yes" in lines(ufw) else ""


def listeners(proc: Path = Path("/proc")) -> tuple[Endpoint, ...]:
    """Every socket that takes what comes, of TCP and UDP, by port."""
    tables = [(protocol, f"{protocol}{family}") for protocol in LISTEN for family in ("", "6")]
    sockets = [socket for protocol, name in tables for socket in parse_sockets(lines(proc / "net" / name), protocol)]
    programs = owners(proc, {inode for _, inode in sockets})
    found = {Endpoint(one.address, one.port, programs.get(inode, ""), one.protocol) for one, inode in sockets}
    return tuple(sorted(found, key=lambda one: (one.port, one.protocol, one.address)))


def parse_sockets(table: Iterable[str], protocol: str) -> Iterator[tuple[Endpoint, str]]:
    """Sockets that take what comes, and their inodes, from the text of /proc/net/tcp, tcp6, udp or udp6."""
    for line in table:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN[protocol]:
            address, _, port = fields[1].partition(":")
            yield Endpoint(parse_address(address), int(port, 16), protocol=protocol), fields[9]


def parse_address(text: str) -> str:
    """`0100007F` is 127.0.0.1: the kernel prints words of 32 bits as its processor holds them."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def owners(proc: Path, inodes: set[str]) -> dict[str, str]:
    """The program that holds each socket; without root only one's own are seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for process in proc.glob("[0-9]*"):
        for link in links(process / "fd"):
            if link in wanted:
                found[wanted[link]] = next(iter(lines(process / "comm")), "")
    return found


def links(folder: Path) -> Iterator[str]:
    """Where the open files of a process lead; a process may end, or be another user's, while we look."""
    try:
        for file in folder.iterdir():
            yield str(file.readlink())
    except OSError:
        return


def lines(file: Path) -> list[str]:
    """A file's lines, none when it can't be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
