"""A configuration of rclone's, as far as it tells whether a repository can be in one of its remotes. Pure.

The form, and the names of backends and of their keys, are those of rclone 1.60 (rclone.org/docs, "Config file"), Debian 12's.
What is read otherwise than rclone would read it might be written where nobody finds it: what is unusual is refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error

ENCRYPTED = "RCLONE_ENCRYPT_"
PLAIN = re.compile(r"[a-z0-9 ]+")  # a backend's name
UNFIT = {  # by backend; the first three would be gone, in whole or in part, with the container that rclone runs in
    "local": "in a folder beside rclone, which goes with it",
    "memory": "in rclone's memory",
    "cache": "behind a cache, which may still have what was written when rclone ends",
    "sftp": "by SFTP, where rclone believes whoever answers: write sftp:USER@HOST:/FOLDER in its place",
}
# Backends that are made of other remotes.
ABOVE = ("alias", "chunker", "combine", "compress", "crypt", "hasher", "union")
BELOW = re.compile(r"([\w.+@ -]+):[^`\"]*")  # REMOTE:PATH, and none of what could stand there besides
FOLDER = re.compile(r"[^=:]*=")  # of `combine`, before each remote
DEPTH = 20  # of remotes that are made of others


def unfit(text: str, name: str) -> str:
    """Why no repository can be in the remote `name`, in words that follow "the configuration"; empty where it can."""
    if ENCRYPTED in text:
        return "is encrypted, and nobody is there to be asked for its password"
    # rclone has no defaults, no line that goes on, and keys of one spelling; of two that are alike Python says so.
    remotes = ConfigParser(interpolation=None, default_section="\0", empty_lines_in_values=False)
    remotes.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        remotes.read_string("\n".join(line.strip() for line in text.removeprefix("\ufeff").splitlines()))
    except Error:
        return "is no configuration of rclone's, or has something twice"
    return _unfit({n.strip(): dict(remotes[n]) for n in remotes.sections()}, name, DEPTH)


def _unfit(remotes: Mapping[str, Mapping[str, str]], name: str, depth: int) -> str:
    if name not in remotes:
        return f"has no remote '{name}'"
    entry, has = remotes[name], f"has its remote '{name}'"
    backend = entry.get("type", "")
    if not PLAIN.fullmatch(backend):
        return f"{has} without a plain type"
    if backend in UNFIT:
        return f"{has} {UNFIT[backend]}"
    if entry.get("url", "").lower().startswith("http://") and entry.keys() & {"pass", "bearer_token"}:
        return f"{has} by http, where its password would cross the network in the clear: write https://"
    if backend == "ftp" and "true" not in (entry.get("tls"), entry.get("explicit_tls")):
        return f"{has} by FTP, where its password would cross the network in the clear: set explicit_tls"
    for word in _below(entry) if backend in ABOVE else ():
        found = BELOW.fullmatch(word)
        if not found:
            return f"{has} made of {word!r}, which is no REMOTE:FOLDER of a remote in there"
        if depth == 0:
            return f"{has} made of itself, or of too many"
        if told := _unfit(remotes, found[1], depth - 1):
            return told
    return ""


def _below(entry: Mapping[str, str]) -> Iterator[str]:
    """What a remote is made of, such as crypt's `remote`; rclone reads `upstreams` as CSV, by spaces."""
    if entry.get("remote"):
        yield entry["remote"]
    for row in csv.reader([entry.get("upstreams", "")], delimiter=" ", skipinitialspace=True):
        yield from (FOLDER.sub("", word, count=1) for word in row if word)
