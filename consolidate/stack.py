"""The models of a stack file. settings.py has those of a server of each kind, schema.py makes the JSON Schema of them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
)

from consolidate import values
from consolidate.naming import NAME
from consolidate.repository import check_known_host, parse
from consolidate.resolved import SUBNETS, Publish
from consolidate.values import (
    LEAST_CPUS,
    Boolean,
    Command,
    Domain,
    Duration,
    HealthTest,
    Image,
    Integer,
    Number,
    RelativePath,
    Size,
    Wrong,
)

PUBLISH = re.compile(r"(?:(\[[^]]*\]|[^:]+):)?(\d+):(\d+)(?:/(tcp|udp))?", re.ASCII)
VARIABLE = re.compile(r"[^\s=]+")
LEAST_MEMORY = 6 * 2**20  # the engine's own minimum
MOST_REPLICAS = 10  # a network has 13 addresses: for these, their successor, and who asks them


class Part(BaseModel):
    """A part of the stack file: unknown keys are errors."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, validate_default=False)


def parse_publish(text: str) -> Publish:
    """`[ADDRESS:]PORT:TARGET[/udp]`; without an address 127.0.0.1, which is safer than Compose's 0.0.0.0.

    Raises ValueError.
    """
    match = PUBLISH.fullmatch(text)
    if match is None:
        hint = "write PORT:TARGET or ADDRESS:PORT:TARGET, one for each port: the host's port, then the server's"
        raise Wrong(f"'{text}' doesn't publish a port", hint)
    address, port, target, protocol = match.groups()
    return Publish(
        address=values.address(address) if address else values.LOOPBACK,
        port=values.port_number(port),
        target=values.port_number(target),
        protocol=protocol or "tcp",
    )


def _network(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError:
        raise Wrong(f"'{text}' is not a network of IPv4", "write it as 10.213.0.0/16") from None


def _memory(limit: int) -> int:
    if limit < LEAST_MEMORY:
        raise Wrong(f"should be at least 6M, not {limit} bytes", "give it a unit: 512M, 2G")
    return limit


def _check_publish(text: str) -> str:
    parse_publish(text)
    return text


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise Wrong(f"{name!r} can't be a variable's name", "it has no spaces and no =")
    return name


class Reserve(Part):
    """What is left for the operating system."""

    cpus: Number = Field(default=0, ge=0, description="Processors, e.g. 0.5.")
    memory: Size = Field(default=0, description="Memory, e.g. 512M.")


class Host(Part):
    """The machine that the servers run on."""

    reserve: Reserve = Field(default=Reserve(), description="What is left for the operating system.")
    subnets: Annotated[StrictStr, AfterValidator(_network)] = Field(
        default=SUBNETS, description="Where the stack's networks get their subnets from."
    )


class Resources(Part):
    """Limits of a container."""

    memory: Annotated[Size, AfterValidator(_memory)] | None = Field(
        default=None, description="Memory, e.g. 512M; swap is not added to it."
    )
    cpus: Annotated[Number, Field(ge=LEAST_CPUS)] | None = Field(default=None, description="Processors, e.g. 0.5.")
    pids: Annotated[Integer, Field(gt=0)] | None = Field(default=None, description="Processes and threads.")


class HealthCheck(Part):
    """The engine's own check, with Compose's words."""

    test: HealthTest = Field(description="[CMD, …], or a line for sh.")
    interval: Duration = Field(default=30.0, description="How often, e.g. 30s.")
    timeout: Duration = Field(default=5.0, description="How long an answer may take.")
    retries: Integer = Field(default=3, ge=1, description="How many failures in a row make it unhealthy.")


class SecretSource(Part):
    """Where a secret's value comes from. One of the three; with none, `{}`, it is generated."""

    model_config = ConfigDict(defer_build=True, json_schema_extra={"maxProperties": 1})

    file: RelativePath | None = Field(default=None, description="A file, seen from the stack's folder.")
    env: StrictStr | None = Field(default=None, description="An environment variable of `consolidate` itself.")
    command: Command | None = Field(default=None, description="A command, run in the stack's folder; what it prints.")

    def model_post_init(self, _context: Any) -> None:
        if sum(v is not None for v in (self.file, self.env, self.command)) > 1:
            raise Wrong("a secret comes from one place", "keep one of file, env, command")
        if self.command == [] or self.env == "":
            raise Wrong("it names nothing", "write the command with its words, or the variable's name")


def _repository(text: str) -> str:
    return parse(text).text


class Keep(Part):
    """Which backups are kept: the last of so many days, weeks and months. Those of the last day stay in any case."""

    daily: Annotated[Integer, Field(ge=0)] = Field(default=7, description="Days.")
    weekly: Annotated[Integer, Field(ge=0)] = Field(default=4, description="Weeks.")
    monthly: Annotated[Integer, Field(ge=0)] = Field(default=12, description="Months.")


class BackupKey(Part):
    """Backups of the stack's data."""

    repository: Annotated[StrictStr, AfterValidator(_repository)] = Field(
        default="/var/backups/consolidate",
        description="A folder of the engine's host, or sftp:USER@HOST:/FOLDER, s3:https://HOST/BUCKET, "
        "rest:https://USER@HOST:PORT/, rclone:REMOTE:FOLDER; the stack has its repository in it, under its name.",
    )
    passphrase: SecretSource = Field(
        default=SecretSource(), description="Where the repository's passphrase comes from; by default one is generated."
    )
    keep: Keep = Field(default=Keep(), description="Which backups are kept.")
    known_hosts: list[Annotated[StrictStr, AfterValidator(check_known_host)]] = Field(
        default_factory=list, description="Of a repository by SFTP: the server's keys, as `ssh-keyscan` prints them."
    )
    ssh_key: SecretSource | None = Field(default=None, description="Of one by SFTP: the private key.")
    access_key: SecretSource | None = Field(default=None, description="Of one in S3: the access key.")
    secret_key: SecretSource | None = Field(default=None, description="Of one in S3: the secret key.")
    password: SecretSource | None = Field(default=None, description="Of a REST server: its user's password.")
    rclone_config: SecretSource | None = Field(
        default=None, description="Of a remote of rclone's: the rclone.conf that has it."
    )
    ca: SecretSource | None = Field(
        default=None,
        description="Of S3, a REST server or rclone's remote: the certificate that its HTTPS is signed with, where no public "
        "authority does.",
    )


class ServerEntry(Part):
    """The keys that a server of every kind has."""

    kind: StrictStr = Field(description="The kind: a folder of templates.")
    domains: list[Domain] = Field(default_factory=list, description="The domains that it answers for.")
    resources: Resources = Field(default=Resources(), description="Limits of each container; the kind has defaults.")
    replicas: Annotated[Integer, Field(ge=1, le=MOST_REPLICAS)] = Field(
        default=1, description="How many containers serve side by side, where the kind allows more than one."
    )
    publish: list[Annotated[StrictStr, AfterValidator(_check_publish)]] = Field(
        default_factory=list,
        description="[ADDRESS:]PORT:TARGET[/udp]: ports on the host; 127.0.0.1 where no address stands.",
    )
    egress: Boolean | None = Field(default=None, description="May it reach the outside? The kind has a default.")
    environment: dict[Annotated[str, AfterValidator(_variable)], StrictStr] = Field(
        default_factory=dict, description="Environment variables; never a secret."
    )
    image: Image | None = Field(default=None, description="An image to use instead of building one.")
    health: HealthCheck | None = Field(
        default=None, description="A health check instead of the kind's; Compose's words."
    )
    secrets: dict[str, SecretSource] = Field(
        default_factory=dict, description="Secrets by name, and where their values come from; files under /run/secrets."
    )


class Stack(Part):
    """The whole file."""

    stack: Annotated[
        StrictStr,
        Field(
            pattern=rf"^{NAME.pattern}$",
            description="Its name, the prefix of all that it owns: letters a-z, digits and dashes, at most 32.",
        ),
    ]
    host: Host = Field(default=Host(), description="The machine that the servers run on.")
    templates: list[RelativePath] = Field(default_factory=list, description="Folders of kinds of your own.")
    generations: Annotated[Integer, Field(ge=0, le=50)] = Field(
        default=3, description="How many earlier generations of each server are kept on the engine, to go back to."
    )
    backup: BackupKey = Field(default=BackupKey(), description="Where backups go, and which are kept.")
    servers: dict[str, Any] = Field(description="Each server by its name.")
