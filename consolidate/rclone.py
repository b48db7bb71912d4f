"""A configuration of rclone's, as far as it tells whether a repository can be in one of its remotes. Pure.

The form and the names of backends are those of rclone 1.60 (rclone.org/docs, "Config file"), Debian 12's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error

ENCRYPTED = "RCLONE_ENCRYPT_"
# What is written there is gone with the container that rclone runs in.
FLEETING = {"local": "in a folder beside rclone, which goes with it", "memory": "in rclone's memory"}
BELIEVING = {"sftp": "by SFTP, where rclone believes whoever answers: write sftp:USER@HOST:/FOLDER in its place"}
NAME = re.compile(r"([\w.+@ -]+)[,:]")  # `REMOTE:PATH`, or `REMOTE,OPTION=VALUE:PATH`
FOLDER = re.compile(r"[^\s:,=]*=")  # of `combine`, before the remote


def unfit(text: str, name: str) -> str:
    """Why no repository can be in the remote `name`, in words that follow "the configuration"; empty where it can."""
    if ENCRYPTED in text:
        return "is encrypted, and nobody is there to be asked for its password"
    remotes = ConfigParser(interpolation=None, strict=False)
    try:
        remotes.read_string(text)
    except Error:
        return "is no configuration of rclone's"
    return _unfit({n: dict(remotes[n]) for n in remotes.sections()}, name, ())


def _unfit(remotes: Mapping[str, Mapping[str, str]], name: str, above: tuple[str, ...]) -> str:
    entry = remotes.get(name)
    if entry is None:
        return f"has no remote '{name}'"
    backend = entry.get("type", "")
    if where := (FLEETING | BELIEVING).get(backend):
        return f"has its remote '{name}' {where}"
    for other in _below(entry):
        if other is None:
            return f"has its remote '{name}' {FLEETING['local']}"
        if other in above or other == name:
            return f"has its remote '{name}' in itself"
        if found := _unfit(remotes, other, (*above, name)):
            return found
    return ""


def _below(entry: Mapping[str, str]) -> Iterator[str | None]:
    """The remotes that one is made of, such as crypt's; None for a path without a remote, which is a folder's."""
    words = [entry["remote"]] if entry.get("remote") else []
    words += [FOLDER.sub("", w) for w in entry.get("upstreams", "").split()]
    for word in words:
        found = NAME.match(word)
        yield found[1] if found else None
