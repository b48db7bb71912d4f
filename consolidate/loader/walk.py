"""A graph of nodes to data; an overlay's over the base's."""

from __future__ import annotations

import re
from typing import Any

from consolidate.errors import Place, Problem, did_you_mean
from consolidate.loader.nodes import Node
from consolidate.loader.scalars import NULLS, plain_value
from consolidate.loader.words import quote, yaml_path

MAX_PROBLEMS = 50

YamlPath = tuple[str | int, ...]

NEW: Any = object()  # in place of the data that an overlay's value falls on


# Not in a string, not even by an escape. U+E000 and U+E001 frame the placeholders of secrets (see secret.py).
REFUSED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ue000\ue001]")


class Walk:
    """Makes the data, notes the places, and collects problems."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.unsaid = 0
        self.values: dict[YamlPath, Place] = {}
        self.keys: dict[YamlPath, Place] = {}
        self.removed: dict[YamlPath, Place] = {}  # what an overlay took away, and where it says so
        self._said: set[tuple[Place | None, str]] = set()  # an alias's target is walked more than once

    def value(self, node: Node, path: YamlPath, under: Any = NEW) -> Any:
        """The data of a node; laid over `under` where the node is an overlay's."""
        self._check(node, path)
        if not (node.mapping and isinstance(under, dict)):
            self.values[path] = node.place
        if node.mapping:
            return self._mapping(node, path, under)
        if node.scalar:
            return self._scalar(node, path)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.children)]

    def _mapping(self, node: Node, path: YamlPath, under: Any) -> dict[str, Any]:
        data: dict[str, Any] = under if isinstance(under, dict) else {}
        for name, (key, item) in self._pairs(node, path).items():
            here = (*path, name)
            below = NEW if under is NEW else data.get(name)
            if below is not NEW and item.plain and item.text in NULLS:
                if name not in data:
                    hint = did_you_mean(name, data) or "null removes a key; write {} for an empty mapping"
                    self._report(f"this overlay removes {quote(name)}, which isn't there", key, here, hint)
                data.pop(name, None)
                self.removed[here] = key.place
                continue
            if not (item.mapping and isinstance(below, dict)):
                self.keys[here] = key.place
            data[name] = self.value(item, here, below)
        return data

    def _pairs(self, node: Node, path: YamlPath) -> dict[str, tuple[Node, Node]]:
        """The keys and values of a mapping, those that `<<` merges into it included."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        children = iter(node.children)
        for key, item in zip(children, children, strict=True):
            is_merge = key.plain and key.text == "<<"
            name = self._key(key, path)
            if name in own:
                hint = "write <<: [*one, *other]" if is_merge else "remove or rename one of them"
                self._report(f"the key {quote(name)} also stands at {own[name][0].place}", key, (*path, name), hint)
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

    def _key(self, node: Node, path: YamlPath) -> str:
        around, path = path, (*path, node.text)
        self._check(node, path)
        value, what, _ = plain_value(node.text) if node.plain else (node.text, "", "")
        if what or not isinstance(value, str):
            what = f"the key `{node.text[:60]}` is not text to every YAML reader"
            self._report(what, node, path, f"quote it: {quote(node.text)}")
        elif node.scalar:
            self._refuse_control(node, path)
        elif not node.trouble:
            hint = 'put quotes around a value that begins with a brace: "{{ … }}"'
            self._report("a key must be text, not a mapping or a list", node, around, hint)
        return node.text

    def _scalar(self, node: Node, path: YamlPath) -> Any:
        self._refuse_control(node, path)
        if not node.plain:
            return node.text
        value, what, hint = plain_value(node.text)
        if what:
            self._report(what, node, path, hint)
        return value

    def _refuse_control(self, node: Node, path: YamlPath) -> None:
        if bad := REFUSED.search(node.text):
            what = f"the character U+{ord(bad[0]):04X} can't stand in a text"
            self._report(what, node, path, "remove it; only line ends and tabs can")

    def _check(self, node: Node, path: YamlPath) -> None:
        kind = "map" if node.mapping else "str" if node.scalar else "seq"
        if node.trouble:
            self._report(node.trouble[0], node, path, node.trouble[1])
        elif node.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(f"the tag {tag[:60]} is not supported", node, path, "remove it")

    def forget_removed(self, data: Any) -> None:
        """Drop the notes about what an overlay removed or replaced."""
        for noted in (self.values, self.keys):
            for path in [path for path in noted if not _exists(data, path)]:
                del noted[path]

    def _report(self, what: str, node: Node, path: YamlPath, hint: str) -> None:
        self.report(Problem(what, node.place, yaml_path(path), hint))

    def report(self, problem: Problem) -> None:
        if (problem.place, problem.what) in self._said:
            return
        self._said.add((problem.place, problem.what))
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.unsaid += 1


def _exists(data: Any, path: YamlPath) -> bool:
    for part in path:
        known = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if part not in known:
            return False
        data = data[part]
    return True
