"""Containers that somebody has renamed: they get their names back before anything else is done with them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import astuple, replace

from consolidate import naming
from consolidate.actions import Action, PointLive, RenameContainer, StoreSecrets, SwitchRoute, WriteLive
from consolidate.diff.draft import Draft
from consolidate.observed import Observed


def renamed(observed: Observed) -> dict[str, str]:
    """The containers to be renamed: own name → the one found.

    One whose own name another container has by now keeps the name that it was given.
    """
    wrong = [c for c in observed.containers if c.name != c.own_name]
    if not wrong:
        return {}
    taken = observed.foreign_names | {c.name for c in observed.containers if c not in wrong}
    found: dict[str, str] = {}
    for container in wrong:
        if container.own_name not in taken:
            found.setdefault(container.own_name, container.name)
    while staying := {c.name for c in wrong} - set(found.values()) & found.keys():
        found = {own: name for own, name in found.items() if own not in staying}
    return found


def by_own_names(observed: Observed, found: Mapping[str, str]) -> Observed:
    """What is there, as it will be once the containers have their names back."""
    if not found:
        return observed
    own = {name: own for own, name in found.items()}
    return replace(observed, containers=tuple(replace(c, name=own.get(c.name, c.name)) for c in observed.containers))


def add_renames(draft: Draft, found: Mapping[str, str]) -> None:
    """Rename them, and have all that is done with one of them wait for it.

    A name that passes from one to another is free once its holder has moved aside.
    """
    containers = {c.name: c for c in draft.observed.containers}
    for index, operation in enumerate(draft.operations if found else ()):
        names = {n for a in (operation.action, *operation.undo) for n in _names(a)}
        needs = [f"rename:{n}" for n in found if n in names]
        draft.operations[index] = replace(operation, needs=(*operation.needs, *needs))
    for own, name in found.items():
        server = containers[own].server or containers[own].labels.get(naming.OF, "")
        reason, needs, now = f"somebody has called it {name}", [], name
        if name in found:
            now = f"{own}.aside"
            needs.append(draft.add(f"aside:{own}", RenameContainer(name, now), server, reason))
        if holder := next((o for o, n in found.items() if n == own), None):
            needs.append(f"aside:{holder}")
        draft.add(f"rename:{own}", RenameContainer(now, own), server, reason, needs=needs)
    for container in draft.observed.containers:
        if container.server in draft.desired.servers and container.name != container.own_name:
            draft.notes.append(
                f"{container.server}: its container stays {container.name}; another one is called {container.own_name}"
            )


def _names(action: Action) -> set[str]:
    """The containers that an operation is about."""
    match action:
        case StoreSecrets(stack):
            return {naming.helper(stack, "", "secrets")}
        case WriteLive(live, container):
            return {naming.helper(live.stack, live.server, "live"), container or ""}
        case PointLive(stack, server):
            return {naming.helper(stack, server, "live")}
        case SwitchRoute(proxy, _, containers):
            return {proxy, *containers}
    return {v for v in astuple(action) if isinstance(v, str)}
