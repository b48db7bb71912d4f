"""One server: its container, its volumes and its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from consolidate import naming, values
from consolidate.counting import Drill, DumpedRecords, Page, StoredRecords
from consolidate.desire.content import Copies, image_of, secret_files, server_files, with_record
from consolidate.desire.parts import parts_of, relaxed
from consolidate.desired import (
    CONFIG_PATH,
    CURRENT,
    LIVE_PATH,
    NEXT,
    Backup,
    Container,
    DataVolume,
    DesiredServer,
    FileVolume,
    Live,
    Mount,
    Trial,
)
from consolidate.files import FileSet, FileSpec
from consolidate.manifest import BackupWord, DrillWord
from consolidate.resolved import SECRETS_PATH, Resolved, Server
from consolidate.secret import SecretRecord


def desired_server(
    server: Server,
    resolved: Resolved,
    records: Mapping[str, SecretRecord],
    *,
    networks: tuple[str, ...],
    copies: Copies,
) -> DesiredServer:
    stack, recipe = resolved.name, server.source.recipe
    config, reloadable = server_files(server, resolved, copies)
    ids = {a: records[a].id for f in (*config.files, *reloadable.files) for a in f.secrets}
    config, reloadable = FileSet(config.files, ids), FileSet(reloadable.files, ids)
    configured, reloaded = with_record(config), with_record(reloadable)
    secrets = secret_files(server, records)
    volumes, mounts, tmpfs = [], [], {}
    written = []
    for fileset, role, target in ((configured, "config", CONFIG_PATH), (secrets, "secrets", SECRETS_PATH)):
        if fileset:
            name = naming.file_volume(stack, server.name, role, fileset.content)
            written.append(FileVolume(stack, name, server.name, role, fileset))
            mounts.append(Mount(name, target, read_only=True))
    live = _live(server, resolved, reloaded)
    if live:
        mounts.append(Mount(live.volume, LIVE_PATH, read_only=True))
    for volume, word in recipe.volumes.items():
        name = naming.data_volume(stack, server.name, volume)
        volumes.append(DataVolume(name, server.name, volume))
        mounts.append(Mount(name, word.target, read_only=False))
    for path, tmp in recipe.tmpfs.items():
        tmpfs[path] = _tmpfs_options(tmp.model_dump())
    image = image_of(server, resolved)
    container = Container(
        stack=stack,
        server=server.name,
        kind=server.kind,
        image=image.tag,
        user=recipe.user,
        command=tuple(recipe.command) if recipe.command else None,
        entrypoint=tuple(recipe.entrypoint) if recipe.entrypoint else None,
        working_dir=recipe.working_dir,
        init=recipe.init,
        read_only=recipe.read_only,
        capabilities=tuple(sorted(recipe.capabilities)),
        environment=tuple(sorted(server.environment.items())),
        mounts=tuple(mounts),
        tmpfs=tuple(sorted(tmpfs.items())),
        limits=server.limits,
        publish=server.publish,
        # Names without a dot are the stack's own: the engine answers them, and asks nobody outside. A failed look-up on
        # a network with no way out takes 20 s with the resolver's defaults.
        dns_options=("ndots:1",) if server.egress else ("ndots:1", "timeout:1", "attempts:1"),
        health=server.health,
        stop_signal=recipe.stop.signal,
        stop_grace=values.duration(recipe.stop.grace),
    )
    return DesiredServer(
        server=server,
        container=container,
        networks=networks,
        parts=parts_of(
            server.source.kind,
            container,
            config,
            {a: i for a, i in ids.items() if any(a in f.secrets for f in config.files)}
            | {a: records[a].id for f in secrets.files for a in f.secrets},
            next((r.port for r in resolved.routes if r.server == server.name), None),
        ),
        volumes=tuple(volumes),
        files=tuple(written),
        live=live,
        ready=server.ready,
        rolling=recipe.update == "rolling" and not server.publish,
        relaxed=relaxed(container, server),
        backup=_backup(recipe.backup),
        drill=_drill(recipe.drill),
        trial=_trial(server, container, written, reloadable),
    )


def _backup(word: BackupWord | None) -> Backup | None:
    return Backup(tuple(word.dump), tuple(word.load), word.complete, word.freeze, tuple(word.first)) if word else None


def _drill(word: DrillWord | None) -> Drill | None:
    if word is None:
        return None
    dumped, stored, page = word.dumped, word.stored, word.page
    return Drill(
        records=word.records,
        count=tuple(word.count),
        dumped=DumpedRecords(dumped.name, dumped.record, dumped.scope, tuple(dumped.skip)) if dumped else None,
        stored=StoredRecords(stored.path, stored.name) if stored else None,
        grows=word.grows,
        page=Page(page.port, page.path, page.status, tuple(page.text)) if page else None,
    )


def _live(server: Server, resolved: Resolved, fileset: FileSet) -> Live | None:
    if not fileset:
        return None
    word = server.source.recipe.reload
    return Live(
        stack=resolved.name,
        server=server.name,
        volume=naming.live_volume(resolved.name, server.name),
        files=fileset,
        check=tuple(word.check or ()) if word else (),
        command=tuple(word.command or ()) if word else (),
        signal=(word.signal or "") if word else "",
    )


def _trial(server: Server, container: Container, written: list[FileVolume], reloadable: FileSet) -> Trial | None:
    """The container that checks the configuration: made like the server's, without data, network, ports and health check."""
    word = server.source.recipe.check
    if word is None:
        return None
    own = {v.name for v in written}
    mounts = tuple(m for m in container.mounts if m.volume in own)
    volume = None
    if reloadable:  # both names, since a program may be told of either
        files = FileSet((*reloadable.below(NEXT).files, FileSpec(CURRENT, 0o777, link=NEXT)), reloadable.secret_ids)
        name = naming.file_volume(container.stack, server.name, "check", files.content)
        volume = FileVolume(container.stack, name, server.name, "check", files)
        mounts += (Mount(name, LIVE_PATH, read_only=True),)
    program, *arguments = word.command
    trial = replace(
        container, entrypoint=(program,), command=tuple(arguments), mounts=mounts, publish=(), health=None, labels=()
    )
    return Trial(trial, values.duration(word.timeout), volume)


def _tmpfs_options(word: Mapping[str, Any]) -> str:
    options = ["rw", "nosuid", "nodev", "exec" if word["exec"] else "noexec"]
    options += [f"size={values.size(word['size'])}", f"mode={word['mode']}"]
    options += [f"{k}={word[k]}" for k in ("uid", "gid") if word[k] is not None]
    return ",".join(options)
