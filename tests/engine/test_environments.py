"""Two environments of one stack file on one engine: what the engine has is what file, overlay and .env say, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import LABEL, Stack, curl, free_port

pytestmark = pytest.mark.engine

SERVERS = """\
  www:
    kind: web
    content: ./site
    publish: ["${C_PORT:?where the site is published}:80"]
    resources: {memory: "${C_MEMORY}"}
    environment: {GREETING: "${C_GREETING:-hello}", PLACE: "${C_PLACE}"}
  box:
    kind: container
    image: debian:bookworm-slim
    command: [sleep, '99999']
    stop_signal: SIGKILL
    resources: {memory: 24M}
    environment: {GREETING: "${C_GREETING:-hello}", ONLY: of the file}
    healthcheck: {test: [CMD, 'true']}
"""
PROD = """\
servers:
  www:
    content: ./site-prod
    publish: ["PORT_OF_PROD:80"]
    environment: {PLACE: prod}
  box:
    resources:
      memory: 40M
    environment: {ONLY: null}
"""
UNNAMED = "told to nobody"  # what a variable has that no file names


def all_of(stack: Stack) -> str:
    """All that the engine says of the stack's containers, networks and volumes."""
    api, mine = stack.daemon.api, {"label": f"{LABEL}stack={stack.name}"}
    containers = [api.inspect_container(c["Id"]) for c in api.containers(all=True, filters=mine)]
    return json.dumps([*containers, api.networks(filters=mine), api.volumes(filters=mine)])


def made(stack: Stack) -> dict[str, tuple[dict[str, str], int, list[tuple[str, str, str]]]]:
    """Of each server the variables that the files may give it, its memory, and where which of its ports is published."""
    found = {}
    for server, inspected in stack.containers().items():
        variables = dict(v.split("=", 1) for v in inspected["Config"]["Env"])
        ports = inspected["NetworkSettings"]["Ports"]
        found[server] = (
            {k: v for k, v in variables.items() if k in ("GREETING", "PLACE", "ONLY")},
            inspected["HostConfig"]["Memory"] >> 20,
            [(port, b["HostIp"], b["HostPort"]) for port, bindings in ports.items() for b in bindings or ()],
        )
    return found


def explained(stack: Stack, server: str, *words: str) -> dict[str, Any]:
    (row,) = stack.run("render", *words, "--explain", f"servers.{server}.resources.memory", "--format", "json").json
    return dict(row)


def place(stack: Stack, file: str, text: str) -> tuple[str, int]:
    """A file of the stack, and the one line of it that has a text."""
    lines = (stack.folder / file).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if text in line)
    return str(stack.folder / file), number


def test_two_environments_at_once_are_what_their_files_say(make_stack: StackFactory) -> None:
    """The environment wins over .env; a variable that no file names goes nowhere; each value is told with its line."""
    stack, ports = make_stack("env"), (free_port(), free_port())
    stack.write(SERVERS, site__index_dot_html="of dev\n")
    stack.put("site-prod/index.html", "of prod\n")
    stack.put("stack.prod.yml", PROD.replace("PORT_OF_PROD", str(ports[1])))
    stack.put(".env", f"C_PORT={ports[0]}\nC_PLACE=of .env\n\nC_MEMORY=48M\n")
    prod = Stack(stack.folder, f"{stack.name}-prod", stack.daemon)
    stack.env |= {"C_PLACE": "of the environment", "C_UNNAMED": UNNAMED}

    refused = stack.run("up", env={"C_PORT": ""}, status=65)
    assert f"stack.yml:{place(stack, 'stack.yml', 'C_PORT')[1]}:" in refused.err
    assert "where the site is published" in refused.err and stack.left() == []
    try:
        stack.up()
        stack.up("-e", "prod")
        dev_page, prod_page = (curl(f"http://localhost:{port}/").body for port in ports)
        assert (dev_page, prod_page) == ("of dev\n", "of prod\n")
        here = "127.0.0.1"
        assert made(stack) == {
            "www": ({"GREETING": "hello", "PLACE": "of the environment"}, 48, [("80/tcp", here, str(ports[0]))]),
            "box": ({"GREETING": "hello", "ONLY": "of the file"}, 24, []),
        }
        assert made(prod) == {
            "www": ({"GREETING": "hello", "PLACE": "prod"}, 48, [("80/tcp", here, str(ports[1]))]),
            "box": ({"GREETING": "hello"}, 40, []),
        }
        for environment in (stack, prod):
            said = all_of(environment)
            assert environment.name in said and "C_UNNAMED" not in said and UNNAMED not in said

        for server, words, it, file, text in (
            ("box", (), stack, "stack.yml", "memory: 24M"),
            ("box", ("-e", "prod"), prod, "stack.prod.yml", "memory: 40M"),
            ("www", ("-e", "prod"), prod, "stack.yml", "C_MEMORY"),
        ):
            row = explained(stack, server, *words)
            assert row["value"] == f"{made(it)[server][1]}M"
            assert (row["file"], row["line"]) == place(stack, file, text)
        (variable,) = row["variables"]
        assert variable["name"] == "C_MEMORY"
        assert (variable["file"], variable["line"]) == place(stack, ".env", "C_MEMORY")
    finally:
        stack.run("down", "-e", "prod", "--volumes", "--yes")
        left = prod.left()
        prod.purge()
    assert left == []
