"""The load that other tests rely on: whatever goes wrong with a request, it is counted."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.load import Visitor, checksum, saying, upload, visitors

LATE = 0.5


class Moody(BaseHTTPRequestHandler):
    """Answers as its path says, well or badly."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = self.path != "/well"
        if self.path == "/refuses":
            self.answer(503, b"hello")
        elif self.path == "/redirects":
            self.answer(302, b"hello")
        elif self.path == "/lies":
            self.answer(200, b"good-bye")
        elif self.path == "/cuts":
            self.answer(200, b"hello", length=100)
        elif self.path == "/chunks":  # an answer in chunks, without the last
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        elif self.path == "/resets":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif self.path == "/late":
            time.sleep(LATE)
            self.answer(200, b"hello")
        elif self.path in ("/well", "/parts"):
            self.answer(200, b"hello")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/loses":
            body = body[:-1]
        told = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        self.answer(200, json.dumps(told).encode())

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def visitor(server: Server, path: str) -> Visitor:
    return Visitor(path, "load.test", server.server_port, path, pause=0.02, expect=saying("hello"), timeout=LATE / 2)


BAD = {
    "/refuses": "status 503",
    "/redirects": "status 302",
    "/lies": "not what was to be said",
    "/cuts": "IncompleteRead",
    "/chunks": "IncompleteRead",
    "/resets": "ConnectionResetError|RemoteDisconnected|BadStatusLine",
    "/late": "timed out",
    "/says nothing": "RemoteDisconnected",
}


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new"])
@pytest.mark.parametrize(("path", "how"), BAD.items(), ids=BAD)
def test_each_way_to_fail_is_counted_and_others_are_not_blamed(server: Server, path: str, how: str, keep: bool) -> None:
    bad = replace(visitor(server, path.replace(" ", "-")), keep=keep)
    well = visitor(server, "/well")
    with visitors(bad, well) as load:
        load.another_round()
        load.another_round()
    assert load.answers["/well"] >= 2
    assert load.answers[bad.name] == 0
    assert len(load.failures) >= 2
    assert load.failed("/well") == []
    assert all(re.search(how, f) for f in load.failed()), load.failed()


def test_a_slow_answer_that_is_cut_short_is_counted(server: Server) -> None:
    with visitors(replace(visitor(server, "/cuts"), reading=0.1)) as load:
        load.another_round()
    assert not load.answers
    assert "IncompleteRead" in load.failed()[0]


def test_an_upload_of_which_a_byte_is_lost_is_counted(server: Server) -> None:
    sender = replace(visitor(server, "/keeps"), body=upload(100_000), sending=0.05, expect=checksum)
    loser = replace(sender, name="/loses", path="/loses")
    with visitors(sender, loser) as load:
        load.another_round()
        load.another_round()
    assert load.answers["/keeps"] >= 2
    assert load.answers["/loses"] == 0
    assert len(load.failed("/loses")) == len(load.failed()) >= 2


def test_a_server_that_stops_is_counted_and_comes_back(server: Server) -> None:
    port = server.server_port
    with visitors(visitor(server, "/well")) as load:
        load.another_round()
        assert load.failed() == []
        server.socket.close()  # takes no more; the connection that is there goes on
        load.another_round()
        assert load.failed() == [], "a kept connection needs no new one"
    with visitors(Visitor("new", "load.test", port, keep=False, pause=0.02)) as load:
        load.another_round()
    assert not load.answers
    assert "ConnectionRefusedError" in load.failed()[0]


def test_a_visitor_without_an_answer_is_waited_for(server: Server) -> None:
    with visitors(replace(visitor(server, "/late"), timeout=10)) as load, pytest.raises(TimeoutError):
        load.another_round(within=LATE / 2)
