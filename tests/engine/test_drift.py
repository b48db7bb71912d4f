"""What somebody changed by hand: the plan shows it, `up` repairs it, and no other server is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from consolidate.actions import ConnectNetwork, CreateContainer, DisconnectNetwork, NameOnNetwork, StopContainer
from consolidate.docker_engine import connect
from consolidate.pipeline import prepare
from consolidate.plan import Plan
from consolidate.source import Source
from tests.engine.recorder import recorded
from tests.engine.support import LABEL, Stack, curl, free_port, in_container
from tests.implied import implied_by

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

    def volume(self, role: str, server: str) -> str:
        mine = {f"{LABEL}stack": self.stack.name, f"{LABEL}of": server, f"{LABEL}role": role}
        (name,) = (v["Name"] for v in self.api.volumes()["Volumes"] if mine.items() <= (v["Labels"] or {}).items())
        return str(name)

    def lose(self, role: str, server: str) -> None:
        """A volume goes; the engine refuses that while any container has it."""
        volume = self.volume(role, server)
        for row in self.api.containers(all=True, filters={"volume": volume}):
            self.api.remove_container(row["Id"], force=True)
        self.api.remove_volume(volume)

    def lose_network(self, rest: str) -> None:
        for container in self.api.inspect_network(self.network(rest))["Containers"]:
            self.api.disconnect_container_from_network(container, self.network(rest), force=True)
        self.api.remove_network(self.network(rest))


@pytest.fixture(scope="module")
def handled(daemon: Any, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that hands are laid on."""
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
        yield stack
    finally:
        stack.destroy()
        stack.purge()


@pytest.fixture
def drifting(handled: Stack) -> Stack:
    """The same, with nothing left of what an earlier test may have done to it."""
    handled.up()
    return handled


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
    },
    "off all networks": {
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


def edited(hand: Hand, role: str, server: str, script: str) -> None:
    """Somebody edits the files of a volume, with a container of their own."""
    volumes = {hand.volume(role, server): {"bind": "/v", "mode": "rw"}}
    in_container(hand.stack.daemon, "debian:bookworm-slim", ["bash", "-ec", script], volumes=volumes)


def recreated(hand: Hand) -> None:
    """What graphical tools do: another container in place of ours, with our labels and one more variable."""
    found = hand.stack.containers()["app"]
    hand.api.remove_container(found["Id"], force=True)
    config = found["Config"] | {"HostConfig": found["HostConfig"] | {"CapAdd": ["NET_RAW"]}}
    config["Env"] = [*config["Env"], "PASSWORD=hunter2-by-hand"]
    (first, *more) = found["NetworkSettings"]["Networks"]
    config["NetworkingConfig"] = {"EndpointsConfig": {first: {"Aliases": ["app"]}}}
    made = hand.api.create_container_from_config(config, found["Name"][1:])["Id"]
    for network in more:
        hand.api.connect_container_to_network(made, network, aliases=["app"])
    hand.api.start(made)


def test_what_only_a_closer_look_shows_is_repaired_too(drifting: Stack) -> None:
    """Limits in place, edited files in a new volume or folder, so that no program reads half a configuration."""
    hand, before = Hand(drifting), drifting.containers()
    whole = drifting.inside("www", "cat", "/config/nginx.conf")[1]
    routes = drifting.inside("edge", "bash", "-c", "cat /live/current/*")[1]
    hand.api.update_container(
        hand.id("db"), mem_limit="500m", memswap_limit="600m", restart_policy={"Name": "on-failure"}
    )
    edited(hand, "config", "www", "echo '# by hand' >> /v/nginx.conf; touch /v/leftover.key")
    edited(hand, "live", "edge", "for f in /v/current/*; do echo '# by hand' >> $f; done")
    recreated(hand)

    assert drifting.run("plan").out.endswith("nothing to change\n")
    shown = drifting.run("plan", "--drift", "--format", "json", "--detailed-exitcode", status=2)
    rows = {(r["server"], r["action"]): r for r in shown.json["changes"]}
    memory = before["db"]["HostConfig"]["Memory"] // 2**20
    assert rows["db", "set limits"]["fields"] == [
        {"field": "memory", "old": "500M", "new": f"{memory}M"},
        {"field": "restart", "old": "on-failure", "new": "always"},
        {"field": "swap", "old": "100M", "new": None},
    ]
    assert rows["db", "set limits"]["impact"] == "none"
    assert {r["server"] for r in rows.values()} >= {"db", "www", "edge", "app"}
    assert [f["field"] for f in rows["www", "create"]["fields"]] == ["file nginx.conf", "foreign file leftover.key"]
    assert {f["field"] for f in rows["app", "create"]["fields"]} == {"capabilities", "environment PASSWORD"}
    assert rows["edge", "write live files"]["impact"] == "reload"
    assert "hunter2" not in shown.both
    diffs = {(f["server"], f["file"]): f["diff"] for f in shown.json["files"]}
    assert "-# by hand" in diffs["www", "nginx.conf"].splitlines()
    assert any("-# by hand" in d.splitlines() for (server, _), d in diffs.items() if server == "edge")
    assert ("www", "leftover.key") not in diffs

    drifting.up("--drift")
    after = drifting.containers()
    for server in ("db", "edge"):
        assert after[server]["State"]["StartedAt"] == before[server]["State"]["StartedAt"]
    for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "RestartPolicy"):
        assert after["db"]["HostConfig"][key] == before["db"]["HostConfig"][key]
    assert drifting.inside("www", "cat", "/config/nginx.conf")[1] == whole
    assert drifting.inside("www", "ls", "/config/leftover.key")[0] != 0
    assert drifting.inside("edge", "bash", "-c", "cat /live/current/*")[1] == routes
    assert "hunter2" not in str(after["app"]["Config"]["Env"])
    assert drifting.run("plan", "--drift").out.endswith("nothing to change\n")
    assert drifting.run("plan").out.endswith("nothing to change\n")
    assert curl(f"http://www.test:{drifting.port}/").body == "hello\n"  # type: ignore[attr-defined]


def test_a_secret_that_was_edited_is_not_shown(drifting: Stack) -> None:
    """Neither what it was nor what somebody made of it; the server gets its own again."""
    value = drifting.secret("app/token")
    edited(Hand(drifting), "secrets", "app", "echo hunter2-by-hand > /v/token")
    shown = drifting.run("plan", "--drift")
    assert "changed by hand: secret token changed" in " ".join(shown.out.split())
    assert not [w for w in ("hunter2", value) if w in shown.both]
    drifting.up("--drift")
    assert drifting.inside("app", "cat", "/run/secrets/token") == (0, value)


def test_an_up_writes_what_its_plan_says_and_nothing_else(drifting: Stack) -> None:
    """Each call that changes the engine is one that an operation of the plan stands for, and none of those is missing."""
    text = drifting.file.read_text()
    for old, new in (("./site}", "./site, spa: true}"), ("{token: {}}\n", "{token: {}}\n    environment: {A: b}\n")):
        text = text.replace(new, old) if new in text else text.replace(old, new)
    drifting.file.write_text(text)
    drifting.daemon.api.stop(drifting.containers()["db"]["Id"], timeout=5)
    engine = connect()
    try:
        plan = prepare(Source(drifting.file), engine).plan
        with recorded() as recording:
            drifting.up(env={"DOCKER_HOST": recording.url})
    finally:
        engine.client.close()
    assert {o.server for o in plan.operations} == {"www", "app", "db"}
    made, wanted, allowed = written(recording.calls), *stood_for(plan)
    assert made - wanted - allowed == {("create", f"{drifting.name}.lock"), ("remove", "an id")}
    assert wanted - made == set()


CALL = re.compile(r"(?P<method>\w+) /v[\d.]+/(?P<what>\w+)/(?P<which>[^/?]+)(?:/(?P<verb>\w+))?(?:\?(?P<query>.*))?")


def written(calls: list[str]) -> set[tuple[str, str]]:
    """What was done to what, from the requests that came to the engine; writers of files come and go by themselves."""
    found = set()
    for call in calls:
        if re.match(r"GET |HEAD |POST /v[\d.]+/exec/", call):  # a program in a container is made, which counts, and run
            continue
        parsed = CALL.fullmatch(call)
        assert parsed, call
        method, what, which, verb, query = parsed.groups()
        name = parse_qs(query or "").get("name", [""])[0]
        kind = "" if what == "containers" else f"_{what[:-1]}"
        if which == "create":
            done = ("create" + kind, name if what == "containers" else "")
        elif method == "DELETE":
            done = ("remove" + kind, "an id" if re.fullmatch("[0-9a-f]{64}", which) else which)
        else:
            done = ({"exec": "run", "archive": "put"}.get(verb, verb), which)
        if not done[1].endswith(".writer"):
            found.add(done)
    return found


def stood_for(plan: Plan) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What the operations of a plan do to what; and what some may do: run a check if there is one, replace a helper."""
    wanted: set[tuple[str, str]] = set()
    allowed: set[tuple[str, str]] = set()
    for action in (o.action for o in plan.operations):
        match action:
            case ConnectNetwork(network=network):
                wanted.add(("connect", network))
            case DisconnectNetwork(network=network):
                wanted.add(("disconnect", network))
            case NameOnNetwork(network=network):
                wanted |= {("disconnect", network), ("connect", network)}
            case StopContainer(name=name):  # and the engine is told not to start it again by itself
                wanted |= {("stop", name), ("update", name)}
            case CreateContainer(name=name, networks=networks):
                wanted |= {("create", name), *(("connect", n) for n in networks[1:])}
            case _:
                for call, name in implied_by([action]):
                    if call == "create_helper":
                        wanted.add(("create", name))
                        allowed.add(("remove", name))
                    elif call == "run":
                        allowed.add((call, name))
                    else:
                        wanted.add((call, "" if call in ("create_network", "create_volume") else name))
    return wanted, allowed
