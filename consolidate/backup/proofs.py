"""What a drill makes of a stack, and what it has proved. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateContainer, CreateVolume, FillVolumes, LoadDump, RemoveImage, StopContainer
from consolidate.counting import Drill, Page
from consolidate.desired import Desired, DesiredServer, Network
from consolidate.execute.proving import Answer, File
from consolidate.observed import Observed
from consolidate.plan import Operation, Plan
from consolidate.report import Report
from consolidate.resolved import Resolved
from consolidate.snapshots import Manifest

SHOWN = 20  # files that are named where more differ
TOLD = 50  # lines of what failed


class Check(Struct, frozen=True):
    """One thing that was looked at: what the backup says of it, and what has come back; None where there is nothing."""

    server: str
    check: str  # files, bytes, page, ready, or what the kind calls its records
    what: str
    backup: int | str | None
    restored: int | str | None
    ok: bool
    detail: str = ""


class Step(Struct, frozen=True):
    """A step that a restore takes as well, and how long it took."""

    step: str
    servers: tuple[str, ...]
    seconds: float


class Drilled(Struct, frozen=True):
    """What a drill has found. `seconds` is how long all the steps took that a restore takes as well."""

    stack: str
    backup: str
    began: str  # of the backup
    servers: tuple[str, ...]
    proved: bool
    seconds: float
    checks: tuple[Check, ...]
    steps: tuple[Step, ...]


def drilled(
    stack: str, backup: str, began: str, servers: Sequence[str], checks: Sequence[Check], steps: Sequence[Step]
) -> Drilled:
    seconds = round(sum(s.seconds for s in steps), 1)
    proved = bool(checks) and all(c.ok for c in checks)
    return Drilled(stack, backup, began, tuple(servers), proved, seconds, tuple(checks), tuple(steps))


def failure(found: Drilled) -> str:
    """Why nothing is proved, in a sentence."""
    failed = sum(1 for c in found.checks if not c.ok)
    why = f"{failed} of {len(found.checks)} checks failed" if found.checks else "nothing could be looked at"
    return f"NOT proved: the backup {found.backup} of {found.began}: {why}"


def failures(found: Drilled) -> list[str]:
    """What has not come back as it was, in lines, in the words of the table."""
    lines: list[str] = []
    for check in (c for c in found.checks if not c.ok):
        what = " ".join(filter(None, (check.server, check.check, check.what)))
        sides = (f"backup {shown(check.backup)}", f"restored {shown(check.restored)}")
        said = ", ".join(sides) if (check.backup, check.restored) != (None, None) else ""
        lines += [": ".join(filter(None, (what, said))), *check.detail.splitlines()]
    return lines if len(lines) <= TOLD else [*lines[:TOLD], f"and {len(lines) - TOLD} lines more"]


def shown(value: int | str | None) -> str:
    """A side of a check, for people."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value


# The stack that comes up


def secluded(resolved: Resolved, name: str) -> Resolved:
    """The same stack under another name, with no way out and no published port; one container for each server."""
    servers = {n: replace(s, publish=(), egress=False, replicas=1) for n, s in resolved.servers.items()}
    return replace(resolved, name=name, servers=servers, routes=tuple(replace(r, replicas=1) for r in resolved.routes))


def with_networks(desired: Desired, stack: str) -> Desired:
    """With a network for each server that has a page and nobody to ask for it; images are called as in the stack itself."""
    networks, servers, own = list(desired.networks), {}, f"consolidate/{desired.stack}-"

    def real(tag: str) -> str:
        return f"consolidate/{stack}-{tag.removeprefix(own)}" if tag.startswith(own) else tag

    for name, server in desired.servers.items():
        members = server.networks
        if server.drill and server.drill.page and not members:
            members = (naming.route_network(desired.stack, name),)
            networks.append(Network(members[0], name, "route", internal=True))
        container = replace(server.container, image=real(server.container.image))
        servers[name] = replace(server, networks=members, container=container)
    images = tuple(replace(i, tag=real(i.tag)) for i in desired.images)
    return replace(desired, networks=tuple(networks), servers=servers, images=images)


def needed(desired: Desired, manifest: Manifest, servers: Sequence[str]) -> tuple[str, ...]:
    """These servers and those that they use, as far as the backup has data of them; all that it has for none."""
    wanted = list(servers or manifest.parts)
    for name in wanted:
        for link in desired.resolved.links:
            if link.consumer == name and link.provider in manifest.parts and link.provider not in wanted:
                wanted.append(link.provider)
    return tuple(wanted)


def harmless(plan: Plan) -> Plan:
    """A plan without what is everybody's: an image that a newer one stands for is for the stack itself to remove."""
    return plan.only(o.id for o in plan.operations if not isinstance(o.action, RemoveImage))


def at_once(plan: Plan) -> Plan:
    """A plan that removes things, without asking what runs to end: nothing of it is wanted any more."""
    return plan.only(o.id for o in plan.operations if not isinstance(o.action, StopContainer))


def aside(plan: Plan) -> Plan:
    """A restore's plan for whoever has no lock of the repository: a backup may be made meanwhile."""
    operations = [
        replace(o, action=replace(o.action, aside=True)) if isinstance(o.action, FillVolumes | LoadDump) else o
        for o in plan.operations
    ]
    return Plan(plan.stack, tuple(operations))


def volumes_plan(desired: Desired, observed: Observed, servers: Iterable[str]) -> Plan:
    """A plan that makes the volumes that are to be filled."""
    operations = []
    for server in servers:
        for volume in desired.servers[server].volumes:
            if volume.name not in observed.volume_names:
                labels = {naming.STACK: desired.stack, naming.OF: server}
                labels |= {naming.ROLE: "data", naming.VOLUME: volume.volume}
                create = CreateVolume(volume.name, tuple(sorted(labels.items())))
                operations.append(Operation(f"volume:{volume.name}", create, server, "a drill"))
    return Plan(desired.stack, tuple(operations))


def too_little_memory(plan: Plan, free: int) -> str:
    """Why the host can't carry what a plan makes beside all that runs; nothing where it can.

    Nobody has to take as much as its limit, but it may, and then somebody else would have to go.
    """
    made = [o.action.container for o in plan.operations if isinstance(o.action, CreateContainer)]
    wanted = sum(c.limits.memory for c in made)
    if wanted <= free:
        return ""
    largest = sorted(made, key=lambda c: -c.limits.memory)
    listed = ", ".join(f"{c.server} {c.limits.memory >> 20}M" for c in largest)
    return (
        f"the host has {free >> 20}M of memory left beside what runs, and the drill may take {wanted >> 20}M: {listed}"
    )


def too_little_disk(wanted: int, free: int) -> str:
    """Why the disk has no room for the files of a backup; nothing where it has."""
    return f"the files of the backup take {wanted >> 20}M, and the disk has {free >> 20}M left" if wanted > free else ""


# What has come back


def files_check(server: str, backup: Mapping[str, File], restored: Mapping[str, File], folder: str) -> list[Check]:
    """The files of one volume: a row for all of them, and one for each that differs, up to so many."""
    paths = (p for p in sorted(backup.keys() | restored.keys()) if backup.get(p) != restored.get(p))
    said = [(p, _difference(backup.get(p), restored.get(p))) for p in paths]
    total = Check(server, "files", folder, len(backup), len(restored), not said, _more(len(said)))
    rows = [Check(server, "file", path, *how, ok=False) for path, how in said[:SHOWN]]
    return [total, *rows]


def _difference(backup: File | None, restored: File | None) -> tuple[str | None, str | None]:
    """The two as far as they differ; None for one that isn't there."""
    if backup is None or restored is None:
        return (None, "there") if backup is None else ("there", None)
    told = ("type", "mode", "owner", "size", "time")
    fields = [f for f in told if getattr(backup, f) != getattr(restored, f)]
    one, other = (", ".join(f"{f} {_shown(f, getattr(x, f))}" for f in fields) for x in (backup, restored))
    return one, other


def _shown(field: str, value: object) -> object:
    return f"{value:04o}" if field == "mode" else value


def bytes_check(server: str, folder: str, size: int, differing: Sequence[str]) -> list[Check]:
    """The bytes of one volume's files, of which there are `size` in the backup."""
    total = Check(server, "bytes", folder, size, None if differing else size, not differing, _more(len(differing)))
    return [total, *(Check(server, "bytes", line, None, None, ok=False) for line in differing[:SHOWN])]


def _more(count: int) -> str:
    return f"{count} differ" if count else ""


def records_check(server: str, how: Drill, backup: Mapping[str, int], restored: Mapping[str, int]) -> list[Check]:
    """A row for each name that records are of. What neither side has any of needs none."""
    rows = []
    for name in sorted(backup.keys() | restored.keys()):
        had, has = backup.get(name), restored.get(name)
        same = has is not None and (has == (had or 0) or (how.grows and has > (had or 0)))
        more = f"{has - (had or 0)} more were on their way" if has is not None and same and has > (had or 0) else ""
        if had is not None or has:
            rows.append(Check(server, how.records, name, had or 0, has, same, more))
    return rows


def page_check(server: str, page: Page, host: str, answer: Answer, text: str) -> Check:
    """Whether a page was answered as its kind says, with `text` in it where the kind asks for one.

    A page in which there is nothing to look for proves nothing then.
    """
    held = ""
    if page.text and not text:
        held = ", and no text to look for: its server says none; has the site no name?"
    elif page.text:
        held = f", {'with' if answer.holds else 'without'} the text {text!r}"
    ok = re.fullmatch(page.status, answer.status) is not None and (not page.text or bool(text and answer.holds))
    what = f"http://{host}{page.path}"
    return Check(server, "page", what, None, f"status {answer.status}", ok, f"{answer.size} bytes{held}")


def ready_checks(ready: Collection[str], report: Report, servers: Sequence[str]) -> list[Check]:
    """Of each server whether it got ready; of one that did not, why."""
    failed = {o.operation.server: o for o in reversed((*report.failed, *report.skipped))}
    rows = []
    for name in servers:
        outcome = failed.get(name)
        if outcome is None:
            rows.append(Check(name, "ready", "", None, "yes" if name in ready else "no", name in ready))
        else:
            detail = "\n".join([outcome.message, *outcome.log])
            rows.append(Check(name, "ready", "", None, "no", ok=False, detail=detail))
    named = {r.server for r in rows}
    rows += [
        Check(s, "ready", o.operation.id, None, "no", ok=False, detail=o.message)
        for s, o in failed.items()
        if s not in named
    ]
    return rows


def created(plan: Plan) -> tuple[str, ...]:
    """The servers that a plan makes."""
    return tuple(o.server for o in plan.operations if isinstance(o.action, CreateContainer))


def host_of(server: DesiredServer) -> str:
    """What a page is asked for by."""
    return next(iter(server.server.domains), server.name)
