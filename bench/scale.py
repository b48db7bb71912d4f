"""How long a plan of 10, 100 and 1,000 servers takes, and that it grows with their number and not with its square."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from common import CACHE, CONSOLIDATE, NO_CACHE, run

Rows = list[dict[str, Any]]
LARGEST, LIMIT = 1000, 2.0  # servers, and the seconds that their plan may take


def write(size: int, shape: str) -> Path:
    """A stack file of `size` servers: web servers behind a proxy, or half of them PHP and WordPress with their databases."""
    folder = CACHE / f"stacks/bench-scale-{shape}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "site").mkdir(parents=True)
    (folder / "site/index.php").write_text("<h1>Here</h1>\n")
    text = 'stack: bench-scale\nservers:\n  edge: {kind: proxy, http: 18486, tls: "off"}\n'

    def servers(name: str, count: int, more: str) -> str:
        return f"  {name}-{{i}}: {{for: {{i: 1..{count}}}, {more}, domains: ['{name}-{{i}}.bench.test']}}\n"

    if shape == "web":
        text += servers("web", size - 1, "kind: web, content: ./site")
    else:
        groups = (size - 2) // 8 or 1
        text += "  mail: {kind: mail, domains: [bench.test], mailboxes: {ada@bench.test: {}}}\n"
        text += servers("web", size - 2 - 4 * groups, "kind: web, content: ./site")
        text += f"  db-{{i}}: {{for: {{i: 1..{2 * groups}}}, kind: mysql}}\n"
        text += servers("php", groups, "kind: php, content: ./site, database: 'db-{i}'")
        text += servers("blog", groups, "kind: wordpress, database: 'db-{i}', admin: {email: a@bench.test}")
    (folder / "stack.yml").write_text(text)
    return folder / "stack.yml"


def scale(sizes: tuple[int, ...] = (10, 100, 1000), repeat: int = 7) -> Rows:
    """Plans as processes against the real engine, where all is to be made; and in one process, of an engine in memory.

    Sizes take turns, so that a load that changes meets all of them; seconds of the processor depend on it least.
    """
    rows: Rows = []
    for shape in ("web", "mixed"):
        files = {size: write(size, shape) for size in sizes}
        took: dict[int, list[tuple[float, float]]] = {n: [] for n in sizes}
        operations = {}
        for _ in range(repeat + 1):
            for size, file in files.items():
                plan, *spent = _planned(file)
                took[size].append((spent[0], spent[1]))
                operations[size] = len(json.loads(plan)["changes"])
        processor = {n: min(c for _, c in took[n][1:]) for n in sizes}  # the first one warms caches
        for size in sizes:
            seconds = sorted(s for s, _ in took[size][1:])
            rows.append(
                {
                    "what": f"plan, {shape}, nothing there",
                    "servers": size,
                    "operations": operations[size],
                    "fastest_s": round(seconds[0], 2),
                    "median_s": round(seconds[len(seconds) // 2], 2),
                    "processor_s": round(processor[size], 2),
                    "each_ms": _each(processor, sizes, size),
                    "limit_s": LIMIT if size == LARGEST else None,
                    "times": [round(s, 2) for s in seconds],
                }
            )
            print(f"  {rows[-1]}", file=sys.stderr)
        rows += _in_memory(shape, sizes, files)
    return rows


def _planned(file: Path) -> tuple[str, float, float]:
    """A plan as JSON, and the seconds that it took: by the clock, and of the processor."""
    words = [CONSOLIDATE, "plan", str(file), "--format", "json"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = run(*words, env=os.environ | {"XDG_CACHE_HOME": NO_CACHE})
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _each(found: dict[int, float], sizes: tuple[int, ...], size: int) -> float | None:
    """Milliseconds for each server more than in the size before."""
    at = sizes.index(size)
    return round((found[size] - found[sizes[at - 1]]) / (size - sizes[at - 1]) * 1000, 2) if at else None


def _in_memory(shape: str, sizes: tuple[int, ...], files: dict[int, Path]) -> Rows:
    """Deciding alone, in a process that has imported all, with everything on the engine: what no machine here could carry."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for size in sizes:
        done = run(sys.executable, Path(__file__).with_name("in_memory.py"), files[size])
        for state, took in json.loads(done.stdout).items():
            found.setdefault(state, {})[size] = took
    rows = []
    for state, by_size in found.items():
        fastest = {n: t["processor_s"] for n, t in by_size.items()}
        for size in sizes:
            row = {"what": f"deciding, {shape}, {state}", "servers": size, "operations": by_size[size]["operations"]}
            rows.append(row | {"processor_s": fastest[size], "each_ms": _each(fastest, sizes, size)})
    return rows


__all__ = ["scale"]
