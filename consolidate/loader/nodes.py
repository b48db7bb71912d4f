"""One parse to a graph of nodes, in which aliases are not expanded; the limits hold while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from consolidate.errors import Place, did_you_mean
from consolidate.loader.words import invalid

MAX_DEPTH = 50
MAX_VALUES = 100_000  # aliases expanded

PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    place: Place
    tag: str | None = None
    text: str = ""
    scalar: bool = False
    plain: bool = False  # a scalar without quotes or tag
    mapping: bool = False
    children: list[Node] = field(default_factory=list)  # of a mapping: key, value, key, value …
    open: bool = False
    size: int = 1  # values in it, aliases expanded
    height: int = 0
    trouble: tuple[str, str] | None = None  # what, hint


def compose(text: str, name: str) -> Node | None:
    """The graph of nodes: an alias is the node of its anchor."""
    root: Node | None = None
    around: list[Node] = []
    anchors: dict[str, Node] = {}
    total = 0
    event: Any
    for event in yaml.parse(text, Loader=PARSER):
        place = Place(name, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.CollectionEndEvent):
            node = around.pop()
            node.open = False
            node.size += sum([child.size for child in node.children])
            node.height = 1 + max([child.height for child in node.children], default=0)
        elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise invalid("a second document begins here", place, "remove this `---` line and what follows")
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, place, anchors)
            total += node.size
            if len(around) + (node.height or node.open) > MAX_DEPTH:
                raise invalid(f"nested deeper than {MAX_DEPTH} levels", place, "make it flatter", _where(around))
            if total > MAX_VALUES:
                what = f"more than {MAX_VALUES:,} values, aliases expanded"
                raise invalid(what, place, "use fewer aliases, or split the file", _where(around))
            root = root or node
            if around:
                around[-1].children.append(node)
            if node.open:
                around.append(node)
    return root


def _node(event: Any, place: Place, anchors: dict[str, Node]) -> Node:
    anchor: str | None = event.anchor
    if isinstance(event, yaml.AliasEvent) and anchor is not None:
        if anchor not in anchors:
            hint = did_you_mean(anchor, anchors) or f"write &{anchor} before it; quote a text that begins with *"
            return Node(place, trouble=(f"the alias *{anchor} has no anchor", hint))
        node = anchors[anchor]
        return Node(place, trouble=(f"*{anchor} stands inside itself", "remove this alias")) if node.open else node
    node = Node(place, event.tag)
    if isinstance(event, yaml.ScalarEvent):
        node.text, node.scalar, node.plain = event.value, True, not event.style and event.tag is None
    else:
        node.mapping, node.open = isinstance(event, yaml.MappingStartEvent), True
    if anchor is not None and (first := anchors.setdefault(anchor, node)) is not node:
        node.trouble = (f"the anchor &{anchor} also stands at {first.place}", "rename one of them")
    return node


def _where(around: list[Node]) -> Iterator[str | int]:
    """The path to what is being read."""
    for node in around:
        count = len(node.children)
        if not node.mapping:
            yield count - bool(count and node.children[-1].open)
        elif count:
            yield node.children[(count - 1) // 2 * 2].text
