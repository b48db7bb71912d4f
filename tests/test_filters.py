"""Escaping: what a filter writes, the program reads as the plain text that it was, or the filter refuses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import bcrypt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consolidate import filters
from consolidate.errors import OperationFailed
from consolidate.filters import FILTERS, TEXT_FILTERS, Safe, SecretRef, fill, hide, redact
from consolidate.secret import CLOSE, OPEN, SEPARATOR
from tests import lexers

SIGNS = "\"'`\\$;{}%#<>&@|()[]*?!~=:, \n\r\t\x00\x1a\x1b\x7f\x85\u2028aZ0nrtüß"
TITLES = (
    "",
    " ",
    "it's",
    'say "hi"',
    "a\nb",
    "a\\",
    "\\'; DROP TABLE x; --",
    "'; DROP TABLE x; --",
    '"; } server { listen 81',
    "{{ 7 * 7 }}{% raw %}",
    "$(reboot)`reboot`$HOME",
    "%n%%$$",
    "</p><script>alert(1)</script>",
    "<?php ?>",
    "# no comment",
    "a #b",
    "\\%\\_",
    "'\\''",
)
CONTROLS = "\x00-\x1f\x7f\x85\u2028\u2029"
# What a syntax has no way to say, by the manual.
REFUSED = {
    "sql": "",
    "sql_name": f"[{CONTROLS}]|^$| $",
    "nginx": "[$\x00]",
    "haproxy": f"[{CONTROLS}]",
    "postfix": f"[{CONTROLS}]|^ | $",
    "dovecot": f"[{CONTROLS}]",
    "php": "",
    "shell": "\x00",
    "html": "",
    "line": f"[{CONTROLS}]",
}
AFTER = {"sql": ", 2;", "sql_name": ".*", "nginx": ";", "haproxy": " end", "dovecot": " # end", "php": ", 2];"}
READERS: dict[str, Callable[[str], tuple[str, str]]] = {
    n: getattr(lexers, n, lambda text: (text, "")) for n in TEXT_FILTERS
}


def texts() -> st.SearchStrategy[str]:
    """Any text, and texts made of the signs that mean something somewhere."""
    return st.one_of(st.text(SIGNS, max_size=12), st.text(max_size=12), st.sampled_from(TITLES))


def named(name: str) -> Callable[[str], str]:
    return TEXT_FILTERS[name]


def test_every_filter_has_a_reader() -> None:
    """No filter goes untested."""
    assert set(READERS) == set(REFUSED) == set(TEXT_FILTERS)
    assert set(FILTERS) == {*TEXT_FILTERS, "bcrypt", "json"}


@pytest.mark.parametrize("name", TEXT_FILTERS)
@given(text=texts())
def test_the_program_reads_what_was_meant(name: str, text: str) -> None:
    """Whatever the text, the program's parser gets it back whole and nothing beside it, or the filter refuses it."""
    if REFUSED[name] and re.search(REFUSED[name], text):
        with pytest.raises(ValueError, match="can't"):
            named(name)(text)
        return
    after = AFTER.get(name, "")
    assert READERS[name](named(name)(text) + after) == (text, after)


@pytest.mark.parametrize("name", TEXT_FILTERS)
@pytest.mark.parametrize("text", TITLES)
def test_titles_that_have_hurt_others(name: str, text: str) -> None:
    """Each of the well-known texts stays plain in each syntax, or is refused."""
    if REFUSED[name] and re.search(REFUSED[name], text):
        with pytest.raises(ValueError, match="can't"):
            named(name)(text)
    else:
        assert READERS[name](named(name)(text) + AFTER.get(name, "")) == (text, AFTER.get(name, ""))


@given(texts())
def test_a_value_stays_on_its_line(text: str) -> None:
    """No filter for a syntax of lines lets a second line begin."""
    for name in ("haproxy", "postfix", "dovecot", "line", "sql_name"):
        try:
            written = named(name)(text)
        except ValueError:
            continue
        assert written.splitlines() in ([], [written])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
@example("</script><!--")
def test_json_is_read_back_and_stays_in_its_script(value: object) -> None:
    """A JSON reader gets the value back, and HTML sees no tag in it."""
    written = filters.to_json(value)
    assert isinstance(written, Safe)
    assert json.loads(written) == value
    assert written.isascii()
    assert not set(written) & set("<&\n")


@pytest.mark.parametrize("name", [*TEXT_FILTERS, "json"])
@given(text=texts())
def test_a_secret_is_escaped_as_any_value(name: str, text: str) -> None:
    """A placeholder, once filled, is what the filter makes of the value itself; what it refuses is refused then."""
    placeholder = SecretRef.of("blog/key", needs_filter=True).through(name)
    try:
        wanted = str(FILTERS[name](text))
    except ValueError as error:
        with pytest.raises(OperationFailed, match="the secret blog/key can't stand in this file") as caught:
            fill(placeholder, {"blog/key": text}.__getitem__)
        assert str(error) in caught.value.what
        return
    assert fill(f"a {placeholder} b", {"blog/key": text}.__getitem__) == f"a {wanted} b"


@given(text=texts(), names=st.lists(st.sampled_from(["shell", "html", "php", "json", "sql"]), max_size=3))
def test_filters_of_a_secret_apply_in_their_order(text: str, names: list[str]) -> None:
    """Several filters do to a secret what they do to text, in the order in which they stand."""
    placeholder, wanted = SecretRef.of("a/b", needs_filter=True), text.replace("\0", "")
    for name in names:
        placeholder = placeholder.through(name)
        wanted = str(FILTERS[name](wanted))
    assert fill(placeholder, lambda _: text.replace("\0", "")) == wanted


@given(texts(), texts())
def test_a_value_that_looks_like_a_placeholder_is_a_value(one: str, other: str) -> None:
    """What a secret's value holds is never filled in itself."""
    first, second = (SecretRef.of(f"a/{n}", needs_filter=False) for n in ("one", "other"))
    known = {"a/one": f"{one}{second}", "a/other": other}
    assert fill(f"{first}|{second}", known.__getitem__) == f"{one}{second}|{other}"


@given(st.text(min_size=4, max_size=12), texts())
def test_redacted_text_names_secrets_and_shows_none(value: str, text: str) -> None:
    """People see where a secret goes, not the secret, and no placeholder's frame."""
    text = "".join(c for c in text if c not in (OPEN, CLOSE, SEPARATOR)).replace(value, "")  # the loader refuses them
    shown = redact(f"{text}{SecretRef.of('blog/key', needs_filter=True).through('shell')}")
    assert shown == f"{text}<secret blog/key>"
    assert OPEN not in shown
    assert CLOSE not in shown


@pytest.mark.parametrize("name", [*TEXT_FILTERS, "json"])
@given(*[st.text("ab'\"` \\$%&<ü", max_size=8)] * 3)
def test_what_is_hidden_is_hidden_as_any_filter_writes_it(name: str, before: str, text: str, after: str) -> None:
    """Nothing is left of a text in a file, whatever stands around it within the same quotes."""
    value = f"s3{text}s3"
    try:
        written = str(FILTERS[name](f"{before}{value}{after}"))
    except ValueError:
        return
    assert "s3" not in hide(f"a {written};", {value, "zz"})
    assert hide(written, ()) == written


@settings(max_examples=10)
@given(texts())
def test_a_hash_is_of_the_secret(text: str) -> None:
    """bcrypt's hash is one that the value opens and another doesn't, in the form that Dovecot takes."""
    word = text.replace("\0", "").encode()[:60].decode(errors="ignore")
    placeholder = filters.secret_only("bcrypt")(SecretRef.of("mail/ada", needs_filter=True))
    made = fill(placeholder, lambda _: word).encode()
    assert re.fullmatch(rb"\$2b\$10\$[./A-Za-z0-9]{53}", made)
    assert bcrypt.checkpw(word.encode(), made)
    assert not bcrypt.checkpw(f"{word}x".encode(), made)


def test_a_hash_of_text_is_refused() -> None:
    """No password stands in a stack file, so no text of it can be hashed."""
    with pytest.raises(ValueError, match="takes a secret"):
        filters.secret_only("bcrypt")("hunter2")


def test_a_password_that_bcrypt_would_cut_is_refused() -> None:
    """A password beyond 72 bytes is refused, with its address and without its value."""
    placeholder = SecretRef.of("mail/ada", needs_filter=True).through("bcrypt")
    with pytest.raises(OperationFailed) as caught:
        fill(placeholder, lambda _: "s3same" * 20)
    assert "mail/ada" in str(caught.value)
    assert "s3same" not in str(caught.value)


@pytest.mark.parametrize("name", [*TEXT_FILTERS, "json"])
def test_text_can_not_forge_a_secret(name: str) -> None:
    """A filter takes no text with a placeholder in it, wherever that came from."""
    apply = filters.to_json if name == "json" else filters.as_filter(name, named(name))
    with pytest.raises(ValueError, match="filter before it is joined"):
        apply(f"a{SecretRef.of('db/root', needs_filter=True)}")


@pytest.mark.parametrize("value", [True, None, [], {}, object()])
def test_a_filter_takes_text_and_numbers_alone(value: object) -> None:
    """What is no text is not guessed at."""
    with pytest.raises(ValueError, match="takes text, not"):
        filters.as_filter("line", filters.line)(value)
