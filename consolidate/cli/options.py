"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from consolidate.docker_engine import DockerEngine
    from consolidate.source import Source

FILE_VARIABLE = "CONSOLIDATE_FILE"
STACK, ENGINE, OUTPUT = "The stack", "The engine", "Output"

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[STACK.YML]", help="The stack file; by default stack.yml here or above.")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        envvar=FILE_VARIABLE,
        help="The stack file; by default stack.yml here or above.",
        rich_help_panel=STACK,
    ),
]
Environment = Annotated[
    str | None,
    typer.Option("-e", "--environment", help="The overlay stack.ENVIRONMENT.yml beside it.", rich_help_panel=STACK),
]
Servers = Annotated[
    list[str] | None, typer.Option("-s", "--server", help="Only this server; may be repeated.", rich_help_panel=STACK)
]
Templates = Annotated[
    list[Path] | None,
    typer.Option("--templates", help="A folder of kinds of your own; may be repeated.", rich_help_panel=STACK),
]
Host = Annotated[
    str | None, typer.Option("-H", "--host", help="The engine's address, e.g. ssh://root@host.", rich_help_panel=ENGINE)
]
Context = Annotated[str | None, typer.Option("--context", help="A Docker context.", rich_help_panel=ENGINE)]
Format = Annotated[
    Literal["table", "json"], typer.Option("--format", help="A table, or JSON for programs.", rich_help_panel=OUTPUT)
]
Progress = Annotated[
    Literal["auto", "tty", "plain", "json", "quiet"],
    typer.Option("--progress", help="How progress is shown, on standard error.", rich_help_panel=OUTPUT),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Answer every question with yes.")]
DriftToo = Annotated[
    bool,
    typer.Option("--drift", help="Look into each server, for limits, settings and files that were changed by hand."),
]
WaitTimeout = Annotated[
    float | None,
    typer.Option("--wait-timeout", min=1, help="Seconds that a server has to get ready; kinds have defaults."),
]


def source(argument: Path | None, option: Path | None, environment: str | None, templates: list[Path] | None) -> Source:
    """The stack that the command line means."""
    from consolidate.errors import UsageError
    from consolidate.source import Source, find_file

    stands_back = option is not None and str(option) == os.environ.get(FILE_VARIABLE)
    if argument is not None and option is not None and argument != option and not stands_back:
        raise UsageError(f"two stack files were named: {argument} and {option}")
    for folder in templates or ():
        if not folder.is_dir():
            raise UsageError(f"--templates: there is no folder {folder}")
    return Source(find_file(argument or option, Path.cwd()), environment, tuple(templates or ()))


def names_engine(host: str | None, context: str | None) -> bool:
    """Whether anything names an engine that need not be this machine's own."""
    from consolidate.docker_engine import named_engine

    return named_engine(host, context) is not None


def current_context() -> str | None:
    """The Docker context that is meant where neither the command line nor DOCKER_HOST names an engine."""
    from consolidate.docker_engine import named_engine

    return named_engine(None, None) if not os.environ.get("DOCKER_HOST") else None


def engine(host: str | None, context: str | None) -> DockerEngine:
    """The engine that the command line, the environment or the current context names."""
    from consolidate.docker_engine import connect

    return connect(host, context)
