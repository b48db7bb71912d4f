"""A stack under test: a folder of its own, the real command line, and the engine seen without our code."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

from consolidate.docker_engine.answers import whole_heads

if TYPE_CHECKING:
    from tests.podman import Podman
    from tests.second_engine import SecondEngine

STACKS = Path(__file__).parents[2] / "stacks"
KINDS = sorted(f.parent.name for f in STACKS.parent.glob("templates/*/kind.yml"))
LABEL = "io.consolidate."
PLAIN = {"TERM": "dumb", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def both(self) -> str:
        return f"{self.out}\n{self.err}"


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: nothing of ours that would change what it does."""
    ours = (
        "CONSOLIDATE_",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "PYTHONDONTWRITEBYTECODE",
    )  # the last is slow
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | PLAIN | more


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "consolidate", *map(str, words)]


def run(
    *words: str | Path,
    status: int | None = 0,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] = {},
    timeout: float = 150,
    before: Sequence[str] = (),
) -> Done:
    """Run the command line to its end, and see that it ends with `status` (None: whatever it is).

    `before` are the words of a program that runs it.
    """
    done = subprocess.run(
        [*before, *command(*words)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**env),
        timeout=timeout * PATIENCE,
    )
    said = f"consolidate {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert status is None or done.returncode == status, said
    assert "Traceback (most recent call last)" not in done.stderr, said
    return Done(done.returncode, done.stdout, done.stderr)


# How many times longer than Docker's an engine may take, until that is a failure.
PATIENCE = float(os.environ.get("TESTS_PATIENCE", "1"))
# Below the ports that the kernel hands out by itself; each worker of pytest-xdist has some of them to itself, since two
# would else be told of the same one before either listens.
WORKERS, FIRST_PORT, PORTS = 8, 20000, 1500
given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that no test of this run was given before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + worker % WORKERS * PORTS
    while True:
        port = random.randrange(first, first + PORTS)
        if port in given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            given.add(port)
            return port


def put_on_free_ports(file: Path) -> list[int]:
    """Put what the proxy of a stack file from `init` publishes on ports that nobody has: http and https."""
    ports = [free_port(), free_port()]
    text = re.sub(r"# http: 8080 ", f"http: {ports[0]} ", file.read_text())
    file.write_text(re.sub(r"# https: 8443 ", f"https: {ports[1]} ", text))
    return ports


def wait_until(true: Callable[[], Any], what: str, *, within: float = 20, pause: float = 0.1) -> Any:
    """The first true value of `true`. Raises TimeoutError."""
    end = time.monotonic() + within * PATIENCE
    while True:
        if found := true():
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within:g} s")
        time.sleep(pause)


def client_of(url: str | None = None, *, timeout: int = 60) -> Any:
    """An engine without our code: a client of docker-py, which loses no first words of commands, as that does by itself
    where they come together with an answer's head."""
    client = docker.DockerClient(url, timeout=timeout) if url else docker.from_env(timeout=timeout)
    whole_heads(client.api)
    return client


def tags(daemon: Any, beginning: str) -> list[str]:
    """The names of images that begin so, in order. Podman puts the registry that it thinks of before each."""
    names = [t.removeprefix("docker.io/") for row in daemon.api.images() for t in row["RepoTags"] or []]
    return sorted(n for n in names if n.startswith(beginning))


def programs(container: Any) -> str:
    """The command lines of what runs in a container, a line for each; of /proc in there, since Podman's `top` has no answer."""
    script = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f && echo; done 2> /dev/null"
    return str(container.exec_run(["bash", "-c", script], user="0").output.decode(errors="replace"))


@dataclass
class Stack:
    """One stack in `folder`, named `name` on the engine that `daemon`, a docker-py client, is connected to."""

    folder: Path
    name: str
    daemon: Any = field(repr=False)
    templates: Path | None = None
    is_up: bool = field(default=False, kw_only=True)
    env: dict[str, str] = field(default_factory=dict, kw_only=True)  # of its commands, besides what they have
    before: list[str] = field(default_factory=list, kw_only=True)  # words of a program that runs its commands

    def __post_init__(self) -> None:
        """A test may not take the name of a stack that is still there: it would remove that one at its end."""
        assert self.is_up or not (there := self.left()), f"a stack named {self.name} is there already: {there}"

    @property
    def file(self) -> Path:
        return self.folder / "stack.yml"

    def write(self, servers: str, **files: str) -> None:
        """The stack file with these servers, and further files by their paths with `__` for `/` and `_dot_` for `.`."""
        self.file.write_text(f"stack: {self.name}\nservers:\n{servers}")
        for name, text in files.items():
            self.put(name.replace("__", "/").replace("_dot_", "."), text)

    def put(self, path: str, text: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text, f"{old!r} is not in the stack file"
        self.file.write_text(text.replace(old, new))

    def run(self, *words: str | Path, **more: Any) -> Done:
        """A command in the stack's folder, which it finds the stack in."""
        return run(*words, cwd=self.folder, env=self.env | more.pop("env", {}), before=self.before, **more)

    def up(self, *words: str, **more: Any) -> Done:
        return self.run("up", "--progress", "plain", *words, **more)

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """A command that goes on while the test does."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | more
        words = (*self.before, *command(*words))
        return subprocess.Popen(words, cwd=self.folder, env=environment(**self.env), text=True, **options)

    def destroy(self) -> None:
        """Remove all of it: with the command line, then by force what that has left, which is an error."""
        failed = ""
        if self.left():
            try:
                done = self.run("down", "--volumes", "--yes", status=None)
                failed = done.both if done.status else ""
            except AssertionError as error:
                failed = str(error)
            left = self.left()
            self.purge()
            assert not left, f"`down --volumes` of {self.name} left {left}\n{failed}"

    def left(self) -> list[str]:
        """What is on the engine with the stack's label, as 'type name'."""
        mine = {"label": f"{LABEL}stack={self.name}"}
        api = self.daemon.api
        found = [f"container {c['Names'][0][1:]}" for c in api.containers(all=True, filters=mine)]
        found += [f"network {n['Name']}" for n in api.networks(filters=mine)]
        return found + [f"volume {v['Name']}" for v in api.volumes(filters=mine)["Volumes"] or []]

    def orphans(self) -> list[str]:
        """What is there of the stack, by label or by name, that nothing needs: that a run which was stopped has left."""
        api = self.daemon.api
        rows = api.containers(all=True)
        mine = [r for r in rows if r["Labels"].get(f"{LABEL}stack") == self.name]
        running = [r for r in mine if r["State"] == "running" and f"{LABEL}server" in r["Labels"]]
        running.sort(key=lambda r: int(r["Labels"][f"{LABEL}generation"]))
        servers = list({r["Labels"][f"{LABEL}server"]: r for r in running}.values())  # a second one of a server is left
        kept = [
            r
            for r in mine
            if r["Labels"].get(f"{LABEL}helper") in ("secrets", "live", "grant", "generation", "saved", "drilled")
        ]
        needed = {r["Names"][0] for r in (*servers, *kept)}
        names = [r["Names"][0] for r in rows if r in mine or re.match(rf"/{re.escape(self.name)}[-.]", r["Names"][0])]
        found = [f"container {n}" for n in names if n not in needed]
        members = {n for r in servers for n in r["NetworkSettings"]["Networks"] or ()}
        networks = [n["Name"] for n in api.networks() if n["Name"].startswith(f"{self.name}_")]
        found += [f"network {n}" for n in networks if n not in members]
        used = {m["Name"] for r in (*servers, *kept) for m in r["Mounts"]}
        for volume in api.volumes()["Volumes"]:
            data = (volume["Labels"] or {}).get(f"{LABEL}role") == "data"  # it stays when its server has gone
            if volume["Name"].startswith(f"{self.name}_") and volume["Name"] not in used and not data:
                found.append(f"volume {volume['Name']}")
        return found

    def purge(self) -> None:
        import docker.errors

        for kind, name in (entry.split() for entry in self.left()):
            remove = {
                "container": lambda n: self.daemon.api.remove_container(n, force=True),
                "network": self.daemon.api.remove_network,
                "volume": lambda n: self.daemon.api.remove_volume(n, force=True),
            }[kind]
            try:
                remove(name)
            except docker.errors.NotFound:
                continue
        for tag in tags(self.daemon, f"consolidate/{self.name}-"):
            self.daemon.api.remove_image(tag, force=True)

    # What the engine says

    def containers(self) -> dict[str, Any]:
        """Inspected containers by server; the newest generation of each."""
        found: dict[str, Any] = {}
        rows = self.daemon.api.containers(all=True, filters={"label": [f"{LABEL}stack={self.name}", f"{LABEL}server"]})
        for row in sorted(rows, key=lambda r: int(r["Labels"][f"{LABEL}generation"])):
            found[row["Labels"][f"{LABEL}server"]] = self.daemon.api.inspect_container(row["Id"])
        return found

    def identities(self) -> dict[str, tuple[str, str]]:
        """Id and start time of each server's container: what must not change under a server that is left alone."""
        return {s: (c["Id"], c["State"]["StartedAt"]) for s, c in self.containers().items()}

    def inside(self, server: str, *words: str, user: str = "") -> tuple[int, str]:
        """Run a program in a server with the engine's own exec: exit status and output."""
        container = self.daemon.containers.get(self.containers()[server]["Id"])
        code, output = container.exec_run(list(words), user=user)
        return code, output.decode(errors="replace")

    def addresses(self, server: str) -> list[str]:
        networks = self.containers()[server]["NetworkSettings"]["Networks"]
        return [n["IPAddress"] for n in networks.values() if n["IPAddress"]]

    def volumes(self) -> set[str]:
        return {e.split()[1] for e in self.left() if e.startswith("volume ")}

    def secret(self, address: str) -> str:
        return self.run("secret", "show", address).out.removesuffix("\n")

    def stored_secrets(self) -> dict[str, str]:
        """Every secret's value by its address, read from the store without our code."""
        import io
        import tarfile

        chunks, _ = self.daemon.api.get_archive(f"{self.name}.secrets", "/write/store.json")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            content = tar.extractfile("store.json")
            assert content is not None
            return {row["address"]: row["value"] for row in json.load(content)["secrets"]}


def in_container(daemon: Any, image: str, command: Sequence[str], **options: Any) -> str:
    """Run a command in a container of its own: what it said. Its log is read at the end: one that is followed Podman cuts short."""
    container = daemon.containers.run(image, list(command), detach=True, **options)
    try:
        status, said = container.wait()["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)
    assert status == 0, said
    return str(said)


def on_host(daemon: Any, folder: Path, script: str) -> str:
    """A script as root, with a folder of the host as /host."""
    volumes = {str(folder): {"bind": "/host", "mode": "rw"}}
    return in_container(daemon, "debian:bookworm-slim", ["sh", "-ec", script], volumes=volumes).strip()


def restic_name(stack: Stack) -> str:
    """The image that the stack's backups are made with: an `update` may have built it again since."""
    from consolidate.desire.content import restic_image
    from consolidate.docker_engine import connect

    name = connect().observe(stack.name).newest(restic_image().tag)
    assert name is not None, "a backup comes first"
    return name


def restic(stack: Stack, folder: Path, script: str) -> str:
    """A script beside the stack's repository, with its passphrase."""
    return in_container(
        stack.daemon,
        restic_name(stack),
        ["bash", "-euo", "pipefail", "-c", script],
        volumes={f"{folder}/repositories/{stack.name}": {"bind": "/repository", "mode": "rw"}},
        environment={"RESTIC_REPOSITORY": "/repository", "RESTIC_PASSWORD": stack.secret("backup/passphrase")},
        network_mode="none",
    )


def carry_images(stack: Stack, machine: SecondEngine | Podman, daemon: Any) -> list[str]:
    """Copy the images of a stack into its own engine, built on the first one where they aren't there yet; their names."""
    from consolidate.docker_engine import HELPER_IMAGE

    changes = stack.run("plan", "--format", "json").json["changes"]
    images = [c["id"].removeprefix("image:") for c in changes if c["action"] == "image"]
    if any(not daemon.api.images(i) for i in (*images, HELPER_IMAGE)):
        here = Stack(stack.folder, stack.name, daemon)
        here.up()
        here.destroy()
    machine.load(*images, HELPER_IMAGE)
    return images


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    version: str
    headers: str
    body: str

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?mi)^{re.escape(name)}: *(.*?)\r?$", self.headers)
        return found[1] if found else None


def curl(url: str, *words: str, authority: Path | None = None) -> Answer:
    """GET `url` with every name at 127.0.0.1; TLS is verified against `authority`, and refused without one."""
    port = url.split("/")[2].partition(":")[2]
    host = url.split("/")[2].partition(":")[0]
    trust = ["--cacert", str(authority)] if authority else []
    call = ["curl", "--silent", "--show-error", "--include", "--max-time", "15", "--noproxy", "*", *trust]
    call += ["--resolve", f"{host}:{port}:127.0.0.1", "--write-out", "\n%{http_code} %{http_version}", *words, url]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(call)}: {done.stderr}"
    content, _, last = done.stdout.rpartition("\n")
    status, version = last.split()
    headers, _, body = content.replace("\r\n", "\n").partition("\n\n")
    return Answer(int(status), version, headers, body)


@dataclass
class Acme(Stack):
    """stacks/acme under another name, on ports of its own."""

    http: int = 0
    https: int = 0
    submission: int = 0
    submissions: int = 0
    imaps: int = 0
    authority: Path = Path()

    @classmethod
    def copy(cls, folder: Path, name: str, daemon: Any) -> Acme:
        shutil.copytree(STACKS / "acme", folder)
        ports = {p: free_port() for p in (8080, 8443, 1587, 1465, 1993)}
        made = cls(folder, name, daemon, None, *ports.values())
        text = made.file.read_text()
        text = re.sub(r"(?m)^stack: acme$", f"stack: {name}", text)
        for old, new in ports.items():
            text = re.sub(rf"\b{old}\b", str(new), text)
        made.file.write_text(text)
        made.authority = folder.parent / f"{name}.pem"
        return made

    def export_authority(self) -> None:
        """The root, as a person would put it into a browser: the certificate, without its key."""
        pem = self.secret("edge/authority")
        self.authority.write_text(pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n")

    def get(self, host: str, path: str = "/", *words: str) -> Answer:
        return curl(f"https://{host}:{self.https}{path}", *words, authority=self.authority)


# Each name is looked up by a process of its own, since a name that nobody knows takes a second. A dozen at a time: a
# web server may have 32.
ATTEMPTS = r"""
use IO::Select; use Socket; use IO::Handle;
my ($seconds, @targets) = @ARGV;
while (my @some = splice @targets, 0, 12) {
    for my $target (@some) {
        next if fork;
        my ($host, $port) = $target =~ /^(.*):(\d+)$/;
        my $address = inet_aton($host) or exit;
        socket(my $socket, PF_INET, SOCK_STREAM, 0) or exit;
        $socket->blocking(0);
        connect($socket, sockaddr_in($port, $address));
        exit unless IO::Select->new($socket)->can_read($seconds) and sysread($socket, my $said, 80);
        $said =~ tr/\x20-\x7e//cd;
        syswrite(STDOUT, "$target $said\n");
        exit;
    }
    1 while wait > 0;
}
"""


def attempts(targets: Sequence[tuple[str, int]], *, seconds: int = 1) -> list[str]:
    """A command that connects to all targets, and prints 'HOST:PORT WHAT' for those that say something.

    It waits for what they say first: a network in between may accept connections that go nowhere.
    """
    return ["perl", "-e", ATTEMPTS, str(seconds), *(f"{host}:{port}" for host, port in targets)]
