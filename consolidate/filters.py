"""Escaping: the filters that make a value plain text in a file's own syntax.

Each takes text and returns `Safe` text, which is all that a template may put out. A secret passes as a placeholder
(`SecretRef`) that remembers its filters; they are applied when the file is written.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from consolidate.errors import OperationFailed
from consolidate.secret import CLOSE, OPEN, SEPARATOR

PLACEHOLDER = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class Safe(str):
    """Text that may stand in a file as it is."""

    __slots__ = ()


class SecretRef(Safe):
    """A placeholder for a secret: its address, and the filters to apply to the value."""

    __slots__ = ("needs_filter",)
    needs_filter: bool

    @classmethod
    def of(cls, address: str, *, needs_filter: bool) -> SecretRef:
        ref = cls(f"{OPEN}{address}{CLOSE}")
        ref.needs_filter = needs_filter
        return ref

    def through(self, name: str) -> SecretRef:
        ref = SecretRef(f"{self[: -len(CLOSE)]}{SEPARATOR}{name}{CLOSE}")
        ref.needs_filter = False
        return ref


def _refuse_control(text: str, syntax: str) -> str:
    found = CONTROL.search(text)
    if found:
        raise ValueError(f"a {syntax} value can't hold the control character {found[0]!r}")
    return text


def sql(text: str) -> str:
    """A string literal of MariaDB and MySQL with backslash escapes on, their default."""
    escapes = {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"}
    return "'" + "".join(escapes.get(c, c) for c in text) + "'"


def sql_name(text: str) -> str:
    """A quoted identifier of MariaDB and MySQL."""
    if not text or text.endswith(" "):
        raise ValueError("an SQL name can't be empty, or end with a space")
    return "`" + _refuse_control(text, "SQL name").replace("`", "``") + "`"


def nginx(text: str) -> str:
    """A quoted nginx parameter. nginx has no escape for `$`; a value with one is refused where nginx would expand it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if "$" in text:
        raise ValueError("nginx would read '$' as a variable; this value can't hold one")
    if "\0" in text:
        raise ValueError("an nginx value can't hold a NUL")
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def haproxy(text: str) -> str:
    """A strongly quoted HAProxy argument (configuration manual, 2.2): nothing is special between single quotes."""
    return "'" + _refuse_control(text, "HAProxy").replace("'", "'\\''") + "'"


def postfix(text: str) -> str:
    """A postfix main.cf value: one line, `$` doubled (postconf(5)). Postfix drops spaces at its ends."""
    if text != text.strip(" "):
        raise ValueError("a postfix value can't begin or end with a space")
    return _refuse_control(text, "postfix").replace("$", "$$")


def dovecot(text: str) -> str:
    """A quoted Dovecot value, safe from `%` and `$` expansion."""
    escaped = _refuse_control(text, "Dovecot").replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def php(text: str) -> str:
    """A PHP string literal; only backslash and single quote mean something between single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def shell(text: str) -> str:
    if "\0" in text:
        raise ValueError("a shell word can't hold a NUL")
    return shlex.quote(text)


def html(text: str) -> str:
    """Text of an HTML element or a quoted attribute."""
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    return "".join(escapes.get(c, c) for c in text)


def line(text: str) -> str:
    """Plain text on one line."""
    return _refuse_control(text, "one-line")


def bcrypt(text: str) -> str:
    """A bcrypt hash, as Dovecot's BLF-CRYPT and htpasswd take it. Longer than 72 bytes is refused by bcrypt itself."""
    import bcrypt as library

    return library.hashpw(text.encode(), library.gensalt(10)).decode()


TEXT_FILTERS: Mapping[str, Callable[[str], str]] = {
    f.__name__: f for f in (sql, sql_name, nginx, haproxy, postfix, dovecot, php, shell, html, line)
}
SECRET_FILTERS: Mapping[str, Callable[[str], str]] = {"bcrypt": bcrypt}


def _refuse_joined(value: Any) -> None:
    """A filter can't see a secret inside text; it would take the placeholder for the value."""
    if isinstance(value, str) and OPEN in value:
        raise ValueError("a secret takes its filter before it is joined with other text")


def as_filter(name: str, escape: Callable[[str], str]) -> Callable[[Any], Safe]:
    """`escape` as a Jinja filter: secrets keep their placeholder, numbers become text, text becomes safe."""

    def apply(value: Any) -> Safe:
        if isinstance(value, SecretRef):
            return value.through(name)
        _refuse_joined(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            str(value)  # an undefined name says so itself
            raise ValueError(f"the filter '{name}' takes text, not {type(value).__name__}")
        return Safe(escape(str(value)))

    return apply


def secret_only(name: str) -> Callable[[Any], Safe]:
    def apply(value: Any) -> Safe:
        if not isinstance(value, SecretRef):
            str(value)
            raise ValueError(f"the filter '{name}' takes a secret, so that no password stands in a stack file")
        return value.through(name)

    return apply


def to_json(value: Any) -> Safe:
    """A JSON value that is also safe inside a script element."""
    if isinstance(value, SecretRef):
        return value.through("json")
    _refuse_joined(json.dumps(value, ensure_ascii=False))
    return Safe(json.dumps(value, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026"))


FILTERS: Mapping[str, Callable[[str], str]] = {**TEXT_FILTERS, **SECRET_FILTERS, "json": to_json}


def fill(text: str, reveal: Callable[[str], str]) -> str:
    """Put the secrets into `text` in place of their placeholders.

    Raises OperationFailed for a value that the file's syntax can't hold.
    """

    def value(match: re.Match[str]) -> str:
        address, *filters = match[1].split(SEPARATOR)
        result = reveal(address)
        try:
            for name in filters:
                result = str(FILTERS[name](result))
        except ValueError as error:
            hint = f"give it another value: `consolidate secret set {address}`"
            raise OperationFailed(f"the secret {address} can't stand in this file: {error}", hint=hint) from None
        return result

    return PLACEHOLDER.sub(value, text)


def addresses(text: str) -> tuple[str, ...]:
    """The addresses of the secrets that `text` has placeholders for."""
    return tuple(sorted({m[1].split(SEPARATOR)[0] for m in PLACEHOLDER.finditer(text)}))


def redact(text: str) -> str:
    """`text` for people: each placeholder as <secret SERVER/NAME>."""
    return PLACEHOLDER.sub(lambda m: f"<secret {m[1].split(SEPARATOR)[0]}>", text)


def hide(text: str, hidden: Iterable[str]) -> str:
    """`text` without these, each as it is or as a filter wrote it."""
    found = {form for each in hidden for form in _forms(each)}
    if not found:
        return text
    return re.sub("|".join(re.escape(f) for f in sorted(found, key=len, reverse=True)), "<not shown>", text)


def _forms(text: str) -> set[str]:
    """How a text may stand in a file. Filters escape each character by itself; the quotes may be around more than it."""
    forms = {text}
    for escape in (*TEXT_FILTERS.values(), to_json):
        try:
            written = str(escape(text))
        except ValueError:
            continue
        quoted = len(written) > 2 and written[0] == written[-1] and written[0] in "\"'`" and written != text
        forms.add(written[1:-1] if quoted else written)
    return forms - {""}
