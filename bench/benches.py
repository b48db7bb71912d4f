"""The benches: each is a function that measures both sides in turn and gives the rows of its table."""

from __future__ import annotations

import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import backups
import bare
import density
import elsewhere
import published
import reloads
import scale
import updates
from common import (
    CACHE,
    CONSOLIDATE,
    NO_CACHE,
    ROOT,
    Stack,
    alternate,
    clocked,
    compose_program,
    hyperfine,
    row,
    run,
    webs,
    write_compose,
)

Rows = list[dict[str, Any]]
CHECKS = {
    5: 0.5,
    20: 1.0,
    50: 1.0,
}  # seconds between Compose's checks: for each size the one of 0.5, 1, 2 and 5 that serves it best


def _images(stack: Stack) -> None:
    """One run that nobody times: it builds what isn't built, and warms the engine."""
    stack.up()
    stack.down()


def up(sizes: tuple[int, ...] = (5, 20, 50), repeat: int = 5, checks: dict[int, float] | None = None) -> Rows:
    """Web servers from nothing to ready, against Compose and against the bare calls; all on the network `none`."""
    rows = []
    for size in sizes:
        stack = webs(f"bench-up{size}", size)
        _images(stack)
        write_compose(stack, interval=(checks or CHECKS).get(size, 1.0), network=False)
        plan_file = CACHE / f"bare-{size}.pickle"
        bare.write_plan(stack.file, plan_file)
        calls = pickle.loads(plan_file.read_bytes())
        script = str(Path(__file__).with_name("bare.py"))
        try:
            times = alternate(
                {
                    "consolidate": (clocked(stack.up), stack.down),
                    "consolidate, cold": (clocked(lambda s=stack: s.up(cold=True)), stack.down),
                    "compose": (clocked(stack.compose_up), stack.compose_down),
                    "bare calls": (
                        clocked(lambda s=script, p=plan_file: run(sys.executable, s, p)),
                        lambda c=calls: bare.remove(c),
                    ),
                },
                repeat,
            )
        finally:
            stack.down()
            stack.compose_down()
        rows += [
            row(f"up {size}", "compose", times, "consolidate", 1.0),
            row(f"up {size}", "bare calls", times, "consolidate", 1.1),
            row(f"up {size}, nothing remembered", "compose", times, "consolidate, cold", None),
            row(f"up {size}, nothing remembered", "bare calls", times, "consolidate, cold", None),
        ]
    return rows


def routed(size: int = 50, repeat: int = 5) -> Rows:
    """Routed web servers behind the proxy, each on a network of its own; Compose's on one shared network."""
    ours, theirs = webs("bench-routed", size, proxy_port=18480), webs("bench-shared", size, proxy_port=18481)
    _images(ours)
    write_compose(theirs, interval=CHECKS[50], network=True)
    try:
        times = alternate(
            {
                "consolidate": (clocked(ours.up), ours.down),
                "compose": (clocked(theirs.compose_up), theirs.compose_down),
            },
            repeat,
        )
    finally:
        ours.down()
        theirs.compose_down()
    return [row(f"{size} routed", "compose", times, "consolidate", 1.3)]


def noop(sizes: tuple[int, ...] = (5, 50, 200), repeat: int = 10) -> Rows:
    """`up` with nothing to change, and how many calls it makes."""
    rows = []
    for size in sizes:
        stack = webs(f"bench-noop{size}", size)
        write_compose(stack, interval=30.0, network=False)
        try:
            stack.up()
            words = [str(ROOT / "bench/calls.py"), "up", str(stack.file)]
            calls = int(run(sys.executable, *words).stderr.split()[-1])
            command = f"{CONSOLIDATE} up {stack.file}"
            cold = f"env XDG_CACHE_HOME={NO_CACHE} {command}"
            times = hyperfine({"consolidate": command, "consolidate, cold": cold}, runs=repeat)
        finally:
            stack.down()
        try:
            stack.compose_up()
            words_ = f"{compose_program()} -f {stack.compose_file} --progress quiet up -d"
            times |= hyperfine({"compose": words_, "compose, wait": f"{words_} --wait"}, runs=repeat)
        finally:
            stack.compose_down()
        target = 1.0 if size == 200 else None
        rows += [
            row(f"no-op {size} ({calls} calls)", peer, times, "consolidate", target)
            for peer in ("compose", "compose, wait")
        ]
        rows.append(row(f"no-op {size}, nothing remembered", "compose", times, "consolidate, cold", None))
    return rows


def acme(repeat: int = 5) -> Rows:
    """The acme stack from built images to all ready; Compose's checks are the same ones every 5 s."""
    source = ROOT / "stacks/acme"
    folder = CACHE / "stacks/bench-acme"

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    text = (folder / "stack.yml").read_text().replace("stack: acme", "stack: bench-acme")
    text = re.sub(r"(https?: )(\d+)", r"\g<1>1\2", text).replace("127.0.0.1:1", "127.0.0.1:19")
    (folder / "stack.yml").write_text(text)
    stack = Stack(folder / "stack.yml")
    _images(stack)
    write_compose(stack, interval=5.0, network=True, grants=True)
    try:
        times = alternate(
            {
                "consolidate": (clocked(stack.up), stack.down),
                "compose": (clocked(stack.compose_up), stack.compose_down),
            },
            repeat,
        )
    finally:
        stack.down()
        stack.compose_down()
    return [row("acme to ready", "compose", times, "consolidate", 0.5)]


def start() -> Rows:
    """What the program costs before it does anything."""
    python = sys.executable
    times = hyperfine(
        {
            "python": f"{python} -c pass",
            "version": f"{CONSOLIDATE} --version",
            "help": f"{CONSOLIDATE} --help",
            "validate hello": f"{CONSOLIDATE} validate {ROOT}/stacks/hello/stack.yml",
        },
        runs=20,
    )
    return [row(what, "python", times, what, None) for what in times if what != "python"]


ALL = {
    "start": start,
    "up": up,
    "routed": routed,
    "noop": noop,
    "acme": acme,
    "rolling": updates.rolling,
    "reloads": reloads.reloads,
    "published": published.published,
    "database": updates.database,
    "density": density.density,
    "vm": density.vm,
    "scale": scale.scale,
    "backups": backups.backups,
    "elsewhere": elsewhere.elsewhere,
    "large": elsewhere.large,
}
