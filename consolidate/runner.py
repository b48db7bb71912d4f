"""The arrow's end: a plan is carried out under the stack's lock, and a report comes of it."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.engine import LOCK_GRACE, Engine, taken_over, tenure
from consolidate.errors import Locked, OperationFailed
from consolidate.observed import Observed
from consolidate.pipeline import BASE, Prepared
from consolidate.plan import Plan
from consolidate.report import Event, Report
from consolidate.secret import SecretRecord

if TYPE_CHECKING:
    from consolidate.execute import Executor


LOCK_PAUSE = 5.0  # seconds between two looks at a lock that is waited for


def check_unlocked(engine: Engine, observed: Observed, tell: Callable[[str], None]) -> None:
    """Raises Locked where somebody works on the stack: what they have not finished is not `nothing to change`.

    What a dead holder has left of a lock is removed, and `tell` hears of it.
    """
    lock = observed.helper(naming.helper(observed.stack, "", "lock"))
    if lock is None:
        return
    who = lock.labels.get(naming.HOLDER, "somebody")
    since = datetime.fromtimestamp(lock.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
    found = tenure(lock.state, lock.labels.get(naming.PROCESS, ""))
    if found == "left":
        with contextlib.suppress(OperationFailed):  # its holder was done and let it go, after we had seen the list
            engine.state(lock.id)
            engine.remove(lock.id)  # by its id: the name may be another's by now
            tell(taken_over(who, since))
    elif found == "held" or time.time() - lock.created < LOCK_GRACE:
        raise Locked.by(who, since)


def without_sessions(prepared: Prepared) -> Prepared:
    """The plan without the helpers of a backup or a restore that is under way: whoever holds the lock takes them away."""
    observed = prepared.observed
    lock = observed.helper(naming.helper(observed.stack, "", "lock"))
    if lock is None or tenure(lock.state, lock.labels.get(naming.PROCESS, "")) != "held":
        return prepared
    theirs = {c.name for c in observed.containers if c.helper in ("backup", "freeze")}
    theirs |= {n.name for n in observed.networks if n.labels.get(naming.HELPER) == "backup"}
    mine = (o.id for o in prepared.plan.operations if o.id.partition(":")[2] not in theirs)
    return replace(prepared, plan=prepared.plan.only(mine))


def holder() -> str:
    """Who holds a lock, for whoever meets it."""
    return f"{who()} (process {os.getpid()})"


def who() -> str:
    """Who does it, for whoever reads of it later."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


class Runner(Struct, frozen=True):
    """What verbs that change something do it with."""

    engine: Engine
    report: Callable[[Event], None]
    make_base: Callable[[Callable[[str], None]], None]
    tell: Callable[[str], None]
    wait_timeout: float | None = None
    all_or_nothing: bool = False

    def executor(self, secrets: Mapping[str, SecretRecord]) -> Executor:
        from consolidate.execute import Executor  # an `up` with nothing to change needs none

        stamp = {naming.BY: who(), naming.RUN: datetime.now(UTC).isoformat(timespec="milliseconds")}
        return Executor(self.engine, secrets, self.report, self.make_base, self.wait_timeout, stamp)

    @contextmanager
    def locked(self, stack: str, patience: float = 0.0) -> Iterator[None]:
        """Hold a stack's lock. It is a container of the base image, which is brought first where the engine has none.

        Raises Locked once somebody else has had it for `patience` seconds, and OperationFailed where that can't be had.
        """
        if not self.engine.has_image(naming.BASE_IMAGE):
            self.make_base(self.tell)
        end, told = time.monotonic() + patience, False
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(self.engine.lock(stack, holder(), self.tell))
                    break
                except Locked as error:
                    if (left := end - time.monotonic()) <= 0:
                        raise
                    if not told:
                        self.tell(f"{error.what}; waiting, {patience:g} s at most")
                        told = True
                    time.sleep(min(left, LOCK_PAUSE))
            yield

    def apply(self, prepared: Prepared, again: Callable[[], Prepared], show: Callable[[Plan], None]) -> Report:
        """Execute a plan under the stack's lock.

        The base image comes before that, since the lock is a container of it. Should the engine have changed since the
        plan was made, `again` plans anew and `show` shows it before anything is done.
        """
        plan = prepared.plan
        base = self.executor({}).run(plan.only([BASE]))
        if not base.ok:
            return base
        with self.locked(plan.stack):
            if self.engine.observe(plan.stack).essence != prepared.observed.essence:
                prepared = again()
                plan = prepared.plan
                show(plan)
            report = self._carry_out(prepared, plan.only(o.id for o in plan.operations if o.id != BASE))
        return Report(plan, (*base.outcomes, *report.outcomes), report.back)

    def _carry_out(self, prepared: Prepared, plan: Plan) -> Report:
        if not self.all_or_nothing:
            return self.executor(prepared.secrets).run(plan)
        from consolidate.together import carry_out

        return carry_out(
            self.engine,
            lambda: self.executor(prepared.secrets),
            plan,
            desired=prepared.desired,
            before=prepared.observed,
            tell=self.tell,
        )
