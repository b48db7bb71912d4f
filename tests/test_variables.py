"""`${VAR}` in stack files: Compose's syntax, .env files, types, and that no value is ever more than a text."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate.__main__ import main
from consolidate.errors import Place, StackInvalid
from consolidate.loader import Document, load
from consolidate.source import Source, load_stack, stack_name
from consolidate.variables import Use, Variables, fill, parse
from tests.test_loader_properties import SETTINGS, dump, mappings, texts

NAMES = st.sampled_from(["A", "B", "_c9"])


def read(folder: Path, text: str, environment: Mapping[str, str] = {}, overlay: str | None = None) -> Document:
    base, over = folder / "stack.yml", folder / "stack.prod.yml"
    base.write_text(text, encoding="utf-8")
    if overlay is not None:
        over.write_text(overlay, encoding="utf-8")
    variables = Variables(environment, folder / ".env", ".env")
    return load(base, None if overlay is None else over, shown_as=lambda p: p.name, variables=variables)


def filled(text: str, environment: Mapping[str, str]) -> str:
    return fill(parse(text), lambda name: (environment[name], None) if name in environment else None, [])


def doubled(data: Any) -> Any:
    """The same data with two dollars for one in each value."""
    if isinstance(data, str):
        return data.replace("$", "$$")
    if isinstance(data, list):
        return [doubled(d) for d in data]
    return {k: doubled(v) for k, v in data.items()} if isinstance(data, dict) else data


@SETTINGS
@given(texts, st.dictionaries(NAMES, texts))
def test_any_text_stands_for_itself_with_two_dollars_for_one(text: str, environment: dict[str, str]) -> None:
    """Whatever a text holds, and whatever variables there are: with its dollars doubled it comes out as it was."""
    assert filled(text.replace("$", "$$"), environment) == text
    word = text.replace("$", "$$").replace("{", "").replace("}", "")
    assert filled(f"${{A-{word}}}", {}) == text.replace("{", "").replace("}", "")


@SETTINGS
@given(data=mappings)
def test_any_file_with_two_dollars_for_one_is_what_it_was(data: dict[str, Any], tmp_path_factory: Any) -> None:
    """A file's values come out as they were once their dollars are doubled; its keys as they stand."""
    document = read(tmp_path_factory.mktemp("file"), dump(doubled(data)))
    assert document.data == {**data, **{k: doubled(v) for k, v in data.items() if k.startswith("x-")}}
    assert not document.asked


@SETTINGS
@given(value=texts)
def test_a_value_is_a_text_whatever_it_holds(value: str, tmp_path_factory: Any) -> None:
    """A variable's value stays that very text, in a plain scalar, in quotes, in a list, and changes nothing around it."""
    text = "a: ${V}\nb: '$V'\nc: [\"${V}\", 1]\nd: x\n"
    document = read(tmp_path_factory.mktemp("file"), text, {"V": value})
    assert document.data == {"a": value, "b": value, "c": [value, 1], "d": "x"}


@SETTINGS
@given(st.text(st.sampled_from("${}:-?+AB x"), max_size=30), st.dictionaries(NAMES, st.just("v")))
def test_a_text_is_good_or_bad_whatever_the_variables_are(text: str, environment: dict[str, str]) -> None:
    """Whether a text can be read depends on it alone, so that a mistake is found on the first machine."""
    try:
        template = parse(text)
    except ValueError as error:
        assert str(error)
        return
    try:
        fill(template, lambda name: (environment[name], None) if name in environment else None, [])
    except ValueError as error:
        assert "variable" in str(error) and ("not set" in str(error) or "empty" in str(error))


@pytest.mark.parametrize(
    ("text", "unset", "empty", "full"),
    [
        ("<${V:-d}>", "<d>", "<d>", "<v>"),
        ("<${V-d}>", "<d>", "<>", "<v>"),
        ("<${V:+d}>", "<>", "<>", "<d>"),
        ("<${V+d}>", "<>", "<d>", "<d>"),
        ("<${V:-}>", "<>", "<>", "<v>"),
        ("<${V-${W:-$X}}>", "<x>", "<>", "<v>"),
        ('<${V:-{"a": {}}}>', '<{"a": {}}>', '<{"a": {}}>', "<v>"),
        ("<${V:-a:-b?c}>", "<a:-b?c>", "<a:-b?c>", "<v>"),
        ("$$V $${V} ${X}$X$$", "$V ${V} xx$", "$V ${V} xx$", "$V ${V} xx$"),
    ],
)
def test_the_syntax_is_composes(text: str, unset: str, empty: str, full: str) -> None:
    """Each form of Compose's interpolation gives what its specification says of a variable that is unset, empty, and set."""
    given = [filled(text, {"X": "x"} | more) for more in ({}, {"V": ""}, {"V": "v"})]
    assert given == [unset, empty, full]


@pytest.mark.parametrize(
    ("text", "good"),
    [("$V", "ef"), ("${V}", "ef"), ("${V?why}", "ef"), ("${V:?why}", "f"), ("${V?}", "ef")],
)
def test_what_is_required_has_to_be_there(text: str, good: str) -> None:
    """A variable without a default is an error where it is not set; with :? also where it is empty."""
    for letter, environment in {"u": {}, "e": {"V": ""}, "f": {"V": "v"}}.items():
        if letter in good:
            assert filled(text, environment) == environment["V"]
        else:
            with pytest.raises(
                ValueError, match=r"the variable V is (not set|empty)" + (": why" if "why" in text else "")
            ):
                filled(text, environment)


def test_only_what_the_file_names_is_taken(tmp_path: Path) -> None:
    """Neither the environment nor the .env file gives anything that no value asks for, defaults that aren't needed included."""
    (tmp_path / ".env").write_text("B=1\nC=2\nD=$E\n")
    document = read(tmp_path, "$A: ${B}\nx: ${A:-${C}}\nx-own: $F ${\n", {"A": "a", "F": "f", "stack": "evil"})
    assert document.data == {"$A": "1", "x": "a", "x-own": "$F ${"}
    assert document.asked == {"A", "B"}


def test_anchors_under_x_are_filled_in_where_they_are_used(tmp_path: Path) -> None:
    """What stands under x-… is the user's own; what is used of it is not."""
    document = read(tmp_path, "x-a: &a {b: $V}\nc: *a\nd: {<<: *a, e: $V}\n", {"V": "v"})
    assert document.data == {"x-a": {"b": "$V"}, "c": {"b": "v"}, "d": {"b": "v", "e": "v"}}


def test_each_value_tells_which_variables_gave_it(tmp_path: Path) -> None:
    """A value knows the variables in it and where each had its text from; its place stays where it was written."""
    (tmp_path / ".env").write_text("# mine\nPORT=1\n\nexport PORT=80 # the last one counts\n")
    document = read(tmp_path, "a: [x, '$PORT:${T:-22}']\nb: ${H}\nc: ${U+x}\nd: $$\n", {"H": "h"})
    assert document.data == {"a": ["x", "80:22"], "b": "h", "c": "", "d": "$"}
    assert document.uses == {
        ("a", 1): (Use("PORT", "file", Place(".env", 4, 1), "80"), Use("T", "word", text="22")),
        ("b",): (Use("H", "environment", text="h"),),
        ("c",): (Use("U", "unset"),),
    }
    assert document.values["a", 1] == Place("stack.yml", 1, 8)


def test_what_an_overlay_replaces_or_removes_needs_no_variable(tmp_path: Path) -> None:
    """Files are merged first: a variable that only the base's value needs may be unset, and a null of one removes nothing."""
    document = read(tmp_path, "a: $A\nb: [$B]\nc: {d: $D}\ne: $E\n", {"E": "~"}, "a: 1\nb: []\nc: null\n")
    assert document.data == {"a": 1, "b": [], "e": "~"}
    assert document.removed == {("c",): Place("stack.prod.yml", 3, 1)}
    assert document.asked == {"E"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("V=a b # c", "a b"),
        ("V='a # $b'", "a # $b"),
        ('V="a # $W\\n"', "a # w\n"),
        ("V = x", "x"),
        ("V=", ""),
        ("export V=${W:-x}-${Z:-z}", "w-z"),
        ("V='a\nb'", "a\nb"),
        ("V=$$W", "$W"),
        ("\ufeffV=x", "x"),
        ("V=x\r", "x"),
        ("V=${V:-own}", "own"),
        ("# V=x\nV=y\nX\nV=z", "z"),
    ],
)
def test_a_line_of_the_env_file(tmp_path: Path, line: str, value: str) -> None:
    """Quotes, comments, variables of the lines above, and what Windows adds are read as Compose reads them."""
    (tmp_path / ".env").write_text(f"{line}\n" if line.startswith("\ufeff") else f"W=w\n{line}\n", encoding="utf-8")
    assert read(tmp_path, "a: ${V}").data == {"a": value}


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    """A variable of the environment is taken in place of that of .env, also where a line of .env uses it."""
    (tmp_path / ".env").write_text("V=file\nW=$V\nX=x\n")
    assert read(tmp_path, "a: $V $W ${X}", {"V": "shell", "X": ""}).data == {"a": "shell shell "}


@pytest.mark.parametrize("value", ["\ue000db/password\ue001", "a\x00b", "\x1b[31m", os.fsdecode(b"\xff")])
def test_what_can_t_stand_in_a_text_can_t_come_from_a_variable(tmp_path: Path, value: str) -> None:
    """Control characters, the frame of a secret's placeholder and bytes that are no text are refused with the place."""
    with pytest.raises(StackInvalid, match=r"stack.yml:1:4: a: the character U\+[0-9A-F]{4} in the value of V"):
        read(tmp_path, "a: x$V", {"V": value})


def test_an_env_file_that_is_none_is_told(tmp_path: Path) -> None:
    """A .env file that is too large, no text or a folder is refused where a variable is looked for in it, and only there."""
    for content in (b"A=\xff\n", b"#" * (2**20 + 1), None):
        path = tmp_path / ".env"
        path.unlink(missing_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        assert read(tmp_path, "a: $V", {"V": "v"}).data == {"a": "v"}
        with pytest.raises(StackInvalid, match=r"^\.env:1:1: the file"):
            read(tmp_path, "a: $V")


@pytest.mark.parametrize("lines", [11, 600])
def test_lines_of_the_env_file_use_a_few_others(tmp_path: Path, lines: int) -> None:
    """Ten lines may use one another, whatever words are in them; more are refused with the line where it is too much."""
    use = "${X:-" * 20 + "$L%d" + "}" * 20
    chain = ["L0=v", *(f"L{i}={use % (i - 1)}" for i in range(1, lines))]
    (tmp_path / ".env").write_text("\n".join(chain) + "\n")
    assert read(tmp_path, "a: $L9").data == {"a": "v"}
    with pytest.raises(StackInvalid, match=rf"^\.env:{lines - 10}:1: a: .*more than 10 lines use one another"):
        read(tmp_path, f"a: $L{lines - 1}")


STACK = """\
stack: ${C_STACK:-t}
host: {reserve: {memory: "${C_MEMORY}", cpus: "${C_CPUS}"}}
servers:
  site-{i}:
    for: {i: "${C_COUNT}"}
    kind: web
    domains: ["site-{i}.${C_DOMAIN}"]
    content: ./${C_FOLDER:-site}
    spa: ${C_SPA}
    environment: {NUMBER: "${C_PIDS}", OTHER: "$$C_PIDS"}
    resources: {memory: "${C_MEMORY}", pids: "${C_PIDS}"}
    health: {test: [CMD, "true"], retries: "${C_PIDS}", interval: "${C_SECONDS}"}
  edge: {kind: "${C_KIND:-proxy}", http: "${C_PORT}", tls: "${C_TLS}"}
"""
SET = {
    "C_MEMORY": "64M", "C_CPUS": "0.5", "C_COUNT": "1..2", "C_DOMAIN": "a.test", "C_SPA": "true", "C_PIDS": "50",
    "C_SECONDS": "30", "C_PORT": "8080", "C_TLS": "off",
}  # fmt: skip


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "stack.yml").write_text(STACK)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "stack.yml"


def test_a_text_is_a_number_or_a_boolean_where_one_is_asked_for(stack: Path) -> None:
    """What a model wants as a number, a size, a choice or true is that, also in quotes and in each server of a `for`; where
    it wants text it is text."""
    resolved = load_stack(Source(stack))
    assert resolved.name == "t"
    assert (resolved.host.reserved_memory, resolved.host.reserved_cpus) == (64 * 2**20, 0.5)
    assert list(resolved.servers) == ["site-1", "site-2", "edge"]
    server = resolved.servers["site-2"]
    assert server.domains == ("site-2.a.test",)
    assert server.environment == {"NUMBER": "50", "OTHER": "$C_PIDS"}
    assert (server.limits.memory, server.limits.pids) == (64 * 2**20, 50)
    assert server.health is not None and (server.health.retries, server.health.interval) == (50, 30.0)
    assert server.source.context["settings"]["spa"] is True
    edge = resolved.servers["edge"]
    assert [p.host for p in edge.publish] == ["127.0.0.1:8080"]


def test_a_number_without_a_variable_stays_a_text(stack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quoted number is refused as before: only a variable, of which nobody can take the quotes, is read as one."""
    stack.write_text(STACK.replace('pids: "${C_PIDS}"', 'pids: "50"'))
    assert main(["validate", str(stack)]) == 65
    assert "should be a whole number, not '50'" in capsys.readouterr().err


def test_verbs_that_need_the_name_alone_need_no_variable(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`logs`, `exec` and `down` work where a variable of some server is not set; one in the name itself counts."""
    monkeypatch.delenv("C_PORT")
    monkeypatch.setenv("C_STACK", "u")
    with pytest.raises(StackInvalid, match="C_PORT"):
        load_stack(Source(stack))
    stack.write_text(STACK.replace("${C_STACK:-t}", "t"))
    assert stack_name(Source(stack)) == "t"
    monkeypatch.setenv("C_PORT", "80")
    stack.write_text(STACK)
    assert stack_name(Source(stack)) == "u"


def test_manifests_have_no_variables(tmp_path: Path) -> None:
    """A dollar in a kind's manifest, or in whatever else is loaded without variables, is a character like any other."""
    file = tmp_path / "kind.yml"
    file.write_text("command: [sh, -c, 'echo $HOME ${']\n")
    assert load(file).data == {"command": ["sh", "-c", "echo $HOME ${"]}


def test_marked_texts_are_copied_as_plain_ones(tmp_path: Path) -> None:
    """Nothing that is kept or sent needs to know of variables."""
    (value,) = copy.deepcopy(read(tmp_path, "a: $V", {"V": "v"}).data).values()
    assert type(value) is str
