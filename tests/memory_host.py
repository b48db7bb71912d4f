"""The engine in memory, without its containers' insides: what there is, images, networks and volumes."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Self

from consolidate import naming, process
from consolidate.actions import CreateNetwork
from consolidate.desired import Image
from consolidate.engine import ImageFacts, Machine, Progress, broken_off
from consolidate.errors import OperationFailed
from consolidate.observed import HostFacts, Observed, ObservedContainer, ObservedNetwork, ObservedVolume, free_subnets
from tests.memory_parts import CPUS, Base, Box, Bridge, Files, Store, extract, read, stack_of, write

LAYER = 1000  # bytes of each layer of an image
HUB = re.compile(r"^docker\.io/(library/)?")


def listed(tag: str) -> str:
    """An image's name as the engine lists it."""
    return re.sub(r":[^:/@]+@", "@", HUB.sub("", tag))


class Images(dict[str, str]):
    """Ids by tag, and by id for as long as an image is there."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.built: dict[str, ImageFacts] = {}
        self.files: dict[str, Files] = {}

    def add(self, tag: str) -> None:
        """A new image takes the tag."""
        self.made += 1
        id_ = f"sha256:{self.made:064x}"
        self |= {tag: id_, id_: id_}

    def facts(self, id_: str) -> ImageFacts:
        return self.built.get(id_, ImageFacts(id_, {}, (id_,)))

    def tags(self, id_: str) -> list[str]:
        return [n for n, i in self.items() if i == id_ != n]

    def discard(self, name: str, *, used: bool) -> None:
        """Untag an image, or remove it where it loses its last tag; not one that is `used`."""
        id_ = self.get(name)
        if id_ and name != id_ and len(self.tags(id_)) > 1:
            del self[name]
        elif id_ and not used and (name != id_ or len(self.tags(id_)) < 2):
            for each in [*self.tags(id_), id_]:
                del self[each]


class MemoryHost(Base):
    """Containers, networks, volumes and images in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, Box] = {}
        self.networks: dict[str, Bridge] = {}
        self.volumes: dict[str, Store] = {}
        self.name = "memory"
        self.images = Images()
        self.ticks = 0

    def copy(self) -> Self:
        """The same engine at this moment, to be changed on its own, without faults and with nothing counted."""
        other = type(self)()
        for part in ("boxes", "networks", "volumes", "images", "ticks"):
            setattr(other, part, copy.deepcopy(getattr(self, part)))
        return other

    def revive(self) -> None:
        super().revive()
        for box in self.boxes.values():
            if box.labels.get(naming.HELPER) == "lock":
                box.labels[naming.PROCESS] = f"{process.identity()}0"  # one that has ended

    def _id(self, kind: str) -> str:
        self.ticks += 1
        return f"{kind}{self.ticks:06d}"

    def _box(self, name: str) -> Box:
        """By its name or its id."""
        found = self.boxes.get(name) or next((b for b in self.boxes.values() if b.id == name), None)
        if found is None:
            raise OperationFailed(f"No such container: {name}")
        return found

    def _running(self, name: str) -> Box:
        box = self._box(name)
        if not box.running:
            raise OperationFailed(f"Container {box.id} is not running")
        return box

    def _network(self, name: str) -> Bridge:
        if name not in self.networks:
            raise OperationFailed(f"network {name} not found")
        return self.networks[name]

    # What is there

    @read
    def info(self) -> Mapping[str, Any]:
        return {
            "Name": self.name,
            "Architecture": "x86_64",
            "MemTotal": 2**34,
            "NCPU": CPUS,
            "ServerVersion": "20.10.24",
        }

    @read
    def version(self) -> Mapping[str, Any]:
        return {"Version": "20.10.24", "ApiVersion": "1.41"}

    def registry_error(self, tag: str, timeout: float) -> str:
        return "" if tag in self.images else "there is no registry in memory"

    def facts(self) -> HostFacts:
        return HostFacts(name=self.name, memory=2**34, cpus=CPUS, version="20.10.24", api="1.41")

    @read
    def machine(self) -> Machine:
        return Machine(self.name, "linux", "x86_64")

    @read
    def observe(self, stack: str) -> Observed:
        mine = {n: b for n, b in self.boxes.items() if stack_of(b.labels) == stack}
        own = {n: b for n, b in self.networks.items() if stack_of(b.labels) == stack}
        others = {n: b for n, b in self.boxes.items() if n not in mine}
        return Observed(
            stack=stack,
            host=self.facts(),
            containers=tuple(self._seen(b) for _, b in sorted(mine.items())),
            networks=tuple(ObservedNetwork(b.id, n, b.labels, (b.subnet,)) for n, b in sorted(own.items())),
            volumes=tuple(
                ObservedVolume(n, v.labels, "2024-01-01T00:00:00Z")
                for n, v in sorted(self.volumes.items())
                if stack_of(v.labels) == stack
            ),
            images=dict(self.images),
            foreign_subnets=tuple(b.subnet for n, b in self.networks.items() if n not in own),
            foreign_ports=tuple((*p, n) for n, b in others.items() for p in b.open_ports),
            foreign_names=frozenset(others),
            broken_off=broken_off(self._lock(stack)),
            foreign_images=frozenset(b.image_id for b in others.values()),
        )

    def _lock(self, stack: str) -> ObservedContainer | None:
        box = self.boxes.get(naming.helper(stack, "", "lock"))
        return self._seen(box) if box else None

    def _seen(self, box: Box) -> ObservedContainer:
        status = {"created": "Created", "running": "Up 1 second", "paused": "Up 1 second (Paused)"}.get(
            box.state, f"Exited ({box.exit_code}) 1 second ago"
        )
        return ObservedContainer(
            id=box.id,
            name=box.name,
            image=box.image if self.images.get(listed(box.image), "") == box.image_id else box.image_id,
            image_id=box.image_id,
            state=box.state,
            status=status,
            created=box.created,
            labels=dict(box.labels),
            networks={n: self._address(n, box) if box.alive else "" for n in box.networks},
            volumes=tuple(sorted(m.volume for m in box.mounts)),
            ports=tuple(sorted(box.open_ports)),
            alone=box.alone,
        )

    def _address(self, network: str, box: Box) -> str:
        members = sorted(b.id for b in self.boxes.values() if b.alive and network in b.networks)
        return f"{self.networks[network].subnet.rpartition('.')[0]}.{members.index(box.id) + 2}"

    # Images

    def registry_digest(self, tag: str, timeout: float) -> str:
        raise OperationFailed("there is no registry in memory")

    @read
    def image(self, name: str) -> ImageFacts:
        if listed(name) not in self.images:
            raise OperationFailed(f"No such image: {name}")
        return self.images.facts(self.images[listed(name)])

    @read
    def has_image(self, tag: str) -> bool:
        return listed(tag) in self.images

    @write
    def build(self, image: Image, context: IO[bytes], progress: Progress, *, cache: bool = True) -> None:
        files: Files = {}
        extract(files, context, "")
        text = files["Dockerfile"].data.decode()
        for line in filter(None, text.splitlines()):
            progress(f"Step: {line}")
            if line.startswith("RUN false"):
                raise OperationFailed(f"the build of {image.tag} failed: {line} returned 1", log=[f"Step: {line}"])
            if line.startswith("FROM ") and line.split()[1] not in self.images:
                raise OperationFailed(f"the build of {image.tag} failed: no {line.split()[1]}")
        steps = [line.split() for line in text.splitlines()]
        base = self.images.facts(self.images[next(s[1] for s in steps if s[:1] == ["FROM"])])
        self.images.add(image.tag)
        made = self.images[image.tag]
        labels = dict(s[1].split("=") for s in steps if s[:1] == ["LABEL"])
        self.images.built[made] = ImageFacts(made, {**base.labels, **labels}, (*base.layers, made))
        self.images.files[made] = {s[2].strip("/"): files[s[1]] for s in steps if s[:1] == ["COPY"]}

    @write
    def pull(self, tag: str, progress: Progress) -> None:
        if tag.startswith("missing"):
            raise OperationFailed(f"{tag} can't be pulled: not found", hint="check its name")
        self.images.add(listed(tag))

    @write
    def tag_image(self, image: str, tag: str) -> None:
        if listed(image) not in self.images:
            raise OperationFailed(f"No such image: {image}")
        self.images[tag] = self.images[listed(image)]

    @write
    def remove_image(self, name: str) -> None:
        id_ = self.images.get(listed(name))
        self.images.discard(listed(name), used=any(b.image_id == id_ for b in self.boxes.values()))

    @write
    def import_image(self, stream: IO[bytes], tag: str) -> None:
        self.images.add(tag)

    @read
    def layer_sizes(self, image: str) -> tuple[int, ...]:
        return (LAYER,) * len(self.image(image).layers)

    def all_images(self) -> tuple[ImageFacts, ...]:
        return tuple(self.images.facts(i) for i in dict.fromkeys(self.images.values()))

    def save_image(self, image: str, leave_out: int) -> Iterator[bytes]:
        facts = self.image(image)
        yield pickle.dumps((facts, leave_out, self.images.files.get(facts.id, {})))
        for _ in facts.layers[leave_out:]:
            self.called("save_image", (image,), writes=False)
            yield bytes(LAYER)

    def load_image(self, archive: Iterable[bytes], progress: Progress) -> None:
        head, *layers = archive
        facts, left_out, files = pickle.loads(head)
        self._load(facts, left_out, files, len(layers))

    @write
    def _load(self, facts: ImageFacts, left_out: int, files: Files, layers: int) -> None:
        known = {chain for image in self.all_images() for chain in image.chains}
        if left_out + layers < len(facts.layers) or not known.issuperset(facts.chains[:left_out]):
            raise OperationFailed("the image can't be loaded: open layer.tar: no such file or directory")
        self.images[facts.id] = facts.id
        self.images.built[facts.id], self.images.files[facts.id] = facts, files

    # Networks and volumes

    @write
    def create_network(self, network: CreateNetwork) -> None:
        if network.name in self.networks:
            raise OperationFailed(f"network with name {network.name} already exists")
        subnet = network.subnet
        if subnet in {b.subnet for b in self.networks.values()}:
            subnet = free_subnets(self.observe(""), network.pool, 1)[0]
        self.networks[network.name] = Bridge(
            self._id("n"), subnet, network.internal, network.masquerade, dict(network.labels)
        )

    @write
    def remove_network(self, name: str) -> None:
        if any(b.alive and name in b.networks for b in self.boxes.values()):
            raise OperationFailed(f"error while removing network: network {name} has active endpoints")
        self.networks.pop(name, None)

    @write
    def connect(self, container: str, network: str, alias: str) -> None:
        box = self._box(container)
        found = self._network(network)
        if box.alone:
            raise OperationFailed(
                "container cannot be connected to multiple networks with one of them in private (none) mode"
            )
        box.networks.setdefault(network, alias)
        if box.running:
            box.joined[network] = found.id

    @write
    def disconnect(self, container: str, network: str) -> None:
        box = self._box(container)
        if network not in box.networks:  # a stopped container may be on a network that has gone
            self._network(network)
        box.networks.pop(network, None)
        box.joined.pop(network, None)

    @write
    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        there = self.volumes.setdefault(name, Store(dict(labels)))
        if not there.labels and there.files:
            raise OperationFailed(f"there is a volume {name} that is not the stack's: it has no labels")
        there.labels = there.labels or dict(labels)

    @write
    def remove_volume(self, name: str) -> None:
        users = [b.id for b in self.boxes.values() if name in {m.volume for m in b.mounts}]
        if users:
            raise OperationFailed(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self.volumes.pop(name, None)
