"""Packages of an image, and what its distribution has newer: the words of dpkg, apk and apt-get. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from consolidate.errors import OperationFailed

DPKG, APK = "/var/lib/dpkg/status", "/lib/apk/db/installed"  # where an image keeps the list of its packages
NO_APT = 100  # exit status of ASK
LOG_LINES = 10

# Asked in a container of the image, as root. apt drops to an account of its own, which it can't where capabilities are
# few; an index that it can't fetch is an error, since it would say 'nothing to upgrade' with an old one.
UPDATE = "apt-get -qq -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::http::Timeout=20 update"
ASK = (
    "/bin/sh",
    "-c",
    f"command -v apt-get > /dev/null || exit {NO_APT}; export LC_ALL=C; {UPDATE} && apt-get -s dist-upgrade",
)
NOT_FETCHED = re.compile(
    r"(?m)^(?:[WE]: )?(?:Failed to fetch|Some index files failed)"
)  # apt before 2.1.12 ends with 0
# `Inst NAME [OLD] (NEW LABEL:VERSION/SUITE, … [ARCHITECTURE])`; without OLD it comes new. `Remv NAME [OLD]`.
INSTALLS = re.compile(
    r"(?m)^Inst (?P<name>\S+)(?: \[(?P<old>[^]]*)\])? \((?P<new>\S+)(?P<origins>.*?)(?: \[[^]]*\])?\)"
)
REMOVES = re.compile(r"(?m)^Remv (?P<name>\S+) \[(?P<old>[^]]*)\]")


class PackageChange(Struct, frozen=True):
    """A package that changes; `old` is None where it is new, `new` where it goes, `security` where nobody says."""

    package: str
    old: str | None
    new: str | None
    security: bool | None = None


def installed_by_dpkg(status: str) -> dict[str, str]:
    """Name → version, of the text of DPKG; what is removed and only configured does not count (deb-control(5))."""
    return {
        f["Package"]: f["Version"]
        for f in _stanzas(status, ": ")
        if f.get("Status", "").endswith(" installed") and "Version" in f
    }


def installed_by_apk(database: str) -> dict[str, str]:
    """Name → version, of the text of APK: `P:` and `V:` in each paragraph."""
    return {f["P"]: f["V"] for f in _stanzas(database, ":") if {"P", "V"} <= f.keys()}


def _stanzas(text: str, colon: str) -> Iterator[dict[str, str]]:
    """The first line of each field, paragraph by paragraph."""
    for stanza in text.split("\n\n"):
        lines = (line.partition(colon) for line in stanza.splitlines() if not line.startswith((" ", "\t")))
        if fields := {name: value.strip() for name, _, value in lines}:
            yield fields


def offered(said: str, status: int = 0, image: str = "") -> list[PackageChange]:
    """What apt-get would do, of how ASK ended in an `image`. Security updates have a suite of their own at Debian and
    Ubuntu.

    Raises OperationFailed where apt could not tell.
    """
    _check_fetched(said, status, image)
    found = []
    for line in INSTALLS.finditer(said):
        origins = line["origins"].lower()
        security = "debian-security:" in origins or "-security" in origins
        found.append(PackageChange(line["name"], line["old"], line["new"], security))
    found += [PackageChange(line["name"], line["old"], None, False) for line in REMOVES.finditer(said)]
    return sorted(found, key=lambda c: c.package)


def _check_fetched(said: str, status: int, image: str) -> None:
    if status or NOT_FETCHED.search(said):
        hint = "does the engine reach the mirrors of the distribution?"
        raise OperationFailed(
            f"apt can't tell what is newer than {image}", hint=hint, log=said.splitlines()[-LOG_LINES:]
        )


def compared(
    old: Mapping[str, str], new: Mapping[str, str], security: Mapping[str, bool | None]
) -> list[PackageChange]:
    """What differs between two lists of packages; `security` tells by name what the distribution said of it."""
    names = sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))
    return [PackageChange(n, old.get(n), new.get(n), security.get(n)) for n in names]


def in_words(changes: list[PackageChange]) -> str:
    """Why a server gets another image."""
    told = f"{changes[0].package} {changes[0].old or 'none'} → {changes[0].new or 'none'}"
    urgent = sum(c.security is True for c in changes)
    if len(changes) == 1:
        return f"{told} (security)" if urgent else told
    count = f"{len(changes)} packages change" + (f", {urgent} of them for security" if urgent else "")
    return f"{count}: {told}, …"


# What a lock needs: versions that are there, and apt told to take no other.


def ask_versions(names: Sequence[str]) -> tuple[str, ...]:
    """The command that asks apt, in a container of an image, for the versions of packages that it has."""
    script = (
        f"command -v apt-get > /dev/null || exit {NO_APT}; [ $# -ne 0 ] || exit 0; export LC_ALL=C; {UPDATE} || exit 1; "
        'apt-cache madison -- "$@"; exit 0'
    )
    return ("/bin/sh", "-c", script, "sh", *names)


def versions(said: str, status: int = 0, image: str = "") -> dict[str, list[str]]:
    """The versions of each package, the newest first, of how `ask_versions` ended in an `image`.

    Raises OperationFailed where apt could not tell.
    """
    _check_fetched(said, status, image)
    found: dict[str, list[str]] = {}
    for line in said.splitlines():  # `NAME | VERSION | SOURCE`
        parts = [p.strip() for p in line.split(" | ")]
        if len(parts) == 3 and not parts[2].endswith(" Sources"):
            found.setdefault(parts[0], []).append(parts[1])
    return found


def preferences(wanted: Mapping[str, str]) -> str:
    """What makes apt take these versions, older ones as well: apt_preferences(5)."""
    return "\n".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in sorted(wanted.items())
    )


def as_table(changes: Sequence[PackageChange], title: str) -> tuple[str, ...]:
    """Lines of a table: what a lock has of each package, and what there is in its place."""
    rows = [("PACKAGE", "LOCKED", title), *((c.package, c.old or "none", c.new or "none") for c in changes)]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return tuple(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
