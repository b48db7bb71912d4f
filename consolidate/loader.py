"""YAML text in; plain data and the place of every value out, or all that is wrong. Knows no word of a stack.

A plain scalar is accepted only where YAML 1.1 and 1.2 read the same in it: what they read differently (`no`, `012`,
`22:22`, `1_000`) is a problem that asks for quotes. Dates stay text.

One parse makes a graph of nodes, in which aliases are not expanded; the limits hold while it grows, so that a bomb
costs nothing. A walk over the graph makes the data and notes the places; an overlay is walked over the base's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from consolidate.errors import Place, Problem, StackInvalid

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50
MAX_VALUES = 100_000  # aliases expanded
MAX_PROBLEMS = 50

YamlPath = tuple[str | int, ...]

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NEW: Any = object()  # in place of the data that an overlay's value falls on

# Not in a file: what YAML forbids or no editor shows, and line ends that editors and YAML count differently.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
# Not in a string, not even by an escape. U+E000 and U+E001 frame the placeholders of secrets (see secret.py).
_REFUSED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ue000\ue001]")

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SWITCHES = dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"], "true")
_SWITCHES |= dict.fromkeys(["n", "N", "no", "No", "NO", "off", "Off", "OFF"], "false")
_INT = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})\.\d{1,40}", re.ASCII)
_OCTAL = re.compile(r"[-+]?0\d{1,17}", re.ASCII)
_BASE_60 = re.compile(r"[-+]?\d[\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?", re.ASCII)
_NUMBER = re.compile(  # whatever else some reader takes for a number
    r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[\da-fA-F_]+|(?:\.\d[\d_]*|\d[\d_]*(?:\.[\d_]*)?)(?:[eE][-+]?\d+)?"
    r"|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
    re.ASCII,
)

_MISALIGNED = "give keys of one mapping the same column; quote a value with quotes, braces or a colon in it"
# What libyaml or PyYAML says (the first that fits), what we say, what to do; `{}` is where the construct begins.
_SYNTAX = (
    ("nesting depth", f"nested deeper than {MAX_DEPTH} levels", "make it flatter"),
    ("mapping values are not allowed", "no `key: value` can stand here", f"{_MISALIGNED}; a colon needs a space after"),
    ("sequence entries are not allowed", "a list can't begin here", "begin it on the next line, or write [a, b]"),
    ("',' or", "a bracket isn't closed, or a comma is missing", "the bracket opens at {}"),
    ("unexpected end of stream", "a quote isn't closed", "the quote opens at {}"),
    ("unexpected document", "a quote isn't closed", "the quote opens at {}"),
    ("escape", "an unknown escape after a backslash", "in 'single quotes' a backslash is a plain character"),
    ("expected ':'", "this key has no colon", "write `key: value`, with a space after the colon"),
    ("alphabetic or numeric", "no value can begin with * or & without quotes", 'put quotes around it: "*…"'),
    ("document start", "this doesn't go on with what stands above", "give all top-level keys the first column"),
    ("'-' indicator", "this is no item of the list above", "give all items of a list the same column"),
    ("expected key", "this is neither a key nor a part of the value before it", _MISALIGNED),
    ("block end", "this is neither a key nor a part of the value before it", _MISALIGNED),
)


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it."""

    data: Any
    values: Mapping[YamlPath, Place] = field(default_factory=dict)
    keys: Mapping[YamlPath, Place] = field(default_factory=dict)
    texts: Mapping[YamlPath, str] = field(default_factory=dict)  # how a float was written: '3.10'
    files: tuple[Path, ...] = ()

    def place(self, path: Iterable[str | int]) -> Place | None:
        """The place of a value, or of the nearest one around it."""
        path = tuple(path)
        around = (self.values.get(path[:length]) for length in range(len(path), -1, -1))
        return next((place for place in around if place), None)

    def key_place(self, path: Iterable[str | int]) -> Place | None:
        """The place of a mapping's key; where there is no key, that of the value."""
        path = tuple(path)
        return self.keys.get(path) or self.place(path)


def load(path: Path, overlay: Path | None = None, *, shown_as: Callable[[Path], str] = str) -> Document:
    """Read a file, and an overlay over it: maps merge by key, lists and scalars replace, null removes.

    Raises StackInvalid with all that is wrong in both.
    """
    files = (path,) if overlay is None else (path, overlay)
    problems: list[Problem] = []
    roots: list[_Node | None] = []
    for file in files:
        try:
            roots.append(_parse(file, shown_as(file), is_overlay=bool(roots or problems)))
        except StackInvalid as invalid:
            problems += invalid.problems
    walk = _Walk(problems)
    data: Any = _NEW
    for root in filter(None, roots):
        data = walk.value(root, (), data)
    if walk.problems:
        more = [Problem(f"and {walk.unsaid} more problems")] if walk.unsaid else []
        raise StackInvalid([*walk.problems, *more])
    if overlay:
        walk.forget_removed(data)
    return Document(data, walk.values, walk.keys, walk.texts, files)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the known word that is nearest, or nothing."""
    from difflib import get_close_matches

    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean '{by_lower[near[0]]}'?" if near else ""


def yaml_path(path: Iterable[str | int]) -> str:
    """How a path is shown: `servers.www.domains[0]`, `mailboxes."ada@acme.test"`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += "." * bool(shown) + (part if re.fullmatch(r"[\w-]{1,60}", part) else _quote(part))
    return shown


def _quote(text: str) -> str:
    text = text if len(text) <= 60 else text[:59] + "…"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _parse(path: Path, name: str, *, is_overlay: bool) -> _Node | None:
    """The root of a file; None for an overlay that says nothing."""
    start = Place(name, 1, 1)
    text = _read(path, start, is_overlay)
    if bad := _UNPRINTABLE.search(text):
        what = f"the character U+{ord(bad[0]):04X} can't stand in a YAML file"
        raise _invalid(what, _place_at(name, text, bad.start()), "remove it; is this a text file?")
    try:
        root = _compose(text, name)
    except yaml.YAMLError as error:
        raise _syntax(error, text, name) from None
    if root is None or (root.plain and root.text in _NULLS):
        if is_overlay:
            return None
        raise _invalid("the file is empty", start, "write a first one: `consolidate init`")
    if not root.mapping:
        what = f"a file holds `key: value` lines; this one holds {'a text' if root.scalar else 'a list'}"
        raise _invalid(what, root.place, "write an example: `consolidate init`")
    return root


def _read(path: Path, start: Place, is_overlay: bool) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        hint = "check its name, or write one" + ("" if is_overlay else ": `consolidate init`")
        raise _invalid("there is no such file", start, hint) from None
    except IsADirectoryError:
        raise _invalid("this is a folder, not a file", start, f"name the file, e.g. {path / 'stack.yml'}") from None
    except OSError as error:
        hint = "check its permissions" if isinstance(error, PermissionError) else "check its name and the disk"
        raise _invalid(f"the file can't be read: {error.strerror}", start, hint) from None
    if len(content) > MAX_BYTES:
        raise _invalid("the file is larger than 1 MiB", start, "some hundred lines are usual; is this the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        place = _place_at(start.file, before, len(before))
        raise _invalid("the file isn't UTF-8 text", place, "save it as UTF-8; is this a YAML file?") from None


def _invalid(what: str, place: Place, hint: str, path: Iterable[str | int] = ()) -> StackInvalid:
    return StackInvalid([Problem(what, place, yaml_path(path), hint)])


def _place_at(name: str, text: str, index: int) -> Place:
    return Place(name, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _syntax(error: yaml.YAMLError, text: str, name: str) -> StackInvalid:
    """What PyYAML can't parse, in words that help."""
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or error)
    if mark is None:
        return _invalid(f"not YAML: {said}", Place(name, 1, 1), "check the file")
    place, begin = (Place(name, m.line + 1, m.column + 1) for m in (mark, context or mark))
    lines = text.split("\n")
    line = lines[min(mark.line, len(lines) - 1)]
    if mark.line >= len(lines):  # libyaml ends a last line that has no end
        place = Place(name, len(lines), len(line) + 1)
    if "tab character" in said or line[: mark.column + 1].strip(" ").startswith("\t"):
        return _invalid("a tab can't indent in YAML", place, "indent with spaces")
    if "cannot start any token" in said:
        what = f"no value can begin with {line[mark.column : mark.column + 1]} without quotes"
        return _invalid(what, place, "put quotes around the value")
    for sign, what, hint in _SYNTAX:
        if sign in said:
            return _invalid(what, place, hint.format(begin))
    return _invalid(f"not YAML: {said}", place, f"check this line and those before it, from {begin} on")


@dataclass(slots=True)
class _Node:
    place: Place
    tag: str | None = None
    text: str = ""
    scalar: bool = False
    plain: bool = False  # a scalar without quotes or tag
    mapping: bool = False
    children: list[_Node] = field(default_factory=list)  # of a mapping: key, value, key, value …
    open: bool = False
    size: int = 1  # values in it, aliases expanded
    height: int = 0
    trouble: tuple[str, str] | None = None  # what, hint


def _compose(text: str, name: str) -> _Node | None:
    """The graph of nodes: an alias is the node of its anchor."""
    root: _Node | None = None
    around: list[_Node] = []
    anchors: dict[str, _Node] = {}
    total = 0
    event: Any
    for event in yaml.parse(text, Loader=_PARSER):
        place = Place(name, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.CollectionEndEvent):
            node = around.pop()
            node.open = False
            node.size += sum([child.size for child in node.children])
            node.height = 1 + max([child.height for child in node.children], default=0)
        elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise _invalid("a second document begins here", place, "remove this `---` line and what follows")
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, place, anchors)
            total += node.size
            if len(around) + (node.height or node.open) > MAX_DEPTH:
                raise _invalid(f"nested deeper than {MAX_DEPTH} levels", place, "make it flatter", _where(around))
            if total > MAX_VALUES:
                what = f"more than {MAX_VALUES:,} values, aliases expanded"
                raise _invalid(what, place, "use fewer aliases, or split the file", _where(around))
            root = root or node
            if around:
                around[-1].children.append(node)
            if node.open:
                around.append(node)
    return root


def _node(event: Any, place: Place, anchors: dict[str, _Node]) -> _Node:
    anchor: str | None = event.anchor
    if isinstance(event, yaml.AliasEvent) and anchor is not None:
        if anchor not in anchors:
            hint = did_you_mean(anchor, anchors) or f"write &{anchor} before it; quote a text that begins with *"
            return _Node(place, trouble=(f"the alias *{anchor} has no anchor", hint))
        node = anchors[anchor]
        return _Node(place, trouble=(f"*{anchor} stands inside itself", "remove this alias")) if node.open else node
    node = _Node(place, event.tag)
    if isinstance(event, yaml.ScalarEvent):
        node.text, node.scalar, node.plain = event.value, True, not event.style and event.tag is None
    else:
        node.mapping, node.open = isinstance(event, yaml.MappingStartEvent), True
    if anchor is not None and (first := anchors.setdefault(anchor, node)) is not node:
        node.trouble = (f"the anchor &{anchor} also stands at {first.place}", "rename one of them")
    return node


def _where(around: list[_Node]) -> Iterator[str | int]:
    """The path to what is being read."""
    for node in around:
        count = len(node.children)
        if not node.mapping:
            yield count - bool(count and node.children[-1].open)
        elif count:
            yield node.children[(count - 1) // 2 * 2].text


def _plain(text: str) -> tuple[Any, str, str]:
    """What a plain scalar means; or what is wrong with it, and what to do."""
    if text in _NULLS or text in _BOOLS:
        return _BOOLS.get(text), "", ""
    meaning = _SWITCHES.get(text)
    if meaning is None and text[0] not in "+-.0123456789":
        return text, "", ""
    if _INT.fullmatch(text):
        return int(text), "", ""
    if _FLOAT.fullmatch(text):
        return float(text), "", ""
    short, quoted = text if len(text) <= 60 else text[:59] + "…", _quote(text)
    if meaning:
        what = f"`{text}` is ambiguous: YAML 1.1 reads it as {meaning}"
        return text, what, f"write {meaning}, or quote it: {quoted}"
    if _OCTAL.fullmatch(text):
        old = int(text, 8) if not set(text) & {"8", "9"} else "text"
        what = f"`{text}` is ambiguous: YAML 1.1 reads it as {old}, YAML 1.2 as {int(text)}"
        return text, what, f"write {int(text)}, or quote it: {quoted}"
    if _BASE_60.fullmatch(text):
        return text, f"`{short}` is ambiguous: YAML 1.1 reads it as a number in base 60", f"quote it: {quoted}"
    if _NUMBER.fullmatch(text):
        hint = f"write a finite number in plain decimals, or quote it: {quoted}"
        return text, f"`{short}` is not the same number to every YAML reader", hint
    return text, "", ""


class _Walk:
    """Makes the data, notes the places, and collects problems."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.unsaid = 0
        self.values: dict[YamlPath, Place] = {}
        self.keys: dict[YamlPath, Place] = {}
        self.texts: dict[YamlPath, str] = {}
        self._said: set[tuple[Place, str]] = set()  # an alias's target is walked more than once

    def value(self, node: _Node, path: YamlPath, under: Any = _NEW) -> Any:
        """The data of a node; laid over `under` where the node is an overlay's."""
        self._check(node, path)
        if not (node.mapping and isinstance(under, dict)):
            self.values[path] = node.place
        self.texts.pop(path, None)
        if node.mapping:
            return self._mapping(node, path, under)
        if node.scalar:
            return self._scalar(node, path)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.children)]

    def _mapping(self, node: _Node, path: YamlPath, under: Any) -> dict[str, Any]:
        data: dict[str, Any] = under if isinstance(under, dict) else {}
        for name, (key, item) in self._pairs(node, path).items():
            here = (*path, name)
            below = _NEW if under is _NEW else data.get(name)
            if below is not _NEW and item.plain and item.text in _NULLS:
                if name not in data:
                    hint = did_you_mean(name, data) or "null removes a key; write {} for an empty mapping"
                    self._report(f"this overlay removes {_quote(name)}, which isn't there", key, here, hint)
                data.pop(name, None)
                continue
            if not (item.mapping and isinstance(below, dict)):
                self.keys[here] = key.place
            data[name] = self.value(item, here, below)
        return data

    def _pairs(self, node: _Node, path: YamlPath) -> dict[str, tuple[_Node, _Node]]:
        """The keys and values of a mapping, those that `<<` merges into it included."""
        own: dict[str, tuple[_Node, _Node]] = {}
        merged: dict[str, tuple[_Node, _Node]] = {}
        children = iter(node.children)
        for key, item in zip(children, children, strict=True):
            is_merge = key.plain and key.text == "<<"
            name = self._key(key, path)
            if name in own:
                hint = "write <<: [*one, *other]" if is_merge else "remove or rename one of them"
                self._report(f"the key {_quote(name)} also stands at {own[name][0].place}", key, (*path, name), hint)
                continue
            own[name] = key, item
            if is_merge:
                for source in [item] if item.mapping or item.scalar or item.trouble else item.children:
                    self._check(source, (*path, name))
                    if source.mapping:
                        merged |= {n: pair for n, pair in self._pairs(source, path).items() if n not in merged}
                    elif not source.trouble:
                        self._report("`<<` merges mappings only", source, (*path, name), "write <<: *anchor")
        return merged | {name: pair for name, pair in own.items() if not (pair[0].plain and name == "<<")}

    def _key(self, node: _Node, path: YamlPath) -> str:
        around, path = path, (*path, node.text)
        self._check(node, path)
        value, what, _ = _plain(node.text) if node.plain else (node.text, "", "")
        if what or not isinstance(value, str):
            what = f"the key `{node.text[:60]}` is not text to every YAML reader"
            self._report(what, node, path, f"quote it: {_quote(node.text)}")
        elif node.scalar:
            self._refuse_control(node, path)
        elif not node.trouble:
            hint = 'put quotes around a value that begins with a brace: "{{ … }}"'
            self._report("a key must be text, not a mapping or a list", node, around, hint)
        return node.text

    def _scalar(self, node: _Node, path: YamlPath) -> Any:
        self._refuse_control(node, path)
        if not node.plain:
            return node.text
        value, what, hint = _plain(node.text)
        if what:
            self._report(what, node, path, hint)
        elif isinstance(value, float):
            self.texts[path] = node.text
        return value

    def _refuse_control(self, node: _Node, path: YamlPath) -> None:
        if bad := _REFUSED.search(node.text):
            what = f"the character U+{ord(bad[0]):04X} can't stand in a text"
            self._report(what, node, path, "remove it; only line ends and tabs can")

    def _check(self, node: _Node, path: YamlPath) -> None:
        kind = "map" if node.mapping else "str" if node.scalar else "seq"
        if node.trouble:
            self._report(node.trouble[0], node, path, node.trouble[1])
        elif node.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(f"the tag {tag[:60]} is not supported", node, path, "remove it")

    def forget_removed(self, data: Any) -> None:
        """Drop the notes about what an overlay removed or replaced."""
        notes: tuple[dict[YamlPath, Any], ...] = (self.values, self.keys, self.texts)
        for noted in notes:
            for path in [path for path in noted if not _exists(data, path)]:
                del noted[path]

    def _report(self, what: str, node: _Node, path: YamlPath, hint: str) -> None:
        if (node.place, what) in self._said:
            return
        self._said.add((node.place, what))
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(what, node.place, yaml_path(path), hint))
        else:
            self.unsaid += 1


def _exists(data: Any, path: YamlPath) -> bool:
    for part in path:
        known = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if part not in known:
            return False
        data = data[part]
    return True
