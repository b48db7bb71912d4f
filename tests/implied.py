"""The write calls that a plan's operations imply, to be compared with those that were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import (
    Action,
    ApplyGrant,
    CheckConfiguration,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    KeepGeneration,
    NameOnNetwork,
    PointLive,
    ProvideImage,
    ReachServer,
    RemoveContainer,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    RevokeGrant,
    StartContainer,
    StopContainer,
    StoreSecrets,
    SwitchRoute,
    UnpauseContainer,
    UpdateContainer,
    WaitReady,
    WriteFiles,
    WriteLive,
)
from consolidate.plan import Plan

Writes = Counter[tuple[str, str]]


def objects(writes: list[tuple[str, tuple[Any, ...]]]) -> Writes:
    """Each write call with the name of what it was made on; writers of files come and go by themselves."""
    found: Writes = Counter()
    for method, args in writes:
        first = args[0]
        name = (
            ""
            if method == "import_image"
            else first
            if isinstance(first, str)
            else getattr(first, "name", None) or first.tag
        )
        if not name.endswith(".writer"):
            found[method, name] += 1
    return found


def implied(plan: Plan) -> Writes:
    return implied_by(o.action for o in plan.operations)


def implied_by(actions: Iterable[Action]) -> Writes:
    found: Writes = Counter()
    for action in actions:
        found.update(_calls(action))
        if isinstance(action, RemoveContainer | StopContainer) and action.name.endswith(".writer"):
            for call in ("stop", "remove"):
                found.pop((call, action.name), None)
    return found


def done_already(plan: Plan) -> Writes:
    """What a killed run may have done, as the lists don't tell: a container has its name on a network."""
    return implied(replace(plan, operations=tuple(o for o in plan.operations if isinstance(o.action, NameOnNetwork))))


def _calls(action: Action) -> list[tuple[str, str]]:
    match action:
        case ProvideImage(image):
            return [("import_image", "")] if image.how == "base" else [(image.how, image.tag)]
        case StoreSecrets(stack):
            return [(call, naming.helper(stack, "", "secrets")) for call in ("create_helper", "put")]
        case CreateNetwork(name):
            return [("create_network", name)]
        case RemoveImage(name):
            return [("remove_image", name)]
        case RemoveNetwork(name):
            return [("remove_network", name)]
        case CreateVolume(name):
            return [("create_volume", name)]
        case RemoveVolume(name):
            return [("remove_volume", name)]
        case WriteFiles():
            return []
        case WriteLive(live, container):
            writer = naming.helper(live.stack, live.server, "live")
            calls = ["create_helper", "put", "create_helper", *(["put"] if container else [])]
            told = [("run", container)] * 2 if container else []  # it checks the files, and takes them
            return [(call, writer) for call in calls] + told
        case CreateContainer(name):
            return [("create", name)]
        case CheckConfiguration(creation=made, files=files):
            calls = ["create", "start", "remove"]
            return [*((c, made.name) for c in calls), *([("remove_volume", files)] if files else [])]
        case StartContainer(name):
            return [("start", name)]
        case UpdateContainer(name):
            return [("update", name)]
        case UnpauseContainer(name):
            return [("unpause", name)]
        case RenameContainer(found):
            return [("rename", found)]
        case WaitReady(name):
            return [("run", name)]
        case StopContainer(name):
            return [("stop", name)]
        case RemoveContainer(name):
            return [("remove", name)]
        case KeepGeneration(name):
            return [("create_helper", name)]
        case PointLive(stack, server):
            return [(call, naming.helper(stack, server, "live")) for call in ("put", "create_helper")]
        case ConnectNetwork(container):
            return [("connect", container)]
        case DisconnectNetwork(container):
            return [("disconnect", container)]
        case NameOnNetwork(container):
            return [("disconnect", container), ("connect", container)]
        case SwitchRoute(proxy) | ReachServer(proxy):
            return [("run", proxy)]
        case ApplyGrant(container=container, receipt=receipt):
            return [("run", container), ("create_helper", receipt)]
        case RevokeGrant(receipt, container):
            return [("remove", receipt), *([("run", container)] if container else [])]
