"""stack.lock.yml: read with the place of all that is wrong in it, and written whole, in an order that keeps diffs small."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consolidate.errors import Problem, StackInvalid, UsageError, did_you_mean
from consolidate.loader import Document, load, yaml_path
from consolidate.loader.scalars import plain_value
from consolidate.locked import Base, Lock, LockedImage
from consolidate.mistakes import mistakes

VERSION = 1
HEADER = """\
# What each server of {stack} is made of, in every environment. `consolidate lock` writes this file, `consolidate update`
# moves it on, and `consolidate up` keeps to it. Keep it with {stack} under version control; nothing in it is written by hand.
"""
REPAIR = "take back what was changed, or write the file anew: remove it, and `consolidate lock`"

# What reaches a Dockerfile, apt's preferences or a command has no character that means something there.
ID = r"^sha256:[0-9a-f]{64}$"
DIGEST = r"^[a-z0-9][A-Za-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}$"
PACKAGE = r"^[A-Za-z0-9._][A-Za-z0-9._+-]{0,200}$"
PACKAGE_VERSION = r"^[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,200}$"
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+:~-]*[A-Za-z0-9_]|[A-Za-z0-9_]")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Base(_Model):
    name: str = Field(description="What the Dockerfile calls it.")
    id: str | None = Field(None, pattern=ID)
    digest: str | None = Field(None, pattern=DIGEST)


class _Image(_Model):
    asks: str | None = Field(None, description="What the stack asks for, where the image is called otherwise here.")
    id: str = Field(pattern=ID, description="The image's id on an engine.")
    digest: str | None = Field(None, pattern=DIGEST, description="Of a pulled one, in its repository.")
    context: str | None = Field(None, pattern=r"^[0-9a-f]{12}$", description="The hash of what it is built from.")
    base: _Base | None = None
    packages: dict[Annotated[str, Field(pattern=PACKAGE)], Annotated[str, Field(pattern=PACKAGE_VERSION)]] | None = (
        Field(None, description="Name: version of each.")
    )


class _File(_Model):
    lock: int = Field(description="The version of this file's form.")
    servers: dict[str, str | list[str]] = Field(description="The image of each server, by its name under images.")
    images: dict[str, _Image]


def read(path: Path) -> Lock | None:
    """The lock in a file; None where there is none. Raises StackInvalid with the place of all that is wrong."""
    if not os.path.lexists(path):
        return None
    document = load(path)
    data = document.data if isinstance(document.data, dict) else {}
    if isinstance(data.get("lock"), int) and data["lock"] != VERSION:
        what = f"this lock has the form {data['lock']}, and this version of consolidate knows {VERSION}"
        raise _invalid(document, ("lock",), what, "use the version that wrote it, or remove it and `consolidate lock`")
    try:
        parsed = _File.model_validate(document.data)
    except ValidationError as error:
        problems = [
            Problem(
                m.what,
                document.key_place(m.path) if m.at_key else document.place(m.path),
                m.path_shown,
                m.hint or REPAIR,
            )
            for m in mistakes(error, _File, data)
        ]
        raise StackInvalid(problems) from None
    return _lock(document, parsed)


def _lock(document: Document, parsed: _File) -> Lock:
    images = {name: _image(name, image) for name, image in parsed.images.items()}
    servers: dict[str, dict[str, LockedImage]] = {}
    problems = []
    for server, given in parsed.servers.items():
        for index, name in enumerate([given] if isinstance(given, str) else given):
            path = ("servers", server) if isinstance(given, str) else ("servers", server, index)
            if name not in images:
                hint = did_you_mean(name, images) or REPAIR
                problems.append(
                    Problem(f"there is no '{name}' under images", document.place(path), yaml_path(path), hint)
                )
                continue
            mine = servers.setdefault(server, {})
            if images[name].asks in mine:
                what = f"two images for {images[name].asks}"
                problems.append(Problem(what, document.place(path), yaml_path(path), REPAIR))
            mine[images[name].asks] = images[name]
    if problems:
        raise StackInvalid(problems)
    places = {s: document.key_place(("servers", s)) for s in parsed.servers}
    return Lock(servers, places, {(i.asks, i.id): name for name, i in images.items()})


def _image(name: str, image: _Image) -> LockedImage:
    base = Base(image.base.name, image.base.id or "", image.base.digest or "") if image.base else None
    return LockedImage(image.asks or name, image.id, image.digest or "", image.context or "", base, image.packages)


def _invalid(document: Document, path: tuple[str | int, ...], what: str, hint: str) -> StackInvalid:
    return StackInvalid([Problem(what, document.place(path), yaml_path(path), hint)])


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Text without quotes only where every YAML reader finds the same text in it."""


def _text(dumper: Any, text: str) -> Any:
    plain = PLAIN.fullmatch(text) and plain_value(text)[:2] == (text, "") and not re.match(r"\d{4}-", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def text_of(lock: Lock, stack: str) -> str:
    """The file's text, for the stack file of this name: the same for the same lock, one line for each thing."""
    names = lock.keys
    servers: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for server, each in sorted(lock.servers.items()):
        called = [names[i.asks, i.id] for i in each.values()]
        servers[server] = called[0] if len(called) == 1 else sorted(called)
        images |= {names[i.asks, i.id]: i for i in each.values()}
    data = {
        "lock": VERSION,
        "servers": servers,
        "images": {name: _data(name, image) for name, image in sorted(images.items())},
    }
    dumped = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=2**20, allow_unicode=True)
    return HEADER.format(stack=stack) + dumped


def _data(name: str, image: LockedImage) -> dict[str, Any]:
    base = image.base
    rows: dict[str, Any] = {
        "asks": image.asks if image.asks != name else None,
        "id": image.id,
        "digest": image.digest,
        "context": image.context,
        "base": _filled({"name": base.name, "id": base.id, "digest": base.digest}) if base else None,
        "packages": dict(sorted(image.packages.items())) if image.packages else None,
    }
    return _filled(rows)


def _filled(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in rows.items() if v}


def write(path: Path, lock: Lock, stack: str) -> bool:
    """Write the file, whole or not at all; whether that changed anything.

    Raises UsageError where it can't be written.
    """
    text, target = text_of(lock, stack).encode(), path.resolve()
    try:
        if target.is_file() and target.read_bytes() == text:
            return False
        beside = target.with_name(f"{target.name}.new")
        with beside.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from None
    return True
