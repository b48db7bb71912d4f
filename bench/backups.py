"""Backups and restores, beside `mariadb-dump | zstd` and restic by hand, of the same data at the same time."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common import CACHE, CONSOLIDATE, Stack, alternate, clocked, run
from goods import DATABASE, FILES, KEPT, NAME, SQL, change, files, in_volume, orders, scattered

Rows = list[dict[str, Any]]
Undo = Callable[[], Any]
Side = tuple[Callable[[], float], Undo]
FOLDER = CACHE / "stacks" / NAME
MIB = 2**20
# What the kind mysql does.
DUMP = ["docker", "exec", DATABASE, "mariadb-dump", "--user=mysql", "--protocol=socket", "--all-databases"]
DUMP += ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob", "--flush-privileges"]
DUMP += ["--default-character-set=utf8mb4"]


def backups(sizes: tuple[int, ...] = (500, 1000), repeat: int = 3) -> Rows:
    """`sizes`: MB of rows and of files. First backups, second ones with 1 % changed, restores; each side's own repository."""
    with shop() as stack:
        count, number = orders(sizes[0]), files(sizes[-1])
        dump = int(shell(f"{line(DUMP)} | wc -c"))
        stored = int(in_volume("du -sb --exclude=sessions /data | cut -f1"))
        measured = Measured(stack, {"rows": dump, "files": stored, "both": dump + stored}, repeat)
        rows_of = measured.first()
        rows_of += measured.second(lambda: change(count, number), "1 % changed")
        rows_of += measured.second(scattered, "1 % of the rows changed, all over", only="rows")
        return rows_of + measured.restores()


@contextlib.contextmanager
def shop() -> Iterator[Stack]:
    """The stack with its database and site, which have nothing in them yet."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "code").mkdir(parents=True)
    (FOLDER / "code/index.php").write_text("<?php echo 'here';\n")
    (FOLDER / "key").write_text("bench\n")
    stack = Stack(FOLDER / "stack.yml")
    emptied()
    try:
        _another_repository()
        stack.up()
        run(CONSOLIDATE, "backup", "-f", stack.file, "--progress", "quiet")  # builds what isn't built
        yield stack
    finally:
        stack.down()
        emptied()


class Measured:
    """The sides, of one stack with its data: what they save is `sizes` bytes."""

    def __init__(self, stack: Stack, sizes: Mapping[str, int], repeat: int) -> None:
        self.stack, self.sizes, self.repeat = stack, sizes, repeat

    def sides(self, what: str) -> dict[str, Callable[[], None]]:
        """How each saves `what`: rows, files, or both."""
        only = {"rows": ["-s", "db"], "files": ["-s", "site"], "both": []}[what]
        words = [CONSOLIDATE, "backup", "-f", self.stack.file, *only, "--progress", "quiet"]
        found: dict[str, Callable[[], None]] = {"consolidate": lambda: _ran(*words)}
        found["restic"] = {"rows": _restic_rows, "files": _restic_files, "both": _restic_both}[what]
        return found | ({"dump | zstd": _zstd} if what == "rows" else {})

    def first(self) -> Rows:
        """Into repositories that are not there yet. Both sides make theirs in the time that counts."""
        rows = []
        for what in self.sizes:
            sides = {n: (clocked_from(n, act), emptied) for n, act in self.sides(what).items()}
            rows += self.compared(f"first backup of {what}", what, alternate(sides, self.repeat))
        return rows

    def second(self, change: Callable[[], None], told: str, only: str = "") -> Rows:
        """After a change, into repositories that have what was there before."""
        rows = []
        for what in [only] if only else self.sizes:
            acts = self.sides(what)
            for name, act in acts.items():
                _begun(name, act)()
            before = _stored()
            times: dict[str, list[float]] = {n: [] for n in acts}
            for turn in range(self.repeat):
                change()
                order = list(acts)
                for name in order[turn % len(order) :] + order[: turn % len(order)]:
                    times[name] += alternate({name: (clocked(acts[name]), lambda: None)}, 1)[name]
            after = _stored()
            grown = {n: (after[n] - before[n]) / self.repeat for n in ("consolidate", "restic")}
            grown |= {n: after[n] for n in acts if n == "dump | zstd"}  # each is a whole one
            rows += self.compared(f"{told}, backup of {what}", what, times, grown)
            emptied()
        return rows

    def restores(self) -> Rows:
        """Ours onto an engine that has nothing of the stack, to servers that are ready; theirs into servers that run. And how
        long a drill says right after it that it takes."""
        for name, act in self.sides("both").items():
            _begun(name, act)()
        _zstd()
        words = [CONSOLIDATE, "restore", "latest", "-f", self.stack.file, "--progress", "quiet"]
        times: dict[str, list[float]] = {}
        try:
            for _ in range(self.repeat):
                self.stack.down()
                sides: dict[str, Side] = {
                    "consolidate": (clocked(lambda: _ran(*words, "--yes")), lambda: None),
                    "restic": (clocked(lambda: _restored(_restic_rows_back)), lambda: None),
                    "restic, zstd | mariadb": (clocked(lambda: _restored(_zstd_back)), lambda: None),
                }
                for name, took in alternate(sides, 1).items():  # theirs need the servers that ours has made
                    times.setdefault(name, []).extend(took)
                drill = json.loads(run(*words, "--drill", "--format", "json").stdout)
                times.setdefault("a drill's word", []).append(drill["seconds"])
        finally:
            emptied()
        return self.compared("restore of both", "both", times)

    def compared(
        self, told: str, what: str, times: Mapping[str, Sequence[float]], grown: Mapping[str, float] | None = None
    ) -> Rows:
        """One line for each peer: medians, the data's size divided by them, and what a repository has grown by."""
        kept = grown if grown is not None else {}
        mine = statistics.median(times["consolidate"])
        rows = []
        for peer, took in times.items():
            if peer == "consolidate":
                continue
            theirs, mb = statistics.median(took), self.sizes[what] / 10**6
            rows.append(
                {
                    "what": told,
                    "peer": peer,
                    "mb": round(mb),
                    "peer_s": round(theirs, 2),
                    "ours_s": round(mine, 2),
                    "ratio": round(mine / theirs, 2),
                    "peer_mb_each_s": round(mb / theirs, 1),
                    "ours_mb_each_s": round(mb / mine, 1),
                    "peer_grew_mib": round(kept[peer] / MIB, 1) if kept else None,
                    "ours_grew_mib": round(kept["consolidate"] / MIB, 1) if kept else None,
                    "runs": len(took),
                    "spread_ours": [round(min(times["consolidate"]), 2), round(max(times["consolidate"]), 2)],
                    "spread_peer": [round(min(took), 2), round(max(took), 2)],
                }
            )
        return rows


# The sides


def _begun(side: str, act: Callable[[], None]) -> Callable[[], None]:
    """An act into a repository that is made first; ours makes its own, in a place where it has made none yet."""
    if side == "consolidate":
        _another_repository()

    def begin() -> None:
        if side == "restic":
            _restic("init")
        act()

    return begin


numbers_of_repositories = itertools.count(1)


def _another_repository() -> None:
    """One that was made and is gone would be taken for one whose disk isn't mounted."""
    (FOLDER / "stack.yml").write_text(
        f"stack: {NAME}\n"
        "servers:\n"
        "  db: {kind: mysql, resources: {memory: 1G, cpus: 2}}\n"
        "  site: {kind: php, content: ./code}\n"
        f"backup: {{repository: {KEPT}/ours/{next(numbers_of_repositories)}, passphrase: {{file: key}}}}\n"
    )


def clocked_from(side: str, act: Callable[[], None]) -> Callable[[], float]:
    """Seconds of an act into a new repository."""
    return lambda: clocked(_begun(side, act))()


def _ran(*words: Any) -> None:
    run(*words)


def _zstd() -> None:
    shell(f"{line(DUMP)} | zstd -q -f -o {KEPT}/rows.zst")


def _restic_files() -> None:
    _restic("backup", "--quiet", "/data/site/data", mounts=[f"{FILES}:/data/site/data:ro"])


def _restic_rows() -> None:
    shell(f"{line(DUMP)} | {line(_restic_words('backup', '--quiet', '--stdin', '--stdin-filename', 'rows'))}")


def _restic_both() -> None:
    _restic_files()
    _restic_rows()


def _restored(rows_back: Callable[[], None]) -> None:
    """Files into a new volume, rows into the database that runs."""
    run("docker", "volume", "create", f"{NAME}-files")
    try:
        words = ("restore", "latest", "--quiet", "--path", "/data/site/data", "--target", "/")
        _restic(*words, mounts=[f"{NAME}-files:/data/site/data"])
    finally:
        run("docker", "volume", "rm", f"{NAME}-files")
    rows_back()


def _restic_rows_back() -> None:
    shell(f"{line(_restic_words('dump', '--path', '/rows', 'latest', '/rows'))} | {line(SQL)}")


def _zstd_back() -> None:
    shell(f"zstd -dc {KEPT}/rows.zst | {line(SQL)}")


def _restic_words(*words: str, mounts: Sequence[str] = ()) -> list[str]:
    """restic by hand: ours in a container of its own for each command, with a cache on the host, as it would have."""
    from consolidate.desire.content import restic_image

    bound = [f"{KEPT}/theirs:/repository", f"{KEPT}/cache:/root/.cache/restic", *mounts]
    options = [w for m in bound for w in ("--volume", m)]
    options += ["--env", "RESTIC_PASSWORD=bench", "--env", "RESTIC_REPOSITORY=/repository", "--hostname", NAME]
    image = restic_image().tag
    return ["docker", "run", "--rm", "--interactive", "--network", "none", *options, image, "restic", *words]


def _restic(*words: str, mounts: Sequence[str] = ()) -> None:
    run(*_restic_words(*words, mounts=mounts), stdin=subprocess.DEVNULL)


def line(words: Sequence[str]) -> str:
    return shlex.join(words)


def shell(line: str) -> str:
    """A pipeline of which every part has to end well: what it prints."""
    return run("bash", "-o", "pipefail", "-c", line).stdout


def _as_root(script: str) -> str:
    """A script with the folder of what the sides have written, which is root's, as /kept."""
    KEPT.mkdir(parents=True, exist_ok=True)
    return run(
        "docker", "run", "--rm", "--volume", f"{KEPT}:/kept", "debian:bookworm-slim", "bash", "-ec", script
    ).stdout


def emptied() -> None:
    """No side has saved anything."""
    _as_root("rm -rf /kept/ours /kept/theirs /kept/cache /kept/rows.zst; mkdir /kept/theirs /kept/cache")


def _stored() -> dict[str, int]:
    """Bytes of each side's repository, or file."""
    text = _as_root("cd /kept; du -sb ours theirs rows.zst 2> /dev/null || true")
    names = {"ours": "consolidate", "theirs": "restic", "rows.zst": "dump | zstd"}
    return {names[line.split()[1]]: int(line.split()[0]) for line in text.splitlines()}


__all__ = ["DUMP", "backups", "line", "shell", "shop"]
