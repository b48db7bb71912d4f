"""A stack on a Podman service, in a network namespace of its own. The whole suite runs there by scripts/podman."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest

from consolidate.actions import CreateNetwork
from consolidate.docker_engine import connect
from consolidate.doctor.podman import PODMAN
from consolidate.naming import BASE_IMAGE
from tests.engine.support import Stack, carry_images
from tests.engine.wire import dial, tcp_wire_to
from tests.podman import network_of_its_own, podman

pytestmark = pytest.mark.engine


def test_a_stack_on_podman_comes_up_serves_and_goes(daemon: Any, token: str, tmp_path: Path) -> None:
    """The doctor names the engine and what doesn't hold there, a plan what it loosens, and a refusal says what to do."""
    with network_of_its_own() as network, podman(tmp_path, network, in_memory=True) as service:
        client = docker.DockerClient(base_url=service.url, timeout=120)
        (folder := tmp_path / "stack").mkdir()
        variables = {"DOCKER_HOST": service.url}
        stack = Stack(folder, f"{token}-podman", client, env=variables, before=service.inside())
        stack.write(
            "  www: {kind: web, content: ./site, publish: ['8080:80']}\n"
            f"  box: {{kind: container, image: '{BASE_IMAGE}', command: [sleep, infinity], stop_signal: SIGKILL}}\n",
            site__index_dot_html="<p>By Podman</p>",
        )
        for name in ("ü.txt", f"{'long' * 30}.txt"):
            stack.put(f"site/{name}", name)
        web = next(i for i in carry_images(stack, service, daemon) if i.startswith("consolidate/web"))
        client.api.tag(web, *BASE_IMAGE.split(":"))  # it has all that is in there, and a second archive takes its time

        said = stack.run("doctor").out
        assert f"engine: Podman {client.version()['Version']}, " in " ".join(said.split())
        assert all(check.detail[:40] in " ".join(said.split()) for check in PODMAN)

        up = stack.up()
        assert "www: reaches the outside without `egress`, since it publishes" in up.both
        pages = {"": "<p>By Podman</p>", "%C3%BC.txt": "ü.txt", f"{'long' * 30}.txt": f"{'long' * 30}.txt"}
        for path, page in pages.items():
            get = service.inside("curl", "--silent", "--max-time", "5", f"http://127.0.0.1:8080/{path}")
            assert subprocess.run(get, capture_output=True, text=True).stdout == page

        refused = stack.run("plan", "--drift", status=1)
        assert "Podman doesn't tell all that a container was made from" in refused.err
        assert "leave --drift out" in refused.err
        refused = stack.run("update", "-s", "box", status=1)
        assert "Podman doesn't tell the digest that a registry has" in refused.err
        assert f"`podman pull {BASE_IMAGE}` there" in refused.err

        first = stack.containers()
        stack.edit("command: [sleep, infinity]", "command: [sleep, infinity], resources: {memory: 40M}")
        stack.up()
        box = stack.containers()["box"]
        assert box["Id"] != first["box"]["Id"] and box["HostConfig"]["Memory"] == 40 * 2**20
        assert stack.containers()["www"]["Id"] == first["www"]["Id"]

        with tcp_wire_to(lambda: dial(service.url)) as wire:
            engine = connect(wire.url)
            engine.create_network(
                CreateNetwork(f"{token}-tcp", "10.9.0.0/28", internal=True, masquerade=False, labels=())
            )
            assert client.networks.list(names=[f"{token}-tcp"]), "its own API is asked at a plain address as well"
            engine.remove_network(f"{token}-tcp")
            engine.client.close()

        stack.destroy()
        client.close()
