"""What the host sets bounds to: ports, memory, processors and subnets."""

from __future__ import annotations

import ipaddress
import socket
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate import console
from consolidate.fit import _held, host_problems, host_warnings
from consolidate.observed import HostFacts, Observed, ObservedNetwork, free_subnets
from consolidate.plan import Plan
from consolidate.resolve.ports import _clash
from consolidate.resolved import Publish, Resolved
from consolidate.source import Source, load_stack
from consolidate.stack import parse_publish

GIB = 2**30
addresses = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "::1"])
)
publishes = st.builds(
    Publish, address=addresses, port=st.integers(1, 9), target=st.just(80), protocol=st.sampled_from(["tcp", "udp"])
)


def resolved(folder: Path, text: str) -> Resolved:
    file = folder / "stack.yml"
    file.write_text(f"stack: t\n{text}")
    return load_stack(Source(file))


def facts(memory: int = 4 * GIB, cpus: int = 2) -> HostFacts:
    return HostFacts(name="host", memory=memory, cpus=cpus)


MEMORY = """\
host: {reserve: {memory: 1G}}
servers:
  a: {kind: web, resources: {memory: 1G}}
  b-{i}: {for: {i: 1..2}, kind: web, resources: {memory: 1536M}}
  c: {kind: web}
"""


def test_a_reserve_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    """Also where no server has a limit of its own: the problem is at the reserve."""
    stack = resolved(tmp_path, "host: {reserve: {memory: 4G}}\nservers: {a: {kind: web}}\n")
    (problem,) = host_problems(stack, facts(4 * GIB), ())
    assert problem.what == "the host has 4096M, all of which is reserved"
    assert problem.path == "host.reserve.memory"
    assert str(problem.place).endswith("stack.yml:2:26")


def test_memory_beyond_the_host_is_refused(tmp_path: Path) -> None:
    """Explicit limits that add up to more than the host has after the reserve are one problem, at the largest of them."""
    stack = resolved(tmp_path, MEMORY)
    (problem,) = host_problems(stack, facts(5 * GIB - 1), ())
    assert problem.what == "the memory limits add up to 4096M, and the host has 4095M for servers"
    assert str(problem.place).endswith("stack.yml:5:58")
    assert problem.path == "servers.b-1.resources.memory"
    assert (
        problem.hint == "lower some of them; the largest are b-1 1536M, b-2 1536M, a 1024M; host.reserve keeps the rest"
    )


def test_memory_that_the_host_has_is_taken(tmp_path: Path) -> None:
    """Just enough is enough, and a kind's own limits don't count."""
    assert host_problems(resolved(tmp_path, MEMORY), facts(5 * GIB), ()) == []
    many = "servers:\n  s-{i}: {for: {i: 1..100}, kind: web}\n"
    assert host_problems(resolved(tmp_path, many), facts(GIB), ()) == []


def test_processors_may_be_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Explicit cpus beyond those of the host are no problem but a warning, which the plan shows."""
    stack = resolved(
        tmp_path, "servers:\n  s-{i}: {for: {i: 1..3}, kind: web, resources: {cpus: 2}}\n  c: {kind: web}\n"
    )
    assert host_problems(stack, facts(), ()) == []
    assert host_warnings(stack, facts(cpus=6)) == ()
    (warning,) = host_warnings(stack, facts(cpus=2))
    assert warning == "cpus add up to 6, the host has 2: they will share"
    console.show_plan(Plan("t", ()), "table", [warning])
    assert f"note: {warning}" in capsys.readouterr().out


def test_reserved_processors_are_not_the_servers_own(tmp_path: Path) -> None:
    """What host.reserve keeps is not there to be given away."""
    stack = resolved(tmp_path, "host: {reserve: {cpus: 0.5}}\nservers:\n  a: {kind: web, resources: {cpus: 1.75}}\n")
    assert host_warnings(stack, facts(cpus=2)) == (
        "cpus add up to 1.75, the host has 2 (0.5 of them reserved): they will share",
    )


PORTS = """\
servers:
  edge: {kind: proxy, http: "0.0.0.0:80", https: 8443}
  s-{i}: {for: {i: 1..2}, kind: web, publish: ["999{i}:80"]}
"""


@pytest.mark.parametrize(
    ("taken", "place", "path"),
    [
        (("127.0.0.1", 80, "tcp", "nginx"), "3:29", "servers.edge.http"),
        (("::", 80, "tcp", "nginx"), "3:29", "servers.edge.http"),
        (("0.0.0.0", 8443, "tcp", "nginx"), "3:50", "servers.edge.https"),
        (("127.0.0.1", 9992, "tcp", "nginx"), "4:48", "servers.s-2.publish[0]"),
    ],
)
def test_a_port_of_somebody_else_is_refused(
    tmp_path: Path, taken: tuple[str, int, str, str], place: str, path: str
) -> None:
    """A port that another program or container holds is a problem where the stack asks for it."""
    (problem,) = host_problems(resolved(tmp_path, PORTS), facts(), [taken, ("127.0.0.1", 5, "tcp", "x")])
    assert str(problem.place).endswith(f"stack.yml:{place}")
    assert problem.path == path
    assert problem.what.endswith(f":{taken[1]} of the host is taken by nginx")
    assert problem.hint


@pytest.mark.parametrize(
    "taken", [("10.0.0.1", 8443, "tcp", "x"), ("0.0.0.0", 80, "udp", "x"), ("::1", 8443, "tcp", "x")]
)
def test_another_address_or_protocol_is_free(tmp_path: Path, taken: tuple[str, int, str, str]) -> None:
    """What is bound elsewhere is in nobody's way."""
    assert host_problems(resolved(tmp_path, PORTS), facts(), [taken]) == []


@given(publishes, publishes)
def test_a_clash_has_two_sides(one: Publish, other: Publish) -> None:
    """Two ports clash in either order, each with itself, and never across protocols."""
    assert _clash(one, other) == _clash(other, one)
    assert _clash(one, one)
    assert not (_clash(one, other) and one.protocol != other.protocol)
    assert not _clash(one, other) or _held(one, other.address)


@given(publishes, st.booleans())
def test_a_published_port_is_read_back(publish: Publish, bare: bool) -> None:
    """Every port written as the documentation says is understood, and without an address it is this machine's alone."""
    host, suffix = publish.host, "" if publish.protocol == "tcp" else "/udp"
    assert parse_publish(f"{host}:{publish.target}{suffix}") == publish
    if bare:
        found = parse_publish(f"{publish.port}:{publish.target}{suffix}")
        assert (found.address, found.port, found.protocol) == ("127.0.0.1", publish.port, publish.protocol)


@given(st.text("0123456789:.[]/abcdtup%-\n ²８", max_size=24))
def test_what_is_published_is_an_address_and_two_ports(text: str) -> None:
    """Whatever the text, the result is a real address without a zone and ports in range, or one ValueError."""
    try:
        found = parse_publish(text)
    except ValueError:
        return
    assert "%" not in found.address
    assert str(ipaddress.ip_address(found.address)) == found.address
    assert {found.port, found.target} <= set(range(1, 65536))
    assert found.protocol in ("tcp", "udp")


networks = st.builds(
    lambda address, prefix: str(ipaddress.ip_network((address, prefix), strict=False)),
    st.integers(0x0AD50000 - 300, 0x0AD50000 + 70_000),
    st.integers(14, 32),
) | st.just("fd00::/64")


@given(
    taken=st.lists(networks, max_size=12),
    foreign=st.lists(networks, max_size=12),
    pool=st.integers(16, 26),
    prefix=st.integers(26, 29),
    count=st.integers(0, 12),
)
def test_subnets_are_free_distinct_and_of_the_pool(
    taken: list[str], foreign: list[str], pool: int, prefix: int, count: int
) -> None:
    """Subnets overlap nothing that the engine has nor each other; the pool counts as full only when it is."""
    network = ipaddress.ip_network(f"10.213.0.0/{pool}")
    own = tuple(ObservedNetwork(str(i), f"n{i}", {}, (subnet,)) for i, subnet in enumerate(taken))
    observed = Observed("t", facts(), networks=own, foreign_subnets=tuple(foreign))
    used = [ipaddress.ip_network(n) for n in (*taken, *foreign)]
    free = [s for s in network.subnets(new_prefix=prefix) if not any(s.overlaps(u) for u in used if u.version == 4)]
    if len(free) < count:
        with pytest.raises(ValueError, match="no room"):
            free_subnets(observed, str(network), count, prefix)
        return
    found = [ipaddress.ip_network(s) for s in free_subnets(observed, str(network), count, prefix)]
    assert found == free[:count]
    assert not any(a.overlaps(b) for a, b in pairwise(found))


def test_ports_are_the_programs_of_their_own_protocol() -> None:
    """A port of UDP is taken by a program that takes datagrams there, and not by one that listens for TCP."""
    from consolidate.doctor import Endpoint, clashes, listeners

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = [one for one in listeners() if one.port == port]
        assert Endpoint("127.0.0.1", port, protocol="udp") in found
        assert clashes([Endpoint("127.0.0.1", port, protocol="udp")], found)
        assert not clashes([Endpoint("127.0.0.1", port)], [one for one in found if one.protocol == "udp"])
