"""Isolation, by real attempts from inside the servers of stacks/acme."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import StackFactory
from tests.engine.support import Acme, Stack, attempts, free_port, wait_until

pytestmark = pytest.mark.engine

SERVERS = ("edge", "www", "shop", "blog", "db", "mail")
LINKED = [{"edge", "www"}, {"edge", "shop"}, {"edge", "blog"}, {"blog", "db"}, {"blog", "mail"}]
KINDS = {"edge": "proxy", "www": "web", "shop": "web", "blog": "wordpress", "db": "mysql", "mail": "mail"}
MANIFESTS = Path(__file__).parents[2] / "templates"
NUMBERS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10}


def manifest(server: str) -> dict[str, Any]:
    return dict(yaml.safe_load((MANIFESTS / KINDS[server] / "kind.yml").read_text()))


def reached(stack: Stack, server: str, targets: list[tuple[str, int]], token: str = "") -> set[str]:
    """The targets, as 'host:port', that say something (`token`) to a program in `server` that connects to them."""
    code, said = stack.inside(server, *attempts(targets))
    assert code == 0, said
    return {line.partition(" ")[0] for line in said.splitlines() if token in line}


TOKEN = "reached-by-a-real-connection"
BELL = 7777
RING = f"""
use IO::Socket::INET;
alarm 120;
my $door = IO::Socket::INET->new(LocalAddr => "0.0.0.0", LocalPort => {BELL}, Listen => 50, ReuseAddr => 1) or die $!;
while (my $guest = $door->accept) {{ print $guest "{TOKEN}\\n"; close $guest }}
"""


@pytest.fixture(scope="module")
def bells(acme: Acme) -> Acme:
    """Every server of acme listens on a further port, on all its addresses, and says what nothing else would."""
    for server in SERVERS:
        container = acme.daemon.containers.get(acme.containers()[server]["Id"])
        container.exec_run(["perl", "-e", RING], detach=True)
    for server in SERVERS:
        wait_until(lambda s=server: reached(acme, s, [("127.0.0.1", BELL)], TOKEN), f"the bell of {server}")
    return acme


# Who reaches whom


def test_linked_servers_reach_each_other(bells: Acme) -> None:
    """Without this, the tests below would pass where nothing works at all."""
    assert reached(bells, "blog", [("db", 3306), ("mail", 587)]) == {"db:3306", "mail:587"}
    targets = [(host, BELL) for host in ("www", "shop", "blog")]
    assert reached(bells, "edge", targets, TOKEN) == {f"{h}:{BELL}" for h in ("www", "shop", "blog")}
    assert len(reached(bells, "blog", [(a, BELL) for a in bells.addresses("db")], TOKEN)) == 1


@pytest.mark.parametrize("server", SERVERS)
def test_servers_without_a_link_do_not_reach_each_other(bells: Acme, server: str) -> None:
    """Neither by name nor by any address: mail no database, a site no other, the proxy no database."""
    others = [b for a, b in permutations(SERVERS, 2) if a == server and {a, b} not in LINKED]
    assert others
    targets = [(host, BELL) for other in others for host in (other, *bells.addresses(other))]
    # While it makes a network for anybody, Docker takes its isolation rules away for some milliseconds and puts them
    # back. What is open in that moment alone, between front networks, is the engine's, and not what is tested here.
    for _ in range(3):
        targets = [(h, int(p)) for h, _, p in (t.partition(":") for t in reached(bells, server, targets, TOKEN))]
    assert targets == []


def test_only_who_is_linked_speaks_to_the_database(acme: Acme) -> None:
    addresses = [(host, 3306) for host in ("db", *acme.addresses("db"))]
    assert reached(acme, "blog", addresses, "MariaDB")
    for server in ("mail", "edge", "www", "shop"):
        assert reached(acme, server, addresses, "MariaDB") == set(), server


def test_the_database_is_not_published(acme: Acme) -> None:
    assert acme.containers()["db"]["HostConfig"]["PortBindings"] in ({}, None)
    assert acme.containers()["db"]["Config"].get("ExposedPorts") in ({}, None)


@pytest.fixture
def host_service() -> Iterator[int]:
    """The port of something that listens on every address of the host."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(64)

        def serve() -> None:
            try:
                while True:
                    with listener.accept()[0] as guest:
                        guest.sendall(f"{TOKEN}\n".encode())
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def gateways(stack: Stack) -> list[str]:
    """Addresses that the host has, or could have, on the bridges that this stack's servers are on."""
    networks = stack.daemon.api.networks(filters={"label": f"io.consolidate.stack={stack.name}"})
    pools = [pool for network in networks for pool in network["IPAM"]["Config"]]
    return [p.get("Gateway") or p["Subnet"].replace(".0/28", ".1") for p in pools]


def internal_gateways(stack: Stack, server: str) -> list[str]:
    routes = [r.split() for r in stack.inside(server, "cat", "/proc/net/route")[1].splitlines()[1:]]
    return [socket.inet_ntoa(int(r[2], 16).to_bytes(4, "little")) for r in routes if r[1] == "00000000"]


def answers(targets: list[tuple[str, int]]) -> bool:
    """Whether this machine itself gets the token from any of the targets."""
    for target in targets:
        with socket.create_connection(target, 5) as connection:
            if TOKEN.encode() in connection.recv(100):
                return True
    return False


def host_bridges() -> list[str]:
    """The host's addresses on its own bridges: Docker's default one, and others'."""
    said = subprocess.run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\d+: (docker0|br-\w+) +inet ([\d.]+)/", said)
    return [address for _, address in found][:8]


@pytest.mark.parametrize("server", ["www", "shop", "db"])
def test_a_server_without_egress_reaches_neither_the_host_nor_the_outside(
    acme: Acme, host_service: int, server: str
) -> None:
    addresses = {a.partition("/")[0] for a in [*gateways(acme), *host_bridges()]}
    targets = [(a, host_service) for a in addresses]
    assert answers([("127.0.0.1", host_service)]), "it does listen"
    assert reached(acme, server, targets, TOKEN) == set()
    # The engine gives a default route even here, through an address that nobody has.
    ours = set(
        re.findall(r"inet ([\d.]+)/", subprocess.run(["ip", "-4", "address"], capture_output=True, text=True).stdout)
    )
    assert {a.partition("/")[0] for a in internal_gateways(acme, server)} & ours == set()


def test_a_server_with_egress_has_a_way_out_and_a_resolver(acme: Acme) -> None:
    for server in ("blog", "mail"):
        routes = acme.inside(server, "cat", "/proc/net/route")[1].splitlines()[1:]
        default = [r.split() for r in routes if r.split()[1] == "00000000"]
        assert len(default) == 1
        front = acme.containers()[server]["NetworkSettings"]["Networks"][f"{acme.name}_front_{server}"]
        gateway = socket.inet_ntoa(int(default[0][2], 16).to_bytes(4, "little"))
        assert gateway == front["Gateway"], "the way out is its own front network"
        assert "nameserver 127.0.0.11" in acme.inside(server, "cat", "/etc/resolv.conf")[1]
        network = acme.daemon.api.inspect_network(f"{acme.name}_front_{server}")
        assert network["Options"].get("com.docker.network.bridge.enable_ip_masquerade", "true") == "true"
    code, _ = acme.inside("blog", "getent", "ahostsv4", "db")
    assert code == 0


def test_a_server_that_publishes_without_egress_is_not_led_out(acme: Acme) -> None:
    """Its front network answers the host, but what it sends to the outside keeps an address that leads nowhere."""
    network = acme.daemon.api.inspect_network(f"{acme.name}_entry_edge")
    assert network["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"


def test_front_networks_are_not_shared_and_the_others_have_no_address_of_the_host(acme: Acme) -> None:
    for row in acme.daemon.api.networks(filters={"label": f"io.consolidate.stack={acme.name}"}):
        network = acme.daemon.api.inspect_network(row["Id"])
        members = len(network["Containers"])
        if network["Labels"]["io.consolidate.role"] == "front":
            assert members == 1, network["Name"]
        else:
            assert members == 2, network["Name"]
            assert network["Internal"]
            assert network["Options"]["com.docker.network.bridge.inhibit_ipv4"] == "true"


# What is open on the host


def listening() -> dict[int, set[str]]:
    """Ports that are listened on in this network namespace, with their addresses."""
    found: dict[int, set[str]] = {}
    for file, size in (("/proc/net/tcp", 4), ("/proc/net/tcp6", 16)):
        for line in Path(file).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, port = local.split(":")
                words = [bytes.fromhex(address)[i : i + 4][::-1] for i in range(0, size, 4)]
                family = socket.AF_INET if size == 4 else socket.AF_INET6
                found.setdefault(int(port, 16), set()).add(socket.inet_ntop(family, b"".join(words)))
    return found


def test_only_declared_ports_are_open_and_only_on_the_declared_address(acme: Acme) -> None:
    declared = {acme.http, acme.https, acme.submission, acme.submissions, acme.imaps}
    published = [
        (binding["HostIp"], int(binding["HostPort"]))
        for container in acme.containers().values()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert {p for _, p in published} == declared
    assert {a for a, _ in published} == {"127.0.0.1"}
    open_ports = listening()
    assert {p: open_ports[p] for p in declared} == {p: {"127.0.0.1"} for p in declared}


# Inside a container


@pytest.mark.parametrize("server", SERVERS)
def test_no_container_has_the_engines_socket_or_a_folder_of_the_host(acme: Acme, server: str) -> None:
    container = acme.containers()[server]
    assert {m["Type"] for m in container["Mounts"]} <= {"volume", "tmpfs"}
    assert container["HostConfig"]["Binds"] in (None, [])
    assert container["HostConfig"]["Privileged"] is False
    assert container["HostConfig"]["Devices"] in (None, [])
    for mode in ("PidMode", "UTSMode", "UsernsMode"):
        assert container["HostConfig"][mode] == ""
    _, said = acme.inside(server, "bash", "-c", "find / -xdev -name 'docker*.sock' 2>/dev/null; ls /run/docker* 2>&1")
    assert "docker.sock" not in said, said
    mounts = acme.inside(server, "cat", "/proc/self/mounts")[1]
    assert "docker.sock" not in mounts


@pytest.mark.parametrize("server", SERVERS)
def test_root_file_configuration_and_secrets_can_not_be_written(acme: Acme, server: str) -> None:
    """Not by the server's user, and not by root in it."""
    folders = ["/", "/etc", "/usr/bin", "/config", "/home"]
    folders += (
        ["/live", "/live/current"]
        if any("/live" in m["Destination"] for m in acme.containers()[server]["Mounts"])
        else []
    )
    folders += (
        ["/run/secrets"] if any(m["Destination"] == "/run/secrets" for m in acme.containers()[server]["Mounts"]) else []
    )
    tries = "for f; do LC_ALL=C touch $f/x 2>&1 && echo $f was written to; done; echo tried"
    for user in ("", "0"):
        *refused, end = acme.inside(server, "sh", "-c", tries, "sh", *folders, user=user)[1].splitlines()
        assert (len(refused), end) == (len(folders), "tried"), refused
        assert [r for r in refused if not r.endswith(("Read-only file system", "Permission denied"))] == []
    assert acme.containers()[server]["HostConfig"]["ReadonlyRootfs"] is True


def test_secrets_are_their_users_alone(acme: Acme) -> None:
    for server in SERVERS:
        _, said = acme.inside(server, "sh", "-c", "stat -c '%a %u %n' /run/secrets/* 2>/dev/null || true", user="0")
        user = acme.containers()[server]["Config"]["User"].partition(":")[0]
        for line in said.splitlines():
            mode, owner, name = line.split()
            assert (mode, owner) == ("400", user), f"{server} {name}"


@pytest.mark.parametrize("server", SERVERS)
def test_capabilities_are_the_manifests_and_privileges_do_not_grow(acme: Acme, server: str) -> None:
    declared = manifest(server).get("capabilities", [])
    allowed = sum(1 << NUMBERS[c] for c in declared)
    said = acme.inside(server, "bash", "-c", "grep -hE '^(Pid|CapBnd|CapPrm|CapEff|NoNewPrivs):' /proc/[0-9]*/status")[
        1
    ]
    rows = re.findall(
        r"Pid:\t(\d+)\n.*?CapPrm:\t(\w+)\nCapEff:\t(\w+)\nCapBnd:\t(\w+)\n.*?NoNewPrivs:\t(\d)", said, re.DOTALL
    )
    assert len(rows) > 2
    bounding = {pid: int(bnd, 16) for pid, _, _, bnd, _ in rows}
    assert bounding["1"] == allowed
    assert all(b & ~allowed == 0 for b in bounding.values())
    assert all(int(prm, 16) & ~allowed == 0 and int(eff, 16) & ~allowed == 0 for _, prm, eff, _, _ in rows)
    assert {no_new for *_, no_new in rows} == {"1"}
    if server != "mail":
        assert declared == []
        assert acme.containers()[server]["Config"]["User"].partition(":")[0] not in ("", "0", "root")


@pytest.mark.parametrize("server", SERVERS)
def test_limits_are_in_force(acme: Acme, server: str) -> None:
    script = """
        first() { for file; do [ -e "$file" ] && { cat "$file"; return; }; done; }
        first /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes
        first /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max
        if [ -e /sys/fs/cgroup/cpu.max ]; then cat /sys/fs/cgroup/cpu.max
        else echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi
    """
    memory, pids, cpu = acme.inside(server, "bash", "-c", script)[1].splitlines()
    stack = yaml.safe_load(acme.file.read_text())["servers"][server]
    wanted = manifest(server)["resources"] | stack.get("resources", {})
    assert int(memory) == int(wanted["memory"].removesuffix("M")) * 2**20
    assert int(pids) == wanted["pids"]
    quota, period = map(int, cpu.split())
    assert quota / period == pytest.approx(wanted["cpus"])
    inspected = acme.containers()[server]["HostConfig"]
    assert inspected["MemorySwap"] == inspected["Memory"] == int(memory), "no swap on top"


def test_a_program_that_wants_more_than_its_limits_does_not_get_it(make_stack: StackFactory, python_image: str) -> None:
    stack = make_stack("greedy")
    stack.write(
        f"  hog: {{kind: container, image: '{python_image}', command: sleep 999, user: '1000:1000',"
        " resources: {memory: 64M, pids: 20, cpus: 0.5}}\n"
    )
    stack.up()
    processes = (
        "import os, time\nmade = []\ntry:\n  while len(made) < 100:\n    made.append(os.fork())\n"
        "    if not made[-1]: time.sleep(30); os._exit(0)\nexcept OSError: pass\n"
        "for one in made: os.kill(one, 9); os.waitpid(one, 0)\nprint(len(made))"
    )
    code, said = stack.inside("hog", "python3", "-c", processes)
    assert code == 0
    assert 0 < int(said) < 20
    code, _ = stack.inside("hog", "python3", "-c", "print(len(bytearray(200 * 2**20)))")
    assert code == 137, "the kernel ended it"
    assert stack.containers()["hog"]["State"]["Running"]
    assert stack.inside("hog", "python3", "-c", "print(len(bytearray(20 * 2**20)))") == (0, f"{20 * 2**20}\n")


def test_logs_do_not_fill_the_disk(acme: Acme) -> None:
    for container in acme.containers().values():
        log = container["HostConfig"]["LogConfig"]
        assert log["Type"] == "local"
        assert log["Config"] == {"max-size": "10m", "max-file": "3"}


# Secrets


def fragments(value: str) -> list[str]:
    """What would give a secret away: a password itself, or a line of a private key."""
    if "PRIVATE KEY" not in value:
        return [value] if "BEGIN CERTIFICATE" not in value else []
    body = value[value.index("PRIVATE KEY-----") :].splitlines()[1:]
    return [line for line in body if len(line) >= 40 and not line.startswith("-----")][:3]


def test_secrets_are_nowhere_but_in_their_files(acme: Acme) -> None:
    """Not in what the engine tells of containers, images, networks and volumes, not in a process, not in a log."""
    secrets = {a: fragments(v) for a, v in acme.stored_secrets().items()}
    assert {"blog/admin_password", "blog/database_password", "mail/ada@acme.test", "edge/authority"} <= set(secrets)
    assert all(secrets.values())
    api = acme.daemon.api
    mine = {"label": f"io.consolidate.stack={acme.name}"}
    places: dict[str, str] = {}
    for row in api.containers(all=True, filters=mine):
        name = row["Names"][0]
        places[f"inspect of {name}"] = json.dumps(api.inspect_container(row["Id"])) + json.dumps(row)
        places[f"log of {name}"] = api.logs(row["Id"]).decode(errors="replace")
        image = api.inspect_image(row["ImageID"])
        places[f"image of {name}"] = json.dumps(image) + json.dumps(api.history(row["ImageID"]))
        if row["State"] == "running":
            for process in api.top(row["Id"], "-eo pid,args")["Processes"]:
                folder = Path("/proc") / process[0]
                for file in ("environ", "cmdline"):
                    try:
                        places[f"{file} of {process[1]} in {name}"] = (folder / file).read_text(errors="replace")
                    except OSError:  # it has ended, or the engine is on another machine
                        continue
    places["networks"] = json.dumps(api.networks(filters=mine))
    places["volumes"] = json.dumps(api.volumes(filters=mine))
    assert any(p.startswith("environ of") for p in places)
    shown = [
        f"{address} in the {place}"
        for place, text in places.items()
        for address, parts in secrets.items()
        if any(part in text or json.dumps(part)[1:-1] in text for part in parts)
    ]
    assert shown == []


def test_no_secret_is_printed(acme: Acme, tmp_path: Path) -> None:
    """Not by a verb that tells, and not in a rendered file; only `secret show` does."""
    said = {
        " ".join(words): acme.run(*words).both
        for words in (
            ("plan",),
            ("plan", "--format", "json"),
            ("ps", "--format", "json"),
            ("secret", "list", "--format", "json"),
            ("render",),
            ("logs",),
        )
    }
    acme.run("render", "--out", str(tmp_path / "out"))
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            said[str(file.relative_to(tmp_path))] = file.read_text(errors="replace")
    secrets = {a: fragments(v) for a, v in acme.stored_secrets().items()}
    shown = [f"{a} by {w}" for w, text in said.items() for a, parts in secrets.items() if any(p in text for p in parts)]
    assert shown == []
    assert acme.secret("blog/admin_password") == acme.stored_secrets()["blog/admin_password"]


def test_a_server_that_publishes_on_all_addresses_says_so(make_stack: StackFactory) -> None:
    stack = make_stack("wide")
    stack.write(f"  www: {{kind: web, publish: ['0.0.0.0:{free_port()}:80']}}\n")
    assert "publishes on every address of the host" in stack.run("plan").out
