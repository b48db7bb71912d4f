"""The order of operations: what runs when, what its failure means for the others, how it is told."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from msgspec.structs import replace

from consolidate.actions import (
    Action,
    ApplyGrant,
    BackupAct,
    BeginRestore,
    CheckConfiguration,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    DumpData,
    KeepGeneration,
    LoadData,
    NameOnNetwork,
    PointLive,
    ProvideImage,
    ReachServer,
    RemoveContainer,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    RestoreVolumes,
    RevokeGrant,
    SendImage,
    StartContainer,
    StopContainer,
    StoreSecrets,
    SwitchRoute,
    UnpauseContainer,
    UpdateContainer,
    WaitReady,
    WriteFiles,
    WriteLive,
)
from consolidate.desired import Grant
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, EngineUnavailable, OperationFailed
from consolidate.execute import saving
from consolidate.execute.carrying import Carrier
from consolidate.execute.checking import check_configuration
from consolidate.execute.commands import Interrupted, apply_grant, revoke_grant, switch_route
from consolidate.execute.dumping import begin_restore, dump_data, load_data, restore_volumes
from consolidate.execute.keeping import failed, keep_generation
from consolidate.execute.providing import provide_image
from consolidate.execute.readiness import reach_server, wait_ready
from consolidate.execute.writing import batches, point_live, write_live, write_volumes
from consolidate.plan import Operation, Plan
from consolidate.report import Event, Outcome, Report
from consolidate.secret import SecretRecord, masked
from consolidate.store import read_secret, write_store

BUILDS = 2  # builds at once; each is a package manager and a disk
PATIENCE = 10.0  # seconds that operations under way get to end when the user interrupts


@dataclass
class Executor:
    """Runs plans. `secrets` are the stack's records, `wait_timeout` the seconds that a server has to get ready.

    `stamp` are labels of the containers and volumes that it makes: who does it, and when that began. `source` brings
    images from another engine.
    """

    engine: Engine
    secrets: Mapping[str, SecretRecord] = field(repr=False)
    report: Callable[[Event], None]
    make_base: Callable[[Callable[[str], None]], None]
    wait_timeout: float | None = None
    stamp: Mapping[str, str] = field(default_factory=dict)
    source: Carrier | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._builds = threading.Semaphore(BUILDS)
        self._reading = threading.Lock()
        self._lost: EngineUnavailable | None = None  # the engine has gone, in the middle of the work
        self._stopped: dict[str, float] = {}  # when each server was asked to stop, by the monotonic clock

    def run(self, plan: Plan) -> Report:
        """Run what is ready, at most `engine.parallel` at once, until nothing is left.

        A failed operation is undone as it says, and those that need it are skipped. On KeyboardInterrupt nothing more
        begins, what is under way gets a moment to end, and the interrupt goes on. Raises EngineUnavailable once the
        engine doesn't answer and all that was under way has ended: nothing more begins then either.
        """
        known = {o.id: o for o in plan.operations}
        order = TopologicalSorter({o.id: [n for n in (*o.needs, *o.after) if n in known] for o in plan.operations})
        order.prepare()
        outcomes: dict[str, Outcome] = {}
        waiting: deque[tuple[Operation, ...]] = deque()
        running: set[Future[list[Outcome]]] = set()
        pool = ThreadPoolExecutor(self.engine.parallel, thread_name_prefix="operation")
        try:
            while order.is_active():
                waiting += self._ready(order, known, outcomes)
                while waiting and len(running) < self.engine.parallel:  # `wait` looks at every one, each time
                    running.add(pool.submit(self._do, waiting.popleft()))
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
        if self._lost:
            raise self._lost
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
            if self.stopping.is_set() or self._lost:
                raise Interrupted
            if len(group) > 1:
                volumes = [o.action.volume for o in group if isinstance(o.action, WriteFiles)]
                write_volumes(self.engine, volumes, self._reveal)
            else:
                if isinstance(group[0].action, StopContainer):
                    self._stopped.setdefault(group[0].server, begun)
                self._act(group[0].action, progress)
        except Interrupted:
            return [Outcome(o, "skipped", time.monotonic() - begun, "interrupted") for o in group]
        except ConsolidateError as error:
            if isinstance(error, EngineUnavailable):
                self._lost = self._lost or error.in_the_middle()
            if isinstance(error, OperationFailed) and len(group) > 1:  # one is at fault: others go on
                return [outcome for operation in group for outcome in self._do((operation,))]
            return [self._failure(o, error, time.monotonic() - begun) for o in group]
        seconds = time.monotonic() - begun
        away = self._away(group[0]) if isinstance(group[0].action, WaitReady) else None
        for operation in group:
            self.report(Event(time.time(), operation, "done", seconds, away=away))
        return [Outcome(o, "done", seconds, away=away) for o in group]

    def _away(self, operation: Operation) -> float | None:
        """How long ago its server was asked to stop, when it is seen ready; None where it was not."""
        stopped = self._stopped.pop(operation.server, None)
        return None if stopped is None else time.monotonic() - stopped

    def _failure(self, operation: Operation, error: ConsolidateError, seconds: float) -> Outcome:
        """What a program has said may hold secrets: from here on, in events, reports and records, it is masked."""
        said = "\n".join(error.log) if isinstance(error, OperationFailed) else ""
        log = tuple(masked(said, self.secrets).split("\n")) if said else ()
        what = masked(error.what, self.secrets)
        undone, away = self._undo(operation, what, log)
        undone = tuple(masked(u, self.secrets) for u in undone)
        self.report(Event(time.time(), operation, "failed", seconds, "\n".join([what, *log]), away))
        return Outcome(operation, "failed", seconds, masked(str(error), self.secrets), log, undone, away)

    def _undo(self, operation: Operation, why: str, log: tuple[str, ...]) -> tuple[tuple[str, ...], float | None]:
        """What was done to take it back, and how long the server was away if that has brought it back."""
        told, away = [], None
        for number, action in enumerate(operation.undo):
            try:
                if isinstance(action, KeepGeneration):
                    keep_generation(self.engine, failed(action, why, log, self.stamp, time.time()))
                    continue
                if isinstance(action, WaitReady):  # what served before gets its own time, not that of the new one
                    wait_ready(self.engine, action, None, self.stopping)
                    away = self._away(operation)
                else:
                    self._act(action, lambda _: None)
                told.append(f"{action.verb} {getattr(action, 'name', '')}".strip())
            except Interrupted:
                told.append(f"did not {action.verb}: interrupted")
                if any(isinstance(a, RestoreVolumes | LoadData) for a in operation.undo[: number + 1]):
                    break  # the data may not be whole, and the word of it has to stay
            except ConsolidateError as error:
                told.append(f"could not {action.verb}: {error.what}")
                if isinstance(error, EngineUnavailable) or isinstance(action, RestoreVolumes | LoadData):
                    # Nothing more can be done; or what follows rests on the data.
                    break
        return tuple(told), away

    def _reveal(self, address: str) -> str:
        return self.secrets[address].value.reveal()

    def _revealer(self, grant: Grant) -> Callable[[str], str]:
        """Where a grant's password is: in the store, or where its consumer has it; from now on that is masked as well."""
        address = grant.link.password
        if grant.password_in is None or address is None:
            return self._reveal
        record = read_secret(self.engine, *grant.password_in, address)
        with self._reading:
            self.secrets = {**self.secrets, f"{address} of then": record}
        return lambda _: record.value.reveal()

    def _act(self, action: Action, progress: Callable[[str], None]) -> None:
        engine = self.engine
        match action:
            case ProvideImage():
                provide_image(
                    engine,
                    action,
                    progress,
                    make_base=self.make_base,
                    reveal=self._reveal,
                    builds=self._builds,
                    stopping=self.stopping,
                )
            case RemoveImage(name):
                engine.remove_image(name)
            case SendImage():
                assert self.source is not None, "a plan that sends images says from where"
                self.source.carry(engine, action, progress, self.stopping)
            case StoreSecrets():
                write_store(engine, action.stack, action.records)
            case CreateNetwork():
                engine.create_network(action)
            case RemoveNetwork(name):
                engine.remove_network(name)
            case CreateVolume(name, labels):
                engine.create_volume(name, dict((*labels, *self.stamp.items())))
            case RemoveVolume(name):
                engine.remove_volume(name)
            case WriteFiles(volume):
                write_volumes(engine, [volume], self._reveal)
            case WriteLive():
                write_live(engine, action, self._reveal)
            case PointLive():
                point_live(engine, action)
            case CreateContainer():
                engine.create(replace(action, labels=(*action.labels, *self.stamp.items())))
            case CheckConfiguration():
                check_configuration(engine, action, self.stopping)
            case BeginRestore():
                begin_restore(engine, action)
            case RestoreVolumes():
                restore_volumes(engine, action, self.stopping)
            case LoadData():
                load_data(engine, action)
            case DumpData():
                dump_data(engine, action, self.stopping)
            case StartContainer(name, new):
                engine.start(name, new=new)
            case UpdateContainer(name, limits):
                engine.update(name, limits)
            case UnpauseContainer(name):
                engine.unpause(name)
            case RenameContainer(found, name):
                engine.rename(found, name)
            case WaitReady():
                wait_ready(engine, action, self.wait_timeout, self.stopping)
            case StopContainer(name, grace):
                engine.stop(name, grace)
            case RemoveContainer(name, nameless_volumes):
                engine.remove(name, nameless_volumes=nameless_volumes)
            case KeepGeneration():
                keep_generation(engine, action)
            case ConnectNetwork(container, network, alias):
                engine.connect(container, network, alias)
            case DisconnectNetwork(container, network):
                engine.disconnect(container, network)
            case NameOnNetwork(container, network, alias):
                if alias not in engine.state(container).names.get(network, ()):
                    engine.disconnect(container, network)
                    engine.connect(container, network, alias)
            case ReachServer():
                reach_server(engine, action, self.wait_timeout, self.stopping)
            case SwitchRoute():
                switch_route(engine, action)
            case ApplyGrant(grant=grant):
                apply_grant(engine, action, self._revealer(grant))
            case RevokeGrant():
                revoke_grant(engine, action)
            case BackupAct():
                saving.act(engine, action, self.secrets, self.stopping)
