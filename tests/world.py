"""A stack of invented kinds on the engine in memory: what its programs do, `up`, and what must hold after it."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import yaml
from msgspec.structs import replace

from consolidate import naming, vault
from consolidate.actions import Action, LoadData, RestoreVolumes, WaitReady
from consolidate.desire import desire
from consolidate.desired import Desired
from consolidate.diff import Refresh, diff
from consolidate.diff.turns import as_found
from consolidate.errors import OperationFailed
from consolidate.execute import Executor, executor
from consolidate.execute.commands import Interrupted
from consolidate.fields import fields_of
from consolidate.files import FileSpec, archive
from consolidate.inspection import drifts
from consolidate.kinds import Catalogue
from consolidate.loader import load
from consolidate.locked import Lock
from consolidate.naming import BASE_IMAGE
from consolidate.observed import Observed
from consolidate.pinned import pinned
from consolidate.pipeline import Prepared, narrowed
from consolidate.plan import Operation, Plan
from consolidate.report import Event, Report
from consolidate.resolve import resolve
from consolidate.resolved import Resolved
from consolidate.rollback import returned
from consolidate.runner import Runner
from consolidate.secret import SecretRecord
from consolidate.store import read_secrets, write_store
from consolidate.together import carry_out
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box, Entry, Files, extract, mount_at, read_text

KINDS = Catalogue([Path(__file__).parent / "kinds"])
NOW = datetime(2024, 5, 1, tzinfo=UTC)
NOT_FOUND = 127
numbers = itertools.count()


def programs(engine: MemoryEngine, box: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
    """What the scripts of tests/kinds do, for containers in memory."""
    words = (stdin or b"").decode().split()
    live, config = _files(engine, box, "/live"), _files(engine, box, "/config")
    if command[:2] == ("bash", "-c"):  # copies volumes, or fills them
        for name in command[4:]:
            data, dump, packed = _files(engine, box, f"/data/{name}"), _files(engine, box, "/dump"), f"{name}.tar.gz"
            if "--create" in command[2]:
                dump[packed] = Entry(tarfile.REGTYPE, 0o400, 0, 0, pickle.dumps(dict(data)))
                continue
            data.clear()
            if packed in dump:
                data |= pickle.loads(dump[packed].data)
        return 0, ""
    if command[0] == "bash" and command[1].removeprefix("/config/") not in config:
        return NOT_FOUND, f"{command[1]}: No such file or directory"
    match command:
        case ("start",) | ("bash", "/config/reload"):
            if live:
                box.memory["routes"] = read_text(live, "current/routes")
            return 0, ""
        case ("bash", "/config/ready"):
            return 0, ""
        case ("test", "-f", "/live/next/routes"):
            return (0, "") if read_text(live, "next/routes") is not None else (1, "")
        case ("bash", "/config/check"):
            return (1, "thirteen is too deep") if "depth 13" in read_text(config, "depot") else (0, "")
        case ("bash", "/config/grant"):
            data = _files(engine, box, "/data")
            data[words[0]] = Entry(tarfile.REGTYPE, 0o644, 0, 0, words[1].encode())
            return 0, ""
        case ("bash", "/config/dump"):
            data = _files(engine, box, "/data")
            rows = [f"{name} {entry.data.decode()}\n" for name, entry in sorted(data.items())]
            return 0, "".join([*rows, "end of\n"])
        case ("bash", "/config/load"):
            data = _files(engine, box, "/data")
            for name, value in zip(words[:-2:2], words[1:-2:2], strict=True):  # the last two are `end of`
                data[name] = Entry(tarfile.REGTYPE, 0o644, 0, 0, value.encode())
            return 0, ""
        case ("bash", "/config/revoke"):
            _files(engine, box, "/data").pop(words[0], None)
            return 0, ""
        case ("bash", "/config/switch", "take", server, *_):
            box.memory.setdefault("unsettled", set()).add(server)
            return 0, ""
        case ("bash", "/config/switch", "settle", server, *_):
            box.memory.get("unsettled", set()).discard(server)
            return 0, ""
        case ("bash", "/config/switch", *_):
            return 0, ""
    return NOT_FOUND, f"{command[-1]}: not found"


def _files(engine: MemoryEngine, box: Box, target: str) -> Files:
    mount, _ = mount_at(box, target)
    return engine.volumes[mount.volume].files if mount else {}


class AtOnce:
    """A pool that does what it is given at once, so that a run is the same each time."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.number = next(numbers)  # type: ignore[attr-defined]
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: Any) -> None: ...


def one_by_one(futures: set[Future[Any]], **_: Any) -> tuple[list[Future[Any]], set[Future[Any]]]:
    """What was begun first has ended, and no more is known yet."""
    first = sorted(futures, key=lambda f: f.number)[:1]  # type: ignore[attr-defined]
    return first, futures.difference(first)


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    with patch.multiple(executor, ThreadPoolExecutor=AtOnce, wait=one_by_one):
        yield


def resolved(stack: Mapping[str, Any]) -> Resolved:
    """The servers of a stack given as data."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "stack.yml"
        file.write_text(yaml.safe_dump(dict(stack), sort_keys=False))
        return resolve(load(file), KINDS, Path(folder))


class FailingAt(Executor):
    """An executor to which one action is refused; `interrupted`, of a class, in its undo."""

    refused: Action | None = None
    interrupted: type | None = None

    def _act(self, action: Action, progress: Callable[[str], None]) -> None:
        if action is self.refused:
            raise OperationFailed("the test refuses it")
        super()._act(action, progress)

    def _undo(self, operation: Operation, why: str, log: tuple[str, ...]) -> tuple[tuple[str, ...], float | None]:
        def interrupt(*_: Any) -> None:
            raise Interrupted

        names = {RestoreVolumes: "restore_volumes", WaitReady: "wait_ready", LoadData: "load_data"}
        name = names.get(self.interrupted)
        with patch.object(executor, name, interrupt) if name else contextlib.nullcontext():
            return super()._undo(operation, why, log)


class World:
    """One engine, and a stack that changes on it. `plan` is the last one that was made, `events` those of the last run."""

    def __init__(self, engine: MemoryEngine | None = None) -> None:
        self.engine = engine or MemoryEngine(programs)
        self.plan = Plan("", ())
        self.desired: Desired | None = None
        self.lock = Lock()
        self.secrets: Mapping[str, SecretRecord] = {}
        self.stamp: Mapping[str, str] = {}
        self.events: list[Event] = []

    def copy(self) -> World:
        other = World(self.engine.copy())
        other.lock = self.lock
        return other

    def observe(self, stack: Resolved) -> Observed:
        return self.engine.observe(stack.name)

    def make_plan(
        self, stack: Resolved, *servers: str, refreshes: Mapping[str, Refresh] | None = None, deep: bool = False
    ) -> Plan:
        """What `plan` would say; with `refreshes`, `update`; where it is `deep`, with --drift."""
        observed = self.observe(stack)
        stored = read_secrets(self.engine, observed)
        self.secrets = vault.settle(vault.needed(stack), stored, NOW, lambda _: "given")
        desired = pinned(desire(stack, self.secrets), self.lock)
        new = () if self.secrets == stored else self.secrets.values()
        found = drifts(self.engine, desired, observed, self.secrets) if deep else {}
        self.desired = as_found(desired, observed, found)
        plan = diff(desired, observed, new, refreshes, found)
        self.plan = narrowed(plan, stack, servers)
        return self.plan

    def executor(self) -> FailingAt:
        def make_base(_: Callable[[str], None]) -> None:
            if not self.engine.has_image(BASE_IMAGE):
                self.engine.import_image(None, BASE_IMAGE)  # type: ignore[arg-type]

        return FailingAt(self.engine, self.secrets, self.events.append, make_base, wait_timeout=0.01, stamp=self.stamp)

    def locked(self) -> AbstractContextManager[None]:
        executor = self.executor()
        return Runner(self.engine, executor.report, executor.make_base, print).locked(self.plan.stack)

    def run(self, *, seed: int = 0, refused: Action | None = None) -> Report:
        """Execute the plan, in one of the orders that it allows."""
        operations = list(self.plan.operations)
        random.Random(seed).shuffle(operations)
        self.events.clear()
        executor = self.executor()
        executor.refused = refused
        with in_order(), self.locked():
            return executor.run(replace(self.plan, operations=tuple(operations)))

    def up(self, stack: Resolved, *servers: str, seed: int = 0, deep: bool = False) -> Report:
        self.make_plan(stack, *servers, deep=deep)
        return self.run(seed=seed)

    def roll_back(
        self, stack: Resolved, server: str | None = None, number: int | None = None, *, with_data: bool = False
    ) -> Prepared:
        """What `rollback` would do: the plan is made."""
        self.make_plan(stack)
        assert self.desired
        prepared = Prepared(stack, self.desired, self.observe(stack), self.secrets, {})
        prepared = returned(prepared, server, number, with_data=with_data)
        self.plan, self.secrets = prepared.plan, prepared.secrets
        return prepared

    def together(self, stack: Resolved, *, seed: int = 0, refused: Action | None = None) -> Report:
        """Execute the plan with `up --all-or-nothing`."""
        assert self.desired
        before, operations = self.observe(stack), list(self.plan.operations)
        random.Random(seed).shuffle(operations)
        self.plan = replace(self.plan, operations=tuple(operations))

        def executor() -> Executor:
            made = self.executor()
            made.refused = refused
            return made

        with in_order(), self.locked():
            return carry_out(
                self.engine,
                executor,
                self.plan,
                desired=self.desired,
                before=before,
                tell=print,
            )

    def plan_needs(self, id_: str) -> set[str]:
        """All that an operation of the plan needs, directly or not."""
        needs = {o.id: o.needs for o in self.plan.operations}
        found: set[str] = set()
        todo = [id_]
        while todo:
            more = set(needs[todo.pop()]) - found
            found |= more
            todo += more
        return found

    def store(self, records: Mapping[str, SecretRecord]) -> None:
        """What `secret set` does."""
        write_store(self.engine, self.plan.stack, tuple(records.values()))

    def box(self, server: str) -> Box:
        """The one container of a server, or of one of its replicas."""
        (found,) = [b for b in self.engine.boxes.values() if naming.replica_of(b.labels) == server]
        return found

    def starts(self) -> dict[str, tuple[str, int]]:
        """Each replica's container and how often it was started."""
        boxes = {name: b for b in self.engine.boxes.values() if (name := naming.replica_of(b.labels))}
        return {name: (b.id, b.started) for name, b in boxes.items()}


def faults(world: World, stack: Resolved) -> list[str]:
    """What on the engine is not as the stack wants it; nothing after an `up` that went well."""
    engine, found = world.engine, []
    want = as_found(desire(stack, world.secrets), world.observe(stack), {})

    def expect(what: str, actual: Any, expected: Any) -> None:
        if actual != expected:
            found.append(f"{what} is {actual}, not {expected}")

    mine = [b for b in engine.boxes.values() if b.labels.get(naming.STACK) == stack.name]
    serving = sorted(name for b in mine if (name := naming.replica_of(b.labels)))
    expect("the list of servers", serving, sorted(want.servers))
    for box in mine:
        server = want.servers.get(naming.replica_of(box.labels) or "")
        if server is None:
            continue
        expect(f"{box.name}'s state", box.state, "running")
        expect("its name", box.name, naming.container(stack.name, server.name, int(box.labels[naming.GENERATION])))
        expect(f"{box.name}'s fingerprint", box.labels[naming.FINGERPRINT], server.container.fingerprint)
        expect(f"{box.name}'s networks", box.networks, dict.fromkeys(server.networks, server.server.name))
        if server.live:
            expected = server.live.files.files[0].text
            expect(f"{box.name}'s routes", box.memory.get("routes"), expected)
            unsettled = box.memory.get("unsettled", set()) & want.servers.keys()
            expect(f"{box.name}'s routes that no new address would find", unsettled, set())
    networks = {n: (b.internal, b.masquerade) for n, b in engine.networks.items() if _is(stack, b.labels)}
    expect("the networks", networks, {n.name: (n.internal, n.masquerade) for n in want.networks})
    _check_leftovers(world, stack, want, mine, expect)
    _check_accounts(world, want, expect)
    return found


def deep_faults(world: World, stack: Resolved) -> list[str]:
    """What of the containers and their files is not as they were made; nothing after an `up --drift` that went well."""
    engine, found = world.engine, []
    want = as_found(desire(stack, world.secrets), world.observe(stack), {})
    for name, server in want.servers.items():
        box = world.box(name)
        if box.also or box.made is None or fields_of(box.made) != fields_of(server.container):
            found.append(f"{box.name} is made otherwise: {box.also}, {box.made}")
        filled = {f.name: {s.path: _entry(s, world) for s in f.files.files} for f in server.files}
        for volume, files in filled.items():
            there = {p: e for p, e in engine.volumes[volume].files.items() if e.type != tarfile.DIRTYPE}
            if there != files:
                found.append(f"the files of {volume} are {there}, not {files}")
        if server.live:
            there = engine.volumes[server.live.volume].files
            current = there["current"].link
            used = {p.removeprefix(f"{current}/"): e for p, e in there.items() if p.startswith(f"{current}/")}
            if used != {s.path: _entry(s, world) for s in server.live.files.files}:
                found.append(f"the live files of {name} are {used}")
    return found


def _entry(spec: FileSpec, world: World) -> Entry:
    with archive([spec], lambda a: world.secrets[a].value.reveal()) as tar:
        files: Files = {}
        extract(files, tar, "")
    return files[spec.path]


def _is(stack: Resolved, labels: Mapping[str, str]) -> bool:
    return labels.get(naming.STACK) == stack.name


def _check_leftovers(
    world: World, stack: Resolved, want: Desired, mine: list[Box], expect: Callable[[str, Any, Any], None]
) -> None:
    helpers = sorted(b.name for b in mine if naming.HELPER in b.labels and b.labels[naming.HELPER] != "generation")
    records = [b for b in mine if b.labels.get(naming.HELPER) == "generation"]
    _check_records(stack, want, records, expect)
    expected = [naming.helper(stack.name, g.link.provider, g.name) for g in want.grants]
    expected += [naming.helper(stack.name, n, "live") for n, s in want.servers.items() if s.live]
    if naming.store_volume(stack.name) in world.engine.volumes:
        expected.append(naming.helper(stack.name, "", "secrets"))
    expect("the list of helpers", helpers, sorted(expected))
    volumes = {n: v.labels.get(naming.ROLE) for n, v in world.engine.volumes.items() if _is(stack, v.labels)}
    wanted = {f.name: f.role for s in want.servers.values() for f in s.files}
    wanted |= {s.live.volume: "live" for s in want.servers.values() if s.live}
    wanted |= {v: volumes[v] for b in records for v in (m.volume for m in b.mounts)}
    kept = {n: r for n, r in volumes.items() if r not in ("data", "store")}
    expect("the volumes of files", kept, wanted)
    unlabelled = [n for n, v in world.engine.volumes.items() if not v.labels]
    expect("the volumes of nobody", unlabelled, [])


def _check_records(stack: Resolved, want: Desired, records: list[Box], expect: Callable[[str, Any, Any], None]) -> None:
    """Earlier generations are those of servers that are there, and no more than the stack says."""
    for box in records:
        expect(f"{box.name}'s server is there", box.labels[naming.OF] in want.servers, True)
    for server in want.servers:
        mine = [json.loads(b.labels[naming.RECORD])["result"] for b in records if b.labels[naming.OF] == server]
        good = [r for r in mine if r != "failed"]
        expect(f"{server} has at most so many records", len(good) <= stack.generations, True)
        expect(f"{server} has at most so many failures", len(mine) - len(good) <= stack.generations, True)


def _check_accounts(world: World, want: Desired, expect: Callable[[str, Any, Any], None]) -> None:
    for server in want.servers.values():
        if "storage" in server.server.provides:
            data = world.engine.volumes[server.volumes[0].name].files
            accounts = {n: e.data.decode() for n, e in data.items()}
            links = [g.link for g in want.grants if g.link.provider == server.server.name]
            passwords = {
                f"{naming.account(li.consumer)}_{li.name}": world.secrets[li.password].value.reveal()
                for li in links
                if li.password
            }
            mine = {n: accounts.get(n) for n in passwords}  # others may be left of what has gone
            expect(f"the accounts at {server.server.name}", mine, passwords)
