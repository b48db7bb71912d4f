"""The engines that speak Docker's API: what each is called, and in what it differs. Data, and who is who."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


class Make(Struct, frozen=True):
    """A make of engine; the defaults are Docker's."""

    name: str = "Docker Engine"
    # How containers' logs are kept: LogConfig of POST /containers/create.
    log: Mapping[str, Any] = field(
        default_factory=lambda: {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}}
    )
    network: Mapping[str, str] = field(default_factory=dict)  # further options of each network
    updates: bool = True  # limits and the restart policy of a container that is there
    thin_archives: bool = True  # takes an image without the layers that it has
    identity: bool = True  # its id is the same each time


DOCKER = Make()
PODMAN = Make(
    name="Podman",
    log={"Type": "k8s-file", "Config": {"max-size": "10m"}},  # one file, which begins anew
    network={"isolate": "true"},  # else servers of different networks reach each other
    updates=False,
    thin_archives=False,
    identity=False,
)


def make_of(version: Mapping[str, Any]) -> Make:
    """Whose engine answers so to GET /version: Podman says it among its components, and the number is then its own."""
    parts = {part.get("Name") for part in version.get("Components") or ()}
    return PODMAN if "Podman Engine" in parts else DOCKER
