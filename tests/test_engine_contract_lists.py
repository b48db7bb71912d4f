"""What every engine does with networks, volumes, its lists and the lock: the other half of the suite."""

from __future__ import annotations

from typing import Any

import pytest

from consolidate import naming
from consolidate.actions import CreateNetwork
from consolidate.docker_engine import DockerEngine
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.naming import BASE_IMAGE
from tests.conftest import clear
from tests.contract_parts import POOL, creation, members, mount, network, publish, seen, started, tar_of
from tests.engine.support import free_port


def owned(stack: str) -> dict[str, str]:
    return {naming.STACK: stack, naming.OF: "one"}


# Networks


def test_a_container_is_on_its_networks_before_it_starts(engine: Engine, stack_name: str) -> None:
    """A created container is on all networks that it was created with, and gets addresses once it runs."""
    names = (network(engine, stack_name, "a"), network(engine, stack_name, "b"))
    made = creation(stack_name, networks=names)
    engine.create(made)
    assert dict(seen(engine, stack_name, made.name).networks) == dict.fromkeys(names, "")
    engine.start(made.name)
    assert all(seen(engine, stack_name, made.name).networks.values())


def test_connecting_and_disconnecting_again_change_nothing(engine: Engine, stack_name: str) -> None:
    """Both may be repeated: the container is on the network, or it isn't."""
    net = network(engine, stack_name, "a")
    name = started(engine, stack_name, networks=(network(engine, stack_name, "b"),))
    for _ in range(2):
        engine.connect(name, net, "one")
    assert net in seen(engine, stack_name, name).networks
    for _ in range(2):
        engine.disconnect(name, net)
    assert net not in seen(engine, stack_name, name).networks


def test_a_container_tells_the_names_that_it_was_given(engine: Engine, stack_name: str) -> None:
    """By network, from when it is given one until it leaves."""
    first, second = network(engine, stack_name, "a"), network(engine, stack_name, "b")
    name = started(engine, stack_name, networks=(first,))
    assert "one" in engine.state(name).names[first]
    assert second not in engine.state(name).names
    engine.connect(name, second, "other")
    assert "other" in engine.state(name).names[second]
    assert "other" not in engine.state(name).names[first]
    engine.disconnect(name, second)
    assert second not in engine.state(name).names


def test_a_container_off_all_its_networks_can_join_one(engine: Engine, stack_name: str) -> None:
    """It was made for networks: having left the last one, it gets an address on the next."""
    net = network(engine, stack_name, "a")
    name = started(engine, stack_name, networks=(net,))
    engine.disconnect(name, net)
    assert (dict(seen(engine, stack_name, name).networks), seen(engine, stack_name, name).alone) == ({}, False)
    engine.connect(name, net, "one")
    assert seen(engine, stack_name, name).networks[net]


def test_a_container_made_without_a_network_joins_none(engine: Engine, stack_name: str) -> None:
    """Only a new container gets such a server onto a network."""
    name = started(engine, stack_name)
    assert seen(engine, stack_name, name).alone
    with pytest.raises(OperationFailed, match=r"private \(none\) mode|invalid network mode"):
        engine.connect(name, network(engine, stack_name, "a"), "one")
    assert not seen(engine, stack_name, name).networks


def test_a_stopped_container_can_be_connected(engine: Engine, stack_name: str) -> None:
    """A container joins a network before it starts, and keeps it when it does."""
    net = network(engine, stack_name, "a")
    made = creation(stack_name, networks=(network(engine, stack_name, "b"),))
    engine.create(made)
    engine.connect(made.name, net, "one")
    engine.start(made.name)
    assert net in seen(engine, stack_name, made.name).networks


def test_joining_a_network_that_is_not_there_is_refused(engine: Engine, stack_name: str) -> None:
    """The refusal names the network."""
    name = started(engine, stack_name, networks=(network(engine, stack_name, "a"),))
    with pytest.raises(OperationFailed, match=f"network {stack_name}_none not found|with name or ID {stack_name}_none"):
        engine.connect(name, f"{stack_name}_none", "one")


def test_a_network_with_running_members_stays(engine: Engine, stack_name: str) -> None:
    """A network goes once its last running member has: a stopped one does not hold it."""
    net = network(engine, stack_name, "a")
    name = started(engine, stack_name, networks=(net,))
    with pytest.raises(OperationFailed, match=r"has active endpoints|network is being used"):
        engine.remove_network(net)
    engine.stop(name, 1)
    engine.remove_network(net)
    assert engine.observe(stack_name).networks == ()


def test_a_container_that_ran_does_not_start_without_its_network(engine: Engine, stack_name: str) -> None:
    """A stopped container wants the very network that it was on, not another of its name, until it joins that one."""
    net = network(engine, stack_name, "a")
    name = started(engine, stack_name, networks=(network(engine, stack_name, "b"), net))
    engine.stop(name, 1)
    engine.remove_network(net)
    with pytest.raises(OperationFailed, match=r"network .* not found"):
        engine.start(name)
    network(engine, stack_name, "a")
    with pytest.raises(OperationFailed, match=r"network .* not found"):
        engine.start(name)
    engine.disconnect(name, net)
    engine.connect(name, net, "one")
    engine.start(name)
    assert seen(engine, stack_name, name).networks[net]


def test_a_container_that_never_ran_takes_any_network_of_the_name(engine: Engine, stack_name: str) -> None:
    """A created container starts on whatever network has the name by then."""
    net = network(engine, stack_name, "a")
    made = creation(stack_name, networks=(network(engine, stack_name, "b"), net))
    engine.create(made)
    engine.remove_network(net)
    network(engine, stack_name, "a")
    engine.start(made.name)
    assert seen(engine, stack_name, made.name).networks[net]


def test_a_networks_name_is_taken_once(engine: Engine, stack_name: str) -> None:
    """A second network of a name is refused."""
    network(engine, stack_name, "a")
    with pytest.raises(OperationFailed, match="already exists"):
        network(engine, stack_name, "a")


def test_a_taken_subnet_gives_way_to_a_free_one_of_the_pool(engine: Engine, stack_name: str) -> None:
    """What another stack took since the plan was made is no reason to fail."""
    network(engine, stack_name, "a")
    taken = engine.observe(stack_name).networks[0].subnets[0]
    labels = ((naming.STACK, stack_name),)
    engine.create_network(CreateNetwork(f"{stack_name}_b", taken, True, False, labels, POOL))
    assert len({n.subnets for n in engine.observe(stack_name).networks}) == 2


@pytest.mark.engine
@pytest.mark.parametrize("internal", [True, False])
def test_networks_are_made_with_the_options_of_the_design(
    docker_engine: DockerEngine, stack_name: str, internal: bool
) -> None:
    """An internal network has no address of the host on it; another one masquerades only where it was said."""
    try:
        name = network(docker_engine, stack_name, "a", internal=internal)
        found: Any = docker_engine.client.inspect_network(name)
    finally:
        clear(docker_engine, stack_name)
    assert found["Internal"] is internal
    assert found["Options"].get("com.docker.network.bridge.inhibit_ipv4") == ("true" if internal else None)
    assert found["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"


@pytest.mark.engine
def test_servers_find_each_other_by_name(docker_engine: DockerEngine, stack_name: str) -> None:
    """On a network that both joined, by creation or later, a server's name is an address."""
    try:
        net = network(docker_engine, stack_name, "a")
        one = started(docker_engine, stack_name, "one", networks=(net,))
        two = started(docker_engine, stack_name, "two", networks=(network(docker_engine, stack_name, "b"),))
        docker_engine.connect(two, net, "two")
        for name, other in ((one, "two"), (two, "one")):
            assert docker_engine.run(name, ["getent", "hosts", other])[0] == 0
    finally:
        clear(docker_engine, stack_name)


# Volumes


def test_volumes_have_the_labels_they_were_made_with(engine: Engine, stack_name: str) -> None:
    """By itself or through a helper, a volume comes with its labels; making it again leaves it as it is."""
    engine.create_volume(f"{stack_name}_a", owned(stack_name) | {naming.ROLE: "data"})
    engine.create_volume(f"{stack_name}_a", owned(stack_name) | {naming.ROLE: "other"})
    through = owned(stack_name) | {naming.ROLE: "config"}
    engine.create_helper(
        f"{stack_name}.w", owned(stack_name), {f"{stack_name}_b": "/write"}, {f"{stack_name}_b": through}
    )
    roles = {v.name: v.labels[naming.ROLE] for v in engine.observe(stack_name).volumes}
    assert roles == {f"{stack_name}_a": "data", f"{stack_name}_b": "config"}


def test_a_volume_that_lost_its_labels_gets_them_again_while_it_is_empty(engine: Engine, stack_name: str) -> None:
    """So an engine leaves it that was killed as it made one. One that holds something is another's, and stays."""
    volume, helper = f"{stack_name}_v", f"{stack_name}.w"
    engine.create_helper(helper, owned(stack_name), {volume: "/write"})
    engine.remove(helper)
    assert engine.observe(stack_name).volumes == ()
    engine.create_volume(volume, owned(stack_name))
    assert [v.name for v in engine.observe(stack_name).volumes] == [volume]
    engine.remove_volume(volume)
    engine.create_helper(helper, owned(stack_name), {volume: "/write"})
    engine.put(helper, "/write", tar_of(("file", b"kept", 0o444, 0)))
    with pytest.raises(OperationFailed, match=f"there is a volume {volume} that is not the stack's"):
        engine.create_volume(volume, owned(stack_name))
    assert b"kept" in engine.get(helper, "/write/file")


def test_a_volume_in_use_stays(engine: Engine, stack_name: str) -> None:
    """A volume that any container mounts, even one that never started, is not removed."""
    volume = f"{stack_name}_v"
    engine.create_helper(f"{stack_name}.w", owned(stack_name), {volume: "/write"}, {volume: owned(stack_name)})
    with pytest.raises(OperationFailed, match=r"volume is (in use|being used)"):
        engine.remove_volume(f"{stack_name}_v")
    engine.remove(f"{stack_name}.w")
    engine.remove_volume(f"{stack_name}_v")
    assert engine.observe(stack_name).volumes == ()


def test_a_helper_replaces_an_earlier_one_and_keeps_the_volume(engine: Engine, stack_name: str) -> None:
    """A helper made again has the new labels, and what its volume holds is still there."""
    name, volume = f"{stack_name}.w", {f"{stack_name}_v": "/write"}
    engine.create_helper(name, owned(stack_name), volume)
    engine.put(name, "/write", tar_of(("file", b"kept", 0o444, 0)))
    engine.create_helper(name, owned(stack_name) | {naming.APPLIED: "x"}, volume)
    assert seen(engine, stack_name, name).labels[naming.APPLIED] == "x"
    assert members(engine.get(name, "/write/file"))["file"][0] == b"kept"


# The lists


def test_observe_shows_all_of_a_stack(engine: Engine, stack_name: str) -> None:
    """Containers, networks and volumes of a stack are seen with all their fields."""
    net, port = network(engine, stack_name, "front", internal=False), free_port()
    volume = f"{stack_name}_one_data"
    engine.create_volume(volume, owned(stack_name))
    made = creation(stack_name, networks=(net,), publish=(publish(port),), mounts=(mount(volume, "/data"),))
    engine.create(made)
    engine.start(made.name)
    engine.create_helper(f"{stack_name}-one.live", owned(stack_name) | {naming.HELPER: "live"}, {volume: "/w"})
    found = engine.observe(stack_name)
    one, helper = found.containers
    assert (found.stack, one.name, one.image, one.state, one.running) == (
        stack_name,
        made.name,
        BASE_IMAGE,
        "running",
        True,
    )
    assert (one.server, one.generation, one.fingerprint) == ("one", 1, made.container.fingerprint)
    assert (one.volumes, one.ports) == ((volume,), (("127.0.0.1", port, "tcp"),))
    assert one.status.startswith("Up")
    assert list(one.networks) == [net]
    assert (helper.name, helper.helper, helper.server, helper.state) == (
        f"{stack_name}-one.live",
        "live",
        None,
        "created",
    )
    assert found.current("one") == one
    assert found.helper(helper.name) == helper
    assert [(n.name, n.labels[naming.STACK], len(n.subnets)) for n in found.networks] == [(net, stack_name, 1)]
    assert [(v.name, v.labels) for v in found.volumes] == [(volume, owned(stack_name))]
    assert BASE_IMAGE in found.images
    assert found.host.memory > 0


def test_observe_shows_others_only_as_others(engine: Engine, stack_name: str) -> None:
    """Of what another stack has, its names, subnets and ports are seen and nothing else."""
    net, port = network(engine, stack_name, "front", internal=False), free_port()
    name = started(engine, stack_name, networks=(net,), publish=(publish(port),))
    subnet = engine.observe(stack_name).networks[0].subnets[0]
    found = engine.observe(f"{stack_name}-other")
    assert (found.containers, found.networks, found.volumes) == ((), (), ())
    assert name in found.foreign_names
    assert subnet in found.foreign_subnets
    assert ("127.0.0.1", port, "tcp", name) in found.foreign_ports


def test_a_helper_of_another_image_holds_it(engine: Engine, stack_name: str) -> None:
    """A helper made of an image's id shows that id, mounts its volumes, and no image that isn't there will do."""
    id_ = engine.observe(stack_name).images[BASE_IMAGE]
    volume = f"{stack_name}_v"
    engine.create_volume(volume, owned(stack_name))
    engine.create_helper(f"{stack_name}.g", owned(stack_name), {volume: "/write/v"}, image=id_, covered=("/data",))
    found = seen(engine, stack_name, f"{stack_name}.g")
    assert (found.image_id, found.volumes, found.state) == (id_, (volume,), "created")
    with pytest.raises(OperationFailed, match=r"(?i)no such image"):
        engine.create_helper(f"{stack_name}.h", owned(stack_name), {}, image=f"sha256:{'0' * 64}")
    engine.remove(f"{stack_name}.g", nameless_volumes=True)
    assert [v.name for v in engine.observe(stack_name).volumes] == [volume], "its volumes with a name stay"
