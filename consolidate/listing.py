"""What runs, for people to look at: rows of `ps`, lines of `logs`, the files of `render`."""

from __future__ import annotations

import heapq
import queue
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consolidate import lately, naming
from consolidate.desired import RENDERED, Desired
from consolidate.engine import Engine
from consolidate.errors import ConsolidateError, EngineUnavailable, OperationFailed, UsageError, did_you_mean
from consolidate.filters import redact
from consolidate.observed import Observed, ObservedContainer
from consolidate.resolved import Resolved
from consolidate.source import Source, stack_name

STATUS_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")


def server_rows(
    resolved: Resolved, engine: Engine, servers: Sequence[str] = (), ready: Collection[str] = ()
) -> list[dict[str, Any]]:
    """A row for each server of the stack or each of its replicas, and for what still runs without being in it.

    Keys are stable. Of those in `ready` it is known.
    """
    observed = engine.observe(resolved.name)
    names: dict[str, tuple[str, ...]] = {n: naming.replicas(n, s.replicas) for n, s in resolved.servers.items()}
    for name, found_ in observed.replicas.items():
        names[name] = tuple(dict.fromkeys((*names.get(name, ()), *found_)))
    for name in servers:
        if name not in names:
            raise UsageError(f"the stack has no server '{name}'", hint=did_you_mean(name, names))
    shown = [r for n, each in names.items() for r in each if not servers or n in servers]
    found = {n: observed.current(n) for n in shown}
    with ThreadPoolExecutor(engine.parallel) as pool:
        asked = [n for n in shown if n not in ready]
        health = dict.fromkeys(ready, "ready")
        health |= zip(asked, pool.map(lambda n: _health(engine, found[n]), asked), strict=True)
    kept = _kept(observed)
    return [_row(n, found[n], health[n], resolved) | kept.get(naming.server_of(n), {}) for n in shown]


def _kept(observed: Observed) -> dict[str, dict[str, str | None]]:
    """Of each server with data when that was last saved, and when it was last seen to come back; None for never."""
    saved, drilled = (lately.times(observed, role) for role in lately.KEPT)

    def told(when: datetime | None) -> str | None:
        return when.isoformat(timespec="seconds") if when else None

    return {s: {"backup": told(saved.get(s)), "drill": told(drilled.get(s))} for s in lately.with_data(observed)}


def _health(engine: Engine, container: ObservedContainer | None) -> str:
    """ready, starting, unhealthy or none. The engine looks only now and then: while it has not, we ask the program."""
    match = STATUS_HEALTH.search(container.status) if container and container.running else None
    if container is None or match is None:
        return "none"
    if match[1] != "starting":
        return "ready" if match[1] == "healthy" else "unhealthy"
    try:
        test = engine.state(container.name).test
        return "ready" if test and engine.run(container.name, test)[0] == 0 else "starting"
    except OperationFailed:
        return "starting"


def _row(replica: str, container: ObservedContainer | None, health: str, resolved: Resolved) -> dict[str, Any]:
    name = naming.server_of(replica)
    server, number = resolved.servers.get(name), naming.replica_number(replica)
    several = number > 1 or (server is not None and server.replicas > 1)
    since = datetime.fromtimestamp(container.created, UTC).isoformat(timespec="seconds") if container else None
    return {
        "server": name,
        **({"replica": number} if several else {}),
        "kind": server.kind if server else container.labels.get("io.consolidate.kind", "") if container else "",
        "state": container.state if container else "missing",
        "health": health,
        "generation": container.generation if container else None,
        "image": container.image if container else None,
        "urls": urls(name, resolved),
        "published": [f"{a}:{p}/{t}" for a, p, t in container.ports] if container else [],
        "since": since,
    }


def urls(name: str, resolved: Resolved) -> list[str]:
    """Where a routed server is found through the proxy: by TLS where the proxy publishes it."""
    route = next((r for r in resolved.routes if r.server == name), None)
    if route is None or resolved.proxy is None:
        return []
    proxy = resolved.servers[resolved.proxy]
    ports = proxy.ports
    for scheme, default in (("https", 443), ("http", 80)):
        for publish in proxy.publish:
            if publish.target == ports.get(scheme):
                port = "" if publish.port == default else f":{publish.port}"
                return [f"{scheme}://{d}{port}/" for d in route.domains]
    return []


def rendered_files(desired: Desired, servers: Sequence[str]) -> Iterator[tuple[str, bytes | Path]]:
    """(path, content) of every file that is written for the stack, secrets redacted; of a copied one where it is."""
    for image in desired.images:
        for file in image.context.files:
            if file.text is not None and (not servers or set(servers) & set(image.servers)):
                yield f"images/{image.tag.replace(':', '-')}/{file.path}", file.text.encode()
    for name, replicas in desired.replicas.items():
        if servers and name not in servers:
            continue
        server = desired.servers[replicas[0]]
        for volume in server.files:
            for file in volume.files.files:
                if file.path != RENDERED:
                    yield f"{name}/{volume.role}/{file.path}", _content(file)
        for file in server.live.files.files if server.live else ():
            if file.path != RENDERED:
                yield f"{name}/live/{file.path}", _content(file)


def _content(file: Any) -> bytes | Path:
    if file.source is not None:
        return Path(file.source)
    return redact(file.text if file.text is not None else f"-> {file.link}").encode()


def running_container(source: Source, engine: Engine, server: str) -> str:
    """The name of the container that serves; of several replicas the first, or the one that is named, e.g. www.2.

    Raises UsageError for an unknown server, OperationFailed for one that doesn't run.
    """
    observed = engine.observe(stack_name(source))
    known(observed, [server])
    container = observed.current(server)
    if container is None or not container.running:
        state = container.state if container else "missing"
        raise OperationFailed(f"{server} doesn't run: it is {state}", hint=f"`consolidate logs {server}` may say why")
    return container.name


def known(observed: Observed, servers: Iterable[str], also: Iterable[str] = ()) -> None:
    """Raises UsageError for a server that has no container on the engine and isn't one of `also`."""
    there = list(dict.fromkeys([*observed.replicas, *observed.servers, *also]))
    for server in servers:
        if server not in there:
            hint = did_you_mean(server, there) or f"there are: {', '.join(there) or 'none'}"
            raise UsageError(f"the engine has no server '{server}' of this stack", hint=hint)


@dataclass(frozen=True, order=True)
class LogLine:
    time: str
    server: str
    text: str


def log_lines(
    source: Source, engine: Engine, servers: Sequence[str], *, follow: bool, tail: int | None, since: str | None
) -> Iterator[LogLine]:
    """Lines of servers in the order of their times; with `follow`, what comes as it comes."""
    observed = engine.observe(stack_name(source))
    known(observed, servers)
    start = None if since is None else parse_since(since, datetime.now(UTC))
    containers = [
        (r, observed.current(r))
        for s, replicas in observed.replicas.items()
        for r in replicas
        if not servers or s in servers or r in servers
    ]

    def lines(server: str, container: ObservedContainer, *, follow: bool) -> Iterator[LogLine]:
        for raw in engine.logs(container.name, tail=tail, since=start, follow=follow):
            stamp, _, text = raw.decode(errors="replace").partition(" ")
            yield LogLine(stamp, server, text.rstrip("\r"))

    streams = [lines(s, c, follow=follow) for s, c in containers if c is not None]
    return _interleaved(streams) if follow else heapq.merge(*streams)


def _interleaved(streams: Sequence[Iterator[LogLine]]) -> Iterator[LogLine]:
    """Whatever line comes first, from all streams, until all have ended; a container that is gone ends its own.

    Raises EngineUnavailable.
    """
    lines: queue.Queue[LogLine | ConsolidateError | None] = queue.Queue()

    def pump(stream: Iterator[LogLine]) -> None:
        try:
            for line in stream:
                lines.put(line)
            lines.put(None)
        except ConsolidateError as error:
            lines.put(error)

    for stream in streams:
        threading.Thread(target=pump, args=(stream,), daemon=True).start()
    left = len(streams)
    while left:
        line = lines.get()
        if isinstance(line, LogLine):
            yield line
        elif isinstance(line, EngineUnavailable):
            raise line
        else:
            left -= 1


def parse_since(text: str, now: datetime) -> int:
    """Seconds since the epoch from `10m` before `now`, or a time in ISO 8601.

    Raises UsageError.
    """
    from consolidate import values  # pydantic comes with it: not for the table at the end of an `up`

    try:
        return int((now - timedelta(seconds=values.duration(text))).timestamp())
    except ValueError:
        pass
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"'{text}' is no time", hint="write 10m, 2h, or 2026-01-31T12:00") from None
    return int(given.timestamp())
