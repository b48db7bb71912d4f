"""How long a plan of 10, 100 and 1,000 servers takes, and that it grows with their number and not with its square."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import CACHE, CONSOLIDATE, NO_CACHE, hyperfine, run

Rows = list[dict[str, Any]]
LIMIT = 2.0  # seconds that the plan of the largest may take


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


def scale(sizes: tuple[int, ...] = (10, 100, 1000), repeat: int = 10) -> Rows:
    """Plans as processes against the real engine, where all is to be made; and in one process, of an engine in memory."""
    rows: Rows = []
    for shape in ("web", "mixed"):
        files = {size: write(size, shape) for size in sizes}
        commands = {
            f"{n}": f"env XDG_CACHE_HOME={NO_CACHE} {CONSOLIDATE} plan {f} --format json" for n, f in files.items()
        }
        times = hyperfine(commands, runs=repeat)
        found = {n: min(times[str(n)]) for n in sizes}
        for size, file in files.items():
            plan = run(CONSOLIDATE, "plan", file, "--format", "json").stdout
            rows.append(
                {
                    "what": f"plan, {shape}, nothing there",
                    "servers": size,
                    "operations": len(json.loads(plan)["changes"]),
                    "fastest_s": round(found[size], 2),
                    "median_s": round(sorted(times[str(size)])[repeat // 2], 2),
                    "each_ms": _each(found, sizes, size),
                    "limit_s": LIMIT if size == max(sizes) else None,
                    "times": [round(t, 2) for t in times[str(size)]],
                }
            )
        rows += _in_memory(shape, sizes, files)
    return rows


def _each(found: dict[int, float], sizes: tuple[int, ...], size: int) -> float | None:
    """Milliseconds for each server more than in the size before."""
    at = sizes.index(size)
    return round((found[size] - found[sizes[at - 1]]) / (size - sizes[at - 1]) * 1000, 2) if at else None


def _in_memory(shape: str, sizes: tuple[int, ...], files: dict[int, Path]) -> Rows:
    """Deciding alone, in a process that has imported all, with everything on the engine: what no machine here could carry."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for size in sizes:
        words = [sys.executable, str(Path(__file__).with_name("in_memory.py")), str(files[size])]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "0"}
        )
        for state, took in json.loads(done.stdout).items():
            found.setdefault(state, {})[size] = took
    rows = []
    for state, by_size in found.items():
        fastest = {n: t["fastest_s"] for n, t in by_size.items()}
        for size in sizes:
            row = {"what": f"deciding, {shape}, {state}", "servers": size, "operations": by_size[size]["operations"]}
            rows.append(row | {"fastest_s": fastest[size], "each_ms": _each(fastest, sizes, size)})
    return rows


__all__ = ["scale"]
