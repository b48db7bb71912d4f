"""A registry to pull from, on 127.0.0.1: the read-only half of the distribution specification's API.

https://distribution.github.io/distribution/spec/api/: manifests by tag or digest, and blobs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
PATH = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs)/(?P<reference>[^/]+)")


class Registry:
    """Blobs are files of `folder`, named by their digests; `tags` are digests of manifests by 'name:tag'."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.tags: dict[str, str] = {}

    def push(self, daemon: Any, image: str, name: str) -> str:
        """Take an image of an engine under `name`, e.g. site:1; how the engine calls it."""
        with tempfile.TemporaryFile(dir=self.folder) as spool:
            for chunk in daemon.api.get_image(image):
                spool.write(chunk)
            spool.seek(0)
            with tarfile.open(fileobj=spool) as tar:
                (saved,) = json.load(self._member(tar, "manifest.json"))
                config = self._keep(self._member(tar, saved["Config"]))
                layers = [self._keep(self._member(tar, layer)) for layer in saved["Layers"]]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **config},
            "layers": [{"mediaType": LAYER, **layer} for layer in layers],
        }
        text = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        (self.folder / digest).write_bytes(text)
        self.tags[name] = digest
        return f"127.0.0.1:{self.port}/{name}"

    @staticmethod
    def _member(tar: tarfile.TarFile, name: str) -> Any:
        content = tar.extractfile(tar.getmember(name))
        assert content is not None, name
        return content

    def _keep(self, content: Any) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            shutil.copyfileobj(content, file)
        path = Path(file.name)
        with path.open("rb") as written:
            digest = f"sha256:{hashlib.file_digest(written, 'sha256').hexdigest()}"
        return {"digest": digest, "size": path.rename(self.folder / digest).stat().st_size}


@contextmanager
def running(folder: Path) -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            if self.path.rstrip("/") == "/v2":
                return self.send(200, "application/json", 0)
            asked = PATH.fullmatch(self.path)
            digest = registry.tags.get(f"{asked['name']}:{asked['reference']}", asked["reference"]) if asked else ""
            file = folder / digest
            if asked is None or not digest.startswith("sha256:") or not file.is_file():
                return self.send(404, "application/json", 0)
            kind = MANIFEST if asked["what"] == "manifests" else "application/octet-stream"
            self.send(200, kind, file.stat().st_size, digest)
            if body:
                with file.open("rb") as content:
                    shutil.copyfileobj(content, self.wfile)
            return None

        def send(self, status: int, kind: str, size: int, digest: str = "") -> None:
            self.send_response(status)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry = Registry(folder, server.server_address[1])
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
