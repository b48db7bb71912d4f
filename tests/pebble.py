"""Pebble, the ACME authority for tests that Debian packages, in a container beside the proxy that asks it.

It resolves every name to the proxy, so it validates by HTTP as a public authority would, and no name leaves the machine.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from datetime import UTC, datetime
from typing import Any

from consolidate.authority import new_authority, new_certificate

NAME = "pebble"  # the host name of the authority, for the proxy and in its own certificate
DIRECTORY = f"https://{NAME}:14000/dir"
IMAGE = "consolidate-tests/pebble"
DOCKERFILE = """\
FROM debian:bookworm-slim
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends curl pebble \\
 && rm -rf /var/lib/apt/lists/*
"""
START = """\
pebble-challtestsrv -defaultIPv4 "$PROXY" -defaultIPv6 '' -dns01 :8053 -http01 '' -https01 '' -tlsalpn01 '' &
exec pebble -config /pebble.json -dnsserver 127.0.0.1:8053
"""


class Pebble:
    """An authority that is not started yet: `root` goes into the stack (`acme_root`), then `start` it.

    Its certificates are valid for `validity` seconds. As a context manager it removes its container.
    """

    def __init__(self, client: Any, *, validity: int = 90 * 86400) -> None:
        now = datetime.now(UTC)
        self.client = client
        self.validity = validity
        self.authority = new_authority("pebble", now)
        self.pem, _ = new_certificate([NAME], self.authority, now)
        self.container: Any = None

    @property
    def root(self) -> str:
        """The certificate that signs the authority's own HTTPS."""
        return self.authority.partition("-----BEGIN PRIVATE")[0]

    def start(self, proxy: str, network: str) -> None:
        """Run beside the container `proxy` on `network`."""
        self.client.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag=IMAGE, rm=True)
        address = self.client.containers.get(proxy).attrs["NetworkSettings"]["Networks"][network]["IPAddress"]
        self.container = self.client.containers.create(
            IMAGE,
            ["bash", "-c", START],
            environment={"PROXY": address, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"},
            network=network,
            init=True,
        )
        self.client.networks.get(network).disconnect(self.container)
        self.client.networks.get(network).connect(self.container, aliases=[NAME])
        self.container.put_archive("/", self._files())
        self.container.start()
        self._wait()

    def _files(self) -> bytes:
        config = {
            "listenAddress": "0.0.0.0:14000",
            "managementListenAddress": "0.0.0.0:15000",
            "certificate": "/pebble.pem",
            "privateKey": "/pebble.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "certificateValidityPeriod": self.validity,
        }
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in {"pebble.pem": self.pem, "pebble.json": json.dumps({"pebble": config})}.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        return archive.getvalue()

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while self._get("/roots/0") is None:
            if time.monotonic() > deadline:
                raise TimeoutError(self.logs())
            time.sleep(0.2)

    def _get(self, path: str) -> str | None:
        code, output = self.container.exec_run(["curl", "-skf", f"https://127.0.0.1:15000{path}"])
        return output.decode() if code == 0 else None

    def issuer(self) -> str:
        """The root of the certificates that it issues, as PEM; a new one at each start."""
        return self._get("/roots/0") or ""

    def logs(self) -> str:
        return str(self.container.logs().decode())

    def __enter__(self) -> Pebble:
        return self

    def __exit__(self, *_: object) -> None:
        if self.container is not None:
            self.container.remove(force=True, v=True)
