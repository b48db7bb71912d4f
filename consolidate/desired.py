"""What should be on the engine, as values. Pure: a resolved stack and the secrets' records in, `Desired` out.

Nothing here is Docker's own: images, networks, volumes, files and containers are what any engine has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from consolidate import files, naming, render, values
from consolidate.errors import Problem, StackInvalid
from consolidate.files import FileSet, FileSpec
from consolidate.filters import Safe
from consolidate.kinds import FileEntry, GrantCommand, Kind
from consolidate.resolve import BASE_IMAGE, SECRETS_PATH, Check, Limits, Link, Resolved, Server
from consolidate.secret import SecretRecord
from consolidate.stack import Publish

CONFIG_PATH, LIVE_PATH = "/config", "/live"
CURRENT, NEXT = "current", "next"
DOCKERFILE = "Dockerfile"


@dataclass(frozen=True)
class Image:
    """An image by tag: built from `context`, or pulled, or the embedded base."""

    tag: str
    how: str  # build | pull | base
    context: FileSet = field(default=FileSet(()), repr=False)
    servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """A bridge. `internal` has no way out and no address of the host on it; `masquerade` lets it reach the outside."""

    name: str
    server: str
    role: str  # front | link | route
    internal: bool
    masquerade: bool = False


@dataclass(frozen=True)
class DataVolume:
    name: str
    server: str
    volume: str


@dataclass(frozen=True)
class FileVolume:
    """A volume of files that belongs to one generation; its name tells its content."""

    stack: str
    name: str
    server: str
    role: str  # config | secrets
    files: FileSet = field(repr=False)


@dataclass(frozen=True)
class Live:
    """Files that change without a new container."""

    stack: str
    server: str
    volume: str
    files: FileSet = field(repr=False)
    check: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    signal: str = ""

    @property
    def applied(self) -> str:
        return self.files.content


@dataclass(frozen=True)
class Mount:
    volume: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Container:
    """A server's container, but for its generation and its networks, which can change while it runs."""

    stack: str
    server: str
    kind: str
    image: str
    user: str | None
    command: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None
    working_dir: str | None
    init: bool
    read_only: bool
    capabilities: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    tmpfs: tuple[tuple[str, str], ...]
    limits: Limits
    publish: tuple[Publish, ...]
    dns_options: tuple[str, ...]
    health: Check | None
    stop_signal: str
    stop_grace: float
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        return naming.digest(asdict(self), 16)


@dataclass(frozen=True)
class Grant:
    """What a provider is told about a consumer. `applied` changes when it must be told again."""

    link: Link
    command: tuple[str, ...]
    input: str = field(repr=False)
    applied: str = ""
    revoke_command: tuple[str, ...] = ()
    revoke_input: str = ""

    @property
    def name(self) -> str:
        return f"grant.{self.link.consumer}.{self.link.name}"


@dataclass(frozen=True)
class DesiredServer:
    """All that one server is on the engine."""

    server: Server
    container: Container
    networks: tuple[str, ...]
    parts: Mapping[str, str]
    volumes: tuple[DataVolume, ...]
    files: tuple[FileVolume, ...]
    live: Live | None
    ready: Check | None
    rolling: bool
    relaxed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Desired:
    stack: str
    resolved: Resolved = field(repr=False)
    images: tuple[Image, ...]
    networks: tuple[Network, ...]
    servers: Mapping[str, DesiredServer]
    grants: tuple[Grant, ...]


def server_files(server: Server, resolved: Resolved) -> tuple[FileSet, FileSet]:
    """The files of a server: (configuration, reloadable), rendered with placeholders for secrets.

    Raises StackInvalid with the template's file and line.
    """
    kind = server.kind
    config: list[FileSpec] = []
    live: list[FileSpec] = []
    listed = {e.source: e for e in server.recipe.files if e.source}
    missing = set(listed) - set(kind.files)
    if missing:
        what = f"files: there is no {', '.join(sorted(missing))} under files/"
        raise StackInvalid([Problem(what, kind.place("files"), "files")])
    for source in kind.files:
        entry = listed.get(source) or FileEntry(source=source)
        (live if entry.reload else config).extend(_rendered(server, source, entry))
    for entry in server.recipe.files:
        if entry.copy_ is not None and entry.source is None:
            config += files.copied(resolved.folder, entry.copy_, entry.target or "content")
    return FileSet(tuple(config)), FileSet(tuple(live))


def _rendered(server: Server, source: str, entry: FileEntry) -> list[FileSpec]:
    target = entry.target or source.removesuffix(".j2")
    uid, gid = map(int, (entry.owner or "0:0").split(":"))
    mode = int(entry.mode or "0444", 8)
    folder = server.kind.folder / "files"
    if not source.endswith(".j2"):
        return [FileSpec(target, mode, uid, gid, source=folder / source)]
    if entry.each is None:
        return [FileSpec(target, mode, uid, gid, text=render.render(folder, source, server.context))]
    made = []
    pairs = entry.each.items() if isinstance(entry.each, dict) else ((i, None) for i in entry.each)
    for item, value in pairs:
        context = {**server.context, "item": Safe(str(item)), "value": value}
        text = render.render(folder, source, context)
        made.append(FileSpec(target.replace("{item}", str(item)), mode, uid, gid, text=text))
    return made


def image_of(server: Server, resolved: Resolved) -> Image:
    """The image of a server. A built one is tagged by the hash of its context, so that present means no build."""
    if server.image:
        name = (
            server.image if ":" in server.image.rpartition("/")[2] or "@" in server.image else f"{server.image}:latest"
        )
        return Image(name, "pull", servers=(server.name,))
    if server.build is not None:
        context = FileSet(tuple(files.copied(resolved.folder, server.build, ".")))
        return Image(f"consolidate/{resolved.name}-{server.name}:{context.content}", "build", context, (server.name,))
    context = build_context(server.kind)
    return Image(f"consolidate/{server.kind.name}:{context.content}", "build", context, (server.name,))


def build_context(kind: Kind) -> FileSet:
    """The build context of a kind: its Dockerfile alone, since an image holds packages only."""
    assert kind.dockerfile is not None
    text = render.render(kind.folder, kind.dockerfile.name, {"base": Safe(BASE_IMAGE)})
    return FileSet((FileSpec(DOCKERFILE, text=text),))


def desire(resolved: Resolved, records: Mapping[str, SecretRecord]) -> Desired:
    """What should be, with the `records` of every secret that the stack needs.

    Raises StackInvalid where a template fails.
    """
    servers = {s.name: _desired_server(s, resolved, records) for s in resolved.servers.values()}
    images: dict[str, Image] = {BASE_IMAGE: Image(BASE_IMAGE, "base")}
    for server in resolved.servers.values():
        image = image_of(server, resolved)
        known = images.get(image.tag)
        images[image.tag] = (
            image if known is None else Image(image.tag, known.how, known.context, (*known.servers, server.name))
        )
    return Desired(
        stack=resolved.name,
        resolved=resolved,
        images=tuple(images.values()),
        networks=_networks(resolved),
        servers=servers,
        grants=_grants(resolved, records),
    )


def _networks(resolved: Resolved) -> tuple[Network, ...]:
    made = [
        Network(naming.front_network(resolved.name, s.name), s.name, "front", internal=False, masquerade=s.egress)
        for s in resolved.servers.values()
        if s.egress or s.publish
    ]
    for link in resolved.links:
        name = naming.link_network(resolved.name, link.consumer, link.name)
        made.append(Network(name, link.consumer, "link", internal=True))
    routed = ((r.server, naming.route_network(resolved.name, r.server)) for r in resolved.routes)
    made += [Network(name, server, "route", internal=True) for server, name in routed]
    return tuple(made)


def _networks_of(server: Server, resolved: Resolved) -> tuple[str, ...]:
    stack, name = resolved.name, server.name
    names = {naming.front_network(stack, name)} if server.egress or server.publish else set()
    names |= {
        naming.link_network(stack, li.consumer, li.name) for li in resolved.links if name in (li.consumer, li.provider)
    }
    names |= {naming.route_network(stack, r.server) for r in resolved.routes if name in (r.server, resolved.proxy)}
    return tuple(sorted(names))


def _desired_server(server: Server, resolved: Resolved, records: Mapping[str, SecretRecord]) -> DesiredServer:
    stack, recipe = resolved.name, server.recipe
    config, reloadable = server_files(server, resolved)
    ids = {a: records[a].id for f in (*config.files, *reloadable.files) for a in f.secrets}
    config, reloadable = FileSet(config.files, ids), FileSet(reloadable.files, ids)
    secrets = _secret_files(server, records)
    volumes, mounts, tmpfs = [], [], {}
    written = []
    for fileset, role, target in ((config, "config", CONFIG_PATH), (secrets, "secrets", SECRETS_PATH)):
        if fileset:
            name = naming.file_volume(stack, server.name, role, fileset.content)
            written.append(FileVolume(stack, name, server.name, role, fileset))
            mounts.append(Mount(name, target, read_only=True))
    live = _live(server, resolved, reloadable)
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
        kind=server.kind.name,
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
        networks=_networks_of(server, resolved),
        parts=_parts(
            server.kind, container, config, secrets, ids | {a: records[a].id for f in secrets.files for a in f.secrets}
        ),
        volumes=tuple(volumes),
        files=tuple(written),
        live=live,
        ready=server.ready,
        rolling=recipe.update == "rolling" and not server.publish,
        relaxed=_relaxed(container, server),
    )


def _secret_files(server: Server, records: Mapping[str, SecretRecord]) -> FileSet:
    """A file for each secret that the server reads: its owner's alone, or the container's where the user is unknown."""
    from consolidate.filters import SecretRef

    user, _, group = (server.recipe.user or "").partition(":")  # without a user it is the image's, whoever that is
    known = user.isdigit()
    uid, gid = (int(user), int(group) if group.isdigit() else int(user)) if known else (0, 0)
    mode = 0o400 if known else 0o444
    made = [
        FileSpec(n, mode, uid, gid, text=str(SecretRef.of(server.secrets[n].address, needs_filter=False)))
        for n in server.mounted
    ]
    return FileSet(tuple(made), {a: records[a].id for f in made for a in f.secrets})


def _live(server: Server, resolved: Resolved, fileset: FileSet) -> Live | None:
    if not fileset:
        return None
    word = server.recipe.reload
    return Live(
        stack=resolved.name,
        server=server.name,
        volume=naming.live_volume(resolved.name, server.name),
        files=fileset,
        check=tuple(word.check or ()) if word else (),
        command=tuple(word.command or ()) if word else (),
        signal=(word.signal or "") if word else "",
    )


def _tmpfs_options(word: Mapping[str, Any]) -> str:
    options = ["rw", "nosuid", "nodev", "exec" if word["exec"] else "noexec"]
    options += [f"size={values.size(word['size'])}", f"mode={word['mode']}"]
    options += [f"{k}={word[k]}" for k in ("uid", "gid") if word[k] is not None]
    return ",".join(options)


def _from_kind(file: FileSpec, kind: Kind) -> bool:
    """Whether it is a file of the kind's, and not copied from the stack's folder."""
    return file.text is not None or (file.source is not None and file.source.is_relative_to(kind.folder))


def _parts(
    kind: Kind, container: Container, config: FileSet, secrets: FileSet, ids: Mapping[str, str]
) -> dict[str, str]:
    """What a container was made from, by name, so that a plan can say what differs."""
    limits = container.limits
    content = [f for f in config.files if not _from_kind(f, kind)]
    rendered = {f"file {f.path}": f.sha[:8] for f in config.files if _from_kind(f, kind)}
    return {
        "image": container.image,
        "memory": str(limits.memory),
        "cpus": f"{limits.cpus:g}",
        "pids": str(limits.pids),
        "published ports": " ".join(map(str, container.publish)) or "none",
        "environment": naming.digest(container.environment, 8),
        "content": naming.digest([[f.path, f.sha] for f in content], 8),
        "secrets": naming.digest(sorted(ids.items()), 8),
        "health check": naming.digest(asdict(container.health) if container.health else None, 8),
        "hardening": naming.digest([container.user, container.read_only, container.capabilities, container.tmpfs], 8),
        "command": naming.digest([container.command, container.entrypoint, container.working_dir], 8),
        **rendered,
    }


def _relaxed(container: Container, server: Server) -> tuple[str, ...]:
    """What the stack loosened against the hardened default; the plan shows each."""
    settings = server.kind.head.settings
    found = []
    if "read_only" in settings and not container.read_only:
        found.append("its root file system is writable")
    if "cap_add" in settings and container.capabilities:
        found.append(f"it has the capabilities {', '.join(container.capabilities)}")
    if any(p.address in ("0.0.0.0", "::") for p in server.publish):  # noqa: S104
        found.append("it publishes on every address of the host")
    return tuple(found)


def _grants(resolved: Resolved, records: Mapping[str, SecretRecord]) -> tuple[Grant, ...]:
    made = []
    for link in resolved.links:
        provider = resolved.servers[link.provider]
        offered = provider.kind.head.provides[link.provides]
        if offered.grant is None:
            continue
        consumers = provider.context["consumers"][link.provides]
        consumer = next(c for c in consumers if (c["server"], c["link"]) == (link.consumer, link.name))
        context = {**provider.context, "consumer": consumer}
        text = _grant_input(provider, offered.grant, context)
        revoke = offered.revoke
        ids = {link.password: records[link.password].id} if link.password else {}
        made.append(
            Grant(
                link=link,
                command=tuple(offered.grant.command),
                input=text,
                applied=naming.digest([offered.grant.command, text, ids]),
                revoke_command=tuple(revoke.command) if revoke else (),
                revoke_input=_grant_input(provider, revoke, context) if revoke else "",
            )
        )
    return tuple(made)


def _grant_input(provider: Server, command: GrantCommand, context: Mapping[str, Any]) -> str:
    if command.input is None:
        return ""
    return render.render(provider.kind.folder / "grants", command.input, context)
