"""The loader: for each bad input one clear problem with its place, and places that point at what was written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from consolidate import loader
from consolidate.errors import Place, StackInvalid, did_you_mean
from consolidate.loader import Document, load, yaml_path


def read(folder: Path, text: str | bytes, overlay: str | None = None) -> Document:
    base = folder / "stack.yml"
    base.write_bytes(text.encode() if isinstance(text, str) else text)
    over = None
    if overlay is not None:
        over = folder / "stack.prod.yml"
        over.write_text(overlay, encoding="utf-8")
    return load(base, over, shown_as=lambda path: path.name)


def problems(folder: Path, text: str | bytes, overlay: str | None = None) -> list[str]:
    """What is wrong, each as it is shown."""
    with pytest.raises(StackInvalid) as caught:
        read(folder, text, overlay)
    return [str(problem) for problem in caught.value.problems]


def test_data_is_plain(tmp_path: Path) -> None:
    """Each kind of value that YAML 1.1 and 1.2 read the same comes out as that value."""
    text = "t: [x, 'no', \"a\\nb\", ' 1 ']\ni: [0, -7, +7]\nf: [3.5, -0.25]\nb: [true, False, TRUE]\nz: [~, null, ]\n"
    text += "e: \nm: {}\n"
    assert read(tmp_path, text).data == {
        "t": ["x", "no", "a\nb", " 1 "],
        "i": [0, -7, 7],
        "f": [3.5, -0.25],
        "b": [True, False, True],
        "z": [None, None],
        "e": None,
        "m": {},
    }


@pytest.mark.parametrize(
    "text",
    ["2026-01-02", "8080:80", "127.0.0.1:80:80", "::1", "1٣", "10.0.0.1", "512M", "1.2.3", "0b2", "0x", "1-2", "tRue",
     "a no b", "=", "redis:7", "+", "12e", "Norway", ".", "...x", "1:60"],
)  # fmt: skip
def test_text_stays_text(tmp_path: Path, text: str) -> None:
    """What no YAML reader takes for a number or a boolean, and a date, is the text that was written."""
    assert read(tmp_path, f"a: {text}").data == {"a": text}


TRAPS = {
    **dict.fromkeys(["no", "No", "NO", "off", "OFF", "n", "N"], "reads it as false\n  write false, or quote it: "),
    **dict.fromkeys(["yes", "YES", "on", "On", "y", "Y"], "reads it as true\n  write true, or quote it: "),
    "012": "YAML 1.1 reads it as 10, YAML 1.2 as 12\n  write 12, or quote it: ",
    "-017": "YAML 1.1 reads it as -15, YAML 1.2 as -17\n  write -17, or quote it: ",
    "089": "YAML 1.1 reads it as text, YAML 1.2 as 89\n  write 89, or quote it: ",
    **dict.fromkeys(["22:22", "1:20", "25:25", "12:30:45", "190:20:30.15", "+1:1"], "in base 60\n  quote it: "),
    **dict.fromkeys(["1_000", "0o17", "0x1F", "0b101", "1e3", "1.5e3", ".5", "5.", "-.5", "01.5"], "the same number"),
    **dict.fromkeys([".inf", "-.Inf", ".NaN"], "is not the same number"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), TRAPS.items())
def test_trap_is_a_problem_with_quotes_as_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    """A scalar that YAML readers read differently is one problem at its place, and its quoted form loads as text."""
    (shown,) = problems(tmp_path, f"a:\n  - b: {text}\n")
    assert shown.startswith(f"stack.yml:2:8: a[0].b: `{text}` is ")
    assert said in shown
    assert f'quote it: "{text}"' in shown
    assert read(tmp_path, f"a: ['{text}', \"{text}\", !!str {text}]").data == {"a": [text] * 3}


def test_number_of_any_length_is_refused_not_crashed_on(tmp_path: Path) -> None:
    """Digits beyond 64 bits are a problem, be they five or five thousand too many."""
    for digits in ("9" * 24, "9" * 6000, "0" + "9" * 6000, "9" * 6000 + ".5", "9:" * 6000 + "9"):
        (shown,) = problems(tmp_path, f"a: {digits}")
        assert shown.startswith("stack.yml:1:4: a: `")
        assert len(shown) < 400


# input, place, path, a part of what is said, a part of the hint
BAD = [
    ("", "1:1", "", "the file is empty", "consolidate init"),
    ("# nothing\n", "1:1", "", "the file is empty", "consolidate init"),
    ("--- ~", "1:1", "", "the file is empty", "consolidate init"),
    ("- a\n", "1:1", "", "this one holds a list", "consolidate init"),
    ("\njust text", "2:1", "", "this one holds a text", "consolidate init"),
    ("a: 1\n---\nb: 2\n", "2:1", "", "a second document begins here", "remove this `---`"),
    ("a: 1\nb:\n  c: 1\n  c: 2\n", "4:3", "b.c", 'the key "c" also stands at stack.yml:3:3', "remove or rename"),
    ("on: 1", "1:1", "on", "the key `on` is not text", 'quote it: "on"'),
    ("a:\n  no: 1", "2:3", "a.no", "the key `no` is not text", 'quote it: "no"'),
    ("a: {22: x}", "1:5", "a.22", "the key `22` is not text", 'quote it: "22"'),
    ("a: {true: x}", "1:5", "a.true", "the key `true` is not text", 'quote it: "true"'),
    ("a: {~: x}", "1:5", 'a."~"', "the key `~` is not text", 'quote it: "~"'),
    ("a: {1.5: x}", "1:5", 'a."1.5"', "the key `1.5` is not text", 'quote it: "1.5"'),
    ("? [a]\n: 1", "1:3", "", "a key must be text", "quotes"),
    ("title: {{ x }}", "1:9", "title", "a key must be text", '"{{ … }}"'),
    ("a: !!python/object/apply:os.system [x]", "1:4", "a", "the tag !!python/object/apply:os.system", "remove it"),
    ("a: !secret x", "1:4", "a", "the tag !secret is not supported", "remove it"),
    ("a: !!int '3'", "1:4", "a", "the tag !!int is not supported", "remove it"),
    ("a: [&x [1, *x]]", "1:12", "a[0][1]", "*x stands inside itself", "remove"),
    ("a: *nope", "1:4", "a", "the alias *nope has no anchor", "&nope"),
    ("a: &site 1\nb: *sites", "2:4", "b", "the alias *sites has no anchor", "did you mean 'site'?"),
    ("a: &x 1\nb: &x 2", "2:4", "b", "the anchor &x also stands at stack.yml:1:4", "rename"),
    ("a: {<<: 3}", "1:9", 'a."<<"', "merges mappings only", "<<: *anchor"),
    ("x: &x {}\na: {<<: *x, <<: *x}", "2:13", 'a."<<"', "also stands at stack.yml:2:5", "[*one, *other]"),
    ('a: "x\\u0007"', "1:4", "a", "U+0007", "remove it"),
    ('a: "x\\r"', "1:4", "a", "U+000D", "remove it"),
    ("a: x\ue000y", "1:4", "a", "U+E000", "remove it"),
    ('a: {"\\ue001": 1}', "1:5", 'a."\\ue001"', "U+E001", "remove it"),
    ("a: é\x00", "1:5", "", "U+0000", "text file"),
    ("a: b\u2028c", "1:5", "", "U+2028", "remove it"),
    ("a: 1\rb: 2\r", "1:5", "", "U+000D", "remove it"),
    (b"a: \xc3\xa9\nb: \xe9\n", "2:4", "", "isn't UTF-8", "save it as UTF-8"),
    ("a: 1".encode("utf-16"), "1:1", "", "isn't UTF-8", "save it as UTF-8"),
    ("a:\n\tb: 1\n", "2:1", "", "a tab can't indent", "spaces"),
    ("a:\n  b: 1\n\tc: 2\n", "3:1", "", "a tab can't indent", "spaces"),
    ("a: b: c", "1:5", "", "no `key: value` can stand here", "quote"),
    ("a:b\nc: d", "2:2", "", "no `key: value` can stand here", "a colon needs a space after"),
    ("a: - b", "1:4", "", "a list can't begin here", "next line"),
    ("a:\n  [1, 2\nb: 3\n", "3:2", "", "a bracket isn't closed", "opens at stack.yml:2:3"),
    ("a: {b", "1:6", "", "a bracket isn't closed", "opens at stack.yml:1:4"),
    ("a: 'b\nc: d", "2:5", "", "a quote isn't closed", "opens at stack.yml:1:4"),
    ("a: 'it's'", "1:8", "", "neither a key nor", "quote a value with quotes"),
    ('a: "\\d"', "1:5", "", "an unknown escape", "'single quotes'"),
    ("a: `x`", "1:4", "", "no value can begin with `", "quotes"),
    ("a: @x", "1:4", "", "no value can begin with @", "quotes"),
    ("a: *.html", "1:5", "", "no value can begin with *", "quotes"),
    ("a:\n  b: 1\n c: 2\n", "3:2", "", "neither a key nor", "same column"),
    ("a:\n- b\nc", "3:2", "", "this key has no colon", "`key: value`"),
    ("%FOO\na: 1", "1:5", "", "not YAML", "check this line"),
]


@pytest.mark.parametrize(("text", "place", "path", "what", "hint"), BAD)
def test_bad_input_is_one_problem(
    tmp_path: Path, text: str | bytes, place: str, path: str, what: str, hint: str
) -> None:
    """Bad input gives one problem that says where (line, column, YAML path), what, and what to do."""
    (shown,) = problems(tmp_path, text)
    said, _, advice = shown.partition("\n")
    assert said.startswith(f"stack.yml:{place}: {path}: " if path else f"stack.yml:{place}: ")
    assert what in said
    assert hint in advice


@pytest.mark.parametrize("text", [row[0] for row in BAD] + [f"a: {trap}" for trap in TRAPS])
def test_pure_python_parser_refuses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes
) -> None:
    """Without libyaml the same inputs are refused, each with a hint."""
    monkeypatch.setattr(loader.nodes, "PARSER", yaml.SafeLoader)
    (shown,) = problems(tmp_path, text)
    assert re.match(r"stack\.yml:\d+:\d+: .+\n  .+", shown)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    """One run names every problem of both files, in the order of their places."""
    shown = problems(tmp_path, "a: 1\na: 2\nb: {c: no, c: 012}\n22: *x\n", "z: yes\nz: !x 1\n")
    assert [line.split(" ")[0] for line in shown] == [
        "stack.prod.yml:1:4:", "stack.prod.yml:2:1:",
        "stack.yml:2:1:", "stack.yml:3:8:", "stack.yml:3:12:", "stack.yml:4:1:", "stack.yml:4:5:",
    ]  # fmt: skip


def test_a_problem_behind_an_alias_is_reported_once(tmp_path: Path) -> None:
    """A bad value under an anchor is one problem, however many aliases share it."""
    text = "x-site: &site {tls: no}\n" + "".join(f"s{i}: {{<<: *site, a: *site}}\n" for i in range(20))
    (shown,) = problems(tmp_path, text)
    assert shown.startswith("stack.yml:1:21: x-site.tls: ")


def test_many_problems_are_cut(tmp_path: Path) -> None:
    """Thousands of problems show the first ones and the number of the rest."""
    shown = problems(tmp_path, "".join(f"k{i}: no\n" for i in range(1050)))
    assert len(shown) == loader.MAX_PROBLEMS + 1
    assert shown[-1] == "and 1000 more problems"


def test_columns_count_characters(tmp_path: Path) -> None:
    """A column counts characters, not bytes, and a byte order mark is no character."""
    assert problems(tmp_path, "\ufeff'é😀': no")[0].startswith("stack.yml:1:7: ")
    assert read(tmp_path, b"\xef\xbb\xbfa: b").data == {"a": "b"}


def test_windows_line_ends_are_line_ends(tmp_path: Path) -> None:
    """A file with CRLF has the data and the lines of one with LF."""
    document = read(tmp_path, "a: 1\r\nb: |\r\n  x\r\n  y\r\n")
    assert document.data == {"a": 1, "b": "x\ny\n"}
    assert document.place(("b",)) == Place("stack.yml", 2, 4)


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [("nope.yml", "there is no such file", "consolidate init"), ("stack.yml/x", "there is no such file", "init"),
     (".", "this is a folder", "stack.yml"), ("x" * 300, "can't be read", "check its name")],
)  # fmt: skip
def test_unreadable_file(tmp_path: Path, name: str, what: str, hint: str) -> None:
    """A file that can't be opened is a problem of that file with what to do."""
    (tmp_path / "stack.yml").write_text("a: 1\n")
    with pytest.raises(StackInvalid) as caught:
        load(tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.place == Place(str(tmp_path / name), 1, 1)
    assert what in problem.what
    assert hint in problem.hint


def test_endless_file() -> None:
    """A device that never ends is read no further than a file may be large."""
    with pytest.raises(StackInvalid, match="/dev/zero:1:1: the file is larger than 1 MiB"):
        load(Path("/dev/zero"))


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this user may not read says to check the permissions (root may read all, so it is simulated)."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StackInvalid, match="can't be read: Permission denied\n  check its permissions"):
        load(tmp_path / "stack.yml")


def test_missing_overlay(tmp_path: Path) -> None:
    """A missing overlay is the overlay's problem, and `init` is no way to write one."""
    (tmp_path / "stack.yml").write_text("a: 1\n")
    with pytest.raises(StackInvalid) as caught:
        load(tmp_path / "stack.yml", tmp_path / "stack.prod.yml")
    assert "stack.prod.yml:1:1: there is no such file" in str(caught.value)
    assert "init" not in str(caught.value)


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "alias bomb": (bomb(30), "more than 100,000 values"),
    "merge bomb": (bomb(30).replace("[x, x, x, x, x, x, x, x, x]", "{k: x}") + "\nz: {<<: *l20}", "more than 100,000"),
    "many values": ("a: [" + "x," * 500_000 + "]", "more than 100,000 values"),
    "deep flow": ("a: " + "[" * 100_000, "nested deeper than 50 levels"),
    "deep flow mappings": ("a: " + "{b: " * 100_000, "nested deeper than 50 levels"),
    "deep block": ("- " * 100_000, "nested deeper than 50 levels"),
    "deep keys": ("? " * 100_000, "nested deeper than 50 levels"),
    "deep aliases": ("l0: &l0 []\n" + "".join(f"l{i}: &l{i} [*l{i - 1}]\n" for i in range(1, 90)), "nested deeper"),
    "ten megabytes": ("a: " + "x" * 10_000_000, "larger than 1 MiB"),
    "one key, often": ("a:\n" * 49_000, 'the key "a" also stands at'),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_fast(tmp_path: Path, name: str) -> None:
    """A file made to eat time, memory or the stack is refused with a place, and not after hours."""
    text, said = HOSTILE[name]
    shown = problems(tmp_path, text)
    assert said in shown[0]
    assert shown[0].startswith("stack.yml:")


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    """Fifty levels and nearly 100,000 values load: the limits refuse nothing below them."""
    document = read(tmp_path, "a: " + "[" * 49 + "]" * 49)
    assert yaml_path(max(document.values, key=lambda path: len(tuple(path)))) == "a" + "[0]" * 48
    assert len(read(tmp_path, "a: [" + "x," * 99_000 + "]").data["a"]) == 99_000


def test_a_bomb_says_where(tmp_path: Path) -> None:
    """The place and the path of an alias bomb are those of the alias that is one too many."""
    (shown,) = problems(tmp_path, "a: {b: [1, {c: " + "[" * 60)
    assert "1:62: a.b[1].c[0][0]" in shown


MERGED = """\
x-site: &site
  kind: web
  egress: false
  domains: [a, b]
one:
  <<: *site
  egress: true
two: {kind: php, <<: [{kind: no-one, domains: [c], cpus: 1}, *site]}
"""


def test_merge_keys(tmp_path: Path) -> None:
    """`<<` fills in what a mapping lacks, an earlier source before a later one; own keys win wherever they stand."""
    data = read(tmp_path, MERGED).data
    assert data["one"] == {"kind": "web", "egress": True, "domains": ["a", "b"]}
    assert data["two"] == {"kind": "php", "cpus": 1, "egress": False, "domains": ["c"]}
    assert data["x-site"] == {"kind": "web", "egress": False, "domains": ["a", "b"]}


def test_merged_values_stand_where_they_were_written(tmp_path: Path) -> None:
    """A merged value's place is in the anchor, an own value's in the mapping."""
    document = read(tmp_path, MERGED)
    assert document.place(("one", "kind")) == Place("stack.yml", 2, 9)
    assert document.key_place(("one", "kind")) == Place("stack.yml", 2, 3)
    assert document.place(("one", "egress")) == Place("stack.yml", 7, 11)
    assert document.place(("one", "domains", 1)) == Place("stack.yml", 4, 16)


def test_a_quoted_merge_key_is_a_key(tmp_path: Path) -> None:
    """`"<<"` in quotes is text like any other."""
    assert read(tmp_path, 'a: {"<<": 1}').data == {"a": {"<<": 1}}


def test_aliases_share_nothing(tmp_path: Path) -> None:
    """Two uses of an anchor are two values: an overlay that changes one leaves the other."""
    data = read(tmp_path, "a: &x {k: 1}\nb: *x\n", "b: {k: 2}").data
    assert data == {"a": {"k": 1}, "b": {"k": 2}}


def test_places_fall_back_to_what_is_around(tmp_path: Path) -> None:
    """A path that isn't there has the place of the nearest value around it, a key's place where there is a key."""
    document = read(tmp_path, "a:\n  b: [x, z]\n")
    assert document.place(("a", "b", 1)) == Place("stack.yml", 2, 10)
    assert document.place(("a", "b", 7, "z")) == Place("stack.yml", 2, 6)
    assert document.place(("a", "nope")) == Place("stack.yml", 2, 3)
    assert document.place(("nope",)) == Place("stack.yml", 1, 1)
    assert document.key_place(("a", "b")) == Place("stack.yml", 2, 3)
    assert document.key_place(("a", "b", 1)) == Place("stack.yml", 2, 10)
    assert Document({}).place(("a",)) is None


BASE = "stack: acme\nservers:\n  www: {kind: web, domains: [a, b], title: A, v: 1.10}\n  db: {kind: mysql}\n"


@pytest.mark.parametrize(
    ("overlay", "changed"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("{}", {}),
        ("stack: other", {"stack": "other"}),
        ("servers: {www: {domains: [c]}}", {"domains": ["c"]}),
        ("servers: {www: {v: 1}}", {"v": 1}),
        ("servers: {www: {new: {a: [{b: ~}]}}}", {"new": {"a": [{"b": None}]}}),
    ],
)
def test_overlay_merges_maps_and_replaces_the_rest(tmp_path: Path, overlay: str, changed: dict[str, Any]) -> None:
    """Maps merge by key; lists and scalars replace; a null inside a list is a null."""
    expected = read(tmp_path, BASE).data
    (expected if "stack" in changed else expected["servers"]["www"]).update(changed)
    assert read(tmp_path, BASE, overlay).data == expected


def test_overlay_places(tmp_path: Path) -> None:
    """What came from the overlay stands in the overlay, all else in the base, and what is gone stands nowhere."""
    document = read(tmp_path, BASE, "servers:\n  db:\n  www:\n    domains: [c]\n    v: x\n    new: {k: 1}\n")
    assert document.data["servers"] == {
        "www": {"kind": "web", "domains": ["c"], "title": "A", "v": "x", "new": {"k": 1}}
    }
    assert document.key_place(("servers", "www", "domains")) == Place("stack.prod.yml", 4, 5)
    assert document.place(("servers", "www", "domains", 0)) == Place("stack.prod.yml", 4, 15)
    assert document.key_place(("servers", "www", "new", "k")) == Place("stack.prod.yml", 6, 11)
    assert document.place(("servers", "www", "title")) == Place("stack.yml", 3, 44)
    assert document.place(("servers", "www")) == Place("stack.yml", 3, 8)
    assert document.key_place(("servers", "www")) == Place("stack.yml", 3, 3)
    assert ("servers", "www", "domains", 1) not in document.values
    assert ("servers", "db", "kind") not in document.values
    assert ("servers", "db") not in document.keys
    assert document.files == (tmp_path / "stack.yml", tmp_path / "stack.prod.yml")


@pytest.mark.parametrize(
    ("overlay", "place", "hint"),
    [
        ("servers: {ww: ~}", "1:11: servers.ww", "did you mean 'www'?"),
        ("servers:\n  www:\n    titel:\n", "3:5: servers.www.titel", "did you mean 'title'?"),
        ("servers: {new: {kind: web, mailboxes: }}", "1:28: servers.new.mailboxes", "write {} for an empty mapping"),
    ],
)
def test_overlay_removes_only_what_is_there(tmp_path: Path, overlay: str, place: str, hint: str) -> None:
    """Removing what the base doesn't have is a problem in the overlay."""
    (shown,) = problems(tmp_path, BASE, overlay)
    assert shown.startswith(f"stack.prod.yml:{place}: this overlay removes ")
    assert hint in shown


def test_did_you_mean() -> None:
    """The nearest known word is a hint, whatever its case; a word that is near nothing has none."""
    assert did_you_mean("domians", ["kind", "domains"]) == "did you mean 'domains'?"
    assert did_you_mean("DOMAINS", ["kind", "domains"]) == "did you mean 'domains'?"
    assert did_you_mean("xyzzy", ["kind", "domains"]) == ""
    assert did_you_mean("kind", []) == ""


def test_yaml_path() -> None:
    """A path is shown with dots, indices, and quotes around keys that have dots themselves."""
    assert yaml_path(()) == ""
    assert yaml_path(("servers", "my-www", "domains", 0)) == "servers.my-www.domains[0]"
    assert yaml_path(("mailboxes", "ada@acme.test", "x")) == 'mailboxes."ada@acme.test".x'
    assert yaml_path(("a", "\x1b[31m")) == 'a."\\u001b[31m"'
