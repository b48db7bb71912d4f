"""Acts on the engine, as values: what an operation does. Each says all that it needs, and decides nothing."""

from consolidate.actions.backups import (
    BackupAct,
    CompleteBackup,
    FillVolumes,
    ForgetBackups,
    LeaveWord,
    LoadDump,
    OpenRepository,
    ReadVolumes,
    SaveData,
    SavedDump,
    SavedVolumes,
)
from consolidate.actions.containers import (
    CheckConfiguration,
    CreateContainer,
    KeepGeneration,
    RemoveContainer,
    RenameContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    WaitReady,
)
from consolidate.actions.data import BeginRestore, DumpData, LoadData, RestoreVolumes
from consolidate.actions.supplies import (
    CreateNetwork,
    CreateVolume,
    PointLive,
    ProvideImage,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    SendImage,
    StoreSecrets,
    WriteFiles,
    WriteLive,
)
from consolidate.actions.wiring import (
    ADDRESS,
    ApplyGrant,
    ConnectNetwork,
    DisconnectNetwork,
    NameOnNetwork,
    ReachServer,
    RevokeGrant,
    SwitchRoute,
)

Action = (
    ProvideImage
    | RemoveImage
    | SendImage
    | StoreSecrets
    | CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | RemoveVolume
    | WriteFiles
    | WriteLive
    | PointLive
    | CreateContainer
    | CheckConfiguration
    | DumpData
    | BeginRestore
    | RestoreVolumes
    | LoadData
    | StartContainer
    | UnpauseContainer
    | UpdateContainer
    | RenameContainer
    | WaitReady
    | StopContainer
    | RemoveContainer
    | KeepGeneration
    | ConnectNetwork
    | DisconnectNetwork
    | NameOnNetwork
    | ReachServer
    | SwitchRoute
    | ApplyGrant
    | RevokeGrant
    | OpenRepository
    | ReadVolumes
    | SaveData
    | CompleteBackup
    | ForgetBackups
    | LeaveWord
    | FillVolumes
    | LoadDump
)

__all__ = [
    "ADDRESS",
    "Action",
    "ApplyGrant",
    "BackupAct",
    "BeginRestore",
    "CheckConfiguration",
    "CompleteBackup",
    "ConnectNetwork",
    "CreateContainer",
    "CreateNetwork",
    "CreateVolume",
    "DisconnectNetwork",
    "DumpData",
    "FillVolumes",
    "ForgetBackups",
    "KeepGeneration",
    "LeaveWord",
    "LoadData",
    "LoadDump",
    "NameOnNetwork",
    "OpenRepository",
    "PointLive",
    "ProvideImage",
    "ReachServer",
    "ReadVolumes",
    "RemoveContainer",
    "RemoveImage",
    "RemoveNetwork",
    "RemoveVolume",
    "RenameContainer",
    "RestoreVolumes",
    "RevokeGrant",
    "SaveData",
    "SavedDump",
    "SavedVolumes",
    "SendImage",
    "StartContainer",
    "StopContainer",
    "StoreSecrets",
    "SwitchRoute",
    "UnpauseContainer",
    "UpdateContainer",
    "WaitReady",
    "WriteFiles",
    "WriteLive",
]
