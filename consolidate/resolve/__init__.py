"""A stack file to servers: every link found, every default filled in, every clash reported with its place. Pure."""

from __future__ import annotations

from pathlib import Path

from consolidate.kinds import Catalogue
from consolidate.loader import Document
from consolidate.places import Places
from consolidate.resolve.build import build_server, check_requirements
from consolidate.resolve.context import add_limits, describe
from consolidate.resolve.entries import read_entry, read_stack
from consolidate.resolve.expand import expand
from consolidate.resolve.ports import check_ports
from consolidate.resolve.secrets import backups, share_certificates
from consolidate.resolve.wiring import link, route
from consolidate.resolve.work import Work
from consolidate.resolved import Host, Resolved


def resolve(document: Document, catalogue: Catalogue, folder: Path, environment: str | None = None) -> Resolved:
    """The servers of a stack.

    `folder` is the stack's; paths in the file are below it. Raises StackInvalid with every problem that one pass finds.
    """
    work = Work(document, catalogue, folder, environment, Places(document))
    stack = read_stack(work)
    work.name = f"{stack.stack}-{environment}" if environment else stack.stack
    for name, entry in expand(stack.servers, work.places, work.problems).items():
        read_entry(work, name, entry)
    work.stop_on_problems()
    link(work)
    work.stop_on_problems()
    route(work)
    work.stop_on_problems()
    for draft in work.drafts.values():
        add_limits(work, draft)
        check_requirements(work, draft)
    work.stop_on_problems()
    for draft in work.drafts.values():
        describe(work, draft)
    servers = {d.name: s for d in work.drafts.values() if (s := build_server(work, d))}
    work.stop_on_problems()
    share_certificates(work, servers)
    check_ports(work, servers)
    backed_up = backups(work, stack.backup, stack.host.subnets)
    work.stop_on_problems()
    return Resolved(
        name=work.name,
        environment=environment,
        folder=folder,
        host=Host(int(stack.host.reserve.memory), float(stack.host.reserve.cpus), stack.host.subnets),
        servers=servers,
        links=tuple(found for d in work.drafts.values() for found in d.links.values()),
        routes=tuple(work.routes),
        proxy=work.proxy.name if work.proxy else None,
        places=work.places,
        backups=backed_up,
        generations=stack.generations,
    )
