"""An update: what may be newer is built or pulled, compared with what each server has, and given to those that it changes.

Builds of the same differ by their layers each time, so lists of packages are compared, and what was built from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from msgspec.structs import replace

from consolidate import base_image, dockerfile, naming, packages, pinned
from consolidate.actions import ProvideImage
from consolidate.desired import Image
from consolidate.diff import Refresh, diff
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.packages import PackageChange
from consolidate.pipeline import BASE, Prepared, narrowed
from consolidate.plan import FieldChange, Operation, Plan
from consolidate.refresh.look import REGISTRY_TIMEOUT, Change, Look, News, Running, once, running, short
from consolidate.refresh.tools import ToolUpdate, tools


@dataclass
class Update:
    """An update under way, under the stack's lock: `provide` says what to build and pull, `plan` who gets it."""

    engine: Engine
    prepared: Prepared
    servers: Sequence[str]
    now: datetime
    say: Callable[[str], None]
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: dict[str, OperationFailed] = field(default_factory=dict)
    built: dict[str, str] = field(default_factory=dict)  # tag → the refresh of it that was built now
    pulled: dict[str, str] = field(default_factory=dict)  # tag → the id of the image that it meant before
    moving: dict[str, str] = field(default_factory=dict)  # server → the id of the image that it gets

    @property
    def news(self) -> News:
        failures = {naming.server_of(s): e for s, e in self.failures.items()}
        return News(self.prepared.desired.stack, once(self.changes), tuple(dict.fromkeys(self.notes)), failures)

    @cached_property
    def found(self) -> list[Running]:
        return running(self.prepared.desired, self.prepared.observed, self.servers)

    @cached_property
    def look(self) -> Look:
        return Look(self.engine, self.prepared.observed)

    @cached_property
    def tools(self) -> ToolUpdate:
        """They belong to no server: with named ones they stay as they are."""
        return ToolUpdate(self.look, [] if self.servers else tools(self.prepared.observed))

    def provide(self) -> Plan:
        """Builds and pulls of all that may be newer than what a server has. Bases are refreshed on the way.

        Servers whose distribution or registry does not answer are left out. Raises OperationFailed where a base can't be
        refreshed.
        """
        stack, stamp = self.prepared.desired.stack, self.now.strftime("%Y%m%dT%H%M%S")
        self.say(
            f"Asking what is newer than the images of {', '.join(dict.fromkeys(naming.server_of(r.server) for r in self.found))}"
        )
        built = [r.container.image_id for r in self.found if r.image.how == "build"]
        self.look.ask([*built, *(t.has for t in self.tools.found)])
        wanted: dict[str, Image] = {}
        for each in self.found:
            try:
                if each.image.tag not in wanted and self._is_old(each):
                    wanted[each.image.tag] = each.image
            except OperationFailed as error:
                self.failures[each.server] = error
        self._bases([*(i for i in wanted.values() if i.how == "build"), *(t.image for t in self.tools.old)])
        self.failures |= self.tools.failures
        operations = self.tools.builds(stamp)
        for image in wanted.values():
            tag = naming.refreshed_image(image.tag, stamp) if image.how == "build" else image.tag
            if image.how == "build":
                self.built[image.tag] = tag
            else:  # where it was pulled by a digest, the tag may not be there
                has = next(r.container.image_id for r in self.found if r.image.tag == tag)
                self.pulled[tag] = self.prepared.observed.images.get(naming.listed_image(tag), has)
            reason = "built again with today's packages" if image.how == "build" else "its tag has moved"
            action = ProvideImage(replace(image, tag=tag), fresh=True)
            operations.append(Operation(f"image:{tag}", action, ", ".join(image.servers), reason))
        return Plan(stack, tuple(operations))

    def _is_old(self, each: Running) -> bool:
        """Whether nothing that is there would bring a server up to date."""
        if each.image.how != "build":
            there = self.prepared.observed.images.get(naming.listed_image(each.image.tag), each.container.image_id)
            return self.look.moved(each.image, there) is not None
        if self.look.offered(each.container.image_id) == []:
            return False
        newest = self.prepared.observed.newest(each.image.tag)
        return newest is None or self.look.offered(self.prepared.observed.images[newest]) != []

    def _bases(self, images: Iterable[Image]) -> None:
        """Refresh what these are built from, where it can be: ours always, others that a registry has."""
        for base in dict.fromkeys(b for i in images for b in bases(i)):
            if base == naming.BASE_IMAGE:
                base_image.refresh(self.engine, self.say)
            elif not self.engine.registry_error(base, REGISTRY_TIMEOUT):
                self.say(f"Pulling {base}")
                self.engine.pull(base, lambda _: None)

    def plan(self) -> Plan:
        """The servers whose image changed move to the new one; the others stay. `news` then tells of them."""
        observed = self.engine.observe(self.prepared.desired.stack)
        self.look.observed = observed
        refreshes = {}
        for each in (f for f in self.found if f.server not in self.failures):
            name = self.built.get(each.image.tag) or observed.newest(each.image.tag)
            if name is None or name not in observed.images:  # its build failed
                continue
            changes = self._compare(each, observed.images[name])
            if changes:
                self.changes += [Change(each.server, c) for c in changes]
                fields = tuple(FieldChange(f"package {c.package}", c.old, c.new) for c in changes)
                refreshes[each.server] = Refresh(name, packages.in_words(changes), fields)
        self.changes += self.tools.changes(observed)
        self.prepared = replace(self.prepared, observed=observed)
        if not refreshes:
            return Plan(observed.stack, ())
        self.moving = {naming.server_of(n): observed.images[r.image] for n, r in refreshes.items()}
        plan = diff(pinned.without(self.prepared.desired, self.moving), observed, (), refreshes)
        return narrowed(plan, self.prepared.resolved, tuple(refreshes))

    def tidy(self) -> None:
        """Undo what no container is made of: it had nothing new, or did not work. A new server would be made of it."""
        self.tools.tidy(self.look.observed)
        for tag in self.built.values():
            self.engine.remove_image(tag)
        observed = self.engine.observe(self.prepared.desired.stack) if self.pulled else self.prepared.observed
        used = {c.image_id for c in observed.containers} | observed.foreign_images
        for tag, before in self.pulled.items():
            new = observed.images.get(naming.listed_image(tag), before)
            if new not in {before, *used} and before in observed.images:
                self.engine.tag_image(before, tag)
                self.engine.remove_image(new)

    def _compare(self, each: Running, image: str) -> list[PackageChange]:
        """What a server's next image has that is not in the one that it has."""
        has = each.container.image_id
        if has == image:
            return []
        offers = (self.look.offered(has) if each.image.how == "build" else None) or []
        old, new = self.look.packages(has), self.look.packages(image)
        changes = packages.compared(old or {}, new or {}, {c.package: c.security for c in offers})
        if each.image.how == "pull":
            return [self._digests(each, image), *changes]
        if not changes and (moved := self._other_base(each, image)):
            return [moved]
        if not changes and offers:
            self.notes.append(
                f"{naming.server_of(each.server)}: its distribution has {offers[0].package} {offers[0].new}, but a new build has not"
            )
        return changes

    def _digests(self, each: Running, image: str) -> PackageChange:
        """A pulled image's old digest and new one, where it has digests; else ids."""
        of = {i: n.partition("@")[2] for n, i in self.look.observed.images.items() if "@" in n}
        has = each.container.image_id
        return PackageChange(each.image.tag, short(of.get(has, has)), short(of.get(image, image)))

    def _other_base(self, each: Running, image: str) -> PackageChange | None:
        """What the new image is built from, where that is no base of ours and not what the old one is built from."""
        last = next(reversed(bases(each.image)), naming.BASE_IMAGE)
        if last == naming.BASE_IMAGE:
            return None
        base = self.engine.image(last)
        old, new = (self.engine.image(i).layers[: len(base.layers)] for i in (each.container.image_id, image))
        return PackageChange(last, None, short(base.id)) if new == base.layers != old else None


@contextlib.contextmanager
def updating(
    engine: Engine, prepared: Prepared, servers: Sequence[str], now: datetime, say: Callable[[str], None]
) -> Iterator[Update]:
    """An update; at its end what it built or pulled goes that no container is made of."""
    update = Update(engine, prepared, servers, now, say)
    try:
        yield update
    finally:
        update.tidy()


def bases(image: Image) -> list[str]:
    """What a build starts from, in the order of its stages; not its own stages, and no name with a variable in it."""
    return dockerfile.bases(image.dockerfile)


def check_up_to_date(prepared: Prepared, servers: Sequence[str]) -> None:
    """Raises OperationFailed where `up` has something to do for these servers: an update brings packages and no more.

    But for the base image, of which the lock is made: that comes anyway.
    """
    pending = [o for o in narrowed(prepared.plan, prepared.resolved, servers).operations if o.id != BASE]
    if pending:
        named = sorted({o.server for o in pending} - {""})
        what = f"{', '.join(named) or prepared.desired.stack}: not as the stack file says"
        raise OperationFailed(what, hint="`consolidate up` first; `consolidate plan` shows what it does")
