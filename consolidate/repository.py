"""Where a repository of backups is: a folder of the engine's host, or a server. Pure functions of text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from msgspec import Struct

from consolidate import rclone

if TYPE_CHECKING:
    from consolidate.values import Wrong

Kind = Literal["folder", "sftp", "s3", "rest", "rclone"]

HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
PORT = r"(?::(?P<port>\d{1,5}))?"
USER = r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
PATH = r"[A-Za-z0-9._+/@=,-]"  # what no part of a URL and no shell takes for anything else
FORMS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("sftp", re.compile(rf"sftp://{USER}{HOST}{PORT}/(?P<path>{PATH}+)", re.ASCII)),
    ("sftp", re.compile(rf"sftp:{USER}{HOST}:(?P<path>{PATH}+)", re.ASCII)),
    ("s3", re.compile(rf"s3:(?P<scheme>https?://)?{HOST}{PORT}/(?P<path>{PATH}+)", re.ASCII)),
    ("rest", re.compile(rf"rest:(?P<scheme>https?://){USER}{HOST}{PORT}(?P<path>/{PATH}*)?", re.ASCII)),
    ("rclone", re.compile(rf"rclone:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*):(?P<path>{PATH}+)", re.ASCII)),
)
OTHERS = re.compile(r"(azure|gs|b2|swift):")  # what restic reaches by itself, and rclone as well
PASSWORD = re.compile(r"://[^/]*:[^/]*@")
HINT = (
    "write a folder of the host, /var/backups/consolidate, or sftp:USER@HOST:/FOLDER, sftp://USER@HOST:PORT//FOLDER, "
    "s3:https://HOST/BUCKET, rest:https://USER@HOST:PORT/, rclone:REMOTE:FOLDER"
)
KNOWN_HOST = re.compile(
    r"(?:@cert-authority )?[^\s@#]+ [a-z0-9@.-]+ [A-Za-z0-9+/]{20,}={0,3}(?: [^\0\r\n]*)?", re.ASCII
)
KEY_WORD = re.compile(r"[\x21-\x7e]+")  # of S3, as it stands in a file of the form INI
NO_KEY_WORD = re.compile(r"[#;'\"`\\]")
HELP: Mapping[str, str] = {
    "ssh_key": "the private key for a repository by SFTP",
    "access_key": "the access key for a repository in S3",
    "secret_key": "the secret key for a repository in S3",
    "password": "the password for a repository of a REST server",
    "rclone_config": "the rclone.conf that has the repository's remote",
    "ca": "the certificate that the repository's HTTPS is signed with",
}
OPENS: Mapping[Kind, tuple[str, ...]] = {
    "folder": (),
    "sftp": ("ssh_key",),
    "s3": ("access_key", "secret_key", "ca"),
    "rest": ("password", "ca"),
    "rclone": ("rclone_config", "ca"),
}


class Repository(Struct, frozen=True):
    """A repository by its text in the stack file."""

    text: str
    kind: Kind
    host: str = ""
    port: str = ""
    user: str = ""
    secure: bool = True

    @property
    def remote(self) -> bool:
        return self.kind != "folder"

    @property
    def server(self) -> str:
        """Who answers, for people."""
        if self.kind == "rclone":
            return f"rclone's remote {self.host}"
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def scan(self) -> str:
        """The command that prints the server's keys."""
        port = f" -p {self.port}" if self.port not in ("", "22") else ""
        return f"ssh-keyscan{port} {self.host.strip('[]')}"

    @property
    def takes(self) -> tuple[str, ...]:
        """The names of the credentials that it may need."""
        return OPENS[self.kind]

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of those that it can't do without."""
        without = {"ca"} if self.user else {"ca", "password"}
        return tuple(n for n in self.takes if n not in without)

    def location(self, credentials: Mapping[str, str]) -> str:
        """What restic takes: of a REST server with the password, so it is for a file that nobody else reads."""
        if self.kind == "rest" and self.user:
            return self.text.replace(f"//{self.user}@", f"//{self.user}:{quote(credentials['password'], safe='')}@", 1)
        return self.text


def wrong(what: str, hint: str) -> Wrong:
    from consolidate.values import Wrong  # with its library: sessions need neither

    return Wrong(what, hint)


def parse(text: str) -> Repository:
    """Raises Wrong for what is neither a folder nor a server, and for a password in it, which it doesn't tell."""
    if PASSWORD.search(text):
        raise wrong(
            "there is a password in the address", "leave it out, and write `password: {file: …}` below `backup:`"
        )
    if text.startswith("/"):
        if ".." in text.split("/") or ":" in text or "\0" in text or text.strip("/") == "":
            raise wrong(f"'{text}' is no folder of the host", "write a path from the root: /var/backups/consolidate")
        return Repository(text.rstrip("/"), "folder")
    for kind, form in FORMS:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            path = parts["path"] or ""
            if ".." in path.split("/") or (kind != "rest" and not path.strip("/")):
                break
            secure = parts.get("scheme") != "http://"
            user = parts.get("user") or ""
            if kind == "rest" and user and not secure:
                raise wrong("the password would cross the network in the clear", "write rest:https://…")
            return Repository(text.rstrip("/"), kind, parts["host"], parts.get("port") or "", user, secure)
    if found := OTHERS.match(text):
        hint = "have it as a remote of rclone's, which reaches the same: rclone:REMOTE:FOLDER, and `rclone_config`"
        raise wrong(f"'{found[0]}' is not taken", hint)
    raise wrong(f"'{text}' is no place for a repository", HINT)


def check_known_host(line: str) -> str:
    """Raises Wrong for what is no line of ssh's file of known hosts."""
    if not KNOWN_HOST.fullmatch(line):
        hint = "`ssh-keyscan HOST` prints them: nas.example.org ssh-ed25519 AAAA…; compare with what the server's console says"
        raise wrong(f"'{line}' is no line of a file of known hosts", hint)
    return line


def check_credential(place: Repository, name: str, value: str) -> str:
    """What is wrong with the value of a credential for this repository, without it; empty for nothing."""
    if name == "rclone_config":
        return rclone.unfit(value, place.host)
    if name in ("access_key", "secret_key") and (not KEY_WORD.fullmatch(value) or NO_KEY_WORD.search(value)):
        return "has characters that no key of S3 has"
    if name == "ssh_key" and "PRIVATE KEY-----" not in value:
        return "is no private key"
    if name == "ca" and "-----BEGIN CERTIFICATE-----" not in value:
        return "is no certificate in PEM"
    if name == "password" and ("\n" in value or "\r" in value):
        return "has more than one line"
    return ""
