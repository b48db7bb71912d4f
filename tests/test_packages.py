"""What dpkg, apk and apt-get say is read as they mean it."""

from __future__ import annotations

import pytest

from consolidate.desired import Image
from consolidate.errors import OperationFailed
from consolidate.files import FileSet, FileSpec
from consolidate.packages import (
    PackageChange,
    as_table,
    compared,
    in_words,
    installed_by_apk,
    installed_by_dpkg,
    offered,
    preferences,
    versions,
)
from consolidate.refresh.update import bases

DIST_UPGRADE = """\
Reading package lists...
Building dependency tree...
The following packages will be upgraded:
  libssl3 tzdata
Inst libssl3 [3.0.14-1~deb12u1] (3.0.15-1~deb12u1 Debian-Security:12/oldstable-security [amd64])
Inst tzdata [2024a-0+deb12u1] (2024b-0+deb12u1 Debian:12.8/oldstable, Debian:12-updates/oldstable-updates [all]) []
Inst libnew1 (1.0-1 Debian:12.8/oldstable [amd64])
Inst openssl [3.0.2-0ubuntu1.15] (3.0.2-0ubuntu1.18 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])
Inst local [1] (2 mirror.test [all])
Remv libold1 [0.9-2]
Conf libssl3 (3.0.15-1~deb12u1 Debian-Security:12/oldstable-security [amd64])
"""


def test_apt_says_what_is_newer_and_what_is_for_security() -> None:
    """By the label or the suite that Debian and Ubuntu give security updates; what has neither is none."""
    assert offered(DIST_UPGRADE) == [
        PackageChange("libnew1", None, "1.0-1", False),
        PackageChange("libold1", "0.9-2", None, False),
        PackageChange("libssl3", "3.0.14-1~deb12u1", "3.0.15-1~deb12u1", True),
        PackageChange("local", "1", "2", False),
        PackageChange("openssl", "3.0.2-0ubuntu1.15", "3.0.2-0ubuntu1.18", True),
        PackageChange("tzdata", "2024a-0+deb12u1", "2024b-0+deb12u1", False),
    ]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (100 + 27, "E: Could not get lock"),
        (0, "W: Failed to fetch http://mirror.test/debian/dists/bookworm/InRelease\n0 upgraded, 0 newly installed"),
        (0, "W: Some index files failed to download. They have been ignored, or old ones used instead.\n0 upgraded"),
    ],
)
def test_an_apt_that_has_not_asked_its_mirrors_is_not_believed(status: int, said: str) -> None:
    """It would say that there is nothing to upgrade: that is an error, with what it said."""
    with pytest.raises(OperationFailed, match="apt can't tell what is newer than web") as raised:
        offered(said, status, "web")
    assert said.splitlines()[0] in raised.value.log


def test_installed_packages_are_those_that_dpkg_calls_installed() -> None:
    """What was removed, with its configuration left, is not there; a field's further lines are no fields."""
    status = (
        "Package: adduser\nStatus: install ok installed\nVersion: 3.134\nDescription: add\n Version: 9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1.0\n\n"
        "Package: libc6\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u8\n"
    )
    assert installed_by_dpkg(status) == {"adduser": "3.134", "libc6": "2.36-9+deb12u8"}


def test_installed_packages_are_those_in_apks_database() -> None:
    """Names and versions of its paragraphs, whose fields are single letters."""
    database = "C:Q1abc=\nP:busybox\nV:1.36.1-r5\nA:x86_64\nF:bin\nR:busybox\n\nC:Q1def=\nP:musl\nV:1.2.4-r2\n\n"
    assert installed_by_apk(database) == {"busybox": "1.36.1-r5", "musl": "1.2.4-r2"}


def test_lists_of_packages_are_compared_by_name() -> None:
    """What came, went, or is another version; security where the distribution said it of the name."""
    old, new = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    changes = compared(old, new, {"b": True})
    assert changes == [
        PackageChange("b", "1", "2", True),
        PackageChange("c", "1", None),
        PackageChange("d", None, "1"),
    ]
    assert in_words(changes) == "3 packages change, 1 of them for security: b 1 → 2, …"
    assert in_words(changes[:1]) == "b 1 → 2 (security)"
    assert compared(old, old, {}) == []


def test_a_builds_bases_are_the_images_that_its_stages_start_from() -> None:
    """Not its own stages, not the empty image, and none whose name is only known while it builds."""
    dockerfile = (
        "ARG V=1\nFROM --platform=linux/amd64 golang:1.22 AS build\nRUN go build\nFROM scratch\nfrom build as Second\n"
        "FROM node:${V}\nFROM second\nFROM debian:bookworm-slim\nCOPY --from=build /a /a\n"
    )
    image = Image("consolidate/x:1", "build", FileSet((FileSpec("Dockerfile", text=dockerfile),)))
    assert bases(image) == ["golang:1.22", "debian:bookworm-slim"]


MADISON = """\
 nginx-light | 1.22.1-9+deb12u3 | http://mirror.test/debian-security bookworm-security/main amd64 Packages
 nginx-light | 1.22.1-9+deb12u1 | http://mirror.test/debian bookworm/main amd64 Packages
     nginx | 1.22.1-9+deb12u1 | http://mirror.test/debian bookworm/main Sources
N: Unable to locate package gone
"""


def test_apt_tells_the_versions_that_it_has() -> None:
    """Of binary packages, each of them; of one that it doesn't know none. What it could not fetch is an error."""
    assert versions(MADISON) == {"nginx-light": ["1.22.1-9+deb12u3", "1.22.1-9+deb12u1"]}
    with pytest.raises(OperationFailed, match="apt can't tell"):
        versions("E: Failed to fetch http://mirror.test/", 1, "web")


def test_versions_are_told_to_apt_as_it_reads_them() -> None:
    """One paragraph each, with a priority that takes an older version than the one that is there: apt_preferences(5)."""
    assert preferences({"b": "1:2", "a": "1"}) == (
        "Package: a\nPin: version 1\nPin-Priority: 1001\n\nPackage: b\nPin: version 1:2\nPin-Priority: 1001\n"
    )


def test_what_a_lock_refuses_is_a_table() -> None:
    changes = [PackageChange("libssl3", "3.0.14", "3.0.15"), PackageChange("z", "1", None)]
    assert as_table(changes, "FOUND") == ("PACKAGE  LOCKED  FOUND", "libssl3  3.0.14  3.0.15", "z        1       none")
