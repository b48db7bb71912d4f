"""A conversation with a program over the engine's connection."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from consolidate.docker_engine.streams import converse
from consolidate.errors import EngineUnavailable

PART, PARTS = b"x" * 2**20, 4


def test_a_program_that_reads_slowly_gets_all_of_it() -> None:
    """And hears its end, however long a part takes: the library's timeout is for answers."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    theirs.settimeout(3)  # so that a fault does not hang the test
    got = 0
    ended = False

    def program() -> None:
        nonlocal got, ended
        try:
            for _ in range(3):
                time.sleep(0.15)
                got += len(theirs.recv(1000))
            while chunk := theirs.recv(2**16):
                got += len(chunk)
            ended = True
            theirs.sendall(struct.pack(">BxxxL", 1, 4) + b"done")
        except TimeoutError:
            pass
        finally:
            theirs.close()

    reader = threading.Thread(target=program)
    reader.start()
    said = converse(ours, [PART] * PARTS)
    reader.join()
    assert (said, got, ended) == (b"done", len(PART) * PARTS, True)


def test_a_connection_that_breaks_while_it_is_fed_is_told() -> None:
    """It is not taken for a program that does not read on."""

    def parts() -> Iterator[bytes]:
        raise OSError("no route to host")
        yield b""

    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack(">BxxxL", 1, 4) + b"done")
    theirs.shutdown(socket.SHUT_WR)
    with theirs, pytest.raises(EngineUnavailable):
        converse(ours, parts())
