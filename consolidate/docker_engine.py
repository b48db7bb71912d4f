"""The Docker Engine behind the port, through docker-py. The only module that imports it.

Facts of the API are those of version 1.41 (Engine 20.10), the lowest that is supported.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, ParamSpec, TypeVar

import docker
import requests
from docker import errors as docker_errors
from docker.context import ContextAPI
from docker.utils import kwargs_from_env
from docker.utils.socket import frames_iter

from consolidate import naming
from consolidate.desired import Container, Image
from consolidate.engine import Progress, State
from consolidate.errors import EngineUnavailable, Locked, OperationFailed, UsageError
from consolidate.observed import (
    HostFacts,
    Observed,
    ObservedContainer,
    ObservedNetwork,
    ObservedVolume,
    free_subnets,
)
from consolidate.plan import CreateContainer, CreateNetwork
from consolidate.resolve import BASE_IMAGE

P = ParamSpec("P")
R = TypeVar("R")

HELPER_IMAGE = "consolidate/helper:1"  # empty: a container of it is never started, it only holds volumes
SOCKET_CALLS, SSH_CALLS = 16, 6  # sshd's MaxSessions is 10, and docker-py opens one for each call
TIMEOUT = 120  # seconds for one answer of the engine; streams have none
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
SUBNET_TRIES = 100  # for a network whose subnet others take at the same time
LOCK_GRACE = 5.0  # seconds that a lock's remains get to go away by themselves


def _told(method: Callable[P, R]) -> Callable[P, R]:
    """Turn the library's exceptions into ours."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except docker_errors.APIError as error:
            raise OperationFailed(_explain(error)) from None
        except (
            requests.exceptions.RequestException,  # also those of a stream that breaks off
            docker_errors.DockerException,
        ) as error:
            raise _unavailable(error) from None

    return call


def _explain(error: docker_errors.APIError) -> str:
    return str(error.explanation or error)


def _unavailable(error: Exception) -> EngineUnavailable:
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return EngineUnavailable(
            "this user may not use the engine's socket", hint="run as root, or join the group docker and log in again"
        )
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in text:
        return EngineUnavailable(
            f"the engine has not answered for {TIMEOUT} s", hint="is its daemon frozen or its disk full?"
        )
    hint = "start it, or name another one with -H; `consolidate doctor --fix` installs and starts one"
    return EngineUnavailable("no engine answers", hint=hint)


def connect(host: str | None = None, context: str | None = None) -> DockerEngine:
    """The engine that `host`, `context`, DOCKER_HOST, DOCKER_CONTEXT or the current context name, in this order.

    Raises EngineUnavailable, and UsageError for a context that there isn't.
    """
    url, tls = host, None
    name = None if host or (os.environ.get("DOCKER_HOST") and not context) else named_engine(None, context)
    if name is not None:
        found = ContextAPI.get_context(name)
        if found is None:
            raise UsageError(f"there is no Docker context '{name}'", hint="`docker context ls` lists them")
        url, tls = found.Host, found.TLSConfig
    try:
        if url is None:
            client = docker.APIClient(version="auto", timeout=TIMEOUT, **kwargs_from_env())
        else:
            client = docker.APIClient(base_url=url, tls=tls or False, version="auto", timeout=TIMEOUT)
    except (docker_errors.DockerException, requests.exceptions.RequestException) as error:
        raise _unavailable(error) from None
    return DockerEngine(
        client, SSH_CALLS if (url or os.environ.get("DOCKER_HOST", "")).startswith("ssh:") else SOCKET_CALLS
    )


def named_engine(host: str | None, context: str | None) -> str | None:
    """The address or the context that something names, or None where it is this machine's default engine."""
    name = host or context or os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
    if name is None:
        try:
            current = ContextAPI.get_current_context()
        except Exception:  # a broken ~/.docker is not our business: the default socket is
            return None
        name = current.Name if current is not None else None
    return None if name == "default" else name or None


class DockerEngine:
    """One engine. Safe to use from several threads."""

    def __init__(self, client: docker.APIClient, parallel: int) -> None:
        self.client = client
        self.parallel = parallel
        self._helper_made = threading.Lock()
        self._has_helper = False

    # What is there

    @_told
    def info(self) -> Mapping[str, Any]:
        return {**self.client.info(), "ApiVersion": self.client.api_version}

    @_told
    def version(self) -> Mapping[str, Any]:
        return dict(self.client.version(api_version=False))

    def registry_error(self, tag: str, timeout: float) -> str:
        """Why the engine can't get `tag` from its registry, nothing when it can. Never raises."""
        client: Any = self.client  # inspect_distribution() takes no timeout of its own
        try:
            client._result(client._get(client._url("/distribution/{0}/json", tag), timeout=timeout), True)
        except docker_errors.APIError as error:
            return _explain(error).strip()
        except (requests.exceptions.RequestException, docker_errors.DockerException):
            return f"no answer within {timeout:g} s"
        return ""

    def facts(self) -> HostFacts:
        info = self.info()
        return HostFacts(
            name=info["Name"],
            kernel=info["KernelVersion"],
            memory=info["MemTotal"],
            cpus=info["NCPU"],
            version=info["ServerVersion"],
            api=info["ApiVersion"],
        )

    @_told
    def observe(self, stack: str) -> Observed:
        """Six calls, whatever the number of servers."""
        containers = self.client.containers(all=True)
        networks = self.client.networks()
        volumes = self.client.volumes(filters={"label": f"{naming.STACK}={stack}"})["Volumes"] or []
        images = self.client.images()
        mine = [c for c in containers if c["Labels"].get(naming.STACK) == stack]
        others = [c for c in containers if c["Labels"].get(naming.STACK) != stack]
        own = [n for n in networks if (n["Labels"] or {}).get(naming.STACK) == stack]
        return Observed(
            stack=stack,
            host=self.facts(),
            containers=tuple(sorted((_container(c) for c in mine), key=lambda c: c.name)),
            networks=tuple(sorted((_network(n) for n in own), key=lambda n: n.name)),
            volumes=tuple(
                sorted(
                    (ObservedVolume(v["Name"], v["Labels"] or {}, v["CreatedAt"]) for v in volumes),
                    key=lambda v: v.name,
                )
            ),
            images=frozenset(t for i in images for t in [*(i["RepoTags"] or []), *(i["RepoDigests"] or []), i["Id"]]),
            foreign_subnets=tuple(s for n in networks if n not in own for s in _network(n).subnets),
            foreign_ports=tuple((*p, _container(c).name) for c in others for p in _container(c).ports),
            foreign_names=frozenset(_container(c).name for c in others),
        )

    # Images

    @_told
    def has_image(self, tag: str) -> bool:
        try:
            self.client.inspect_image(tag)
        except docker_errors.ImageNotFound:
            return False
        return True

    @_told
    def build(self, image: Image, context: IO[bytes], progress: Progress) -> None:
        said: list[str] = []
        error = ""
        stream = self.client.build(
            fileobj=context, custom_context=True, tag=image.tag, rm=True, forcerm=True, decode=True, encoding=None
        )
        for event in stream:  # to its end, also after an error: only then is the connection free
            error = error or str(event.get("error", "")).strip()
            if text := str(event.get("stream", "")).strip():
                said += text.splitlines()
                progress(said[-1])
        if error:
            raise OperationFailed(f"the build of {image.tag} failed: {error}", log=said[-20:])

    @_told
    def pull(self, tag: str, progress: Progress) -> None:
        name, _, version = tag.rpartition(":") if "@" not in tag else tag.partition("@")
        why_not = ""
        try:
            for event in self.client.pull(name, tag=version or None, stream=True, decode=True):
                why_not = why_not or str(event.get("error", "")).strip()
                progress(" ".join(str(event.get(k, "")) for k in ("id", "status", "progress")).strip())
        except docker_errors.APIError as error:
            why_not = _explain(error)
        if why_not:
            hint = "check its name, and that the engine reaches the registry (`consolidate doctor`)"
            raise OperationFailed(f"{tag} can't be pulled: {why_not}", hint=hint)

    @_told
    def import_image(self, stream: IO[bytes], tag: str) -> None:
        repository, _, version = tag.rpartition(":")
        answer = self.client.import_image_from_stream(
            stream, repository=repository, tag=version, changes=['CMD ["bash"]']
        )
        _check_stream(answer)

    def _helper_image(self) -> str:
        """The image of helpers. It is looked for once: who removes it meanwhile has the error of its absence."""
        with self._helper_made:
            if not self._has_helper and not self.has_image(HELPER_IMAGE):
                repository, _, version = HELPER_IMAGE.rpartition(":")
                empty = bytes(10240)  # a tar archive of nothing
                _check_stream(self.client.import_image_from_data(empty, repository=repository, tag=version))
            self._has_helper = True
        return HELPER_IMAGE

    # Networks and volumes

    @_told
    def create_network(self, network: CreateNetwork) -> None:
        options = {} if network.masquerade else {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        if network.internal:
            # No address of the host on the bridge: its services on 0.0.0.0 can't be reached from inside.
            options["com.docker.network.bridge.inhibit_ipv4"] = "true"
        subnet = network.subnet
        for last in (*[False] * SUBNET_TRIES, True):
            try:
                self.client.create_network(
                    network.name,
                    driver="bridge",
                    options=options,
                    ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)]),
                    internal=network.internal,
                    check_duplicate=True,
                    labels=dict(network.labels),
                )
                return
            except docker_errors.APIError as error:
                if last or not network.pool or "overlaps" not in _explain(error):
                    raise
            # Another stack has taken it since the plan was made: each try that fails is one that made a network.
            try:
                subnet = free_subnets(self.observe(""), network.pool, 1)[0]
            except ValueError as error:
                raise OperationFailed(str(error)) from None

    @_told
    def remove_network(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_network(name)

    @_told
    def connect(self, container: str, network: str, alias: str) -> None:
        try:
            self.client.connect_container_to_network(container, network, aliases=[alias])
        except docker_errors.APIError as error:
            if "already exists in network" not in _explain(error):
                raise

    @_told
    def disconnect(self, container: str, network: str) -> None:
        try:
            self.client.disconnect_container_from_network(container, network)
        except docker_errors.APIError as error:
            if "is not connected to" not in _explain(error):
                raise

    @_told
    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self.client.create_volume(name, labels=dict(labels))

    @_told
    def remove_volume(self, name: str) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.remove_volume(name)

    # Containers

    @_told
    def create(self, creation: CreateContainer) -> None:
        config = _config(creation)
        try:
            self.client.create_container_from_config(config, creation.name)
        except docker_errors.APIError as error:
            if error.status_code != 409:
                raise
            # What a killed run left of the same name and never started stands in the way.
            old = self.client.inspect_container(creation.name)
            if old["State"]["Status"] != "created" or not _same_stack(old, dict(creation.labels)):
                raise
            self.client.remove_container(creation.name, force=True)
            self.client.create_container_from_config(config, creation.name)
        for network in creation.networks[1:]:
            self.client.connect_container_to_network(creation.name, network, aliases=_aliases(creation, network))

    @_told
    def create_helper(
        self,
        name: str,
        labels: Mapping[str, str],
        volumes: Mapping[str, str],
        volume_labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """A container that is never started: it holds `volumes` (name → path) for the archive API, or labels.

        A volume that isn't there comes into being with its `volume_labels`. An earlier helper of the name is replaced.
        """
        theirs = {v: {"VolumeOptions": {"Labels": dict(each)}} for v, each in (volume_labels or {}).items()}
        config = {
            "Image": self._helper_image(),
            "Cmd": ["-"],
            "Labels": dict(labels),
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [
                    {"Type": "volume", "Source": v, "Target": t} | theirs.get(v, {}) for v, t in volumes.items()
                ],
            },
        }
        try:
            self.client.create_container_from_config(config, name)
        except docker_errors.APIError as error:
            if error.status_code != 409 or not _same_stack(self.client.inspect_container(name), labels):
                raise
            self.client.remove_container(name, force=True)
            self.client.create_container_from_config(config, name)

    @_told
    def start(self, container: str) -> None:
        self.client.start(container)

    @_told
    def stop(self, container: str, grace: float) -> None:
        with contextlib.suppress(docker_errors.NotFound):
            self.client.stop(container, timeout=int(grace))

    @_told
    def restart(self, container: str, grace: float) -> None:
        self.client.restart(container, timeout=int(grace))

    @_told
    def kill(self, container: str, signal: str) -> None:
        self.client.kill(container, signal=signal)

    @_told
    def remove(self, container: str) -> None:
        """Remove it whatever it does; also where it is going already, it is gone afterwards."""
        with contextlib.suppress(docker_errors.NotFound):
            try:
                self.client.remove_container(container, force=True)
            except docker_errors.APIError as error:
                if "already in progress" not in _explain(error):
                    raise
                self.client.wait(container, condition="removed", timeout=TIMEOUT)

    @_told
    def state(self, container: str) -> State:
        found = self.client.inspect_container(container)
        state = found["State"]
        check = (found["Config"].get("Healthcheck") or {}).get("Test") or []
        test = (
            tuple(check[1:])
            if check[:1] == ["CMD"]
            else ("/bin/sh", "-c", *check[1:])
            if check[:1] == ["CMD-SHELL"]
            else ()
        )
        return State(
            status=state["Status"],
            running=state["Running"] and not state["Restarting"],
            exit_code=state["ExitCode"],
            restarts=found["RestartCount"],
            health=(state.get("Health") or {}).get("Status", "none"),
            test=test,
            error=state["Error"],
            addresses={n: v["IPAddress"] for n, v in found["NetworkSettings"]["Networks"].items()},
        )

    # Inside containers

    @_told
    def put(self, container: str, path: str, archive: IO[bytes]) -> None:
        self.client.put_archive(container, path, archive)

    @_told
    def get(self, container: str, path: str) -> bytes:
        chunks, _ = self.client.get_archive(container, path)
        return b"".join(chunks)

    @_told
    def run(self, container: str, command: Sequence[str], stdin: bytes | None = None) -> tuple[int, str]:
        """Run a command in a container: its exit status, and what it said on both outputs."""
        made = self.client.exec_create(container, list(command), stdin=stdin is not None)["Id"]
        if stdin is None:
            output = self.client.exec_start(made)
        else:
            output = _converse(self.client.exec_start(made, socket=True), stdin)
        code = self.client.exec_inspect(made)["ExitCode"]
        return (code if code is not None else 1), output.decode(errors="replace")

    def attach(self, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> int:
        """Run a command with this terminal, or with our standard streams; its exit status."""
        from consolidate.terminal import interact

        made = _told(self.client.exec_create)(container, list(command), stdin=stdin, tty=tty)["Id"]
        stream = _told(self.client.exec_start)(made, socket=True, tty=tty)
        interact(
            stream, tty=tty, stdin=stdin, resize=lambda rows, columns: self.client.exec_resize(made, rows, columns)
        )
        return int(_told(self.client.exec_inspect)(made)["ExitCode"] or 0)

    @_told
    def logs(self, container: str, *, tail: int | None, since: int | None, follow: bool) -> Iterator[bytes]:
        """Lines of both outputs, each with its time in front (RFC 3339)."""
        stream = self.client.logs(
            container, stream=True, follow=follow, timestamps=True, tail="all" if tail is None else tail, since=since
        )
        return _lines(stream)

    @contextlib.contextmanager
    def lock(self, stack: str, holder: str) -> Iterator[None]:
        """Hold the stack's lock: a container's name, which goes when our connection to its input does."""
        name = naming.helper(stack, "", "lock")
        stream = self._take_lock(name, stack, holder)
        try:
            yield
        finally:
            with contextlib.suppress(OperationFailed, EngineUnavailable):
                self.remove(name)
            _hang_up(stream)

    @_told
    def _take_lock(self, name: str, stack: str, holder: str) -> Any:
        config = {
            "Image": BASE_IMAGE,
            "Cmd": ["cat"],
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "Labels": {naming.STACK: stack, naming.HELPER: "lock", naming.HOLDER: holder},
            "HostConfig": {"AutoRemove": True, "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"]},
        }
        deadline = time.monotonic() + LOCK_GRACE
        while True:
            try:
                made = self.client.create_container_from_config(config, name)["Id"]
                stream = self.client.attach_socket(made, {"stdin": 1, "stream": 1})
                self.client.start(made)
                return stream
            except docker_errors.APIError as error:
                if error.status_code != 409:
                    raise
            self._refuse_if_held(name)
            if time.monotonic() > deadline:  # remains of a holder that died before its lock ran
                with contextlib.suppress(docker_errors.APIError):
                    self.client.remove_container(name, force=True)
                deadline = time.monotonic() + LOCK_GRACE
            time.sleep(0.1)

    def _refuse_if_held(self, name: str) -> None:
        try:
            found = self.client.inspect_container(name)
        except docker_errors.NotFound:
            return
        if found["State"]["Status"] == "running":
            since = str(found["State"]["StartedAt"])[:19].replace("T", " ")
            who = found["Config"]["Labels"].get(naming.HOLDER, "somebody")
            raise Locked(f"{who} works on this stack since {since} UTC", hint="wait until it has ended, and try again")


def _converse(stream: Any, stdin: bytes) -> bytes:
    """What a program says to `stdin`. It may answer before it has read all of it, or end without reading it."""
    raw: Any = getattr(stream, "_sock", stream)
    said = []

    def send() -> None:
        with contextlib.suppress(OSError):
            raw.sendall(stdin)
            raw.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with contextlib.suppress(ConnectionResetError):  # it ended, with input of ours still under way
            said += [chunk for _, chunk in frames_iter(stream, tty=False)]
    finally:
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        sender.join()
        _hang_up(stream)
    return b"".join(said)


def _hang_up(stream: Any) -> None:
    """Close a stream and the connection below it, which its own `close` leaves open."""
    raw = getattr(stream, "_sock", stream)
    stream.close()
    raw.close()


def _lines(stream: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _same_stack(found: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a container is of the stack that `labels` tell: `a-b` and `c` make the same names as `a` and `b-c`."""
    return (found["Config"]["Labels"] or {}).get(naming.STACK) == labels.get(naming.STACK)


def _check_stream(answer: str) -> None:
    for line in answer.splitlines():
        with contextlib.suppress(ValueError):
            if "error" in (event := json.loads(line)):
                raise OperationFailed(f"the engine can't import an image: {event['error']}")


def _container(row: Mapping[str, Any]) -> ObservedContainer:
    networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
    return ObservedContainer(
        id=row["Id"],
        name=(row["Names"] or ["/"])[0].removeprefix("/"),
        image=row["Image"],
        state=row["State"],
        status=row["Status"],
        created=row["Created"],
        labels=row["Labels"] or {},
        networks={n: (v or {}).get("IPAddress", "") for n, v in networks.items() if n != "none"},
        volumes=tuple(sorted(m["Name"] for m in row.get("Mounts") or [] if m.get("Type") == "volume")),
        ports=tuple(
            sorted({(p["IP"], p["PublicPort"], p["Type"]) for p in row.get("Ports") or [] if "PublicPort" in p})
        ),
    )


def _network(row: Mapping[str, Any]) -> ObservedNetwork:
    pools = (row.get("IPAM") or {}).get("Config") or []
    subnets = tuple(p["Subnet"] for p in pools if p.get("Subnet"))
    return ObservedNetwork(row["Id"], row["Name"], row["Labels"] or {}, subnets)


def _config(creation: CreateContainer) -> dict[str, Any]:
    """The body of POST /containers/create."""
    want: Container = creation.container
    config: dict[str, Any] = {
        "Image": want.image,
        "Hostname": want.server,
        "Env": [f"{k}={v}" for k, v in want.environment],
        "Labels": dict(creation.labels),
        "StopSignal": want.stop_signal,
        "StopTimeout": int(want.stop_grace),
        "ExposedPorts": {f"{p.target}/{p.protocol}": {} for p in want.publish},
        "HostConfig": _host_config(want),
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
    if creation.networks:
        first = creation.networks[0]
        config["HostConfig"]["NetworkMode"] = first
        config["NetworkingConfig"] = {"EndpointsConfig": {first: {"Aliases": _aliases(creation, first)}}}
    return config


def _aliases(creation: CreateContainer, network: str) -> list[str]:
    return [] if network in creation.nameless else [creation.container.server]


def _host_config(want: Container) -> dict[str, Any]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for publish in want.publish:
        key = f"{publish.target}/{publish.protocol}"
        bindings.setdefault(key, []).append({"HostIp": publish.address, "HostPort": str(publish.port)})
    return {
        "NetworkMode": "none",
        "PortBindings": bindings,
        "RestartPolicy": {"Name": "always"},
        "LogConfig": {"Type": "local", "Config": LOG_OPTIONS},
        "CapDrop": ["ALL"],
        "CapAdd": list(want.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": want.read_only,
        "Init": want.init,
        "Memory": want.limits.memory,
        "MemorySwap": want.limits.memory,  # equal: no swap on top, which is the engine's default
        "NanoCpus": int(want.limits.cpus * 1e9),
        "PidsLimit": want.limits.pids,
        "Tmpfs": dict(want.tmpfs),
        "DnsOptions": list(want.dns_options),
        "Mounts": [
            {"Type": "volume", "Source": m.volume, "Target": m.target, "ReadOnly": m.read_only} for m in want.mounts
        ],
    }
