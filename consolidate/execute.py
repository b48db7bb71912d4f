"""The one place where things happen: runs a plan's operations on an engine. Carries no decision."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import IO, TypeVar

from consolidate import files, naming
from consolidate.desired import CURRENT, NEXT, FileVolume, Live
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, OperationFailed
from consolidate.files import FileSpec
from consolidate.filters import fill
from consolidate.plan import (
    ADDRESS,
    Action,
    ApplyGrant,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    NameOnNetwork,
    Operation,
    Plan,
    ProvideImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RevokeGrant,
    StartContainer,
    StopContainer,
    StoreSecrets,
    SwitchRoute,
    WaitReady,
    WriteFiles,
    WriteLive,
)
from consolidate.report import Event, Outcome, Report
from consolidate.secret import SecretRecord
from consolidate.store import WRITE_PATH, write_store

T = TypeVar("T")

FIRST_PROBE, SLOWEST_PROBE = 0.1, 2.0  # seconds between readiness probes: at first, and at last
LATE = 0.08  # of the time that a server has taken so far: how much later than that we may notice that it is ready
STEADY = 1.0  # seconds that a program with no check must run to count as ready
RESTARTS = 3  # engine restarts after which a starting program counts as dead
BUILDS = 2  # builds at once; each is a package manager and a disk
BATCH = 16  # volumes filled at once: an archive costs the engine about the same whatever is in it
LOG_LINES = 15
TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")  # in front of each line of a log
PATIENCE = 10.0  # seconds that operations under way get to end when the user interrupts


class Interrupted(Exception):
    """The user asked to stop."""


class Unreadable(OperationFailed):
    """A file of ours can't be read; found out before the engine was asked for anything."""


def batches(items: Sequence[T]) -> list[tuple[T, ...]]:
    """What is written together."""
    return [tuple(items[i : i + BATCH]) for i in range(0, len(items), BATCH)]


@dataclass
class Executor:
    """Runs plans. `secrets` are the stack's records, `wait_timeout` the seconds that a server has to get ready."""

    engine: Engine
    secrets: Mapping[str, SecretRecord] = field(repr=False)
    report: Callable[[Event], None]
    make_base: Callable[[Callable[[str], None]], None]
    wait_timeout: float | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._builds = threading.Semaphore(BUILDS)

    def run(self, plan: Plan) -> Report:
        """Run what is ready, at most `engine.parallel` at once, until nothing is left.

        A failed operation is undone as it says, and those that need it are skipped. On KeyboardInterrupt nothing more
        begins, what is under way gets a moment to end, and the interrupt goes on.
        """
        known = {o.id: o for o in plan.operations}
        order = TopologicalSorter({o.id: [n for n in (*o.needs, *o.after) if n in known] for o in plan.operations})
        order.prepare()
        outcomes: dict[str, Outcome] = {}
        running: set[Future[list[Outcome]]] = set()
        pool = ThreadPoolExecutor(self.engine.parallel, thread_name_prefix="operation")
        try:
            while order.is_active():
                running |= {pool.submit(self._do, group) for group in self._ready(order, known, outcomes)}
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for outcome in (o for future in done for o in future.result()):
                    outcomes[outcome.operation.id] = outcome
                    order.done(outcome.operation.id)
        except KeyboardInterrupt:
            self.stopping.set()
            wait(running, timeout=PATIENCE)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return Report(plan, tuple(outcomes[o.id] for o in plan.operations if o.id in outcomes))

    def _ready(
        self, order: TopologicalSorter[str], known: Mapping[str, Operation], outcomes: dict[str, Outcome]
    ) -> list[tuple[Operation, ...]]:
        """What can begin now, in groups; what needs a failed one is skipped, and so on down its dependants."""
        ready = []
        while ids := order.get_ready():
            for operation in (known[i] for i in ids):
                bad = [n for n in operation.needs if n in outcomes and outcomes[n].status != "done"]
                if bad:
                    outcomes[operation.id] = Outcome(operation, "skipped", 0.0, f"needs {bad[0]}")
                    self.report(Event(time.time(), operation, "skipped", 0.0, f"needs {bad[0]}"))
                    order.done(operation.id)
                else:
                    ready.append(operation)
        writes = [o for o in ready if isinstance(o.action, WriteFiles)]
        return batches(writes) + [(o,) for o in ready if not isinstance(o.action, WriteFiles)]

    def _do(self, group: tuple[Operation, ...]) -> list[Outcome]:
        begun = time.monotonic()
        for operation in group:
            self.report(Event(time.time(), operation, "started", 0.0))

        def progress(text: str) -> None:
            self.report(Event(time.time(), group[0], "progress", time.monotonic() - begun, text))

        try:
            if self.stopping.is_set():
                raise Interrupted
            if len(group) > 1:
                self._write([o.action.volume for o in group if isinstance(o.action, WriteFiles)])
            else:
                self._act(group[0].action, progress)
        except Interrupted:
            return [Outcome(o, "skipped", time.monotonic() - begun, "interrupted") for o in group]
        except ConsolidateError as error:
            if isinstance(error, OperationFailed) and len(group) > 1:  # one is at fault: others go on
                return [outcome for operation in group for outcome in self._do((operation,))]
            return [self._failure(o, error, time.monotonic() - begun) for o in group]
        seconds = time.monotonic() - begun
        for operation in group:
            self.report(Event(time.time(), operation, "done", seconds))
        return [Outcome(o, "done", seconds) for o in group]

    def _failure(self, operation: Operation, error: ConsolidateError, seconds: float) -> Outcome:
        undone = self._undo(operation)
        log = error.log if isinstance(error, OperationFailed) else ()
        self.report(Event(time.time(), operation, "failed", seconds, "\n".join([error.what, *log])))
        return Outcome(operation, "failed", seconds, str(error), log, undone)

    def _undo(self, operation: Operation) -> tuple[str, ...]:
        told = []
        for action in operation.undo:
            try:
                self._act(action, lambda _: None)
                told.append(f"{action.verb} {getattr(action, 'name', '')}".strip())
            except ConsolidateError as error:
                told.append(f"could not {action.verb}: {error.what}")
        return tuple(told)

    def _reveal(self, address: str) -> str:
        return self.secrets[address].value.reveal()

    def _act(self, action: Action, progress: Callable[[str], None]) -> None:
        engine = self.engine
        match action:
            case ProvideImage():
                self._image(action, progress)
            case StoreSecrets():
                write_store(engine, action.stack, action.records)
            case CreateNetwork():
                engine.create_network(action)
            case RemoveNetwork(name):
                engine.remove_network(name)
            case CreateVolume(name, labels):
                engine.create_volume(name, dict(labels))
            case RemoveVolume(name):
                engine.remove_volume(name)
            case WriteFiles(volume):
                self._write([volume])
            case WriteLive():
                self._write_live(action)
            case CreateContainer():
                engine.create(action)
            case StartContainer(name):
                engine.start(name)
            case WaitReady():
                self._wait(action)
            case StopContainer(name, grace):
                engine.stop(name, grace)
            case RemoveContainer(name):
                engine.remove(name)
            case ConnectNetwork(container, network, alias):
                engine.connect(container, network, alias)
            case DisconnectNetwork(container, network):
                engine.disconnect(container, network)
            case NameOnNetwork(container, network, alias):
                engine.disconnect(container, network)
                engine.connect(container, network, alias)
            case SwitchRoute():
                self._switch(action)
            case ApplyGrant():
                self._grant(action)
            case RevokeGrant():
                self._revoke(action)

    def _image(self, action: ProvideImage, progress: Callable[[str], None]) -> None:
        image = action.image
        if image.how == "base":
            self.make_base(progress)
        elif image.how == "pull":
            self.engine.pull(image.tag, progress)
        else:
            with self._builds:
                if self.stopping.is_set():  # it waited for another build meanwhile
                    raise Interrupted
                with self._archive(image.context.files) as context:
                    self.engine.build(image, context, progress)

    def _archive(self, specs: Iterable[FileSpec]) -> IO[bytes]:
        try:
            return files.archive(specs, self._reveal)
        except OSError as error:
            raise Unreadable(f"{error.filename} can't be read: {error.strerror}") from None

    def _write(self, volumes: Sequence[FileVolume]) -> None:
        """Fill volumes: new ones, or again those of a run that was stopped.

        The writer's name stands for just these volumes, so that it never takes the place of another's remains.
        """
        stack, servers = volumes[0].stack, {v.server for v in volumes}
        writer = naming.helper(stack, "", f"{naming.digest(sorted(v.name for v in volumes), 12)}.writer")
        labels = {naming.STACK: stack, naming.OF: ", ".join(sorted(servers)), naming.HELPER: "writer"}
        theirs = {v.name: {naming.STACK: stack, naming.OF: v.server, naming.ROLE: v.role} for v in volumes}
        with self._archive(f for v in volumes for f in v.files.below(v.name).files) as tar:
            try:
                self.engine.create_helper(writer, labels, {v.name: f"{WRITE_PATH}/{v.name}" for v in volumes}, theirs)
                self.engine.put(writer, WRITE_PATH, tar)
            except OperationFailed:
                self._forget(writer, volumes)
                raise
        self.engine.remove(writer)

    def _forget(self, writer: str, volumes: Sequence[FileVolume]) -> None:
        """Remove what could not be filled: on a full disk it takes the room that others need."""
        with contextlib.suppress(ConsolidateError):
            self.engine.remove(writer)
            for volume in volumes:
                self.engine.remove_volume(volume.name)

    def _write_live(self, action: WriteLive) -> None:
        """Write the new files beside the current ones, have them checked, make them current, and tell the program."""
        live, container = action.live, action.container
        stack = live.stack
        writer = naming.helper(stack, live.server, "live")
        labels = {naming.STACK: stack, naming.HELPER: "live", naming.OF: live.server}
        self.engine.create_helper(writer, labels, {live.volume: WRITE_PATH})
        new = (*live.files.below(live.applied).files, _link(NEXT, live))
        if container is None:  # nobody reads them yet: they are current at once
            new = (*new, _link(CURRENT, live))
        with self._archive(new) as tar:
            self.engine.put(writer, WRITE_PATH, tar)
        if container and live.check:
            code, said = self.engine.run(container, live.check)
            if code:
                raise OperationFailed(
                    f"{live.server} refuses its new files; it goes on with the old ones",
                    log=said.splitlines()[-LOG_LINES:],
                )
        if container:
            with self._archive([_link(CURRENT, live)]) as tar:
                self.engine.put(writer, WRITE_PATH, tar)
        if container and live.command:
            code, said = self.engine.run(container, live.command)
            if code:
                raise OperationFailed(f"{live.server} did not reload", log=said.splitlines()[-LOG_LINES:])
        elif container and live.signal:
            self.engine.kill(container, live.signal)
        applied = {naming.APPLIED: live.applied, naming.GENERATION: str(action.generation)}
        self.engine.create_helper(writer, labels | applied, {live.volume: WRITE_PATH})

    def _wait(self, action: WaitReady) -> None:
        """Probe from the start on: fast at first, then slower, by what a probe costs."""
        begun = time.monotonic()
        limit = self.wait_timeout or (action.check.timeout if action.check and action.check.timeout > 10 else 60.0)
        pause, said = FIRST_PROBE, ""
        command = action.check.command if action.check else None
        restarts, steady, code = 0, begun, 0
        while True:
            probe = time.monotonic()
            state = self.engine.state(action.name)
            if state.restarts != restarts or not state.running:  # it died, and the engine starts it again
                restarts, steady, code = state.restarts, probe, state.exit_code or code
            command = command or state.test or None
            if state.restarts >= RESTARTS or state.status in ("exited", "dead"):
                code = state.exit_code or code
                raise self._failed(f"{action.name} ended with exit status {code} instead of getting ready", action)
            if state.running and command is None and time.monotonic() - steady > STEADY:
                return
            if state.running and command is not None:
                try:
                    verdict, said = self.engine.run(action.name, command)
                except OperationFailed as error:  # it ended between the two calls
                    verdict, said = 1, error.what
                if verdict == 0:
                    return
            if time.monotonic() - begun > limit:
                last = said.strip().splitlines()[-1:] or [state.error]
                raise self._failed(f"{action.name} is not ready after {limit:g} s; its check says: {last[0]}", action)
            if self.stopping.wait(max(pause, time.monotonic() - probe)):
                raise Interrupted
            pause = min(FIRST_PROBE + LATE * (time.monotonic() - begun), SLOWEST_PROBE)

    def _failed(self, what: str, action: WaitReady) -> OperationFailed:
        lines = self.engine.logs(action.name, tail=LOG_LINES, since=None, follow=False)
        return OperationFailed(what, log=[TIME.sub("", line.decode(errors="replace")).rstrip() for line in lines])

    def _switch(self, action: SwitchRoute) -> None:
        address = self.engine.state(action.container).addresses[action.network] if action.network else ""
        command = [address if word == ADDRESS else word for word in action.command]
        code, said = self.engine.run(action.proxy, command)
        if code:
            raise OperationFailed(f"{action.proxy} does not switch", log=said.splitlines()[-LOG_LINES:])

    def _grant(self, action: ApplyGrant) -> None:
        grant = action.grant
        code, said = self.engine.run(action.container, grant.command, fill(grant.input, self._reveal).encode())
        if code:
            what = f"{grant.link.provider} refuses {grant.link.consumer}"
            raise OperationFailed(what, log=said.splitlines()[-LOG_LINES:])
        revoke = json.dumps({"command": grant.revoke_command, "input": grant.revoke_input})
        labels = {
            naming.STACK: action.stack,
            naming.HELPER: "grant",
            naming.OF: grant.link.provider,
            naming.APPLIED: grant.applied,
            naming.REVOKE: revoke,
        }
        self.engine.create_helper(action.receipt, labels, {})

    def _revoke(self, action: RevokeGrant) -> None:
        if action.container and action.command:
            code, said = self.engine.run(action.container, action.command, action.input.encode())
            if code:
                raise OperationFailed(f"{action.container} can't take a grant back", log=said.splitlines()[-LOG_LINES:])
        self.engine.remove(action.receipt)


def _link(name: str, live: Live) -> FileSpec:
    return FileSpec(name, 0o777, link=live.applied)


__all__ = ["Executor", "Interrupted"]
