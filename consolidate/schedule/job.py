"""What the host is to run, and what it needs for that: the command line, the variables, a stack that can be read so."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from consolidate.errors import StackInvalid, UsageError
from consolidate.schedule.when import When
from consolidate.source import ENV_FILE, Source, load_stack, resolve_document

LOCK_TIMEOUT = 3600  # seconds that it waits for somebody who works on the stack
QUIETLY = ("--progress", "quiet", "--lock-timeout", str(LOCK_TIMEOUT))
# What each task runs, by its name.
TASKS: Mapping[str, tuple[str, ...]] = {
    "backup": ("backup", *QUIETLY),
    "drill": ("restore", "latest", "--drill", *QUIETLY),
}
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")
FOLDERS = ENGINE_VARIABLES[2:]  # those of them that are paths
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GIVEN = {"PATH": PATH, "HOME": "/root", "LOGNAME": "root", "SHELL": "/bin/sh"}  # what systemd and cron both give root


class Job(Struct, frozen=True, kw_only=True):
    """A command line that runs at times, as root, with variables besides those of GIVEN."""

    task: str
    stack: str  # its name on the engine
    when: When
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """For a shell."""
        return shlex.join(
            ["env", *(f"{n}={v}" for n, v in self.variables), *self.words] if self.variables else self.words
        )


def job_name(task: str, stack: str) -> str:
    """No dot: cron passes over files that have one."""
    return f"consolidate-{task}-{stack}"


def job_for(
    task: str,
    source: Source,
    stack: str,
    when: When,
    program: Sequence[str],
    environment: Mapping[str, str],
    *,
    host: str | None,
    context: str | None,
) -> Job:
    """A task for the stack and the engine that a command line means, from whatever folder it runs later.

    Without `host` and `context` that is the one that variables name, or this machine's. Raises UsageError for what no
    schedule can say, and where root would come to another engine.
    """
    file = _absolute(source.file)
    words = [*program, *TASKS[task], "--file", str(file)]
    words += ["--environment", source.environment] if source.environment else []
    words += [w for folder in source.templates for w in ("--templates", str(_absolute(folder)))]
    if host:
        words += ["--host", host]
    elif context:
        words += ["--context", context]
    wanted: tuple[str, ...] = ENGINE_VARIABLES
    if host or context not in (None, "", "default"):  # DOCKER_HOST means that context's engine
        wanted = ENGINE_VARIABLES[1:] if host else ENGINE_VARIABLES[-1:]
    names = {n: environment[n] for n in wanted if environment.get(n)}
    names |= {n: str(_absolute(Path(names[n]))) for n in FOLDERS if n in names}
    for text in (*words, *names.values()):
        if not text.isprintable():
            raise UsageError(f"{text!r} can't stand in a schedule", hint="give it a name without control characters")
    _check_engine(host, context, {**environment, **names}, {**GIVEN, **names})
    return Job(task=task, stack=stack, when=when, words=tuple(words), variables=tuple(names.items()))


def _check_engine(
    host: str | None, context: str | None, environment: Mapping[str, str], given: Mapping[str, str]
) -> None:
    """That the engine of this command line is the one that root means, with what is `given` to him.

    Contexts, and certificates that nothing names, are in a home. Raises UsageError.
    """
    from consolidate.docker_engine.address import meant  # its library is heavy

    home = Path(environment.get("HOME") or Path.home())
    here = meant(host, context, environment, home)
    if os.geteuid() != 0:
        return  # who may not look into root's home may not install it either
    why = ""
    try:
        if meant(host, context, given, Path(given["HOME"])) != here:
            why = "comes to another engine from there, or with other certificates"
    except UsageError as error:
        why = f"does not find the engine from there: {error.what}"
    if why:
        config = environment.get("DOCKER_CONFIG") or str(home / ".docker")
        hint = f"name the engine with -H, or say where its contexts and certificates are: DOCKER_CONFIG={shlex.quote(config)}"
        raise UsageError(f"a schedule has the home {given['HOME']}, not {home}, and {why}", hint=hint)


def _absolute(path: Path) -> Path:
    """Through the links that somebody chose, unless `..` leads elsewhere through one."""
    short = Path(os.path.abspath(path))  # noqa: PTH100 — Path.absolute leaves `..` where it is
    return short if short.resolve() == path.resolve() else path.resolve()


def program_of(argv0: str, executable: str) -> tuple[str, ...]:
    """How this program is started again: the script that it was started by, or the one beside its Python."""
    for script in (Path(argv0), Path(executable).with_name("consolidate")):
        if script.name == "consolidate" and script.is_file() and os.access(script, os.X_OK):
            return (str(_absolute(script)),)
    return (executable, "-m", "consolidate")


def check_readable(source: Source, variables: Mapping[str, str]) -> None:
    """That the stack can be read then, without the variables that are set here and now.

    Raises StackInvalid, and UsageError for what only a variable says that will not be there.
    """
    from consolidate import vault
    from consolidate.loader import load
    from consolidate.variables import Variables

    env_file, have = source.file.with_name(ENV_FILE), {**GIVEN, **variables}
    try:
        document = load(source.file, source.overlay, variables=Variables(have, env_file, str(env_file)))
        resolved = resolve_document(source, document)
    except StackInvalid as error:
        load_stack(source)  # what is wrong here and now is told first
        hint = "a schedule has none of the variables of this shell: put it into .env beside the stack file"
        raise StackInvalid([replace(p, hint=hint) for p in error.problems]) from None
    specs = {**vault.needed(resolved), **{s.address: s for s in resolved.backups.secrets}}
    lost = {
        a: s.source.value
        for a, s in specs.items()
        if s.source and s.source.kind == "env" and s.source.value not in have
    }
    for address, name in lost.items():
        hint = "say {file: …} or {command: …} in the stack file; a secret has no place in the schedule itself"
        raise UsageError(f"{address} comes from the variable {name}, which a schedule does not have", hint=hint)


def doubts(paths: Iterable[Path]) -> list[str]:
    """Which of these others than root may change: whoever does that is root, once it is run."""
    found = []
    for each in dict.fromkeys(p for path in paths for p in (path, path.parent)):
        try:
            facts = each.stat()
        except OSError:
            continue
        shared = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX
        if facts.st_uid != 0 or shared:
            found.append(str(each))
    return found
