"""What is on the engine: everything that only reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import requests
from docker import errors as docker_errors

from consolidate import naming
from consolidate.docker_engine.failures import explain, telling, told
from consolidate.docker_engine.made import FROM_IMAGES, also, made_like
from consolidate.docker_engine.shapes import (
    STATES,
    layer_sizes,
    machine_of,
    names_of,
    observed_container,
    observed_network,
)
from consolidate.engine import ImageFacts, Machine, State, broken_off
from consolidate.errors import OperationFailed
from consolidate.fields import fields_of
from consolidate.files import lines, observed_files
from consolidate.observed import (
    Details,
    HostFacts,
    Observed,
    ObservedFile,
    ObservedVolume,
)


class Looks:
    """Questions to an engine."""

    client: docker.APIClient
    parallel: int
    _cpus: int | None
    keeps_in = True  # a network that publishes leads out only where it masquerades

    def cpus(self) -> int:
        """Processors of the host; asked for once."""
        return self._cpus if self._cpus is not None else self.facts().cpus

    @told
    def info(self) -> Mapping[str, Any]:
        return {**self.client.info(), "ApiVersion": self.client.api_version}

    @told
    def version(self) -> Mapping[str, Any]:
        return dict(self.client.version(api_version=False))

    def registry_error(self, tag: str, timeout: float) -> str:
        """Why the engine can't get `tag` from its registry, nothing when it can. Never raises."""
        try:
            self.registry_digest(tag, timeout)
        except OperationFailed as error:
            return error.what
        return ""

    def registry_digest(self, tag: str, timeout: float) -> str:
        """The digest that its registry has for `tag`, which the engine asks.

        Raises OperationFailed, also where it doesn't answer.
        """
        client: Any = self.client  # inspect_distribution() takes no timeout of its own
        try:
            answer = client._result(client._get(client._url("/distribution/{0}/json", tag), timeout=timeout), True)
        except docker_errors.APIError as error:
            raise OperationFailed(explain(error).strip()) from None
        except (requests.exceptions.RequestException, docker_errors.DockerException):
            raise OperationFailed(f"no answer within {timeout:g} s") from None
        return str(answer["Descriptor"]["digest"])

    def facts(self) -> HostFacts:
        info = self.info()
        self._cpus = info["NCPU"]
        return HostFacts(
            name=info["Name"],
            kernel=info["KernelVersion"],
            memory=info["MemTotal"],
            cpus=info["NCPU"],
            version=info["ServerVersion"],
            api=info["ApiVersion"],
            limits_swap=info.get("SwapLimit", True),
            keeps_in=self.keeps_in,
        )

    @told
    def machine(self) -> Machine:
        return machine_of(self.client.info(), self.client.version(api_version=False))

    @functools.cached_property
    def _facts(self) -> HostFacts:
        """They don't change while we look."""
        return self.facts()

    @told
    def observe(self, stack: str) -> Observed:
        """Five calls the first time, then four, at once, whatever the number of servers."""
        of_stack = {"label": f"{naming.STACK}={stack}"}
        with ThreadPoolExecutor(4, thread_name_prefix="observe") as pool:
            facts = pool.submit(lambda: self._facts)
            asked = [
                pool.submit(self.client.networks),
                pool.submit(self.client.volumes, filters=of_stack),
                pool.submit(self._image_rows),
            ]
            containers = self.client.containers(all=True)
        networks, volumes, images = (a.result() for a in asked)
        host = facts.result()
        mine = [c for c in containers if c["Labels"].get(naming.STACK) == stack]
        others = [c for c in containers if c["Labels"].get(naming.STACK) != stack]
        own = [n for n in networks if (n["Labels"] or {}).get(naming.STACK) == stack]
        foreign = [n for n in networks if (n["Labels"] or {}).get(naming.STACK) != stack]
        found = {c.name: c for c in map(observed_container, mine)}
        return Observed(
            stack=stack,
            host=host,
            containers=tuple(found[name] for name in sorted(found)),
            networks=tuple(sorted((observed_network(n) for n in own), key=lambda n: n.name)),
            volumes=tuple(
                sorted(
                    (ObservedVolume(v["Name"], v["Labels"] or {}, v["CreatedAt"]) for v in volumes["Volumes"] or ()),
                    key=lambda v: v.name,
                )
            ),
            images={t: i["Id"] for i in images for t in names_of(i)},
            foreign_subnets=tuple(s for n in foreign for s in observed_network(n).subnets),
            foreign_ports=tuple((*p, observed_container(c).name) for c in others for p in observed_container(c).ports),
            foreign_names=frozenset(observed_container(c).name for c in others),
            foreign_images=frozenset(c["ImageID"] for c in others),
            broken_off=broken_off(found.get(naming.helper(stack, "", "lock"))),
        )

    def _image_rows(self) -> list[dict[str, Any]]:
        return list(self.client.images())

    @told
    def has_image(self, tag: str) -> bool:
        try:
            self.client.inspect_image(tag)
        except docker_errors.ImageNotFound:
            return False
        return True

    @told
    def image(self, name: str) -> ImageFacts:
        found = self.client.inspect_image(name)
        return ImageFacts(found["Id"], found["Config"].get("Labels") or {}, tuple(found["RootFS"].get("Layers") or ()))

    @told
    def all_images(self) -> tuple[ImageFacts, ...]:
        """All that have a name, or that nothing is built on. Each is asked for: the engine's list has no layers."""
        ids = dict.fromkeys(row["Id"] for row in self._image_rows())

        def look(image: str) -> ImageFacts | None:
            try:
                return self.image(image)
            except OperationFailed:  # it went meanwhile
                return None

        with ThreadPoolExecutor(min(4, self.parallel), thread_name_prefix="images") as pool:
            return tuple(found for found in pool.map(look, ids) if found)

    @told
    def layer_sizes(self, image: str) -> tuple[int, ...]:
        """The bytes of files in each of an image's layers; an archive has some more."""
        return layer_sizes(self.client.history(image), len(self.image(image).layers))

    @told
    def state(self, container: str) -> State:
        found = self.client.inspect_container(container)
        state, networks = found["State"], found["NetworkSettings"]["Networks"]
        check = (found["Config"].get("Healthcheck") or {}).get("Test") or []
        test = (
            tuple(check[1:])
            if check[:1] == ["CMD"]
            else ("/bin/sh", "-c", *check[1:])
            if check[:1] == ["CMD-SHELL"]
            else ()
        )
        return State(
            status=STATES.get(state["Status"], state["Status"]),
            running=state["Running"] and not state["Restarting"],
            exit_code=state["ExitCode"],
            restarts=found["RestartCount"],
            health=(state.get("Health") or {}).get("Status") or "none",
            test=test,
            error=state["Error"],
            addresses={n: v["IPAddress"] for n, v in networks.items()},
            names={
                n: tuple(a for a in v["Aliases"] or () if not found["Id"].startswith(a)) for n, v in networks.items()
            },
        )

    @told
    def logs(self, container: str, *, tail: int | None, since: int | None, follow: bool) -> Iterator[bytes]:
        """Lines of both outputs, each with its time in front (RFC 3339)."""
        stream: Any = self.client.logs(
            container, stream=True, follow=follow, timestamps=True, tail="all" if tail is None else tail, since=since
        )
        return _lines(stream._stream, self)  # what is around that takes a connection's breaking off for its end

    @told
    def details(self, container: str) -> Details:
        found = self.client.inspect_container(container)
        defaults = made_like(self.client.inspect_image(found["Image"])["Config"] or {}, {})
        unset = {f: v for f, v in fields_of(defaults).items() if f in FROM_IMAGES or f.startswith("environment ")}
        host = found["HostConfig"]
        if not self._facts.limits_swap:  # the engine has let it be, with a warning that nobody sees
            host["MemorySwap"] = host["Memory"]
        made = fields_of(made_like(found["Config"], host, found["Mounts"]))
        networks = found["NetworkSettings"]["Networks"]
        aliases = {n: tuple((v or {}).get("Aliases") or ()) for n, v in networks.items()}
        return Details(made | also(host, found["Mounts"]), unset, aliases)

    @told
    def files(self, container: str, path: str) -> Mapping[str, ObservedFile]:
        return observed_files(self.client.get_archive(container, path)[0])

    @told
    def get(self, container: str, path: str) -> bytes:
        chunks, _ = self.client.get_archive(container, path)
        return b"".join(chunks)


def _lines(stream: Iterator[bytes], whose: Looks) -> Iterator[bytes]:
    with telling(whose):  # it may break off as long as it is read
        yield from lines(stream)
