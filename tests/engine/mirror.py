"""A distribution of one package, in a container that the engine's builds reach: a newer package is a matter of a moment."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engine.support import wait_until

PROGRAM = "#!/bin/sh\nexec {does}\n"
SERVES, ENDS = 'nginx "$@"', "false"


@dataclass(frozen=True)
class Mirror:
    """An apt repository at `url`, served by `container`, a container of docker-py."""

    container: Any
    folder: Path
    index: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, daemon: Any, image: str, name: str, folder: Path) -> Mirror:
        command = ["python3", "-m", "http.server", "--directory", "/srv", "8000"]
        container = daemon.containers.run(image, command, name=name, detach=True, init=True)
        made = cls(container, folder)
        made.container.reload()
        ready = ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/')"]
        wait_until(lambda: container.exec_run(ready).exit_code == 0, "the mirror")
        return made

    @property
    def url(self) -> str:
        (network,) = self.container.attrs["NetworkSettings"]["Networks"].values()
        return f"http://{network['IPAddress']}:8000/"

    def publish(self, version: str, *, does: str = SERVES, security: bool = False, beside: bool = False) -> None:
        """The package `tiny`, whose program `tiny` is a script, in this version, `beside` those before or alone."""
        root = Path(tempfile.mkdtemp(dir=self.folder))
        (root / "DEBIAN").mkdir(parents=True)
        (root / "usr/bin").mkdir(parents=True)
        control = f"Package: tiny\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@t.test>\nDescription: t\n"
        (root / "DEBIAN/control").write_text(control)
        (root / "usr/bin/tiny").write_text(PROGRAM.format(does=does))
        (root / "usr/bin/tiny").chmod(0o755)
        deb = self.folder / f"tiny_{version}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, deb], check=True, capture_output=True)
        content = deb.read_bytes()
        if not beside:
            self.index.clear()
        self.index.append(f"{control}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {_sha(content)}\n")
        packages = "\n".join(self.index).encode()
        label = "Debian-Security" if security else "Debian"
        suite = "stable-security" if security else "stable"
        release = f"Origin: Debian\nLabel: {label}\nSuite: {suite}\nVersion: 12\nDate: Thu, 26 Nov 2026 00:00:00 UTC\n"
        release += f"SHA256:\n {_sha(packages)} {len(packages)} Packages\n"
        self._put({deb.name: content, "Packages": packages, "Release": release.encode()})

    def _put(self, files: dict[str, bytes]) -> None:
        spool = io.BytesIO()
        with tarfile.open(fileobj=spool, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
        self.container.put_archive("/srv", spool.getvalue())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
