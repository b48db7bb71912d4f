"""A plan in few rows, for people: one for each image and each server that changes. Pure."""

from __future__ import annotations

from msgspec import Struct

from consolidate import naming
from consolidate.actions import (
    Action,
    ApplyGrant,
    ConnectNetwork,
    CreateContainer,
    CreateVolume,
    DisconnectNetwork,
    LeaveWord,
    ProvideImage,
    ReadVolumes,
    RemoveContainer,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    RevokeGrant,
    SaveData,
    StartContainer,
    StopContainer,
    SwitchRoute,
    UnpauseContainer,
    UpdateContainer,
    WaitReady,
    WriteLive,
)
from consolidate.plan import Operation, Plan

TIDYING = (RemoveContainer, RemoveImage, RemoveNetwork, RemoveVolume)  # where no server's own container goes
BACKUPS: dict[str, type] = {"save": SaveData, "read": ReadVolumes, "restore": LeaveWord}


class Row(Struct, frozen=True):
    what: str
    change: (
        str  # create | replace | reload | start | limits | connect | grant | rename | remove | tidy | wait | image …
    )
    why: str
    downtime: str = ""


def summarise(plan: Plan) -> list[Row]:
    """Rows in the order: images, then servers as the plan has them, then images that go."""
    rows, last = [], []
    servers: dict[str, list[Operation]] = {}
    for operation in plan.operations:
        if isinstance(operation.action, ProvideImage):
            image = operation.action.image
            rows.append(Row(image.tag, "image", f"{operation.reason}; {image.how}"))
        elif isinstance(operation.action, RemoveImage):
            last.append(Row(operation.action.name, "tidy", operation.reason))
        else:
            servers.setdefault(operation.server, []).append(operation)
    rows += [_server_row(plan.stack, server, operations) for server, operations in servers.items() if server]
    return rows + last


def _server_row(stack: str, server: str, operations: list[Operation]) -> Row:
    kinds = [type(o.action) for o in operations]
    downtime = next((o.downtime for o in operations if o.downtime), "")

    if change := next((told for told, action in BACKUPS.items() if action in kinds), None):
        return Row(server, change, operations[0].reason, downtime)
    if set(kinds) == {StopContainer}:
        return Row(server, "stop", operations[0].reason, downtime)

    def why(*actions: type) -> str:
        return next(o.reason for o in operations if isinstance(o.action, actions))

    if CreateContainer in kinds:
        data = (naming.ROLE, "data")
        volumes = [o.action.name for o in operations if isinstance(o.action, CreateVolume) and data in o.action.labels]
        replaced = StopContainer in kinds or RemoveContainer in kinds
        told = why(CreateContainer) if replaced or not volumes else f"not there yet; data in {', '.join(volumes)}"
        return Row(server, "replace" if replaced else "create", told, downtime)
    if StartContainer in kinds or UnpauseContainer in kinds:
        return Row(server, "start", why(StartContainer, UnpauseContainer), downtime)
    if WriteLive in kinds:
        return Row(server, "reload", why(WriteLive), downtime)
    if UpdateContainer in kinds:
        return Row(server, "limits", why(UpdateContainer), "none")
    for action, change in ((ApplyGrant, "grant"), (RevokeGrant, "grant"), (ConnectNetwork, "connect")):
        if action in kinds:
            return Row(server, change, why(action), "none")
    if DisconnectNetwork in kinds and RemoveContainer not in kinds:
        return Row(server, "connect", why(DisconnectNetwork), "none")
    if RenameContainer in kinds:
        return Row(server, "rename", why(RenameContainer), "none")
    for operation in operations:
        if _is_its_own(stack, server, operation.action):
            return Row(server, "remove", operation.reason, downtime)
    for operation in operations:
        if not isinstance(operation.action, TIDYING):
            return Row(server, "wait" if {WaitReady, SwitchRoute} & {*kinds} else "create", operation.reason)
    return Row(server, "tidy", operations[0].reason)


def _is_its_own(stack: str, server: str, action: Action) -> bool:
    """Whether a container of the server itself goes, rather than a record, a receipt or another helper."""
    if isinstance(action, RemoveContainer):
        return naming.is_container(stack, server, action.name)
    return isinstance(action, StopContainer) and action.name != naming.helper(stack, server, "freeze")
