"""Podman's service, which speaks Docker's API, where it does otherwise than Docker's engine. Facts of Podman 4.3.1."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import requests
from docker import errors as docker_errors

from consolidate.docker_engine.archives import by_folder
from consolidate.docker_engine.containers import DockerEngine
from consolidate.docker_engine.failures import explain, told
from consolidate.errors import OperationFailed

if TYPE_CHECKING:
    from consolidate.actions import CreateContainer, CreateNetwork
    from consolidate.observed import Details
    from consolidate.resolved import Limits

LIST_TRIES, LIST_PAUSE = 20, 0.2
OWN_API = "/v4.0.0/libpod"  # at the same address


class PodmanEngine(DockerEngine):
    """One service of Podman's."""

    keeps_in = False
    _naming = threading.Lock()

    def registry_error(self, tag: str, timeout: float) -> str:
        client: Any = self.client
        try:
            client._raise_for_status(client._get(f"{client.base_url}{OWN_API}/manifests/{tag}/json", timeout=timeout))
        except docker_errors.APIError as error:
            return explain(error).strip()
        except (requests.exceptions.RequestException, docker_errors.DockerException):
            return f"no answer within {timeout:g} s"
        return ""

    def registry_digest(self, tag: str, timeout: float) -> str:
        raise OperationFailed(
            "Podman doesn't tell the digest that a registry has", hint=f"`podman pull {tag}` there gets what is new"
        )

    def _image_rows(self) -> list[dict[str, Any]]:
        """The list breaks off at an image that somebody removes meanwhile, or whose build is just ending."""
        for _ in range(LIST_TRIES):
            with contextlib.suppress(docker_errors.APIError):
                return super()._image_rows()
            time.sleep(LIST_PAUSE)
        return super()._image_rows()

    def tag_image(self, image: str, tag: str) -> None:
        """One after the other: of the names that an image gets at once some are lost."""
        with self._naming:
            super().tag_image(image, tag)

    def _body(self, creation: CreateContainer) -> dict[str, Any]:
        config = super()._body(creation)
        config["HostConfig"] |= {
            "LogConfig": {"Type": "k8s-file", "Config": {"max-size": "10m"}},  # one file, which then begins anew
            # As Docker's engine has it by itself: ports below 1024 for all.
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "Tmpfs": {p: tmpfs_options(o, config.get("User", "")) for p, o in config["HostConfig"]["Tmpfs"].items()},
        }
        if check := config.get("Healthcheck"):  # words that have blanks in them fall apart, a shell's text does not
            check["Test"] = ["CMD-SHELL", shlex.join(check["Test"][1:])]
        return config

    def _mounted(self, volumes: Mapping[str, str], labels: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
        """Volumes are made first: labels that come with a mount are forgotten."""
        for volume, each in labels.items():
            self.create_volume(volume, each)
        return super()._mounted(volumes, labels)

    @told
    def put(self, container: str, path: str, archive: IO[bytes]) -> None:
        """What lies in volumes below `path` is sent to these themselves: it would go beside them where nothing runs."""
        mounts = [PurePosixPath(m["Destination"]) for m in self.client.inspect_container(container)["Mounts"]]
        inside = [m.relative_to(path).as_posix() for m in mounts if PurePosixPath(path) in m.parents]
        if not inside:
            super().put(container, path, archive)
            return
        for folder, part in by_folder(archive, inside):
            self.client.put_archive(container, str(PurePosixPath(path, folder)), part)

    def stop(self, container: str, grace: float | None) -> None:
        """One that is paused goes on first: else the stop fails, and leaves it paused."""
        with contextlib.suppress(OperationFailed):  # it isn't there, or not running
            self.unpause(container)
        super().stop(container, grace)

    def _make_network(self, network: CreateNetwork, subnet: str) -> None:
        """Its API of Docker's has no word for isolation: servers of different networks would reach each other."""
        client: Any = self.client
        body = {
            "name": network.name,
            "driver": "bridge",
            "internal": network.internal,
            "subnets": [{"subnet": subnet}],
            "labels": dict(network.labels),
            "options": {"isolate": "true"},
            "dns_enabled": True,
        }
        client._raise_for_status(client._post_json(f"{client.base_url}{OWN_API}/networks/create", data=body))

    @told
    def remove_network(self, name: str) -> None:
        """What doesn't run leaves it first: here any member holds a network."""
        for row in self.client.containers(all=True, filters={"network": name}):
            if row["State"] not in ("running", "paused"):
                self.disconnect(row["Id"], name)
        super().remove_network(name)

    def _update(self, container: str, restart: str) -> None:
        """A restart policy stays as it was made. Nothing but podman-restart.service would heed it at the next boot."""

    def update(self, container: str, limits: Limits) -> None:
        what = f"Podman can't give {container} other limits while it goes on"
        raise OperationFailed(what, hint="`up` after a change of its `resources` makes it anew")

    def details(self, container: str) -> Details:
        what = "Podman doesn't tell all that a container was made from, so drift can't be found"
        raise OperationFailed(what, hint="leave --drift out; what the labels tell is compared anyway")


def tmpfs_options(options: str, user: str) -> str:
    """Podman gives a tmpfs to root, or by `U` to the container's own `user`; another's has to be open to all in there."""
    words = dict(word.partition("=")[::2] for word in options.split(","))
    owner, group = words.pop("uid", "0"), words.pop("gid", "0")
    if f"{owner}:{group}" == user:
        words["U"] = ""
    elif (owner, group) != ("0", "0"):
        words["mode"] = "1777"
    return ",".join(f"{key}={value}" if value else key for key, value in words.items())
