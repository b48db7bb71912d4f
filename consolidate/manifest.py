"""The words of a kind's manifest, kind.yml, as models."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consolidate.errors import did_you_mean
from consolidate.secret import Generate
from consolidate.values import LEAST_CPUS, NUMBERS, TEXTS, TYPES, Capability, Duration, Size, Wrong, check_pattern


class Word(BaseModel):
    """A part of a manifest: unknown words are errors."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class Setting(Word):
    """One option of a kind, as the manifest declares it."""

    type: str
    help: str = ""
    default: Any = None
    required: bool = False
    pattern: str | None = None
    choices: list[str] = Field(default_factory=list)
    minimum: float | None = None
    maximum: float | None = None
    items: Setting | None = None
    keys: Setting | None = None
    fields: dict[str, Setting] = Field(default_factory=dict)

    def model_post_init(self, _context: Any) -> None:
        if self.type not in TYPES:
            raise Wrong(f"unknown type '{self.type}'", did_you_mean(self.type, TYPES) or f"types: {', '.join(TYPES)}")
        if self.type == "choice" and not self.choices:
            raise Wrong("a choice has something to choose from", "write choices: [one, other]")
        if self.type not in NUMBERS and (self.minimum is not None or self.maximum is not None):
            raise Wrong(f"the type {self.type} has no minimum or maximum", f"these have: {', '.join(sorted(NUMBERS))}")
        if self.pattern is not None:
            if self.type not in TEXTS:
                raise Wrong(f"the type {self.type} has no pattern", f"these have: {', '.join(sorted(TEXTS))}")
            check_pattern(self.pattern)


class LinkNeed(Word):
    """A declared need of another server, which must provide `provides`; of several where `many` is set."""

    provides: str
    many: bool = False
    required: bool = False
    help: str = ""


class GrantCommand(Word):
    """A command run in the provider; `input` is a template under grants/, given on standard input."""

    command: list[str]
    input: str | None = None


class Provided(Word):
    """What a kind offers to those that link to it."""

    port: int | None = None
    password: bool = False
    values: dict[str, str] = Field(default_factory=dict)
    grant: GrantCommand | None = None
    revoke: GrantCommand | None = None


class FileEntry(Word):
    source: str | None = None
    copy_: str | None = Field(default=None, alias="copy")
    target: str | None = None
    mode: str | None = Field(default=None, pattern=r"0[0-7]{3}")
    owner: str | None = Field(default=None, pattern=r"\d+:\d+")
    each: Any = None
    reload: bool = False


class SecretNeed(Word):
    generate: Generate = "password"
    length: int = Field(default=24, ge=8, le=512)
    name: Any = None
    each: Any = None
    mount: bool = True
    help: str = ""


class VolumeWord(Word):
    """A data volume; `owner` and `mode` are what its folder has in the image, which the volume begins as."""

    target: str = Field(pattern=r"/.+")
    owner: str | None = None
    mode: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"target": value} if isinstance(value, str) else value


class TmpfsWord(Word):
    size: Size = 64 * 2**20
    mode: str = "1777"
    uid: int | None = None
    gid: int | None = None
    exec: bool = False


class ResourcesWord(Word):
    memory: Size = 256 * 2**20
    cpus: float = Field(default=1.0, ge=LEAST_CPUS)
    pids: int = 200


class Probe(Word):
    command: list[str]
    timeout: Duration = 60.0


class Health(Word):
    command: list[str]
    interval: Duration = 30.0
    timeout: Duration = 5.0
    retries: int = Field(default=3, ge=1)


class Stop(Word):
    signal: str = "SIGTERM"
    grace: Duration = 10.0


class Reload(Word):
    check: list[str] | None = None
    command: list[str] | None = None
    signal: str | None = None


class BackupWord(Word):
    """How the data is backed up: by commands that write it to their output and read it back, or as its volumes are.

    A dump is whole if its last line begins with `complete`. With `freeze` the programs stand still while what has just
    changed in the volumes is read; those of `first`, which hand out work, a second before the others, which end what they have.
    """

    dump: list[str] = Field(default_factory=list)
    load: list[str] = Field(default_factory=list)
    complete: str = ""
    freeze: bool = False
    first: list[str] = Field(default_factory=list)

    def model_post_init(self, _context: Any) -> None:
        if len({bool(self.dump), bool(self.load), bool(self.complete)}) > 1:
            raise Wrong("dump, load and complete belong together", "write all three, or none of them")
        if self.first and not self.freeze:
            raise Wrong("`first` says who stands still before the others, and nobody does", "add `freeze: true`")


def _check_expression(text: str) -> None:
    """Raises Wrong for what is no regular expression of Python's."""
    try:
        re.compile(text)
    except re.error as error:
        raise Wrong(f"the regular expression {text} is wrong: {error}") from None


class DumpedWord(Word):
    """Which lines of a dump are records: see counting.DumpedRecords."""

    name: str
    record: str
    scope: str = ""
    skip: list[str] = Field(default_factory=list)

    def model_post_init(self, _context: Any) -> None:
        for expression in (self.name, self.record, self.scope, *self.skip):
            _check_expression(expression)
        for expression in filter(None, (self.name, self.scope)):
            if not re.compile(expression).groups:
                raise Wrong(f"{expression!r} has no group for a name", "put the name's part between ( and )")
        if len(self.skip) not in (0, 2):
            raise Wrong("`skip` has two expressions", "for the line that it begins with, and for the one that ends it")


class StoredWord(Word):
    """Which files are records: see counting.StoredRecords."""

    path: str
    name: str

    def model_post_init(self, _context: Any) -> None:
        _check_expression(self.path)


class PageWord(Word):
    """A page, and what is to be seen of it: see counting.Page."""

    port: int
    path: str = Field(default="/", pattern=r"^/[!-~]*$")
    status: str = "200"
    text: list[str] = Field(default_factory=list)

    def model_post_init(self, _context: Any) -> None:
        _check_expression(self.status)


class DrillWord(Word):
    """How `restore --drill` sees that all has come back: see counting.Drill."""

    records: str = "records"
    count: list[str] = Field(default_factory=list)
    dumped: DumpedWord | None = None
    stored: StoredWord | None = None
    grows: bool = False
    page: PageWord | None = None

    def model_post_init(self, _context: Any) -> None:
        if bool(self.count) != bool(self.dumped or self.stored):
            hint = "`dumped` or `stored` says how many the backup has, `count` how many have come back"
            raise Wrong("`count` and `dumped` or `stored` belong together", hint)


class Requirement(Word):
    expression: str
    message: str


class Recipe(Word):
    """What the manifest says of the container, once its expressions have been evaluated for one server."""

    image: str | None = None
    build: str | None = None
    user: str | None = None
    command: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str | None = None
    init: bool = True
    read_only: bool = True
    capabilities: list[Capability] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    volumes: dict[str, VolumeWord] = Field(default_factory=dict)
    tmpfs: dict[str, TmpfsWord] = Field(default_factory=dict)
    resources: ResourcesWord = ResourcesWord()
    egress: bool = False
    files: list[FileEntry] = Field(default_factory=list)
    secrets: dict[str, SecretNeed] = Field(default_factory=dict)
    ports: dict[str, int] = Field(default_factory=dict)
    publish: list[str | None] = Field(default_factory=list)
    http: int | None = None
    routes: bool = False
    switch: list[str] | None = None
    certificates: str | None = Field(default=None, pattern=r"/.*\{name\}.*")
    ready: Probe | None = None
    health: Health | None = None
    stop: Stop = Stop()
    reload: Reload | None = None
    check: Probe | None = None
    backup: BackupWord | None = None
    drill: DrillWord | None = None
    update: Literal["recreate", "rolling"] = "recreate"
    replicas: bool = False


class Head(Word):
    """The words of a manifest that hold for every server of the kind."""

    summary: str
    description: str = ""
    settings: dict[str, Setting] = Field(default_factory=dict)
    links: dict[str, LinkNeed] = Field(default_factory=dict)
    provides: dict[str, Provided] = Field(default_factory=dict)
    requires: list[Requirement] = Field(default_factory=list)


HEAD_WORDS = frozenset(Head.model_fields)
RECIPE_WORDS = frozenset(Recipe.model_fields)
