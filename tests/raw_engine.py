"""The few calls that the doctor and the base image need, spoken over the engine's socket without docker-py.

So these tests depend on no other module of ours, and show what the calls are on the wire.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from consolidate.errors import OperationFailed

SOCKET = Path("/var/run/docker.sock")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class RawEngine:
    def __init__(self, path: Path = SOCKET) -> None:
        self.path = path

    def call(self, method: str, url: str, body: Iterable[bytes] | None = None, timeout: float = 600) -> tuple[int, str]:
        connection = UnixConnection(self.path, timeout)
        try:
            headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"} if body else {}
            connection.request(method, "/v1.41" + url, body=body, headers=headers, encode_chunked=body is not None)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def info(self) -> Mapping[str, Any]:
        return dict(json.loads(self.call("GET", "/info")[1]))

    def version(self) -> Mapping[str, Any]:
        return dict(json.loads(self.call("GET", "/version")[1]))

    def has_image(self, reference: str) -> bool:
        return self.call("GET", f"/images/{quote(reference)}/json")[0] == http.HTTPStatus.OK

    def registry_error(self, reference: str, timeout: float) -> str:
        try:
            status, text = self.call("GET", f"/distribution/{quote(reference)}/json", timeout=timeout)
        except OSError as error:
            return str(error)
        return "" if status == http.HTTPStatus.OK else str(json.loads(text)["message"])

    def pull(self, reference: str, progress: Callable[[str], None]) -> None:
        self.stream("/images/create?" + urlencode({"fromImage": reference}))

    def import_image(self, stream: IO[bytes], reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
        self.stream("/images/create?" + urlencode(query), iter(lambda: stream.read(1 << 16), b""))

    def stream(self, url: str, body: Iterable[bytes] | None = None) -> None:
        status, text = self.call("POST", url, body)
        errors = [line for line in text.splitlines() if '"error"' in line]
        if status >= http.HTTPStatus.BAD_REQUEST or errors:
            raise OperationFailed(text if status >= http.HTTPStatus.BAD_REQUEST else errors[-1])

    def run(self, image: str, *argv: str) -> tuple[int, str]:
        """Run a program in a container without a network; its status and output."""
        config = json.dumps({"Image": image, "Cmd": argv, "NetworkDisabled": True, "Tty": True})
        connection = UnixConnection(self.path, 60)
        connection.request("POST", "/v1.41/containers/create", config, {"Content-Type": "application/json"})
        made = json.loads(connection.getresponse().read())
        connection.close()
        container = f"/containers/{made['Id']}"
        try:
            self.call("POST", f"{container}/start")
            status = json.loads(self.call("POST", f"{container}/wait")[1])["StatusCode"]
            return int(status), self.call("GET", f"{container}/logs?stdout=1&stderr=1")[1]
        finally:
            self.call("DELETE", f"{container}?force=1")

    def remove_image(self, reference: str) -> None:
        self.call("DELETE", f"/images/{quote(reference)}?force=1")
