"""All verbs of the command line, as it tells of them itself, so that no test misses a new one."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import Any

import typer

from consolidate.cli.app import app


@functools.cache
def verbs() -> MappingProxyType[str, Any]:
    """All that can be typed: a verb, or one of a group, which may be a verb itself; with its command."""
    found = {}

    def add(command: Any, *path: str) -> None:
        below = getattr(command, "commands", {})
        if path and (not below or command.invoke_without_command):
            found[" ".join(path)] = command
        for name, each in below.items():
            add(each, *path, name)

    add(typer.main.get_command(app))
    return MappingProxyType(found)
