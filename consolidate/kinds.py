"""Kinds: folders with a manifest and templates. Data in, models out; no kind is known by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from consolidate.errors import Place, Problem, StackInvalid, did_you_mean
from consolidate.loader import Document, load
from consolidate.manifest import HEAD_WORDS, RECIPE_WORDS, Head, Word
from consolidate.mistakes import mistakes

MANIFEST = "kind.yml"
DOCKERFILE = "Dockerfile.j2"


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind: its name, its folder, and its manifest in two halves.

    `recipe` is the raw half, whose strings may be expressions; `resolve` evaluates it for each server.
    """

    name: str
    folder: Path
    head: Head
    recipe: Mapping[str, Any]
    document: Document = field(repr=False)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Paths under files/, sorted."""
        root = self.folder / "files"
        return tuple(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()))

    @cached_property
    def constants(self) -> frozenset[str]:
        """Words of the recipe without an expression: the same for all servers of the kind."""
        return frozenset(w for w, v in self.recipe.items() if "{{" not in repr(v))

    @cached_property
    def dockerfile(self) -> Path | None:
        path = self.folder / DOCKERFILE
        return path if path.is_file() else None

    def place(self, *path: str | int) -> Place | None:
        return self.document.place(path)


def word_problems(
    error: ValidationError, model: type[Word], words: Mapping[str, Any], document: Document
) -> list[Problem]:
    """What `model` refuses in `words` of a manifest, with its places there."""
    return [
        Problem(
            mistake.what,
            document.key_place(mistake.path) if mistake.at_key else document.place(mistake.path),
            mistake.path_shown,
            mistake.hint or "docs/manifest.md describes every word",
        )
        for mistake in mistakes(error, model, words, "word")
    ]


def load_kind(folder: Path) -> Kind:
    """Read the kind in `folder`.

    Raises StackInvalid with the places in kind.yml.
    """
    document = load(folder / MANIFEST)
    data: dict[str, Any] = document.data
    unknown = sorted(set(data) - HEAD_WORDS - RECIPE_WORDS)
    problems = [
        Problem(
            f"unknown word '{w}'",
            document.key_place((w,)),
            w,
            did_you_mean(w, HEAD_WORDS | RECIPE_WORDS) or "docs/manifest.md describes every word",
        )
        for w in unknown
    ]
    head, words = None, {k: v for k, v in data.items() if k in HEAD_WORDS}
    try:
        head = Head.model_validate(words)
    except ValidationError as error:
        problems += word_problems(error, Head, words, document)
    if problems or head is None:
        raise StackInvalid(problems)
    recipe = {k: v for k, v in data.items() if k in RECIPE_WORDS}
    return Kind(name=folder.name, folder=folder, head=head, recipe=recipe, document=document)


class Catalogue:
    """The kinds found in folders of templates, read when asked for. An earlier folder wins over a later one."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._loaded: dict[str, Kind] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        found = {m.parent.name for f in self.folders for m in f.glob(f"*/{MANIFEST}")}
        return tuple(sorted(found))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Kind:
        if name not in self._loaded:
            folder = next(f / name for f in self.folders if (f / name / MANIFEST).is_file())
            self._loaded[name] = load_kind(folder)
        return self._loaded[name]

    def __iter__(self) -> Iterator[Kind]:
        return (self[n] for n in self.names)


def data_folder(name: Literal["templates", "stacks", "tools"]) -> Path:
    """The folder of that name: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
