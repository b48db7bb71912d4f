"""What restic needs to reach a repository on a server, and what its complaints mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from consolidate.errors import OperationFailed
from consolidate.repository import Repository

KEY = "/run/restic"  # in a session: in memory, for root alone
FILES = {"ssh_key": f"{KEY}/ssh_key", "ca": f"{KEY}/ca", "rclone_config": f"{KEY}/rclone.conf"}
KNOWN_HOSTS, LOCATION, KEYS = f"{KEY}/known_hosts", f"{KEY}/location", f"{KEY}/keys"
NOWHERE = "/nonexistent"  # a folder of certificates without any: the one that was given is the only one
IN_ADDRESS = re.compile(r"(//[^/@\s:]*:)[^/@\s]*(?=@)|([?&](?:sig|key|token|access_token)=)[^&\s\"']+")


class WrongPassphrase(OperationFailed):
    """The passphrase does not open the repository."""


class Unreachable(OperationFailed):
    """The server does not answer, or not as one: it may the next time."""


def environment(place: Repository, credentials: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables of a session: paths, never a secret."""
    yield "RESTIC_PASSWORD_FILE", f"{KEY}/passphrase"
    if place.remote:
        yield "RESTIC_REPOSITORY_FILE", LOCATION
    if place.kind == "s3":
        yield "AWS_SHARED_CREDENTIALS_FILE", KEYS
    if place.kind == "rclone":
        yield "RCLONE_CONFIG", FILES["rclone_config"]
        yield "RCLONE_ASK_PASSWORD", "false"
        yield "RCLONE_CONTIMEOUT", "15s"
    if "ca" in place.takes and "ca" in credentials:
        yield "SSL_CERT_FILE", FILES["ca"]
        yield "SSL_CERT_DIR", NOWHERE


def files(place: Repository, credentials: Mapping[str, str], known_hosts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is written into a session's memory, by its path."""
    yield f"{KEY}/passphrase", credentials["passphrase"]
    if place.remote:
        yield LOCATION, place.location(credentials)
    for name in place.takes:
        if name in FILES and name in credentials:
            yield FILES[name], f"{credentials[name]}\n"
    if place.kind == "sftp":
        yield KNOWN_HOSTS, "".join(f"{line}\n" for line in known_hosts)
    if place.kind == "s3":
        access, secret = credentials["access_key"], credentials["secret_key"]
        yield KEYS, f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"


# Not every rclone tells restic a remote that it can't ask from one that has nothing; its own list does. 3: no such folder.
ASKED = """timeout --kill-after=5 40 rclone lsf --max-depth 1 --retries 1 --low-level-retries 1 "$0" > /dev/null
case $? in 0|3) exec "$@";; 124|137) exit 124;; *) exit 1;; esac"""


def first(place: Repository, *words: str) -> tuple[str, ...]:
    """A first command to a repository: it succeeds, or tells that there is none, only if its server was asked."""
    if place.kind != "rclone":
        return words
    return ("bash", "-c", ASKED, place.text.removeprefix("rclone:"), *words)


MISSING = re.compile(r"unable to open config file: .*(?:specified key|specified bucket|<config/>|file) does not exist")
HOST_KEY = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known for"
)
FULL = re.compile(
    r"no space left|disk quota exceeded|\(507\)|Insufficient Storage|XMinioStorageFull|QuotaExceeded|quota exceeded",
    re.I,
)
REFUSED = re.compile(
    r"Permission denied \(|Too many authentication failures|\(40[13]\)|Access Ke?y? ?Id you provided|Access Denied|"
    r"signature we calculated does not match|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Load key|"
    r"40[13] (?:Unauthorized|Forbidden)|Error 40[13]|AuthenticationFailed|invalid_grant",
    re.I,
)
NOT_TRUSTED = re.compile(r"x509: (.+)$", re.M)
AWAY = re.compile(
    r"no such host|Could not resolve hostname|Temporary failure in name resolution|connection refused|timed? ?out|No route to host|"
    r"network is unreachable|connection reset|Connection closed|broken pipe|: EOF|file already closed|\(50[0234]\)|Error 50[0234]|"
    r"50[0234] (?:Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time)|"
    r"server gave HTTP response|server misbehaving|i/o timeout|tls: handshake failure|error: connection lost",
    re.I,
)
NETWORK = re.compile(
    r"dial tcp|ssh command exited|connection lost|No route to host|connection reset|subprocess ssh:", re.I
)


def is_missing(said: str) -> bool:
    """Whether a server answers that it has no repository there."""
    return MISSING.search(said) is not None and not AWAY.search(said)


def missing(place: Repository) -> OperationFailed:
    hint = "`consolidate backup` makes the first; a repository elsewhere is told by `backup: {repository: …}`"
    asks = "is it there that it was made?" if place.remote else "is it mounted?"
    return OperationFailed(f"there is no repository of backups in {place.text}: {asks}", hint=hint)


def unusable(place: Repository, said: str) -> OperationFailed:
    """A folder that the engine can neither mount nor make: it, or one above it, may be a file."""
    hint = (
        "see that each part of its path is a folder, and may be written to; or write another: `backup: {repository: …}`"
    )
    what = f"{place.text} can't be used as a folder of the engine's host"
    return OperationFailed(what, hint=hint, log=said.splitlines())


def wrong_passphrase(repository: str) -> WrongPassphrase:
    hint = (
        "give the one of then, from your copy of its secret backup/passphrase: `--passphrase-file FILE`;\n"
        "  or have a new repository elsewhere: `backup: {repository: …}` in the stack file"
    )
    return WrongPassphrase(f"the repository {repository} was made with another passphrase", hint=hint)


def complaint(said: str, what: str, place: Repository | None, log: Sequence[str]) -> OperationFailed:
    """restic's complaint, for people; `what` where it is none that we know."""
    where = place.text if place else "the repository"
    server = place.server if place and place.remote else where
    if "wrong password or no key found" in said:
        return (
            wrong_passphrase(where)
            if place
            else WrongPassphrase("the passphrase does not open the repository of backups")
        )
    if FULL.search(said):
        hint = "free some space there, or keep fewer backups; nothing half done counts, and the next backup removes it"
        return OperationFailed(f"{what}: the disk of the repository is full", hint=hint, log=log)
    if "SSH_FX_FAILURE" in said:  # OpenSSH's sftp has no other word for a full disk
        hint = "free some space there, or keep fewer backups; nothing half done counts, and the next backup removes it"
        return OperationFailed(f"{what}: the repository's server can't write, its disk may be full", hint=hint, log=log)
    if "repository is already locked" in said or "unable to create lock" in said:
        hint = "wait until it has ended; what a program has left that was killed goes after half an hour"
        return OperationFailed(f"somebody else works in the repository {where}", hint=hint, log=log)
    if place is None and NETWORK.search(said):
        hint = "see that it runs, and try again: nothing half done counts, and the next backup removes it"
        return Unreachable(f"{what}: the server with the repository can't be reached any more", hint=hint, log=log)
    if place is None or not place.remote:
        return OperationFailed(what, log=log)
    if HOST_KEY.search(said):
        hint = (
            f"`{place.scan}` prints what answers there now: if that is what {server}'s own console says (ssh-keygen -lf), it goes into "
            "`backup: {known_hosts: …}`; if not, somebody else answers in its place"
        )
        return OperationFailed(f"what answers as {server} has none of the keys in known_hosts", hint=hint, log=log)
    if trust := NOT_TRUSTED.search(said):
        hint = "the certificate that signed it goes into `backup: {ca: {file: …}}`"
        return OperationFailed(f"{server} is not trusted: {trust[1]}", hint=hint, log=log)
    if REFUSED.search(said):
        names = " and ".join(f"backup/{n}" for n in place.takes if n != "ca") or "nothing"
        who = f" as {place.user}" if place.user else ""
        hint = f"see to them there, or set them anew: `consolidate secret set backup/{place.takes[0]}`"
        return OperationFailed(f"{server} does not let us in{who} with {names}", hint=hint, log=log)
    if AWAY.search(said):
        return Unreachable(
            f"{server} can't be reached", hint="see that it runs, and that this host may reach it", log=log
        )
    return OperationFailed(what, log=log)


def without_password(text: str) -> str:
    """A text in which addresses may stand."""
    return IN_ADDRESS.sub(r"\1\2***", text)
