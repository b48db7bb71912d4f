"""Readers of other programs' syntaxes, written from their manuals and sources, not from our filters.

Each takes a text that begins with one value, and gives that value as the program would have it, and what follows.
"""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser


class Leak(AssertionError):
    """The program would read something else than one plain value here."""


def sql(text: str) -> tuple[str, str]:
    """A string literal of MariaDB (String Literals), with backslash escapes as by default."""
    escapes = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
    if text[:1] != "'":
        raise Leak(text)
    value, at = "", 1
    while at < len(text):
        if text[at] == "\\":
            value += escapes.get(text[at + 1], text[at + 1])
            at += 2
        elif text.startswith("''", at):
            value, at = value + "'", at + 2
        elif text[at] == "'":
            return value, text[at + 1 :]
        else:
            value, at = value + text[at], at + 1
    raise Leak("the literal does not end")


def sql_name(text: str) -> tuple[str, str]:
    """A quoted identifier of MariaDB (Identifier Names)."""
    match = re.match(r"`((?:[^`]|``)+)`", text, re.DOTALL)
    if match is None:
        raise Leak(text)
    return match[1].replace("``", "`"), text[match.end() :]


def nginx(text: str) -> tuple[str, str]:
    """One parameter, as ngx_conf_read_token reads it; a `$` in it would begin a variable."""
    quote = text[:1]
    if quote not in ("'", '"'):
        raise Leak(text)
    at = 1
    while text[at] != quote:
        at += 2 if text[at] == "\\" else 1
    raw, rest = text[1:at], text[at + 1 :]
    if rest[:1] not in (" ", "\t", "\n", ";", "{", ")"):
        raise Leak("nginx wants a space, ; or { after a quote")
    value, at = "", 0
    while at < len(raw):
        pair = raw[at : at + 2]
        known = {'\\"': '"', "\\'": "'", "\\\\": "\\", "\\t": "\t", "\\r": "\r", "\\n": "\n"}
        value, at = (value + known[pair], at + 2) if pair in known else (value + raw[at], at + 1)
    if "$" in value:
        raise Leak("a variable")
    return value, rest


def haproxy(text: str) -> tuple[str, str]:
    """One argument of a line of HAProxy's configuration (2.2, Quoting and escaping)."""
    value, at, quote = "", 0, ""
    while at < len(text):
        char = text[at]
        if char == "\n":
            break
        if quote == "'":
            quote, value = ("", value) if char == "'" else (quote, value + char)
        elif char == "\\":
            at += 1
            if text[at] not in " #\\'\"":
                raise Leak(f"the escape \\{text[at]}")
            value += text[at]
        elif char == '"':
            quote = "" if quote else '"'
        elif quote:
            if char == "$":
                raise Leak("an environment variable")
            value += char
        elif char == "'":
            quote = "'"
        elif char in " \t#":
            break
        else:
            value += char
        at += 1
    if quote:
        raise Leak("the quote does not end")
    return value, text[at:]


def postfix(line: str) -> tuple[str, str]:
    """The value of a logical line `name = value` of main.cf (postconf(5)); `$$` is a dollar."""
    if "\n" in line:
        raise Leak("a second line")
    value = line.strip(" \t\r\n\v\f")
    if re.search(r"\$(?!\$)", value.replace("$$", "")):
        raise Leak("a parameter")
    return value.replace("$$", "$"), ""


def dovecot(line: str) -> tuple[str, str]:
    """The value of a line `key = value` of Dovecot 2.3: comments go first, then quotes, then % variables."""
    at, end = 0, len(line)
    while at < end:
        if line[at] in "'\"":
            quote, at = line[at], at + 1
            while at < end and line[at] != quote:
                at += 2 if line[at] == "\\" else 1
        elif line[at] == "#" and line[at - 1] in " \t":
            end = at
        at += 1
    text = line[:end].rstrip(" \t")
    if "\n" in text or text[-1:] == "\\":
        raise Leak("another line")
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise Leak("no quotes")
    value = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    if "%" in value.replace("%%", ""):
        raise Leak("a variable")
    return value.replace("%%", "%"), line[len(text) :]


def php(text: str) -> tuple[str, str]:
    """A single-quoted string of PHP (Strings, Single quoted)."""
    match = re.match(r"'((?:\\.|[^\\'])*)'", text, re.DOTALL)
    if match is None:
        raise Leak(text)
    return re.sub(r"\\([\\'])", r"\1", match[1]), text[match.end() :]


def shell(word: str) -> tuple[str, str]:
    """What a real shell makes of it, and the words that follow."""
    script = f"for w in {word} ; do printf '%s\\0' \"$w\"; done"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={}, cwd="/")
    words = done.stdout.decode(errors="surrogateescape").split("\0")[:-1]
    return words[0], " ".join(words[1:])


def html(text: str) -> tuple[str, str]:
    """What a browser has as an element's text, if it is that of the attribute too; all other elements follow."""

    class Reader(HTMLParser):
        tags: tuple[str, ...] = ()
        title = data = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags += (tag, *(name for name, _ in attrs))
            self.title += dict(attrs).get("title") or ""

        def handle_data(self, data: str) -> None:
            self.data += data

    reader = Reader()
    reader.feed(f'<p title="{text}">{text}</p>')
    reader.close()
    if reader.title != reader.data:
        raise Leak("the attribute differs")
    return reader.data, " ".join(reader.tags[2:])
