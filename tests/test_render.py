"""Templates: only safe text comes out, a failure has its file and line, and nothing of Python can be reached."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consolidate import render as rendering
from consolidate import vault
from consolidate.desire import desire
from consolidate.desired import RENDERED
from consolidate.errors import Place, Problem, StackInvalid
from consolidate.filters import Safe, SecretRef, fill
from consolidate.kinds import Catalogue
from consolidate.loader import load
from consolidate.naming import BASE_IMAGE
from consolidate.render import evaluate
from consolidate.resolve import resolve
from consolidate.secret import Secret

Render = Callable[[str], str]
CONTEXT: dict[str, Any] = {
    "name": Safe("www"),
    "names": [Safe("a"), Safe("b")],
    "title": 'it\'s "x"',
    "titles": ["a b", "c"],
    "port": 80,
    "share": 0.5,
    "on": True,
    "nothing": None,
    "secret": lambda name: SecretRef.of(f"www/{name}", needs_filter=name != "key"),
}


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Render a text as the template app.conf.j2, under a new name each time, since templates are read once."""
    numbers = itertools.count()

    def render(text: str) -> str:
        name = "app.conf.j2" if (number := next(numbers)) == 0 else f"app{number}.conf.j2"
        (tmp_path / name).write_text(text, encoding="utf-8")
        return rendering.render(tmp_path, name, CONTEXT)

    return render


def problem(render: Render, text: str) -> Problem:
    with pytest.raises(StackInvalid) as caught:
        render(text)
    (found,) = caught.value.problems
    return found


SAFE = {
    "text": "text",
    "{{ 'text' }}": "text",
    "{{ name }}": "www",
    "{{ port }} {{ share }}": "80 0.5",
    "{{ 'a' ~ name ~ port }}": "awww80",
    "{{ names | join(', ') }}": "a, b",
    "{{ names | map('upper') | join }}": "AB",
    "{{ (name ~ '.test') | lower | trim }}": "www.test",
    "{% set x = 'a' ~ name %}{{ x }}": "awww",
    "{% for n in names %}{{ n }};{% endfor %}": "a;b;",
    "{{ name if on else title }}": "www",
    "{{ title | shell }}": "'it'\"'\"'s \"x\"'",
    "{{ titles | map('shell') | join(' ') }}": "'a b' c",
    "{{ title | shell ~ ' ' ~ name }}": "'it'\"'\"'s \"x\"' www",
    "{{ on | json }} {{ titles | json }}": 'true ["a b", "c"]',
    "{% filter html %}<{% endfilter %}": "&lt;",
    "{{ '{{ name }}' }}": "{{ name }}",
    "a\n{% if on %}\n  b\n{% endif %}\nc\n": "a\n  b\nc\n",
}


@pytest.mark.parametrize("text", SAFE)
def test_safe_text_passes(render: Render, text: str) -> None:
    """Literals, numbers, safe values, and whatever is joined from them alone, come out as they are."""
    assert render(text) == SAFE[text]


UNSAFE = [
    "{{ title }}",
    "{{ titles[0] }}",
    "{{ title | upper }}",
    "{{ title | trim }}",
    "{{ 'a' ~ title }}",
    "{{ name ~ title }}",
    "{{ titles | join(', ') }}",
    "{{ names | join(title) }}",
    "{{ [name, title] | join }}",
    "{{ name if not on else title }}",
    "{{ nothing or title }}",
    "{{ title | safe }}",
    "{{ title | escape }}",
    "{{ title | tojson }}",
    "{{ title | string }}",
    "{{ title | default('x') }}",
    "{{ title | replace('x', 'y') }}",
    "{{ '%s' | format(title) }}",
    "{{ '{}'.format(title) }}",
    "{{ name + title }}",
    "{{ title * 2 }}",
    "{{ title[:3] }}",
    "{{ titles }}",
    "{{ on }}",
    "{{ nothing }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(title) }}",
    "{% macro m() %}literal{% endmacro %}{{ m() }}",
    "{% set x %}{{ title }}{% endset %}{{ x }}",
    "{% for t in titles %}{{ t }}{% endfor %}",
    "{{ {'a': title}['a'] }}",
    "{{ name.join(titles) }}",
    "{{ secret('token') }}",
    "{{ 'a' ~ secret('token') }}",
    "{{ [secret('token')] | join }}",
    "{{ secret('token') | trim }}",
    "{{ secret('token') | lower }}",
    "{{ ('a' ~ secret('token')) | shell }}",
    "{{ '%s' | format(secret('token')) | shell }}",
    "{{ [secret('token')] | json }}",
    "{{ secret('token') | string }}",
    "{{ secret('token') | default('') }}",
    "{{ title | bcrypt }}",
]


@pytest.mark.parametrize("text", UNSAFE)
def test_text_without_a_filter_fails_at_its_line(render: Render, tmp_path: Path, text: str) -> None:
    """Text of a stack's, or a secret, that reaches the file by any way round the filters fails, with file and line."""
    found = problem(render, f"one\ntwo\n{text}\nfour\n")
    assert found.place == Place(str(tmp_path / "app.conf.j2"), 3, 1)
    assert found.what.startswith("template: ")
    assert found.hint
    assert CONTEXT["title"] not in found.what


def test_a_secret_is_put_in_when_the_file_is_written(render: Render) -> None:
    """A template gives a placeholder, and the value comes through the filter at the end; a key needs no filter."""
    text = render("pw={{ secret('token') | shell }} k={{ secret('key') }} {{ 'x' ~ (secret('token') | php) }}")
    assert "hunter" not in text
    assert fill(text, {"www/token": "hunter's", "www/key": "K"}.__getitem__) == "pw='hunter'\"'\"'s' k=K x'hunter\\'s'"


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ name.__init__.__globals__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ '{0.__class__}'.format(name) | shell }}",
    "{{ secret.__globals__ }}",
    "{{ secret.__code__ }}",
    "{{ names.append('c') }}",
    "{{ cycler.__init__.__globals__.os.system('id') }}",
    "{{ self.__init__ }}",
    "{% set x = lipsum.__globals__ %}{{ x }}",
    "{% include '../../../../etc/passwd' %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ range(10000000) | length }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_the_sandbox_holds(render: Render, text: str) -> None:
    """A template reaches values, and nothing of Python, of the machine's files or of other folders."""
    assert problem(render, f"\n{text}").place.line == 2  # type: ignore[union-attr]


UNDEFINED = [
    "{{ nme }}",
    "{{ nme | shell }}",
    "{{ port.nme }}",
    "{% if nme %}{% endif %}",
    "{% for x in nme %}{% endfor %}",
]


@pytest.mark.parametrize("text", [*UNDEFINED, "{{ nme ~ 'a' }}", "{{ [nme] | join }}", "{{ 'a' if nme == 1 }}"])
def test_an_undefined_name_is_named(render: Render, text: str) -> None:
    """A name that isn't there never counts as empty."""
    found = problem(render, f"\n\n\n{text}")
    assert found.place is not None
    assert found.place.line == 4
    assert "'nme'" in found.what
    assert "what a template sees" in found.hint


def test_a_failure_in_an_included_file_has_that_file(render: Render, tmp_path: Path) -> None:
    """The place is where the mistake stands, not where it was included."""
    (tmp_path / "part.j2").write_text("one\n{{ title }}\n")
    (tmp_path / "broken.j2").write_text("{% endif %}")
    assert problem(render, "\n\n\n{% include 'part.j2' %}").place == Place(str(tmp_path / "part.j2"), 2, 1)
    assert problem(render, "\n\n\n{% include 'broken.j2' %}").place == Place(str(tmp_path / "broken.j2"), 1, 1)


EXPRESSIONS: dict[str, tuple[object, bool]] = {
    "plain": ("plain", False),
    "{{ port }}": (80, False),
    "{{ names }}": (["a", "b"], False),
    "{{ nothing }}": (None, False),
    "{{ name }}": ("www", True),
    "{{ 'a' ~ name }}": ("awww", True),
    "{{ title }}": ('it\'s "x"', False),
    "{{ 'a' ~ titles[1] }}": ("ac", False),
    "{{ name }}:{{ port }}": ("www:80", True),
    "a {{ titles[1] }}": ("a c", False),
    "{{ titles[1] if on else name }} {{ name }}": ("c www", False),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_of_a_manifest(text: str) -> None:
    """An expression alone keeps its type, and text is safe just where all that went into it is."""
    value, safe = EXPRESSIONS[text]
    found = evaluate(text, CONTEXT)
    assert found == value
    assert type(found) is type(value) or isinstance(found, Safe)
    assert isinstance(found, Safe) is safe


MANIFEST = """\
summary: A kind of our own.
settings:
  title: {type: text, required: true}
  colour: {type: string, pattern: "[a-z]+", default: red}
  pages: {type: map, keys: {type: string}, items: {type: integer}, default: {}}
secrets: {token: {generate: password}}
files:
  - {source: page.j2, target: "pages/{item}", each: "{{ settings.pages }}", reload: true}
reload: {command: ["true"]}
"""
FILES = {
    "kind.yml": MANIFEST,
    "Dockerfile.j2": "FROM {{ base }}\nRUN true\n",
    "files/app.conf.j2": "{{ settings.title | php }} {{ settings.colour }} {{ secret('token') | shell }}\n",
    "files/page.j2": "{{ item | shell }} {{ value }}\n",
    "files/start": "{{ copied as it is }}\n",
}


def test_a_kind_of_our_own_goes_from_the_stack_to_files(tmp_path: Path) -> None:
    """Load, resolve and render know a kind by its folder alone: files, image, secrets and `each` come out right."""
    for name, text in FILES.items():
        (tmp_path / "kinds" / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kinds" / "mine" / name).write_text(text)
    stack = tmp_path / "stack.yml"
    stack.write_text('stack: t\nservers:\n  app: {kind: mine, title: "it\'s", pages: {a b: 1, c: 2}}\n')
    resolved = resolve(load(stack), Catalogue([tmp_path / "kinds"]), tmp_path)
    records = {
        a: vault.record(a, Secret("pass word"), datetime(2024, 1, 1, tzinfo=UTC)) for a in vault.needed(resolved)
    }
    wanted = desire(resolved, records)
    app = wanted.servers["app"]
    config = {f.path: f.text or f.source for v in app.files if v.role == "config" for f in v.files.files}
    assert set(config) == {"app.conf", "start", RENDERED}
    reveal = {a: r.value.reveal() for a, r in records.items()}.__getitem__
    assert fill(str(config["app.conf"]), reveal) == "'it\\'s' red 'pass word'\n"
    assert config["start"] == tmp_path / "kinds" / "mine" / "files" / "start"
    assert app.live is not None
    assert {f.path: f.text for f in app.live.files.files} == {"pages/a b": "'a b' 1\n", "pages/c": "c 2\n"}
    (image,) = [i for i in wanted.images if i.how == "build"]
    assert image.tag.startswith("consolidate/mine:")
    assert image.context.files[0].text == f"FROM {BASE_IMAGE}\nRUN true\n"


def test_an_item_of_each_is_text_until_a_filter(tmp_path: Path) -> None:
    """A map's keys that no pattern made safe don't pass as the manifest's own."""
    for name, text in (FILES | {"files/page.j2": "{{ item }}\n"}).items():
        (tmp_path / "kinds" / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kinds" / "mine" / name).write_text(text)
    stack = tmp_path / "stack.yml"
    stack.write_text("stack: t\nservers:\n  app: {kind: mine, title: x, pages: {a b: 1}}\n")
    resolved = resolve(load(stack), Catalogue([tmp_path / "kinds"]), tmp_path)
    records = {a: vault.record(a, Secret("x"), datetime(2024, 1, 1, tzinfo=UTC)) for a in vault.needed(resolved)}
    with pytest.raises(StackInvalid, match=r"page\.j2:1:1: template: text reaches the file without a filter"):
        desire(resolved, records)
