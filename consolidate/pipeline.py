"""The arrow: stack file → servers → desired, engine → observed, the difference → plan → report. A dozen lines a verb."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from consolidate import naming, vault
from consolidate.desired import Desired, desire
from consolidate.diff import diff
from consolidate.engine import Engine
from consolidate.errors import OperationFailed, Problem, StackInvalid, UsageError
from consolidate.execute import Executor, write_store
from consolidate.kinds import Catalogue, data_folder
from consolidate.loader import Document, did_you_mean, load
from consolidate.observed import Observed
from consolidate.plan import (
    Operation,
    Plan,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    StartContainer,
    StopContainer,
    WaitReady,
)
from consolidate.report import Event, Report
from consolidate.resolve import BASE_IMAGE, Resolved, host_problems, resolve
from consolidate.secret import SecretRecord

STACK_FILE = "stack.yml"


@dataclass(frozen=True)
class Source:
    """Where a stack is: its file, its environment, and further folders of templates."""

    file: Path
    environment: str | None = None
    templates: tuple[Path, ...] = ()

    @property
    def overlay(self) -> Path | None:
        if self.environment is None:
            return None
        return self.file.with_name(f"{self.file.stem}.{self.environment}{self.file.suffix}")


@dataclass(frozen=True)
class Prepared:
    """Everything that a verb needs to decide, and the plan that follows from it."""

    resolved: Resolved
    desired: Desired
    observed: Observed
    secrets: Mapping[str, SecretRecord] = field(repr=False)
    plan: Plan = field(default_factory=lambda: Plan("", ()))


def find_file(given: Path | None, start: Path) -> Path:
    """The stack file: the one given, a folder's stack.yml, or the nearest stack.yml at `start` or above.

    Raises UsageError.
    """
    if given is not None:
        return given / STACK_FILE if given.is_dir() else given
    for folder in (start, *start.parents):
        if (folder / STACK_FILE).is_file():
            return folder / STACK_FILE
    raise UsageError(
        "there is no stack.yml here or above",
        hint="name one (`consolidate up FILE`), or make one with `consolidate init`",
    )


def load_document(source: Source) -> Document:
    overlay = source.overlay
    if overlay is not None and not overlay.is_file():
        raise UsageError(
            f"there is no {overlay.name} beside {source.file}", hint="an environment is a file of that name"
        )
    return load(source.file, overlay)


def catalogue(source: Source, document: Document) -> Catalogue:
    """The kinds: folders of the command line, of the stack, and ours."""
    given = document.data.get("templates") or []
    own = [source.file.parent / t for t in given if isinstance(t, str)] if isinstance(given, list) else []
    return Catalogue([*source.templates, *own, data_folder("templates")])


def load_stack(source: Source) -> Resolved:
    """YAML to servers.

    Raises StackInvalid with every problem.
    """
    document = load_document(source)
    return resolve(document, catalogue(source, document), source.file.parent, source.environment)


def stack_name(source: Source) -> str:
    """The stack's name on the engine, for verbs that need no more of its file.

    Raises StackInvalid.
    """
    document = load_document(source)
    name = document.data.get("stack")
    if not isinstance(name, str) or not naming.NAME.fullmatch(name):
        hint = "letters a-z, digits and dashes, beginning with a letter"
        raise StackInvalid([Problem("the stack needs a name", document.place(("stack",)), "stack", hint)])
    return f"{name}-{source.environment}" if source.environment else name


def read_secrets(engine: Engine, observed: Observed) -> dict[str, SecretRecord]:
    """The store on the engine.

    Raises OperationFailed where it is damaged.
    """
    volume = naming.store_volume(observed.stack)
    if volume not in {v.name for v in observed.volumes}:
        return {}
    helper = naming.helper(observed.stack, "", "secrets")
    if observed.helper(helper) is None:
        # Somebody removed the helper. Without it nothing can be read, so this one thing comes back even for a plan.
        labels = {naming.STACK: observed.stack, naming.HELPER: "secrets"}
        engine.create_helper(helper, labels, {volume: "/write"})
    try:
        return vault.parse(_only_file(engine.get(helper, f"/write/{vault.STORE_FILE}")))
    except OperationFailed as error:
        if "no such file" in error.what.lower() or "could not find" in error.what.lower():
            return {}  # a run was stopped between making the volume and filling it
        raise
    except (ValueError, KeyError) as error:
        raise OperationFailed(f"the store of secrets in the volume {volume} is damaged: {error}") from None


def _only_file(archive: bytes) -> str:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                return content.read().decode()
    raise ValueError("it is empty")


def prepare(source: Source, engine: Engine, *, servers: Sequence[str] = (), now: datetime | None = None) -> Prepared:
    """Read the stack and the engine, and plan.

    Raises StackInvalid, also where the host is too small or a port is taken.
    """
    resolved = load_stack(source)
    observed = engine.observe(resolved.name)
    stored = read_secrets(engine, observed)
    read = vault.read_source(source.file.parent, _in_proxy(engine, observed, resolved.proxy))
    records, changed = vault.settle(vault.needed(resolved), stored, now or datetime.now(UTC), read)
    desired = desire(resolved, records)
    check_host(resolved, observed)
    try:
        plan = diff(desired, observed, records.values() if changed else ())
    except ValueError as error:
        raise StackInvalid(
            [Problem(str(error), resolved.document.place(("host", "subnets")), "host.subnets")]
        ) from None
    return Prepared(resolved, desired, observed, records, narrowed(plan, resolved, servers))


def _in_proxy(engine: Engine, observed: Observed, proxy: str | None) -> Callable[[str], str | None]:
    """A reader of files in the proxy's container; None where it has no such file, or isn't there."""

    def read(path: str) -> str | None:
        container = observed.current(proxy) if proxy else None
        if container is None:
            return None
        try:
            return _only_file(engine.get(container.name, path))
        except OperationFailed:
            return None

    return read


def check_host(resolved: Resolved, observed: Observed) -> None:
    """What only the host can tell: memory that isn't there, ports that others hold.

    Raises StackInvalid.
    """
    taken = [*observed.foreign_ports, *_listening(resolved, observed)]
    problems = host_problems(resolved, observed.host, taken)
    if problems:
        raise StackInvalid(problems)


def _listening(resolved: Resolved, observed: Observed) -> list[tuple[str, int, str, str]]:
    """Ports that programs of this machine listen on, where the engine is its own and the stack wants one anew."""
    held = {(p, t) for c in observed.containers for _, p, t in c.ports}
    wanted = {(p.port, p.protocol) for s in resolved.servers.values() for p in s.publish} - held
    if not wanted:
        return []
    from consolidate.doctor import is_local, listeners

    if not is_local({"Name": observed.host.name, "KernelVersion": observed.host.kernel}):
        return []
    others = (e for e in listeners() if e.program != "docker-proxy")
    return [(e.address, e.port, "tcp", e.program or "another program") for e in others]


def check_servers(resolved: Resolved, names: Iterable[str]) -> None:
    """Raises UsageError for a server that the stack doesn't have."""
    for name in names:
        if name not in resolved.servers:
            hint = did_you_mean(name, resolved.servers) or f"it has: {', '.join(resolved.servers)}"
            raise UsageError(f"the stack has no server '{name}'", hint=hint)


def narrowed(plan: Plan, resolved: Resolved, servers: Sequence[str]) -> Plan:
    """The operations of these servers and whatever they need; all of them for none."""
    if not servers:
        return plan
    check_servers(resolved, servers)
    by_id = {o.id: o for o in plan.operations}
    chosen: set[str] = set()
    todo = [o.id for o in plan.operations if o.server in servers or set(o.server.split(", ")) & set(servers)]
    while todo:
        id_ = todo.pop()
        if id_ not in chosen:
            chosen.add(id_)
            todo += by_id[id_].needs
    return plan.only(chosen)


def holder() -> str:
    """Who holds a lock, for whoever meets it."""
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"


@dataclass(frozen=True)
class Runner:
    """What `up` and `down` do things with."""

    engine: Engine
    report: Callable[[Event], None]
    make_base: Callable[[Callable[[str], None]], None]
    wait_timeout: float | None = None

    def executor(self, secrets: Mapping[str, SecretRecord]) -> Executor:
        return Executor(self.engine, secrets, self.report, self.make_base, self.wait_timeout)

    def apply(self, prepared: Prepared, again: Callable[[], Prepared], show: Callable[[Plan], None]) -> Report:
        """Execute a plan under the stack's lock.

        The base image comes first, since the lock is a container of it. Should the engine have changed since the plan
        was made, `again` plans anew and `show` shows it before anything is done.
        """
        base = f"image:{BASE_IMAGE}"
        plan = prepared.plan
        outcomes = []
        if any(o.id == base for o in plan.operations):
            first = self.executor({}).run(plan.only([base]))
            if not first.ok:
                return first
            outcomes += list(first.outcomes)
        with self.engine.lock(plan.stack, holder()):
            if not same(self.engine.observe(plan.stack), prepared.observed):
                prepared = again()
                plan = prepared.plan
                show(plan)
            report = self.executor(prepared.secrets).run(plan.only(o.id for o in plan.operations if o.id != base))
        return Report(plan, (*outcomes, *report.outcomes))


def same(now: Observed, before: Observed) -> bool:
    """Whether nothing that a plan rests on has changed; clocks, images and our own lock don't count."""

    def essence(observed: Observed) -> tuple[object, ...]:
        containers = [
            (c.name, c.state, c.fingerprint, sorted(c.networks)) for c in observed.containers if c.helper != "lock"
        ]
        return (containers, [n.name for n in observed.networks], [v.name for v in observed.volumes])

    return essence(now) == essence(before)


def down_plan(observed: Observed, *, volumes: bool, servers: Sequence[str] = ()) -> Plan:
    """A plan that removes a stack from the engine; its data only with `volumes`."""
    operations: list[Operation] = []
    removed = {}
    for container in observed.containers:
        server = container.server or container.labels.get(naming.OF, "")
        if container.helper == "lock" or (servers and server not in servers):
            continue
        if container.helper == "secrets" and not volumes:
            continue
        needs: tuple[str, ...] = ()
        if container.running:
            id_ = f"stop:{container.name}"
            stop = StopContainer(container.name, 60)
            operations.append(Operation(id_, stop, server, "down", impact="restart", downtime="it is gone"))
            needs = (id_,)
        id_ = f"remove:{container.name}"
        removed[container.name] = id_
        operations.append(Operation(id_, RemoveContainer(container.name), server, "down", needs))
    for network in observed.networks:
        users = [c.name for c in observed.containers if network.name in c.networks]
        if all(u in removed for u in users):
            needs = tuple(removed[u] for u in users)
            action = RemoveNetwork(network.name)
            owner = network.labels.get(naming.OF, "")
            operations.append(Operation(f"remove-network:{network.name}", action, owner, "down", needs))
    notes = []
    for volume in observed.volumes:
        role, owner = volume.labels.get(naming.ROLE, ""), volume.labels.get(naming.OF, "")
        if servers and owner not in servers:
            continue
        if role in ("data", "store") and not volumes:
            notes.append(f"kept: the volume {volume.name}")
            continue
        users = [c.name for c in observed.containers if volume.name in c.volumes]
        needs = tuple(removed[u] for u in users if u in removed)
        remove = RemoveVolume(volume.name)
        operations.append(Operation(f"remove-volume:{volume.name}", remove, owner, "down", needs))
    return Plan(observed.stack, tuple(operations), tuple(notes))


def save_secrets(engine: Engine, stack: str, records: Mapping[str, SecretRecord]) -> None:
    """Write the store under the stack's lock."""
    volume = naming.store_volume(stack)
    engine.create_volume(volume, {naming.STACK: stack, naming.OF: "", naming.ROLE: "store"})
    write_store(engine, stack, tuple(records.values()))


def restart_plan(source: Source, engine: Engine, servers: Sequence[str]) -> Plan:
    """A plan that stops and starts servers of the engine.

    Raises UsageError for an unknown one.
    """
    name = stack_name(source)
    observed = engine.observe(name)
    operations: list[Operation] = []
    for server in servers:
        container = observed.current(server)
        if container is None:
            hint = did_you_mean(server, observed.servers) or f"there are: {', '.join(observed.servers) or 'none'}"
            raise UsageError(f"the engine has no server '{server}' of this stack", hint=hint)
        stop, start = f"stop:{server}", f"start:{server}"
        downtime = "from its stop until it is ready"
        operations += [
            Operation(
                stop, StopContainer(container.name, 60), server, "asked for", impact="restart", downtime=downtime
            ),
            Operation(start, StartContainer(container.name), server, "asked for", (stop,), impact="restart"),
            Operation(f"ready:{server}", WaitReady(container.name, None), server, "asked for", (start,)),
        ]
    return Plan(name, tuple(operations))
