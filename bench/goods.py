"""What the bench of backups saves: a shop's orders in a database, and files that compress well, badly, or not at all."""

from __future__ import annotations

import io
import itertools
import random
import subprocess
import tarfile
from collections.abc import Iterator, Sequence

from common import CACHE, run

NAME = "bench-backups"
KEPT = CACHE / NAME  # what the sides write: repositories, dumps
DATABASE, FILES = f"{NAME}-db-1", f"{NAME}_site_data"
ROW_BYTES = 430  # of a row in a dump, about
SMALLEST, LARGEST = 1024, 8 * 2**20  # of a file
BLOCK = 2048
CHANGED = 100  # one of so many rows or files is another one before the second backup
SQL = [
    "docker",
    "exec",
    "-i",
    DATABASE,
    "mariadb",
    "--user=mysql",
    "--protocol=socket",
    "--default-character-set=utf8mb4",
]
SQL += ["--binary-mode"]
# Orders as a shop has them: names and places that come again, numbers and hashes that don't, text in words.
TABLE = """
CREATE DATABASE shop;
USE shop;
CREATE TABLE words (id INT PRIMARY KEY, word VARCHAR(20));
INSERT INTO words SELECT seq, SUBSTR(MD5(seq), 1, 3 + seq % 7) FROM seq_0_to_1999;
CREATE TABLE orders (id INT PRIMARY KEY, placed DATETIME, customer VARCHAR(60), mail VARCHAR(80), street VARCHAR(80),
    city VARCHAR(40), amount DECIMAL(10, 2), state ENUM('new', 'paid', 'sent', 'done'), token CHAR(32), note TEXT, KEY (customer), KEY (placed));
"""
ORDERS = """
USE shop;
INSERT INTO orders SELECT seq, '2020-01-01' + INTERVAL seq * 61 SECOND, CONCAT(a.word, ' ', b.word),
    CONCAT(a.word, '.', b.word, '@example.org'), CONCAT(c.word, ' street ', seq % 200), d.word, (seq * 7919 % 100000) / 100,
    1 + seq % 4, MD5(CONCAT('t', seq)),
    CONCAT_WS(' ', a.word, 'asked for', c.word, 'and', d.word, e.word, b.word, e.word, 'to be sent before', d.word, a.word, e.word,
        c.word, b.word, d.word, 'or', e.word, a.word, c.word, 'not at all', b.word, e.word, 'with', a.word, c.word, d.word, e.word)
FROM seq_{first}_to_{last}
JOIN words a ON a.id = seq * 31 % 2000 JOIN words b ON b.id = seq * 37 DIV 11 % 2000 JOIN words c ON c.id = seq * 41 DIV 7 % 2000
JOIN words d ON d.id = seq * 43 DIV 13 % 2000 JOIN words e ON e.id = (seq * 47 DIV 3 + seq) % 2000;
"""
BATCH = 100_000


def in_volume(script: str) -> str:
    return run(
        "docker", "run", "--rm", "--volume", f"{FILES}:/data", "debian:bookworm-slim", "bash", "-ec", script
    ).stdout


def _sql(text: str) -> None:
    run(*SQL, input=text)


def orders(mb: int) -> int:
    """Fill the database: with how many."""
    count = mb * 10**6 // ROW_BYTES
    _sql(TABLE)
    for first in range(1, count + 1, BATCH):
        _sql(ORDERS.format(first=first, last=min(first + BATCH - 1, count)))
    return count


def _content(generator: random.Random, number: int, size: int) -> bytes:
    """Of a third of the files all that can't be compressed, as pictures; of a third text; of a third some of both."""
    if number % 3 == 0:
        return generator.randbytes(size)
    words = [f"{generator.getrandbits(24):x}" for _ in range(300)]
    text = " ".join(generator.choices(words, k=size // 5 + 1)).encode()[:size]
    if number % 3 == 1:
        return text
    return b"".join(generator.randbytes(BLOCK) + text[at : at + BLOCK] for at in range(0, size, 2 * BLOCK))[:size]


def files(mb: int) -> int:
    """Files of 1 KB to 8 MB, as many small ones as large: how many."""
    generator, left = random.Random(1), mb * 10**6

    def drawn() -> Iterator[tuple[int, int]]:
        nonlocal left
        number = 0
        while left > 0:
            size = min(left, int(SMALLEST * (LARGEST / SMALLEST) ** generator.random()))
            left -= size
            yield number, size
            number += 1

    sizes = list(drawn())
    _written(generator, sizes)
    (KEPT / "sizes").write_text("\n".join(f"{n} {s}" for n, s in sizes))
    return len(sizes)


def _written(generator: random.Random, files: Sequence[tuple[int, int]]) -> None:
    """Into the volume, through a container that unpacks them."""
    words = ["docker", "run", "--rm", "--interactive", "--volume", f"{FILES}:/data", "debian:bookworm-slim"]
    with subprocess.Popen([*words, "tar", "-C", "/data", "-x"], stdin=subprocess.PIPE) as unpacking:
        with tarfile.open(fileobj=unpacking.stdin, mode="w|") as tar:
            for number, size in files:
                entry = tarfile.TarInfo(f"{number % 100}/{number}")
                entry.size, entry.uid, entry.gid, entry.mtime = size, 33, 33, generator.randrange(10**9)
                tar.addfile(entry, io.BytesIO(_content(generator, number, size)))
        assert unpacking.stdin is not None
        unpacking.stdin.close()
    assert unpacking.returncode == 0


turns = itertools.count(1)  # what changes is something that it never was


def change(count: int, numbers: int) -> None:
    """The newest of the rows are others, as orders are that go on, and every so many-th file."""
    turn, first = next(turns), count - max(count // CHANGED, 1)
    _sql(
        f"UPDATE shop.orders SET state = 1 + (state + {turn}) % 4, token = MD5({turn} + id), amount = {turn} WHERE id > {first}"
    )
    sizes = dict(tuple(map(int, line.split())) for line in (KEPT / "sizes").read_text().splitlines())
    _written(random.Random(turn + 1), [(n, sizes[n]) for n in range(turn % CHANGED, numbers, CHANGED)])


def scattered() -> None:
    """As many rows, but all over the table."""
    turn = next(turns)
    _sql(f"UPDATE shop.orders SET token = MD5(CONCAT({turn}, id)) WHERE id % {CHANGED} = {turn % CHANGED}")


__all__ = ["DATABASE", "FILES", "KEPT", "NAME", "SQL", "change", "files", "in_volume", "orders", "scattered"]
