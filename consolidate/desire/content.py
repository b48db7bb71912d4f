"""Files and images: a kind's templates rendered for a server, secrets as placeholders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from consolidate import files, naming, render
from consolidate.desired import DOCKERFILE, RENDERED, Image
from consolidate.errors import Problem, StackInvalid
from consolidate.files import FileSet, FileSpec
from consolidate.filters import Safe, SecretRef, redact
from consolidate.kinds import DOCKERFILE as TEMPLATE_OF_IMAGE
from consolidate.kinds import Kind, data_folder
from consolidate.manifest import FileEntry
from consolidate.resolved import Resolved, Server
from consolidate.secret import SecretRecord

Copies = dict[tuple[str, str], list[FileSpec]]  # (path of the stack, target) → its files, read once for all servers


def server_files(server: Server, resolved: Resolved, copies: Copies) -> tuple[FileSet, FileSet]:
    """The files of a server: (configuration, reloadable), rendered with placeholders for secrets.

    Raises StackInvalid with the template's file and line.
    """
    kind, recipe = server.source.kind, server.source.recipe
    config: list[FileSpec] = []
    live: list[FileSpec] = []
    listed = {e.source: e for e in recipe.files if e.source}
    missing = set(listed) - set(kind.files)
    if missing:
        index = next(i for i, e in enumerate(recipe.files) if e.source in missing)
        what = f"there is no {', '.join(sorted(missing))} under {kind.folder / 'files'}"
        raise StackInvalid(
            [Problem(what, kind.place("files", index), f"files[{index}]", "write it, or correct its name")]
        )
    for source in kind.files:
        entry = listed.get(source) or FileEntry(source=source)
        (live if entry.reload else config).extend(_rendered(server, source, entry))
    for entry in recipe.files:
        if entry.copy_ is not None and entry.source is None:
            key = entry.copy_, entry.target or "content"
            if key not in copies:
                copies[key] = _copied(server, resolved, *key)
            config += copies[key]
    return FileSet(tuple(config)), FileSet(tuple(live))


def _copied(server: Server, resolved: Resolved, given: str, target: str) -> list[FileSpec]:
    try:
        return files.copied(resolved.folder, given, target)
    except StackInvalid as invalid:
        key = next((k for k, v in server.source.context["settings"].items() if v == given), None)
        path = ("servers", server.name) if key is None else ("servers", server.name, key)
        raise StackInvalid([resolved.problem(p.what, *path, hint=p.hint) for p in invalid.problems]) from None


@lru_cache(maxsize=256)
def _as_it_is(kind: Kind, source: str, target: str, mode: int, uid: int, gid: int) -> FileSpec:
    """A file of a kind that is no template: the same for all its servers, and read once."""
    return FileSpec(target, mode, uid, gid, source=kind.folder / "files" / source)


def _rendered(server: Server, source: str, entry: FileEntry) -> list[FileSpec]:
    target = entry.target or source.removesuffix(".j2")
    uid, gid = map(int, (entry.owner or "0:0").split(":"))
    mode = int(entry.mode or "0444", 8)
    making = server.source
    folder = making.kind.folder / "files"
    if not source.endswith(".j2"):
        return [_as_it_is(making.kind, source, target, mode, uid, gid)]
    if entry.each is None:
        return [FileSpec(target, mode, uid, gid, text=render.render(folder, source, making.context))]
    made = []
    pairs = entry.each.items() if isinstance(entry.each, dict) else ((i, None) for i in entry.each)
    for item, value in pairs:
        context = {**making.context, "item": item, "value": value}
        text = render.render(folder, source, context)
        made.append(FileSpec(target.replace("{item}", str(item)), mode, uid, gid, text=text))
    return made


def with_record(fileset: FileSet) -> FileSet:
    """The same files, and the texts of those with secrets once more without them, for plans to compare with."""
    texts = {f.path: redact(f.text) for f in fileset.files if f.text is not None and f.secrets}
    if not texts:
        return fileset
    record = FileSpec(RENDERED, text=json.dumps(texts, ensure_ascii=False, sort_keys=True))
    return FileSet((*fileset.files, record), fileset.secret_ids)


def secret_files(server: Server, records: Mapping[str, SecretRecord]) -> FileSet:
    """A file for each secret that the server reads: its owner's alone, or the container's where the user is unknown."""
    # Without a user it is the image's, whoever that is.
    user, _, group = (server.source.recipe.user or "").partition(":")
    known = user.isdigit()
    uid, gid = (int(user), int(group) if group.isdigit() else int(user)) if known else (0, 0)
    mode = 0o400 if known else 0o444
    made = [
        FileSpec(n, mode, uid, gid, text=str(SecretRef.of(server.secrets[n].address, needs_filter=False)))
        for n in server.mounted
    ]
    return FileSet(tuple(made), {a: records[a].id for f in made for a in f.secrets})


def image_of(server: Server, resolved: Resolved) -> Image:
    """The image of a server. A built one is tagged by the hash of its context, so that present means no build."""
    if server.image:
        name = (
            server.image if ":" in server.image.rpartition("/")[2] or "@" in server.image else f"{server.image}:latest"
        )
        return Image(name, "pull", servers=(server.name,))
    if server.build is not None:
        context = FileSet(tuple(_copied(server, resolved, server.build, ".")))
        return Image(f"consolidate/{resolved.name}-{server.name}:{context.content}", "build", context, (server.name,))
    return packaged_image(server.source.kind.folder, (server.name,))


def packaged_image(folder: Path, servers: tuple[str, ...] = ()) -> Image:
    """The image of a folder of templates with a Dockerfile: a kind's, or that of a tool of ours."""
    context = build_context(folder)
    return Image(f"consolidate/{folder.name}:{context.content}", "build", context, servers)


def restic_image() -> Image:
    """The image with which backups are made: that of a tool of ours, which no server is made of."""
    return packaged_image(data_folder("tools") / "restic")


@lru_cache(maxsize=64)
def build_context(folder: Path) -> FileSet:
    """The build context of a kind: its Dockerfile alone, since an image holds packages only."""
    text = render.render(folder, TEMPLATE_OF_IMAGE, {"base": Safe(naming.BASE_IMAGE)})
    return FileSet((FileSpec(DOCKERFILE, text=text),))
