"""What somebody changed by hand: the plan shows it, `up` repairs it, and no other server is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engine.support import LABEL, Stack, curl, free_port

pytestmark = pytest.mark.engine


class Hand:
    """What a person does to the stack with the engine's own client."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.api = stack, stack.daemon.api

    def id(self, server: str) -> str:
        return str(self.stack.containers()[server]["Id"])

    def network(self, rest: str) -> str:
        return f"{self.stack.name}_{rest}"

    def leave(self, server: str, rest: str) -> None:
        self.api.disconnect_container_from_network(self.id(server), self.network(rest))

    def leave_all(self, server: str) -> None:
        for network in self.stack.containers()[server]["NetworkSettings"]["Networks"]:
            self.api.disconnect_container_from_network(self.id(server), network)

    def lose(self, role: str, server: str) -> None:
        """A volume goes; the engine refuses that while any container has it."""
        mine = [f"{LABEL}stack={self.stack.name}", f"{LABEL}of={server}", f"{LABEL}role={role}"]
        (volume,) = self.api.volumes(filters={"label": mine})["Volumes"]
        for row in self.api.containers(all=True, filters={"volume": volume["Name"]}):
            self.api.remove_container(row["Id"], force=True)
        self.api.remove_volume(volume["Name"])

    def lose_network(self, rest: str) -> None:
        for container in self.api.inspect_network(self.network(rest))["Containers"]:
            self.api.disconnect_container_from_network(container, self.network(rest), force=True)
        self.api.remove_network(self.network(rest))


@pytest.fixture(scope="module")
def drifting(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that hands are laid on, and that each test leaves repaired."""
    folder = tmp_path_factory.mktemp("drifting") / "drifting"
    folder.mkdir()
    stack = Stack(folder, f"{token}-drifting", daemon)
    stack.port = free_port()  # type: ignore[attr-defined]
    stack.write(
        f"  edge: {{kind: proxy, http: {stack.port}, tls: 'off'}}\n"  # type: ignore[attr-defined]
        "  www: {kind: web, domains: [www.test], content: ./site}\n"
        "  db: {kind: mysql}\n"
        "  app:\n    kind: container\n    image: debian:bookworm-slim\n    command: sleep 99999\n"
        "    user: '1000:1000'\n    database: db\n    secrets: {token: {}}\n",
        site__index_dot_html="hello\n",
    )
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
        stack.purge()


@pytest.fixture
def foreign(daemon: Any, token: str) -> Iterator[str]:
    """A network that is nobody's of ours."""
    name = f"{token}theirs"
    daemon.api.create_network(name)
    yield name
    daemon.api.remove_network(name)


# By server: what is done by hand, what the plan says of it, and whether the container stays.
Hands = dict[str, tuple[Callable[[Hand], object], str, bool]]
HANDS: dict[str, Hands] = {
    "states": {
        "www": (lambda h: h.api.stop(h.id("www"), timeout=1), "it is exited", True),
        "app": (lambda h: h.api.pause(h.id("app")), "it is paused", True),
        "db": (lambda h: h.api.rename(h.id("db"), f"{h.stack.name}-old"), "somebody has called it", True),
        "edge": (lambda h: h.leave_all("edge"), "it needs", True),
    },
    "removed": {
        "www": (lambda h: h.api.remove_container(h.id("www"), force=True), "not there yet", False),
        "app": (lambda h: h.leave("app", "link_app_database"), "it needs", True),
    },
    "files lost": {
        "www": (lambda h: h.lose("config", "www"), "not there yet", False),
        "app": (lambda h: h.lose("secrets", "app"), "not there yet", False),
        "edge": (lambda h: h.lose("live", "edge"), "not there yet", False),
    },
    "data and a network lost": {
        "db": (lambda h: h.lose("data", "db"), "not there yet", False),
        "www": (lambda h: h.lose_network("route_www"), "it needs", True),
    },
}


@pytest.mark.parametrize("hands", HANDS.values(), ids=HANDS)
def test_what_the_lists_show_is_repaired(drifting: Stack, hands: Hands) -> None:
    before = drifting.containers()
    for do, _, _ in hands.values():
        do(Hand(drifting))
    rows = drifting.run("plan", "--format", "json").json["changes"]
    for server, (_, reason, _) in hands.items():
        assert any(r["server"] == server and r["reason"].startswith(reason) for r in rows), (server, rows)
    drifting.up()
    after = drifting.containers()
    assert {s for s in after if after[s]["Id"] != before[s]["Id"]} == {s for s, h in hands.items() if not h[2]}
    assert {c["State"]["Status"] for c in after.values()} == {"running"}
    for name, container in after.items():
        assert container["Name"].startswith(f"/{drifting.name}-{name}-")
        assert set(container["NetworkSettings"]["Networks"]) == set(before[name]["NetworkSettings"]["Networks"])
    assert drifting.run("plan").out.endswith("nothing to change\n")
    assert curl(f"http://www.test:{drifting.port}/").body == "hello\n"  # type: ignore[attr-defined]
    greeting = drifting.inside("app", "bash", "-c", "exec 3<>/dev/tcp/db/3306 && head -c 20 <&3 | tr -cd '[:print:]'")
    assert "10.11" in greeting[1], "the link works"


def test_a_network_that_is_not_the_stacks_is_left(drifting: Stack, foreign: str) -> None:
    """Also one that has gone while the server was down, without which the engine would not start it."""
    before, api = drifting.containers()["www"], drifting.daemon.api
    api.connect_container_to_network(before["Id"], foreign)
    (row,) = drifting.run("plan", "--format", "json").json["changes"]
    assert (row["action"], row["reason"]) == ("disconnect", f"{foreign} is no network of this stack")
    api.stop(before["Id"], timeout=1)
    api.remove_network(foreign)
    api.create_network(foreign)
    drifting.up()
    after = drifting.containers()["www"]
    assert (after["Id"], after["State"]["Running"]) == (before["Id"], True)
    assert foreign not in after["NetworkSettings"]["Networks"]
