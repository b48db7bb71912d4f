"""Containers: made, started, changed, stopped and removed; and the lock, which is one of them."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import docker
from docker import errors as docker_errors
from docker.utils.socket import frames_iter

from consolidate import naming
from consolidate.docker_engine.commands import Commands
from consolidate.docker_engine.failures import TIMEOUT, explain, taken, told
from consolidate.docker_engine.images import Images
from consolidate.docker_engine.lock import held
from consolidate.docker_engine.networks import Networks
from consolidate.docker_engine.shapes import (
    SERVING,
    STOPPED,
    aliases_on,
    container_config,
    limits_config,
    made_again,
    same_stack,
)
from consolidate.docker_engine.streams import hang_up
from consolidate.errors import EngineUnavailable, OperationFailed

ENGINES_GRACE = 10  # seconds, where a container was made without its own: POST /containers/{id}/stop
# What Docker Engine 20.10 says then: what it had told containerd to make is still there.
HALF_STARTED = re.compile(r"task \w+: already exists|id already in use")
EMPTY = 64 * 1024  # bytes: more than an archive of an empty folder has

if TYPE_CHECKING:
    from consolidate.actions import CreateContainer
    from consolidate.resolved import Limits


class DockerEngine(Images, Networks, Commands):
    """One engine. Safe to use from several threads."""

    def __init__(self, client: docker.APIClient, parallel: int) -> None:
        self.client = client
        self.parallel = parallel
        self._helper_made = threading.Lock()
        self._has_helper = False
        self._cpus = None
        self.lost: EngineUnavailable | None = None

    @told
    def create(self, creation: CreateContainer) -> None:
        config = self._body(creation)
        try:
            self.client.create_container_from_config(config, creation.name)
        except docker_errors.APIError as error:
            if not taken(error):
                raise
            # What a killed run left of the same name and never started stands in the way.
            old = self.client.inspect_container(creation.name)
            if old["State"]["Status"] != "created" or not same_stack(old, dict(creation.labels)):
                raise
            self.client.remove_container(creation.name, force=True)
            self.client.create_container_from_config(config, creation.name)
        for network in creation.networks[1:]:
            self.client.connect_container_to_network(creation.name, network, aliases=aliases_on(creation, network))

    def _body(self, creation: CreateContainer) -> dict[str, Any]:
        return container_config(creation, self.cpus())

    @told
    def create_helper(
        self,
        name: str,
        labels: Mapping[str, str],
        volumes: Mapping[str, str],
        volume_labels: Mapping[str, Mapping[str, str]] | None = None,
        image: str | None = None,
        covered: Sequence[str] = (),
    ) -> None:
        """A container that is never started: it holds `volumes` (name → path), or an `image`, for the archive API, or
        labels.

        A volume that isn't there comes into being with its `volume_labels`. An earlier helper of the name is replaced.
        At the `covered` paths it gets none of the volumes that the image declares.
        """
        config = {
            "Image": image or self._helper_image(),
            "Cmd": ["-"],
            "Labels": dict(labels),
            "HostConfig": {
                "NetworkMode": "none",
                "Tmpfs": dict.fromkeys(covered, ""),
                "Mounts": self._mounted(volumes, volume_labels or {}),
            },
        }
        try:
            self.client.create_container_from_config(config, name)
        except docker_errors.APIError as error:
            if not taken(error) or not same_stack(self.client.inspect_container(name), labels):
                raise
            self.client.remove_container(name, force=True)
            self.client.create_container_from_config(config, name)

    def _mounted(self, volumes: Mapping[str, str], labels: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
        """Volumes (name → path) as mounts, and with what labels one comes into being."""
        theirs = {v: {"VolumeOptions": {"Labels": dict(each)}} for v, each in labels.items()}
        return [{"Type": "volume", "Source": v, "Target": t} | theirs.get(v, {}) for v, t in volumes.items()]

    @told
    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """One that is there and has labels stays as it is; so does one without that holds something, which is an error.

        An engine that was killed as it made the volume has forgotten the labels.
        """
        made = self.client.create_volume(name, labels=dict(labels))
        if made.get("Labels"):
            return
        if self._holds(name):
            what = f"there is a volume {name} that is not the stack's: it has no labels"
            hint = f"copy what it holds, and remove it: docker volume rm {name}; `up` then makes one, to be filled"
            raise OperationFailed(what, hint=hint)
        self.client.remove_volume(name)
        self.client.create_volume(name, labels=dict(labels))

    def _holds(self, volume: str) -> bool:
        """Whether there is anything in a volume, seen through a container that is never started."""
        mounts = [{"Type": "volume", "Source": volume, "Target": "/volume"}]
        config = {"Image": self._helper_image(), "Cmd": ["-"], "HostConfig": {"NetworkMode": "none", "Mounts": mounts}}
        made = self.client.create_container_from_config(config)["Id"]
        try:
            chunks, _ = self.client.get_archive(made, "/volume")
            head = b""
            for chunk in chunks:
                head += chunk
                if len(head) > EMPTY:
                    return True
        finally:
            self.client.remove_container(made, force=True)
        with tarfile.open(fileobj=io.BytesIO(head)) as tar:
            return len(tar.getmembers()) > 1  # the folder itself is one

    @told
    def start(self, container: str, *, new: bool = False) -> None:
        """Start it; what `stop` told the engine about it is taken back. A `new` one was never stopped.

        One that an engine was about to start as it was killed can't be started ever after: its like takes its place.
        """
        if not new and self.client.inspect_container(container)["HostConfig"]["RestartPolicy"]["Name"] == STOPPED:
            self._update(container, SERVING)
        try:
            self.client.start(container)
        except docker_errors.APIError as error:
            if not HALF_STARTED.search(explain(error)):
                raise
            found = self.client.inspect_container(container)
            body, names = made_again(found, self.id_of(found["Config"]["Image"]))
            self.client.remove_container(container)
            self.client.create_container_from_config(body, found["Name"].removeprefix("/"))
            for network, aliases in names.items():
                self.client.connect_container_to_network(container, network, aliases=aliases)
            self.client.start(container)

    @told
    def stop(self, container: str, grace: float | None) -> None:
        """Ask it to end, and end it after `grace` seconds; None: after those that it was made with."""
        with contextlib.suppress(docker_errors.NotFound):
            if grace is None:  # asked for, since the library would wait no longer than its own timeout
                grace = self.client.inspect_container(container)["Config"].get("StopTimeout") or ENGINES_GRACE
            told = False
            # Else an engine that is killed would start it when it comes back, beside its successor. Of one whose program ends
            # just then the engine changes nothing.
            with contextlib.suppress(docker_errors.APIError):
                self._update(container, STOPPED)
                told = True
            self.client.stop(container, timeout=int(grace))
            if not told:
                self._update(container, STOPPED)

    def _update(self, container: str, restart: str) -> None:
        client: Any = self.client  # its stubs want more than the engine does
        client.update_container(container, restart_policy={"Name": restart})

    @told
    def restart(self, container: str, grace: float) -> None:
        self.client.restart(container, timeout=int(grace))

    @told
    def update(self, container: str, limits: Limits) -> None:
        """Give a container its limits and its restart policy while it goes on."""
        body = limits_config(limits, self.cpus()) | {"RestartPolicy": {"Name": "always"}}
        client: Any = self.client  # update_container() knows neither NanoCpus nor PidsLimit
        client._result(client._post_json(client._url("/containers/{0}/update", container), data=body), True)

    @told
    def unpause(self, container: str) -> None:
        """Let it go on; one that does already goes on."""
        try:
            self.client.unpause(container)
        except docker_errors.APIError as error:
            if "is not paused" not in explain(error):
                raise

    @told
    def rename(self, container: str, name: str) -> None:
        self.client.rename(container, name)

    @told
    def kill(self, container: str, signal: str) -> None:
        self.client.kill(container, signal=signal)

    @told
    def remove(self, container: str, *, nameless_volumes: bool = False) -> None:
        """Remove it whatever it does; also where it is going already, it is gone afterwards.

        `nameless_volumes`: also those volumes that the engine made for it by itself.
        """
        with contextlib.suppress(docker_errors.NotFound):
            try:
                self.client.remove_container(container, force=True, v=nameless_volumes)
            except docker_errors.APIError as error:
                if "already in progress" not in explain(error):
                    raise
                self.client.wait(container, condition="removed", timeout=TIMEOUT)

    @told
    def put(self, container: str, path: str, archive: IO[bytes]) -> None:
        self.client.put_archive(container, path, archive)

    @told
    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a command as root in a container of its own, which reaches the network and removes itself when it ends.

        Its exit status, and what it said on both outputs.
        """
        config = {
            "Image": image,
            "User": "0:0",
            "Entrypoint": list(command[:1]),
            "Cmd": list(command[1:]),
            "Labels": {naming.HELPER: "probe"},
            "HostConfig": {"AutoRemove": True, "LogConfig": {"Type": "none"}, "SecurityOpt": ["no-new-privileges"]},
        }
        client: Any = self.client
        made = client.create_container_from_config(config)["Id"]
        with contextlib.ExitStack() as at_end:
            at_end.callback(self.remove, made)  # it has gone by itself, unless it did not start or we were stopped
            # Answered at once, and said to the end when the container has ended: `wait()` would ask too late. (Of one that
            # has been removed Podman no longer knows the status.)
            url = client._url("/containers/{0}/wait", made)
            ended = client._post(url, params={"condition": "next-exit"}, stream=True, timeout=None)
            at_end.callback(ended.close)
            stream = client.attach_socket(made, {"stdout": 1, "stderr": 1, "stream": 1})
            at_end.callback(hang_up, stream)
            client.start(made)
            said = b"".join(chunk for _, chunk in frames_iter(stream, tty=False))
            code = int(ended.json()["StatusCode"])
        return code, said.decode(errors="replace")

    @contextlib.contextmanager
    def lock(self, stack: str, holder: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Hold the stack's lock, which ends with our connection to the engine at the latest.

        `tell` hears of one that a dead holder has left, and of one that has to be waited for. Should the lock end before it
        is let go, whatever is asked of this engine from then on raises EngineUnavailable. Raises Locked.
        """
        with held(self.client, stack, holder, self.remove, tell, self._lose):
            yield

    def _lose(self, why: EngineUnavailable) -> None:
        self.lost = why
