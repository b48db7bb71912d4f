"""Names and labels on the engine, and the hashes that they carry. Pure functions of text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

PREFIX = "io.consolidate."
STACK = PREFIX + "stack"
SERVER = PREFIX + "server"
REPLICA = PREFIX + "replica"  # its number, where it is not the server's first or only one
KIND = PREFIX + "kind"
GENERATION = PREFIX + "generation"
FINGERPRINT = PREFIX + "fingerprint"
PARTS = PREFIX + "parts"  # the fields that a container was made of, so that a plan can say which of them differs
HELPER = PREFIX + "helper"
OF = PREFIX + "of"  # the server that a helper, a volume or a network serves
APPLIED = PREFIX + "applied"
ROLE = PREFIX + "role"
VOLUME = PREFIX + "volume"
HOLDER = PREFIX + "holder"
PROCESS = PREFIX + "process"  # the holder's identity, for its own machine
BROKEN_OFF = PREFIX + "broken-off"  # on a lock that was taken over: whose run it was that did not come to its end
REVOKE = PREFIX + "revoke"
DUMP = PREFIX + "dump"  # the volume of the dump that a restore brings back
METHOD = PREFIX + "method"  # of a dump: by the server's program, or as archives of its volumes
BASE = PREFIX + "base"  # the image that an upgraded base image was made of
IMAGE = PREFIX + "image"  # the image that the stack asks for; what the container runs may be a refresh of it
FOR = PREFIX + "for"  # the role of a helper of which a server has several
MADE = PREFIX + "made"  # what a generation was made of, so that it can be made again
REASON = PREFIX + "reason"  # why a generation was made
CHANGES = PREFIX + "changes"  # the fields in which it differs from the one before
BY = PREFIX + "by"  # who made it: user@host
RUN = PREFIX + "run"  # the `up` that made it: when that began
RECORD = PREFIX + "record"  # all that is known of an earlier generation

SAFETY = PREFIX + "safety"  # the backup of what was there before
SNAPSHOT = PREFIX + "snapshot"  # the backup that a restore brings back
ARGUMENTS = PREFIX + "arguments"  # what else of a restore's command line leads to that backup
TIMES = PREFIX + "times"  # when each server was last saved, or drilled
DRILL = PREFIX + "drill"  # the stack whose backup is tried in another one
EVERYTHING = PREFIX + "everything"  # a restore that brings all servers up, also those without data

BACKUP = "backup"  # what the addresses of the secrets begin with that open the repository of backups
PASSPHRASE = "backup/passphrase"  # noqa: S105 — an address, like the next
OTHER_PASSPHRASE = "backup/other_passphrase"  # noqa: S105 — that may open the repository as well, while it is changed
BASE_IMAGE = "debian:bookworm-slim"
STACK_SUFFIXES = (".yml", ".yaml")  # what stack files are called; a plan is not
UNNAMED = "<none>:<none>"  # what engines list in place of a tag

NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
REFRESHED = re.compile(r"(?P<plain>consolidate/.+:[0-9a-f]{12})-\d{8}T\d{6}")
LOCKED = re.compile(r"(?P<plain>consolidate/.+:[0-9a-f]{12})-lock-[0-9a-f]{12}")

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=asdict)


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `value`, which may hold values of ours, as canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(value).encode(errors="surrogateescape")).hexdigest()[:length]


def account(server: str) -> str:
    """A server's name where a dash may not stand: a database, a user."""
    return server.replace("-", "_")


def replica(server: str, number: int) -> str:
    """What one of a server's replicas is called. The first, or only one, has the server's name; no server's has a dot."""
    return server if number == 1 else f"{server}.{number}"


def replicas(server: str, count: int) -> tuple[str, ...]:
    return tuple(replica(server, n) for n in range(1, count + 1))


def server_of(replica: str) -> str:
    return replica.partition(".")[0]


def replica_number(replica: str) -> int:
    return int(replica.partition(".")[2] or 1)


def replica_of(labels: Mapping[str, str]) -> str | None:
    """The replica that a container is, by its labels; None for one that serves nobody."""
    server, number = labels.get(SERVER), labels.get(REPLICA)
    return f"{server}.{number}" if server and number else server


def drill(stack: str) -> str:
    """What a stack is called in which its backup is tried. No stack's own name has a dot: no file and no environment means it."""
    return f"{stack}.drill"


def container(stack: str, server: str, generation: int) -> str:
    return f"{stack}-{server}-{generation}"


def is_container(stack: str, server: str, name: str) -> bool:
    """Whether a name is that of one of a server's generations, and none of a helper of its."""
    head, _, number = name.rpartition("-")
    return head == f"{stack}-{server}" and number.isdigit()


def helper(stack: str, server: str, role: str) -> str:
    """A container of ours that serves nobody.

    Writers, receipts, records and the word of a restore are never started; a check, a dump and the lock run for a while.
    """
    return f"{stack}-{server}.{role}" if server else f"{stack}.{role}"


def record(stack: str, server: str, generation: int) -> str:
    """The helper that keeps an earlier generation."""
    return helper(stack, server, f"gen.{generation}")


def data_volume(stack: str, server: str, volume: str) -> str:
    return f"{stack}_{server}_{volume}"


def file_volume(stack: str, server: str, role: str, content: str) -> str:
    """A volume of configuration or secrets: it belongs to the generation whose content it holds."""
    return f"{stack}_{server}_{role}_{content}"


def turned(name: str, turn: int) -> str:
    """The name of what has the same content as another and had to be made again, so many times."""
    return f"{name}.{turn}" if turn else name


def turn_of(name: str) -> tuple[str, int]:
    """A name as it was at first, and how many times it had to be made again."""
    first, _, turn = name.partition(".")
    return (first, int(turn)) if turn.isdigit() else (name, 0)


def session_network(session: str) -> str:
    """The network of a session of backups that has to reach a server."""
    stack, _, token = session.rpartition(".backup.")
    return f"{stack}_backup_{token}"


def host_label(host: str) -> str:
    """A host's name as a container can have it."""
    return re.sub(r"[^A-Za-z0-9-]", "-", host).strip("-")[:60] or "engine"


def live_volume(stack: str, server: str) -> str:
    return f"{stack}_{server}_live"


def refreshed_image(tag: str, stamp: str) -> str:
    """A built image made anew at a time, e.g. 20261126T180000: these sort by age."""
    return f"{tag}-{stamp}"


def locked_image(tag: str, content: str) -> str:
    """A built image made again as the lock says, by the hash of what it has to have."""
    return f"{tag}-lock-{content}"


def listed_image(tag: str) -> str:
    """An image's name as engines list it: without what is Docker Hub's, and without a tag beside its digest."""
    name, at, digest = tag.removeprefix("docker.io/").removeprefix("library/").partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}{at}{digest}" if at else name


def dump_volume(stack: str, server: str, generation: int) -> str:
    """The data as it was before a generation was made."""
    return f"{stack}_{server}_dump_{generation}"


def store_volume(stack: str) -> str:
    return f"{stack}_secrets"


# The engine makes a container's default route through the network that sorts first among those with a way out;
# 'entry' and 'front' sort before 'link' and 'route', which have none.
def front_network(stack: str, server: str, *, egress: bool) -> str:
    """A server's own network; one that leads out has another name, since a network's options can't change."""
    return f"{stack}_{'front' if egress else 'entry'}_{server}"


def link_network(stack: str, consumer: str, link: str) -> str:
    return f"{stack}_link_{consumer}_{link}"


def route_network(stack: str, server: str) -> str:
    return f"{stack}_route_{server}"
