"""Properties of the loader that hold for any data."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidate.errors import StackInvalid
from consolidate.loader import Document, load

settings.register_profile("loader", max_examples=150, deadline=None)
SETTINGS = settings.get_profile("loader")


class Quoting(yaml.SafeDumper):
    """Writes every text in double quotes, on one line."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def dump(data: Any, *, allow_unicode: bool = True) -> str:
    return yaml.dump(data, Dumper=Quoting, allow_unicode=allow_unicode, width=10**9, sort_keys=False)


def read(text: str | bytes, overlay: str | None = None) -> Document:
    with tempfile.TemporaryDirectory() as folder:
        base, over = Path(folder) / "stack.yml", Path(folder) / "over.yml"
        base.write_bytes(text.encode() if isinstance(text, str) else text)
        if overlay is not None:
            over.write_bytes(overlay.encode())
        return load(base, None if overlay is None else over, shown_as=lambda path: path.name)


texts = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ue000\ue001") | st.sampled_from("\n\t")
)
scalars = st.none() | st.booleans() | st.integers(-(10**18) + 1, 10**18 - 1) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
mappings = st.dictionaries(texts, values, max_size=5)
# Few and short keys, so that an overlay meets what is there.
small = st.recursive(
    st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
small_mappings = st.dictionaries(st.sampled_from("abc"), small, max_size=3)


def paths(data: Any, at: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], Any]:
    """Every value in the data by its path."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = {at: data}
    for part, value in inner:
        found |= paths(value, (*at, part))
    return found


def laid_over(base: Any, over: Any) -> Any:
    """What an overlay means, in the words of DESIGN.md."""
    if not isinstance(over, dict):
        return over
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in over.items():
        if value is None:
            del merged[key]
        else:
            merged[key] = laid_over(merged.get(key), value)
    return merged


@SETTINGS
@given(mappings, st.booleans())
def test_what_is_written_is_read(data: dict[str, Any], allow_unicode: bool) -> None:
    """Any data that is written with its texts in quotes is read as it was."""
    assert read(dump(data, allow_unicode=allow_unicode)).data == data


@SETTINGS
@given(mappings)
def test_every_value_stands_where_it_was_written(data: dict[str, Any]) -> None:
    """Values and keys have a place for each path and for no other, and that place holds their text."""
    text = dump(data)
    document = read(text)
    lines = text.split("\n")
    everything = paths(data)
    assert document.values.keys() == everything.keys()
    assert document.keys.keys() == {path for path in everything if path and isinstance(path[-1], str)}
    written = {path: value for path, value in everything.items() if not isinstance(value, (dict, list))}
    spots = [(document.values[path], value) for path, value in written.items()]
    spots += [(place, path[-1]) for path, place in document.keys.items()]
    for place, value in spots:
        scalar = dump(value).removesuffix("\n...\n").removesuffix("\n")
        assert lines[place.line - 1][place.column - 1 :].startswith(scalar)


@SETTINGS
@given(mappings, st.sampled_from(["", "{}", "# nothing", "---", "~"]))
def test_an_overlay_of_nothing_changes_nothing(data: dict[str, Any], nothing: str) -> None:
    """An empty overlay leaves data and places as they were."""
    alone, under = read(dump(data)), read(dump(data), nothing)
    assert (alone.data, alone.values, alone.keys) == (under.data, under.values, under.keys)


@SETTINGS
@given(small_mappings, small_mappings)
def test_an_overlay_wins(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Base and overlay give what the design says, and each value's place is in the file that it came from."""
    try:
        expected = laid_over(base, over)
    except KeyError:
        expected = None
    try:
        document = read(dump(base), dump(over))
    except StackInvalid as invalid:
        assert expected is None
        assert all("this overlay removes" in problem.what for problem in invalid.problems)
        return
    assert document.data == expected
    everything = paths(expected)
    assert document.values.keys() == everything.keys()
    from_overlay = paths(over)
    for path, value in everything.items():
        if not isinstance(value, dict):
            replaced = any(
                path[:n] in from_overlay and not isinstance(from_overlay[path[:n]], dict) for n in range(len(path) + 1)
            )
            assert document.values[path].file == ("over.yml" if replaced else "stack.yml")


nasty = st.text(st.sampled_from("ab:-?[]{}&*!|>'\"%@`#,. \n\t\r0172_~<=\\é\ufeff\x00\x85\u2028"), max_size=60)
pieces = ["a: ", "b: ", "- ", "? ", ": ", "&x ", "*x", "<<: ", "[", "]", "{", "}", ", ", "\n", "\n  ", "no", "012",
          "22:22", "'", '"', "|\n", "!!int ", "!y ", "---\n", "...\n", "~", "\t", "# c\n", "*x : 1"]  # fmt: skip


@settings(SETTINGS, max_examples=600)
@given(
    st.binary(max_size=80)
    | nasty.map(str.encode)
    | st.lists(st.sampled_from(pieces), max_size=14).map("".join).map(str.encode)
)
def test_any_bytes_load_or_are_invalid(content: bytes) -> None:
    """Any bytes give a document, or problems whose places lie in the file and which say what to do."""
    try:
        document = read(content)
    except StackInvalid as invalid:
        assert invalid.problems
        lines = content.decode("utf-8-sig", "replace").split("\n")
        for problem in invalid.problems:
            assert problem.place is not None
            assert problem.what and problem.hint
            assert 1 <= problem.place.line <= len(lines)
            assert 1 <= problem.place.column <= len(lines[problem.place.line - 1]) + 1
    else:
        assert document.values.keys() == paths(document.data).keys()


@settings(SETTINGS, max_examples=400)
@given(st.text(st.sampled_from("0123456789.:_-+eExobynafNY~tru "), min_size=1, max_size=8))
def test_what_is_accepted_bare_is_read_alike_by_pyyaml(text: str) -> None:
    """A bare value that loads is read the same by PyYAML's YAML 1.1, dates aside."""
    try:
        ours = read(f"a: {text}").data["a"]
    except StackInvalid:
        return
    try:
        theirs = yaml.safe_load(f"a: {text}")["a"]
    except ValueError:  # a date that isn't one
        return
    if not isinstance(theirs, date):
        assert (ours, type(ours)) == (theirs, type(theirs))
