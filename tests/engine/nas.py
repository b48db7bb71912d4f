"""Servers that keep repositories, on an address that containers and this machine reach: OpenSSH, rclone's REST and WebDAV, moto's S3."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from consolidate.naming import BASE_IMAGE
from tests.engine.support import free_port, wait_until

IMAGE = "consolidate-tests/nas"
DOCKERFILE = """\
FROM debian:bookworm-slim
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server openssl rclone \\
 && rm -rf /var/lib/apt/lists/* && useradd --create-home ada && install -d -o ada /srv/b && install -d /srv/dav && install -d /run/sshd
"""
SERVE = """\
set -e
ssh-keygen -q -t ed25519 -N '' -f /keys && install -d -o ada /home/ada/.ssh && cp /keys.pub /home/ada/.ssh/authorized_keys
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /key.pem -out /cert.pem -days 2 \\
    -subj "/CN=$HOST" -addext "subjectAltName=IP:$HOST" 2> /dev/null
rclone serve restic --addr "$HOST:$REST" --cert /cert.pem --key /key.pem --user ada --pass "$PASSWORD" /srv/rest &
rclone serve webdav --addr "$HOST:$DAV" --cert /cert.pem --key /key.pem --user ada --pass "$PASSWORD" /srv/dav &
exec /usr/sbin/sshd -D -e -p "$SSH" -o "ListenAddress=$HOST" -o PasswordAuthentication=no
"""


@dataclass(frozen=True)
class Nas:
    """A machine with OpenSSH, whose user ada has a key, and servers of REST and WebDAV, whose user ada has a password."""

    container: Any
    host: str
    ssh: int
    rest: int
    dav: int
    password: str

    def said(self, script: str) -> str:
        code, output = self.container.exec_run(["sh", "-ec", script])
        assert code == 0, output
        text: str = output.decode()
        return text.strip()

    @property
    def known_host(self) -> str:
        return f"[{self.host}]:{self.ssh} " + " ".join(self.said("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])

    @property
    def key(self) -> str:
        return self.said("cat /keys")

    def remote(self, password: str) -> str:
        """A configuration of rclone's: `safe` is encrypted by rclone, within `dav`, the server of WebDAV."""
        obscured = self.said(f"rclone obscure '{password}'")
        dav = f"[dav]\ntype = webdav\nurl = https://{self.host}:{self.dav}\nvendor = other\nuser = ada\npass = {obscured}\n"
        return f"{dav}[safe]\ntype = crypt\nremote = dav:safe\npassword = {obscured}\n"

    @property
    def certificate(self) -> str:
        return self.said("cat /cert.pem")


@contextlib.contextmanager
def address(daemon: Any, name: str) -> Iterator[str]:
    """An address of this machine that no other machine knows of: that of a bridge, which Podman makes with its first container."""
    network = daemon.networks.create(name)
    container = daemon.containers.run(BASE_IMAGE, ["sleep", "infinity"], network=name, init=True, detach=True)
    try:
        network.reload()
        yield network.attrs["IPAM"]["Config"][0]["Gateway"]
    finally:
        container.remove(force=True)
        network.remove()


@contextlib.contextmanager
def nas(daemon: Any, name: str, host: str) -> Iterator[Nas]:
    daemon.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag=IMAGE, rm=True)
    ssh, rest, dav, password = free_port(), free_port(), free_port(), "rest/pass@word:1"
    told = {"HOST": host, "SSH": ssh, "REST": rest, "DAV": dav, "PASSWORD": password}
    container = daemon.containers.run(
        IMAGE,
        ["bash", "-c", SERVE],
        name=name,
        network_mode="host",
        environment=told,
        detach=True,
        init=True,
    )
    try:
        probe = f"exec 3<>/dev/tcp/{host}/{ssh} && exec 4<>/dev/tcp/{host}/{rest} && exec 5<>/dev/tcp/{host}/{dav}"
        wait_until(lambda: container.exec_run(["bash", "-c", probe]).exit_code == 0, "the servers")
        yield Nas(container, host, ssh, rest, dav, password)
    finally:
        container.remove(force=True)


@contextlib.contextmanager
def s3(host: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """A server of S3 that checks signatures: its address, an access key and the secret key."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}
        )
    url = f"http://{host}:{port}"

    def ask(**words: str) -> ET.Element:
        who = "AWS4-HMAC-SHA256 Credential=x/20240501/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x"
        data = urllib.parse.urlencode({"Version": "2010-05-08", **words}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Authorization": who}), timeout=30) as answer:
            return ET.fromstring(answer.read())

    try:
        wait_until(lambda: f"http://{host}:{port}" in (folder / "s3.log").read_text(), "the server of S3")
        ask(Action="CreateUser", UserName="ada")
        made = {e.tag.rpartition("}")[2]: e.text or "" for e in ask(Action="CreateAccessKey", UserName="ada").iter()}
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        ask(Action="PutUserPolicy", UserName="ada", PolicyName="all", PolicyDocument=policy)
        yield url, made["AccessKeyId"], made["SecretAccessKey"]
    finally:
        server.terminate()
        server.wait()


def options(**files: Path) -> list[str]:
    return [w for name, file in files.items() for w in ("--credential", f"{name}={file}")]
