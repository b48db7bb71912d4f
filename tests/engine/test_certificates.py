"""Certificates from an ACME authority: Pebble, beside the proxy."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.engine.support import Stack, free_port
from tests.pebble import DIRECTORY, Pebble

pytestmark = [pytest.mark.engine, pytest.mark.slow]

STACK = """\
stack: {name}
servers:
  edge:
    kind: proxy
    http: {http}
    https: {https}
    tls: acme
    email: ada@acme.test
    acme_server: {directory}
    acme_root: {root}
  www: {{kind: web, domains: [www.acme.test, mail.acme.test]}}
  mail: {{kind: mail, domains: [acme.test], mailboxes: {{ada@acme.test: {{}}}}, publish: ["{imaps}:993"]}}
"""


def consolidate(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "consolidate", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def serial(port: int, host: str, root: str) -> int | None:
    """The serial number of the certificate that is served for `host`; None where `root` didn't sign it."""
    context = ssl.create_default_context(cadata=root)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number
    except OSError:
        return None


def soon(found: Any, within: float = 60) -> Any:
    deadline = time.monotonic() + within
    while (value := found()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return value


@pytest.fixture
def issued(daemon: Any, token: str, tmp_path: Path) -> Iterator[tuple[Path, int, int, str]]:
    """A stack whose proxy asks Pebble: its file, the ports of the proxy and of IMAP, the root of what is issued."""
    https, imaps, stack = free_port(), free_port(), Stack(tmp_path, f"{token}-pebble", daemon)
    name, file = stack.name, stack.file
    with Pebble(daemon) as pebble:
        root = json.dumps(pebble.root)
        ports = {"http": free_port(), "https": https, "imaps": imaps}
        file.write_text(STACK.format(name=name, directory=DIRECTORY, root=root, **ports))
        try:
            consolidate("up", str(file))
            pebble.start(f"{name}-edge-1", f"{name}_front_edge")
            consolidate("exec", "-f", str(file), "edge", "touch", "/run/haproxy/retry")
            yield file, https, imaps, pebble.issuer()
        finally:
            pebble.__exit__()
            pebble.container = None
            consolidate("down", "--volumes", "--yes", str(file))


def test_the_proxy_obtains_certificates_and_mail_takes_the_one_of_its_name(issued: tuple[Path, int, int, str]) -> None:
    """The authority validates over HTTP, its certificate is served, and the next `up` gives mail the same one."""
    file, https, imaps, root = issued
    assert soon(lambda: serial(https, "www.acme.test", root)) is not None
    wanted = soon(lambda: serial(https, "mail.acme.test", root))
    assert wanted is not None
    assert serial(imaps, "mail.acme.test", root) is None
    consolidate("up", str(file))
    assert serial(imaps, "mail.acme.test", root) == wanted
    assert "nothing to change" in consolidate("up", str(file))
