"""A stack held against its lock: which image each server has to be made of, or what no longer fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from consolidate.desired import Desired, Image
from consolidate.errors import Problem, StackInvalid
from consolidate.locked import Lock, LockedImage
from consolidate.resolved import Resolved, Server


def asks(server: Server, image: Image) -> str:
    """What a stack asks for a server's image, in words that are the same in each environment."""
    if image.how != "build":
        return image.tag
    repository, _, context = image.tag.rpartition(":")
    return f"{server.name if server.build is not None else repository.rpartition('/')[2]}:{context}"


def asked(resolved: Resolved, images: Iterable[Image]) -> dict[str, str]:
    """What is asked for each server."""
    by_server = {s: i for i in images for s in i.servers}
    return {name: asks(server, by_server[name]) for name, server in resolved.servers.items()}


def pinned(desired: Desired, lock: Lock) -> Desired:
    """The stack with the images of its lock, of the servers that the lock fits."""
    wanted = asked(desired.resolved, desired.images)
    found = {name: image for name, words in wanted.items() if (image := lock.get(name, words))}
    return replace(desired, locked=found)


def check_fits(desired: Desired, lock: Lock) -> None:
    """Raises StackInvalid where the lock has no image for a server, with what to do."""
    if problems := unlocked(desired, lock):
        raise StackInvalid(problems)


def unlocked(desired: Desired, lock: Lock) -> list[Problem]:
    """Servers that the lock doesn't know, or knows with another image than the stack asks for."""
    wanted = asked(desired.resolved, desired.images)
    return [_problem(desired, lock, name, words) for name, words in wanted.items() if not lock.get(name, words)]


def command(resolved: Resolved, *servers: str) -> str:
    """What to type for servers that are to be locked anew."""
    words = ["consolidate lock", *(["-e", resolved.environment] if resolved.environment else [])]
    return " ".join([*words, *(f"-s {s}" for s in servers)])


def _problem(desired: Desired, lock: Lock, name: str, words: str) -> Problem:
    resolved = desired.resolved
    known = lock.servers.get(name, {})
    to_do = f"`{command(resolved, name)}`"
    if not known:
        hint = f"{to_do} adds it, with the image that it has or would get"
        return resolved.problem(f"the lock has no server '{name}'", "servers", name, hint=hint)
    image = next(i for i in desired.images if name in i.servers)
    had = ", ".join(known)
    if image.how != "build":
        what = f"the lock has {had} for it, and the stack asks for {words}"
        hint = f"{to_do} locks what the stack asks for"
    else:
        what = f"what it is built from has changed since it was locked ({had}; now {words})"
        hint = f"{to_do} builds it and locks that; or bring back the Dockerfile of then, or the version of consolidate"
    return Problem(what, lock.places.get(name), f"servers.{name}", hint)


def without(desired: Desired, servers: Iterable[str]) -> Desired:
    """The same with these servers not locked."""
    gone = set(servers)
    kept: Mapping[str, LockedImage] = {n: i for n, i in desired.locked.items() if n not in gone}
    return replace(desired, locked=kept)
