"""Random stacks of the kinds in tests/kinds, and random mishaps, for Hypothesis."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable
from dataclasses import replace as replace_entry
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateNetwork
from consolidate.errors import OperationFailed
from consolidate.resolved import Limits
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Files, stack_of

NAMES = ("a", "b", "c", "d", "e-f")
PORTS = (9001, 9002, 9003, 9004)


@st.composite
def stacks(draw: st.DrawFn) -> dict[str, Any]:
    """A stack with few names, ports and values, so that two of them have much in common."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    free = list(draw(st.permutations(PORTS)))
    kinds = {n: draw(st.sampled_from(["page", "page", "depot"])) for n in names}
    if draw(st.booleans()):
        kinds[draw(st.sampled_from(names))] = "gate"
    depots = [n for n in names if kinds[n] == "depot"]
    servers = {n: draw(_server(n, kinds[n], depots, free)) for n in names}
    pages = sorted(n for n in names if kinds[n] == "page")
    for first, second in pairwise(pages):  # in one direction, or they could need each other in a circle
        if draw(st.integers(0, 2)) == 0:
            servers[second]["reads"] = [first]
    return {"stack": "shop", "servers": servers}


@st.composite
def _server(draw: st.DrawFn, name: str, kind: str, depots: list[str], free: list[int]) -> dict[str, Any]:
    server: dict[str, Any] = {"kind": kind}
    if kind == "gate":
        server |= {"http": free.pop(), "motto": draw(st.sampled_from(["", "on"]))}
    elif kind == "depot":
        server["depth"] = draw(st.integers(1, 2))
    else:
        server |= {"title": draw(st.sampled_from(["One", "Two"])), "rolling": draw(st.booleans())}
        server["port"] = draw(st.sampled_from([8000, 9000]))
        if draw(st.booleans()):
            server["domains"] = [f"{name}.test"]
        if depots and draw(st.booleans()):
            server["storage"] = draw(st.sampled_from(depots))
    if kind != "gate" and free and draw(st.integers(0, 2)) == 0:
        server["publish"] = [f"{free.pop()}:80"]
    if kind == "page" and "publish" not in server:
        server["replicas"] = draw(st.sampled_from([1, 1, 2, 3]))
    if draw(st.integers(0, 4)) == 0:
        server["egress"] = True
    if draw(st.integers(0, 4)) == 0:
        server["resources"] = {"memory": "48M"}
    return server


@st.composite
def changes_by_hand(draw: st.DrawFn) -> tuple[str, int]:
    """Something that people change of a server or its files that no list of an engine shows."""
    what = draw(st.sampled_from(sorted(DRIFTS)))
    return what, draw(st.integers(0, 7))


Mishap = Callable[[MemoryEngine], None]


@st.composite
def mishaps(draw: st.DrawFn) -> tuple[str, int]:
    """Something that people do to an engine behind our back, and to which of the things that it can happen to."""
    what = draw(st.sampled_from(sorted(MISHAPS)))
    return what, draw(st.integers(0, 7))


def strike(engine: MemoryEngine, mishap: tuple[str, int]) -> None:
    what, which = mishap
    (MISHAPS | DRIFTS)[what](engine, which)


def _pick(items: list[Any], which: int) -> list[Any]:
    return [items[which % len(items)]] if items else []


def _servers(engine: MemoryEngine) -> list[str]:
    return sorted(n for n, b in engine.boxes.items() if naming.SERVER in b.labels and stack_of(b.labels) == "shop")


def _helpers(engine: MemoryEngine) -> list[str]:
    return sorted(n for n, b in engine.boxes.items() if naming.HELPER in b.labels and stack_of(b.labels) == "shop")


def _stop(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_servers(engine), which):
        engine.stop(name, 1)


def _remove(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_servers(engine), which):
        engine.remove(name)


def _remove_helper(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_helpers(engine), which):
        engine.remove(name)


def _disconnect(engine: MemoryEngine, which: int) -> None:
    pairs = [(n, net) for n in _servers(engine) for net in engine.boxes[n].networks]
    for name, network in _pick(pairs, which):
        engine.disconnect(name, network)


def _lose_volume(engine: MemoryEngine, which: int) -> None:
    """A volume is removed, with all containers that hold it."""
    ours = sorted(n for n in engine.volumes if n.startswith("shop_") and n != "shop_secrets")
    for volume in _pick(ours, which):
        for box in [b for b in engine.boxes.values() if volume in {m.volume for m in b.mounts}]:
            engine.remove(box.name)
        engine.remove_volume(volume)


def _prune(engine: MemoryEngine, which: int) -> None:
    """Everything is stopped, and the networks that nobody uses then are removed."""
    for name in _servers(engine):
        engine.stop(name, 1)
    for network in sorted(n for n in engine.networks if n.startswith("shop_")):
        engine.remove_network(network)


def _leave_writer(engine: MemoryEngine, which: int) -> None:
    """A volume whose writer is still there was not filled to the end: here it is one that nobody mounts yet."""
    volume = "shop_a_config_000000000000"
    labels = {naming.STACK: "shop", naming.OF: "a"}
    role = labels | {naming.ROLE: "config"}
    name = naming.helper("shop", "", "123456789abc.writer")
    engine.create_helper(name, labels | {naming.HELPER: "writer"}, {volume: "/write/x"}, {volume: role})


def _crash(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_servers(engine), which):
        engine.boxes[name].end(1)


def _pause(engine: MemoryEngine, which: int) -> None:
    for name in _pick([n for n in _servers(engine) if engine.boxes[n].running], which):
        engine.boxes[name].state = "paused"


def _rename(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_servers(engine) + _helpers(engine), which):
        engine.rename(name, f"{name}-old")


def _swap(engine: MemoryEngine, which: int) -> None:
    """Two containers have each other's name."""
    names = _servers(engine) + _helpers(engine)
    one, other = (names[which % len(names)], names[which // 2 % len(names)]) if names else ("", "")
    if one != other:
        engine.rename(one, "between")
        engine.rename(other, one)
        engine.rename("between", other)


def _join(engine: MemoryEngine, which: int) -> None:
    """A container is joined to a network of nobody's, which may be gone again when the container has ended."""
    for name in _pick([n for n in _servers(engine) if not engine.boxes[n].alone], which):
        if "theirs" not in engine.networks:
            engine.create_network(CreateNetwork("theirs", "10.9.9.0/24", False, True, ()))
        engine.connect(name, "theirs", "")
        if which % 2:
            engine.stop(name, 1)
            with contextlib.suppress(OperationFailed):  # another one is still on it
                engine.remove_network("theirs")


def _isolate(engine: MemoryEngine, which: int) -> None:
    for name in _pick(_servers(engine), which):
        for network in list(engine.boxes[name].networks):
            engine.disconnect(name, network)


def _leave_dump(engine: MemoryEngine, which: int) -> None:
    """An update was killed while it dumped a server's data."""
    for name in _pick(_servers(engine), which):
        server = engine.boxes[name].labels[naming.SERVER]
        labels = {naming.STACK: "shop", naming.OF: server, naming.ROLE: "dump", naming.GENERATION: "0"}
        engine.create_volume(naming.dump_volume("shop", server, 99), labels)
        engine.create_helper(naming.helper("shop", server, "dump"), labels | {naming.HELPER: "dump"}, {})


def _leave_refresh(engine: MemoryEngine, which: int) -> None:
    """An update was killed before it gave what it had built to anybody, twice."""
    for tag in _pick(sorted(t for t in engine.images if t.startswith("consolidate/")), which):
        if not naming.REFRESHED.fullmatch(tag):
            for stamp in ("20240501T120000", "20240601T120000"):
                engine.images.add(naming.refreshed_image(tag, stamp))


MISHAPS: dict[str, Callable[[MemoryEngine, int], None]] = {
    "a container ends": _crash,
    "a container is disconnected": _disconnect,
    "a container is off all its networks": _isolate,
    "a container is on a network of others": _join,
    "a container is paused": _pause,
    "a container is removed": _remove,
    "a container is renamed": _rename,
    "a container is stopped": _stop,
    "a dump is left": _leave_dump,
    "a helper is removed": _remove_helper,
    "a refresh is left": _leave_refresh,
    "a volume is lost": _lose_volume,
    "a writer is left": _leave_writer,
    "all is stopped and pruned": _prune,
    "two containers swap names": _swap,
}


def _made(engine: MemoryEngine, which: int, **changes: Any) -> None:
    for name in _pick(_servers(engine), which):
        box = engine.boxes[name]
        assert box.made
        box.made = replace(box.made, **changes)


def _more(engine: MemoryEngine, which: int, **fields: str) -> None:
    for name in _pick(_servers(engine), which):
        engine.boxes[name].also |= fields


def _files(engine: MemoryEngine, role: str, which: int) -> Files:
    """The files of a volume that a container has; what a killed run alone has begun is filled again, and not cleaned."""
    boxes = (b for b in engine.boxes.values() if b.labels.get(naming.HELPER) != "writer")
    held = {m.volume for b in boxes for m in b.mounts} & engine.volumes.keys()
    ours = sorted(n for n in held if n.startswith("shop_") and engine.volumes[n].labels.get(naming.ROLE) == role)
    return engine.volumes[ours[which % len(ours)]].files if ours else {}


def _edit(engine: MemoryEngine, role: str, which: int) -> None:
    """A file is edited, gets another mode, or is removed; another one is added."""
    files = _files(engine, role, which)
    for path in _pick(sorted(p for p, e in files.items() if e.type == tarfile.REGTYPE), which):
        entry = files[path]
        match which % 4:
            case 0:
                files[path] = replace_entry(entry, data=entry.data + b"by hand")
            case 1:
                files[path] = replace_entry(entry, mode=0o666)
            case 2:
                del files[path]
            case 3:
                files[f"{path}.old"] = replace_entry(entry)


def _lead_astray(engine: MemoryEngine, which: int) -> None:
    """The link to the live files that are in use leads elsewhere, or is gone."""
    files = _files(engine, "live", which)
    if "current" in files and which % 2:
        del files["current"]
    elif "current" in files:
        files["current"] = replace_entry(files["current"], link="elsewhere")


def _unname(engine: MemoryEngine, which: int) -> None:
    """A container is taken off a network and put back on it, without its name."""
    pairs = [(n, net) for n in _servers(engine) for net in engine.boxes[n].networks if net in engine.networks]
    for name, network in _pick(pairs, which):
        engine.disconnect(name, network)
        engine.connect(name, network, "")


DRIFTS: dict[str, Callable[[MemoryEngine, int], None]] = {
    "a capability": lambda e, w: _made(e, w, capabilities=("NET_RAW",)),
    "a variable": lambda e, w: _made(e, w, environment=(("PASSWORD", "hunter2"),)),
    "limits": lambda e, w: _made(e, w, limits=Limits(2**24, 0.1, 7)),
    "privileges": lambda e, w: _more(e, w, privileged="yes"),
    "the restart policy": lambda e, w: _more(e, w, restart="no", swap="64M"),
    "a name on a network": _unname,
    "files of the configuration": lambda e, w: _edit(e, "config", w),
    "files of the secrets": lambda e, w: _edit(e, "secrets", w),
    "live files": lambda e, w: _edit(e, "live", w),
    "the link to the live files": _lead_astray,
}
