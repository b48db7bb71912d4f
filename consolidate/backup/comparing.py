"""What a drill has brought back, beside what the backup says: files, records, pages. Nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from consolidate import naming
from consolidate.backup import proofs
from consolidate.backup.proofs import Check
from consolidate.backup.returning import Return
from consolidate.counting import Drill as How
from consolidate.counting import among_files
from consolidate.desired import Desired
from consolidate.engine import Engine
from consolidate.errors import OperationFailed
from consolidate.execute import proving
from consolidate.execute.proving import File
from consolidate.secret import SecretRecord, masked
from consolidate.snapshots import DATA


class Comparison:
    """What is in the drill's stack of the servers that are `wanted`; `real` is the stack that was saved."""

    def __init__(
        self, engine: Engine, stack: str, real: str, secrets: Mapping[str, SecretRecord], wanted: Return
    ) -> None:
        self.engine, self.stack, self.real, self.secrets, self.wanted = engine, stack, real, secrets, wanted

    def files(self, session: str, stored: Mapping[str, Mapping[str, File]]) -> Iterator[Check]:
        """Each of them, and its bytes, beside the snapshots' own lists, which are `stored`."""
        for server in self.wanted.filled:
            snapshot = self.wanted.manifest.parts[server].snapshot
            for folder in folders_of(self.wanted, server):
                there = proving.found_files(self.engine, session, [folder])
                backup = {p: f for p, f in stored[snapshot].items() if p.startswith(f"{folder}/")}
                shown = folder.removeprefix(f"{DATA}/{server}/")
                yield from proofs.files_check(server, backup, there, shown)
                differing = proving.differing_bytes(self.engine, session, snapshot, folder, self.wanted.backup.manifest)
                size = sum(f.size for f in backup.values())
                yield from proofs.bytes_check(server, shown, size, differing)

    def dumped(self, session: str, desired: Desired) -> Iterator[Check]:
        """What was loaded, before anybody uses it. An older backup's manifest doesn't tell: then its dump does."""
        observed = self.engine.observe(self.stack)
        for server in self.wanted.dumps:
            how, part = desired.servers[server].drill, self.wanted.manifest.parts[server]
            container = observed.current(server)
            if how and how.dumped and container:
                backup = part.records
                if backup is None:
                    backup = proving.records_dumped(self.engine, session, part.snapshot, server, how.dumped)
                yield from self.counted(server, how, backup, container.name)

    def stored(
        self, desired: Desired, stored: Mapping[str, Mapping[str, File]], ready: Collection[str]
    ) -> Iterator[Check]:
        """What those that are `ready` say of their files."""
        observed = self.engine.observe(self.stack)
        for server in self.wanted.filled:
            how, part = desired.servers[server].drill, self.wanted.manifest.parts[server]
            container = observed.current(server)
            if how and how.stored and container and server in ready:
                before = f"{DATA}/{server}/"
                paths = (p.removeprefix(before) for p in stored[part.snapshot] if p.startswith(before))
                backup = among_files(how.stored, paths) if part.records is None else part.records
                yield from self.counted(server, how, backup, container.name)

    def counted(self, server: str, how: How, backup: Mapping[str, int], container: str) -> list[Check]:
        try:
            there = proving.records_there(self.engine, container, how.count)
        except OperationFailed as error:
            return [failed(error, self.secrets, server, how.records, backup=sum(backup.values()))]
        return proofs.records_check(server, how, backup, there)

    def pages(self, desired: Desired, names: Sequence[str], ready: Collection[str]) -> Iterator[Check]:
        """Those that the servers `names` show, where they are `ready`."""
        observed = self.engine.observe(self.stack)
        for name in names:
            server = desired.servers[name]
            page, container = server.drill.page if server.drill else None, observed.current(name)
            if page is None or container is None or name not in ready:
                continue
            host, network = proofs.host_of(server), server.networks[0]
            try:
                told = {naming.DRILL: self.real}
                text = proving.page_text(self.engine, container.name, page.text) if page.text else ""
                answer = proving.page_answer(self.engine, container, network, host, page, text, told)
                yield proofs.page_check(name, page, host, answer, text)
            except OperationFailed as error:
                yield failed(error, self.secrets, name, "page", f"http://{host}{page.path}")


def failed(
    error: OperationFailed,
    secrets: Mapping[str, SecretRecord],
    server: str,
    check: str,
    what: str = "",
    backup: int | None = None,
) -> Check:
    """A check that failed. What a program has said may hold secrets: they are masked, as the executor does it."""
    detail = masked("\n".join([error.what, *error.log]), secrets)
    return Check(server, check, what, backup, None, ok=False, detail=detail)


def folders_of(wanted: Return, server: str) -> list[str]:
    """Where a session has a server's volumes."""
    return [f"{DATA}/{server}/{volume}" for volume in wanted.manifest.parts[server].volumes]
