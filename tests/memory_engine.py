"""An engine in memory: the same names, refusals and lists as a real one, with faults on demand.

test_engine_contract.py holds it and the real engine to the same behaviour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Self

from msgspec.structs import replace

from consolidate import naming, process
from consolidate.actions import CreateContainer
from consolidate.engine import State, taken_over, tenure
from consolidate.errors import EngineUnavailable, Locked, OperationFailed
from consolidate.fields import fields_of
from consolidate.files import observed_files
from consolidate.observed import Details, ObservedFile
from consolidate.resolved import Limits
from tests.memory_host import MemoryHost, listed
from tests.memory_parts import (
    CPUS,
    Box,
    Files,
    Store,
    extract,
    has_folder,
    helper_box,
    mount_at,
    pack,
    read,
    stack_of,
    write,
)

Program = Callable[["MemoryEngine", Box, tuple[str, ...], bytes | None], tuple[int, str]]
ASKED_TO_END, KILLED = 143, 137


class MemoryEngine(MemoryHost):
    """All of the port. `program` stands for what runs in the containers: at their start, and when a command is run."""

    parallel = 8

    def __init__(self, program: Program | None = None) -> None:
        super().__init__()
        self.program = program

    def copy(self) -> Self:
        other = super().copy()
        other.program = self.program
        return other

    # Containers

    @write
    def create(self, creation: CreateContainer) -> None:
        want, old = creation.container, self.boxes.get(creation.name)
        if old and old.state == "created" and stack_of(old.labels) == stack_of(dict(creation.labels)):
            del self.boxes[old.name]
        image = creation.image or want.image
        if listed(image) not in self.images:
            raise OperationFailed(f"No such image: {image}")
        box = Box.of(creation, self._id("c"), self.ticks)
        box.image_id = self.images[listed(image)]
        self._add(box)
        for network in creation.networks[1:]:
            self._network(network)
            box.networks[network] = "" if network in creation.nameless else naming.server_of(want.server)

    def _add(self, box: Box, volume_labels: Mapping[str, Mapping[str, str]] | None = None) -> None:
        if box.name in self.boxes:
            raise OperationFailed(
                f'Conflict. The container name "/{box.name}" is already in use by container '
                f'"{self.boxes[box.name].id}". You have to remove (or rename) that container to be able to reuse that name.'
            )
        self.boxes[box.name] = box
        for mount in box.mounts:  # a volume that isn't there comes into being
            self.volumes.setdefault(mount.volume, Store(dict((volume_labels or {}).get(mount.volume, {}))))

    @write
    def create_helper(
        self,
        name: str,
        labels: Mapping[str, str],
        volumes: Mapping[str, str],
        volume_labels: Mapping[str, Mapping[str, str]] | None = None,
        image: str | None = None,
        covered: Sequence[str] = (),
    ) -> None:
        if image and listed(image) not in self.images:
            raise OperationFailed(f"No such image: {image}")
        old = self.boxes.get(name)
        if old and stack_of(old.labels) == stack_of(labels):
            del self.boxes[name]
        box = helper_box(name, self._id("c"), self.ticks, labels, volumes)
        if image:
            box.image, box.image_id = image, self.images[listed(image)]
            box.files = dict(self.images.files.get(box.image_id, {}))
        self._add(box, volume_labels)

    @write
    def start(self, container: str, *, new: bool = False) -> None:
        box = self._box(container)
        if box.state == "paused":
            raise OperationFailed("cannot start a paused container, try unpause instead")
        if box.running:
            return
        try:
            for network in box.networks:
                known = box.joined.get(network, self._network(network).id)
                if known != self.networks[network].id:
                    raise OperationFailed(f"network {known} not found")
            taken = {p: b.name for b in self.boxes.values() for p in b.open_ports}
            for port in box.ports & taken.keys():
                raise OperationFailed(f"Bind for {port[0]}:{port[1]} failed: port is already allocated")
        except OperationFailed as error:
            box.error = error.what
            raise
        box.state, box.exit_code, box.error, box.started = "running", 0, "", box.started + 1
        box.joined = {n: self.networks[n].id for n in box.networks}
        code, said = self._run(box, box.once or ("start",), None)
        if box.once:
            box.log = said.splitlines()
            box.end(code)

    @write
    def stop(self, container: str, grace: float | None) -> None:
        if container in self.boxes:
            self.boxes[container].end(ASKED_TO_END)

    @write
    def restart(self, container: str, grace: float) -> None:
        self._box(container).end(ASKED_TO_END)
        self.start(container)

    @write
    def unpause(self, container: str) -> None:
        box = self._box(container)
        box.state = "running" if box.state == "paused" else box.state

    @write
    def rename(self, container: str, name: str) -> None:
        box = self._box(container)
        if name in self.boxes:
            raise OperationFailed(
                f'Conflict. The container name "/{name}" is already in use by container "{self.boxes[name].id}".'
            )
        box.name = name
        self.boxes = {b.name: b for b in self.boxes.values()}

    @write
    def kill(self, container: str, signal: str) -> None:
        box = self._running(container)
        box.signals.append(signal)
        if signal == "SIGKILL":
            box.end(KILLED)

    @write
    def remove(self, container: str, *, nameless_volumes: bool = False) -> None:
        self.boxes = {n: b for n, b in self.boxes.items() if container not in (n, b.id)}

    @read
    def state(self, container: str) -> State:
        box = self._box(container)
        addresses = self._seen(box).networks
        names = {n: (name,) if name else () for n, name in box.networks.items()}
        return State(box.state, box.running, box.exit_code, 0, "none", box.test, box.error, addresses, names)

    @read
    def details(self, container: str) -> Details:
        box = self._box(container)
        aliases = {n: (alias,) if alias else () for n, alias in box.networks.items()}
        return Details((fields_of(box.made) if box.made else {}) | {"restart": "always"} | box.also, {}, aliases)

    @write
    def update(self, container: str, limits: Limits) -> None:
        box = self._box(container)
        if box.made:
            box.made = replace(box.made, limits=replace(limits, cpus=min(limits.cpus, CPUS)))
        box.also = {k: v for k, v in box.also.items() if k not in ("restart", "swap")}

    # Inside containers

    def _files(self, box: Box, path: str) -> tuple[Files, str, bool, bool]:
        """The files that `path` lies among, the path there, whether they can't be written, whether they are an image's."""
        mount, below = mount_at(box, path)
        if mount:
            return self.volumes[mount.volume].files, below, mount.read_only, False
        return box.files, below, box.read_only, True

    @write
    def put(self, container: str, path: str, archive: IO[bytes]) -> None:
        box = self._box(container)
        files, below, read_only, root = self._files(box, path)
        holds_mounts = any(m.target.startswith(f"{path}/") for m in box.mounts)
        if not holds_mounts and not has_folder(files, below, root=root):
            raise OperationFailed(f"Could not find the file {path} in container {container}")
        if read_only:
            raise OperationFailed(
                "container rootfs is marked read-only" if root else "mounted volume is marked read-only"
            )
        unpacked: Files = {}
        extract(unpacked, archive, "")
        for name, entry in unpacked.items():  # each lands in the mount that it lies in
            files, below, _, _ = self._files(box, f"{path}/{name}")
            if below:
                files[below] = entry

    @read
    def get(self, container: str, path: str) -> bytes:
        files, below, _, _ = self._files(self._box(container), path)
        if below and below not in files:
            raise OperationFailed(f"Could not find the file {path} in container {container}")
        return pack(files, below, PurePosixPath(path).name)

    def files(self, container: str, path: str) -> Mapping[str, ObservedFile]:
        return observed_files([self.get(container, path)])

    @write
    def run(self, container: str, command: Sequence[str], stdin: bytes | None = None) -> tuple[int, str]:
        return self._run(self._running(container), tuple(command), stdin)

    def feed(self, container: str, command: Sequence[str], input_: Iterable[bytes]) -> tuple[int, str]:
        return self.run(container, command, b"".join(input_))

    def output(self, container: str, command: Sequence[str]) -> Iterator[bytes]:
        code, said = self.run(container, command)
        yield said.encode()
        if code:
            raise OperationFailed(f"{command[0]} ended with exit status {code}")

    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        if listed(image) not in self.images:
            raise OperationFailed(f"No such image: {image}")
        return self._run(helper_box("", "", 0, {}, {}), tuple(command), None)

    def _run(self, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        return self.program(self, box, command, stdin) if self.program else (0, "")

    def attach(self, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> int:
        return self.run(container, command)[0]

    @read
    def logs(self, container: str, *, tail: int | None, since: int | None, follow: bool) -> Iterator[bytes]:
        lines = self._box(container).log
        return iter([line.encode() for line in (lines if tail is None else lines[-tail:])])

    @contextlib.contextmanager
    def lock(self, stack: str, holder: str, tell: Callable[[str], None]) -> Iterator[None]:
        name = naming.helper(stack, "", "lock")
        if naming.BASE_IMAGE not in self.images:
            raise OperationFailed(f"No such image: {naming.BASE_IMAGE}")
        with self.guard:
            if met := self.boxes.get(name):
                who = met.labels[naming.HOLDER]
                if tenure(met.state, met.labels.get(naming.PROCESS, "")) == "held":
                    raise Locked.by(who, "now")
                tell(taken_over(who, "now"))
            labels = {naming.STACK: stack, naming.HELPER: "lock", naming.HOLDER: holder}
            labels |= {naming.PROCESS: process.identity()} | ({naming.BROKEN_OFF: who} if met else {})
            self.boxes[name] = helper_box(name, self._id("c"), self.ticks, labels, {})
            self.boxes[name].state = "running"
        whole = True
        try:
            yield
        except (KeyboardInterrupt, EngineUnavailable):
            whole = False
            raise
        finally:
            if whole and not self.killed:
                del self.boxes[name]
