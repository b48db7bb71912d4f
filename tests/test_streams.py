"""A conversation with a program over the engine's connection."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from consolidate.docker_engine.streams import converse, imported
from consolidate.errors import EngineUnavailable, OperationFailed
from consolidate.terminal import interact

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


class Broken(socket.socket):
    """A connection whose other end has gone, as the kernel tells when nothing has come back for long enough."""

    def recv(self, *_: object) -> bytes:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def read(self, _: int) -> bytes:
        return self.recv()


def broken() -> Broken:
    ours, theirs = socket.socketpair()
    theirs.close()
    return Broken(fileno=ours.detach())


def test_a_connection_whose_network_goes_ends_what_is_typed_and_heard() -> None:
    """A terminal's is over, and the engine is asked what has become of the command; what was to be heard is not whole."""
    with broken() as stream:
        interact(stream, tty=False, stdin=False, resize=lambda *_: None)
    with pytest.raises(EngineUnavailable):
        converse(broken(), [])


@pytest.mark.parametrize(
    ("answer", "made"),
    [
        ('{"status":"Importing"}\r\n{"status":"sha256:1"}\r\n', "sha256:1"),
        ('{"status":"sha256:1"}\n{"error":"no space"}', "an image: no space"),
        ('{"message":"bad parameter"}', "an image: bad parameter"),
        ('{"status":"sha2', r'an image: \{"status'),
        ("Bad Gateway", "an image: Bad Gateway"),
        ('{"status":"Importing"}\n{"progress":1}', "can't import"),
        ("", "it says nothing"),
    ],
)
def test_an_import_has_made_the_image_that_it_names_last(answer: str, made: str) -> None:
    """What names none has made none, and is told as the engine says it."""
    if made.startswith("sha256"):
        assert imported(answer) == made
    else:
        with pytest.raises(OperationFailed, match=made):
            imported(answer)
