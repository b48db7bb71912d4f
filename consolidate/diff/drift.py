"""What somebody has changed by hand of a server's container or of its files, which no list of the engine shows. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from consolidate import filters, naming
from consolidate.desired import CURRENT, HASHED, Container, DesiredServer, Live
from consolidate.fields import fields_of, hashed, shown
from consolidate.files import FileSpec
from consolidate.observed import Details, Observed, ObservedContainer, ObservedFile
from consolidate.plan import FieldChange

IN_PLACE = {"memory", "cpus", "pids", "swap", "restart"}  # what engines change while a container goes on
UNTOLD = f"{HASHED}not told"  # in place of what was put there by hand and may be a secret; a hash could be guessed at

Reveal = Callable[[str], str]  # a secret's value, by its address
Found = Mapping[str, ObservedFile]


class Look(Struct, frozen=True):
    """A server seen from near: how its container is made, if that is the right one, and what is in its volumes of files.

    The next container gets those volumes as well, where they are not new.
    """

    container: ObservedContainer | None
    details: Details | None
    files: Mapping[str, Found | None]  # by volume, None where there is none at its place


class Drift(Struct, frozen=True):
    """What was changed of a server's container, told by fields: old is what is there, new what it was made from."""

    container: str  # its id
    fields: tuple[FieldChange, ...] = ()
    nameless: tuple[str, ...] = ()  # networks on which it has not the server's name
    edited: Mapping[str, tuple[FieldChange, ...]] = {}  # volumes of files
    of_live: tuple[FieldChange, ...] = ()
    turn: int = 0  # of the live files, when they are written again

    def __bool__(self) -> bool:
        return bool(self.fields or self.nameless or self.edited or self.of_live)

    def replaces(self, container: ObservedContainer) -> bool:
        """Whether only a new container in place of this one puts it right."""
        return container.id == self.container and any(c.field not in IN_PLACE for c in self.fields)

    @property
    def changes(self) -> tuple[FieldChange, ...]:
        return (*self.fields, *(c for each in self.edited.values() for c in each))


def made_right(server: DesiredServer, observed: Observed) -> list[ObservedContainer]:
    """A server's containers that were made from what is desired, the newest generation first."""
    found = observed.servers.get(server.name, [])
    return [c for c in found if c.fingerprint == server.container.fingerprint and c.state != "dead"]


def drift_of(server: DesiredServer, look: Look, cpus: int, reveal: Reveal) -> Drift:
    """What differs between a server and what it was made from; `cpus` are those of the host."""
    details, volumes, edited = look.details, look.container.volumes if look.container else (), {}
    fields = list(_fields(server.container, details, cpus)) if details else []
    for mount in server.container.mounts:
        if details and (mount.volume not in volumes or look.files.get(mount.volume, {}) is None):
            fields.append(FieldChange(f"volume {mount.target}", None, mount.volume))
    for volume in server.files:
        if (there := look.files.get(volume.name)) is not None and (
            changed := _files(volume.files.files, there, reveal, secret=volume.role == "secrets")
        ):
            edited[volume.name] = changed
    of_live: tuple[FieldChange, ...] = ()
    turn = 0
    if server.live and (there := look.files.get(server.live.volume)) is not None:
        of_live, turn = _live(server.live, there, reveal)
    named = details.aliases if details else {}
    nameless = tuple(n for n in server.networks if n in named and server.server.name not in named[n])
    return Drift(look.container.id if look.container else "", tuple(fields), nameless, edited, of_live, turn)


def expected(container: Container, cpus: int) -> dict[str, str]:
    """The fields of a container as engines tell them: a host with fewer processors gives all that it has."""
    limits = replace(container.limits, cpus=min(container.limits.cpus, cpus))
    publish = tuple(sorted(container.publish, key=str))
    made = replace(container, limits=limits, publish=publish, stop_grace=float(int(container.stop_grace)))
    return fields_of(made) | {"restart": "always"}


def _fields(container: Container, details: Details, cpus: int) -> Iterator[FieldChange]:
    defaults = {f: v for f, v in details.defaults.items() if not (container.entrypoint and f == "command")}
    want, there = defaults | expected(container, cpus), details.fields
    old, new = shown(there), shown(want)
    for name in dict.fromkeys((*want, *there)):
        if want.get(name) != there.get(name):
            untold = name in there and name.startswith("environment ")
            yield FieldChange(name, UNTOLD if untold else old.get(name), new.get(name))


def _files(specs: tuple[FileSpec, ...], there: Found, reveal: Reveal, *, secret: bool) -> tuple[FieldChange, ...]:
    changed = []
    for spec in specs:
        found = there.get(spec.path)
        if found is None or _identity(spec, reveal) != _seen(found):
            word = "secret" if secret else "file"
            untold = secret or spec.secrets
            old = None if found is None else UNTOLD if untold else hashed(_seen(found))
            changed.append(FieldChange(f"{word} {spec.path}", old, hashed(_identity(spec, None))))
    foreign = sorted(there.keys() - {s.path for s in specs})
    return (*changed, *(FieldChange(f"foreign file {path}", UNTOLD, None) for path in foreign))


def _live(live: Live, there: Found, reveal: Reveal) -> tuple[tuple[FieldChange, ...], int]:
    """What was changed of the live files that are in use, and the turn in which they can be written anew."""
    current = there.get(CURRENT)
    folder = current.link if current else None
    if folder is None or naming.turn_of(folder)[0] != live.applied:
        changed: tuple[FieldChange, ...] = (FieldChange(f"link {CURRENT}", folder, live.applied),)
    else:
        below = {p.removeprefix(f"{folder}/"): f for p, f in there.items() if p.startswith(f"{folder}/")}
        changed = _files(live.files.files, below, reveal, secret=False)
    taken = {p.partition("/")[0] for p in there}
    turn = next(n for n in range(len(taken) + 1) if naming.turned(live.applied, n) not in taken)
    return changed, turn


def _identity(spec: FileSpec, reveal: Reveal | None) -> list[object]:
    sha = spec.sha
    if reveal and spec.text is not None and spec.secrets:
        sha = hashlib.sha256(filters.fill(spec.text, reveal).encode()).hexdigest()
    return [sha, *([0o777, 0, 0] if spec.link is not None else [spec.mode, spec.uid, spec.gid])]


def _seen(file: ObservedFile) -> list[object]:
    return [file.sha, *([0o777, 0, 0] if file.link is not None else [file.mode, file.uid, file.gid])]
