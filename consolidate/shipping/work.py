"""The walk of `ship`: look at both engines, decide, send. It needs no lock: images that are there disturb nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import SendImage
from consolidate.base_image import debian_architecture
from consolidate.desire.content import restic_image
from consolidate.engine import Engine, Machine
from consolidate.errors import ConsolidateError, EngineUnavailable, OperationFailed, UsageError
from consolidate.execute import Executor
from consolidate.execute.carrying import HERE, Carrier
from consolidate.execute.commands import free_disk
from consolidate.observed import Observed
from consolidate.pipeline import check_servers
from consolidate.plan import Operation, Plan
from consolidate.report import Event, Report, amount
from consolidate.shipping.choice import Chosen, choose, surprises
from consolidate.shipping.loads import Held, Load, loads
from consolidate.source import Source, described, environments, stack_name, with_lock


class Shipment(Struct, frozen=True):
    """What is sent, in this order, and what to know about it."""

    stack: str
    to: str
    loads: tuple[Load, ...]
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """An operation for each image that isn't there by all of its names, one after the other."""
        operations: list[Operation] = []
        for load in self.loads:
            if load.todo:
                action = SendImage(load.choice.image, load.names, load.have, load.left, load.there)
                after = (operations[-1].id,) if operations else ()
                reason = "it has no such name there" if load.there else "it isn't there"
                servers = ", ".join(load.choice.servers)
                operations.append(Operation(operation_of(load), action, servers, reason, after=after))
        return Plan(self.stack, tuple(operations), self.notes)

    def without(self, done: Set[str]) -> Shipment:
        """What is left once some of the operations are done."""
        return replace(self, loads=tuple(li for li in self.loads if li.todo and operation_of(li) not in done))

    @property
    def left(self) -> int:
        """Bytes to send, about."""
        return sum(load.left for load in self.loads)

    @property
    def most(self) -> int:
        """Bytes that the other engine's disk needs at once, about: an image is unpacked beside its archive."""
        before, most = 0, 0
        for load in self.loads:
            most = max(most, before + 2 * load.left)
            before += load.left
        return most

    def remaining(self, done: Set[str]) -> str:
        """How much is left, for people."""
        rest, all_ = self.without(done), len(self.loads)
        return f"{all_ - len(rest.loads)} of {all_} images are there, about {amount(rest.left)} are left"

    def to_json(self) -> dict[str, Any]:
        return _json(self)


class Sent(Struct, frozen=True):
    """How it went; `carried` is what went over of each image, by its id."""

    shipment: Shipment
    report: Report
    carried: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return _json(self.shipment, self.report, self.carried)


def operation_of(load: Load) -> str:
    return f"ship:{load.choice.names[0]}"


def _json(shipment: Shipment, report: Report | None = None, carried: Mapping[str, int] = {}) -> dict[str, Any]:
    """What others build on; keys are stable."""
    ended = {o.operation.id: o for o in report.outcomes} if report else {}
    rows = []
    for load in shipment.loads:
        choice, outcome = load.choice, ended.get(operation_of(load))
        rows.append(
            {
                "image": choice.names[0],
                "id": choice.image,
                "names": list(choice.names),
                "servers": list(choice.servers),
                "why": choice.why,
                "size": load.size,
                "layers": load.layers,
                "layers_to_send": 0 if load.there else load.layers - load.have,
                "bytes_to_send": load.left,
                "bytes_sent": carried.get(choice.image, 0),
                "state": _state(load, outcome.status if outcome else None),
                "detail": outcome.message if outcome else "",
            }
        )
    return {"stack": shipment.stack, "to": shipment.to, "images": rows, "notes": list(shipment.notes)}


def _state(load: Load, ended: str | None) -> str:
    if not load.todo:
        return "there"
    if ended is None:
        return "to name" if load.there else "to send"
    return ("named" if load.there else "sent") if ended == "done" else ended


def look(here: Engine, there: Engine, source: Source, servers: Sequence[str], to: str) -> Shipment:
    """What there is to send of a stack.

    Raises UsageError where both are one engine, EngineUnavailable where the other can't run such images, and OperationFailed
    where an image isn't here.
    """
    other = there.machine()
    check_kin(here.machine(), other, to)
    desired, _ = with_lock(source, described(source))
    check_servers(desired.resolved, map(naming.server_of, servers))
    tools = [] if servers else [restic_image()]
    chosen = choose(desired, [here.observe(stack) for stack in all_names(source, desired.stack)], servers, tools)
    if chosen.missing:
        wanted = ", ".join(f"{server} ({image})" for server, image in chosen.missing)
        hint = "`consolidate up` here makes it, and shows that it works; or -s ships others"
        raise OperationFailed(f"not on this engine: the image of {wanted}", hint=hint)
    seen = there.observe(desired.stack)
    held = {c.image: Held(here.image(c.image), here.layer_sizes(c.image)) for c in chosen.choices}
    whole = other.store != "layers"
    lacks = any(c.image not in seen.images for c in chosen.choices)
    made = loads(chosen.choices, held, seen, there.all_images() if lacks and not whole else (), whole=whole)
    notes = _notes(chosen, seen, to, surprises(desired, seen, chosen))
    return Shipment(desired.stack, to, tuple(made), tuple(notes))


def _notes(chosen: Chosen, there: Observed, to: str, more: Iterable[str]) -> Iterator[str]:
    for server, image in chosen.digests:
        if naming.listed_image(image) not in there.images:
            yield f"{server}: {image} is named by its digest, which only a registry gives an image: {to} pulls it itself"
    untested = [s for c in chosen.choices if c.why == "newest" for s in c.servers]
    if untested:
        yield f"not running here: {', '.join(untested)}; what is sent is the newest image that is here"
    yield from more


def check_kin(one: Machine, other: Machine, to: str) -> None:
    """Raises UsageError where both are the same, and EngineUnavailable where what runs on one can't on the other."""
    if one.id and one.id == other.id:
        raise UsageError(f"{to} is this very engine", hint="-H names the one that images come from, --to where they go")
    built_for = [(m.system, debian_architecture(m.architecture)) for m in (one, other)]  # engines have several words
    if built_for[0] != built_for[1]:
        what = (
            f"{to} is {other.system} on {other.architecture}, and the images are for {one.system} on {one.architecture}"
        )
        raise EngineUnavailable(what, hint="`consolidate up` there builds its own")
    if (one.store == "containerd") != (other.store == "containerd"):
        which = to if other.store == "containerd" else HERE
        what = f"{which} keeps images in containerd's store, and the other doesn't: the same image has another id there"
        raise EngineUnavailable(what, hint="let both keep them alike (`features` in /etc/docker/daemon.json)")


def all_names(source: Source, own: str) -> list[str]:
    """The names on the engine that the stack has in its environments, the one that is meant first."""
    names = [own]
    for environment in (None, *environments(source)):
        with contextlib.suppress(ConsolidateError):  # what is wrong with another is no matter of this one
            names.append(stack_name(replace(source, environment=environment)))
    return list(dict.fromkeys(names))


def check_room(shipment: Shipment, there: Engine) -> None:
    """Raises OperationFailed where the disk of the other engine can't hold what is sent, as far as can be told beforehand.

    No call of an engine tells how much is free, so a container of the base image is asked, once that is there.
    """
    if not shipment.left or not there.has_image(naming.BASE_IMAGE):
        return
    try:
        free = free_disk(partial(there.run_once, naming.BASE_IMAGE))
    except OperationFailed:  # what really doesn't fit fails by itself
        return
    if free < shipment.most:
        what = f"{shipment.to} has {amount(free)} free, and this takes about {amount(shipment.most)}"
        hint = "free some space where its images are (`docker image prune` there), or ship some of the servers with -s"
        raise OperationFailed(what, hint=hint)


def send(
    shipment: Shipment, here: Engine, there: Engine, report: Callable[[Event], None], tell: Callable[[str], None]
) -> Sent:
    """Send what is to be sent; an image that fails keeps none of the others back. What is cut off tells what is left.

    Raises OperationFailed where the disk there is too small, and EngineUnavailable where one of the engines has gone.
    """
    done: set[str] = set()

    def heard(event: Event) -> None:
        if event.status == "done":
            done.add(event.operation.id)
        report(event)

    carrier = Carrier(here)
    executor = Executor(there, {}, heard, lambda _: None, source=carrier)
    plan = shipment.plan
    base = [o.id for o in plan.operations if isinstance(o.action, SendImage) and naming.BASE_IMAGE in o.action.names]
    try:
        first = executor.run(plan.only(base))
        if first.ok:
            check_room(shipment.without(done), there)
        rest = executor.run(plan.only(o.id for o in plan.operations if o.id not in base))
    except EngineUnavailable as lost:
        what = lost.what if lost.what.startswith(HERE) else f"{shipment.to}: {lost.what}"
        hint = f"once it answers again, `ship` goes on: {shipment.remaining(done)}"
        raise EngineUnavailable(what, hint=hint) from None
    except KeyboardInterrupt:
        tell(shipment.remaining(done))
        raise
    return Sent(shipment, Report(plan, (*first.outcomes, *rest.outcomes)), carrier.sent)
