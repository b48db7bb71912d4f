"""stack.lock.yml: what is written is read back, diffs are small, and what is wrong in it has a place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from consolidate.errors import StackInvalid, UsageError
from consolidate.lock_file import PACKAGE, PACKAGE_VERSION, read, text_of, write
from consolidate.locked import Base, Lock, LockedImage, replaced

A, B, C = (f"sha256:{c * 64}" for c in "abc")
DIGEST = f"redis@sha256:{'d' * 64}"
REDIS = LockedImage("redis:7", A, digest=DIGEST)
PACKAGES = {"libc6": "2.36-9+deb12u8", "nginx-light": "1.10", "tzdata": "20230311", "y": "12:30"}


def web(id_: str, **more: str) -> LockedImage:
    return LockedImage("web:0123456789ab", id_, "", "0123456789ab", Base("debian:12", C), PACKAGES | more)


def lock(**servers: LockedImage) -> Lock:
    return replaced(Lock(), servers, {n: i.asks for n, i in servers.items()}, ())


def written(path: Path, lock_: Lock) -> Lock:
    write(path, lock_, "stack.yml")
    found = read(path)
    assert found is not None
    return found


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).map(lambda n: f"a{n}z")
PAIRS = st.dictionaries(
    st.from_regex(PACKAGE, fullmatch=True), st.from_regex(PACKAGE_VERSION, fullmatch=True), min_size=1, max_size=5
)


@given(PAIRS, st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_what_is_written_is_read_back(packages: Mapping[str, str], names: list[str]) -> None:
    """Whatever a package or its version looks like to some reader of YAML: `no`, `1.10`, `12:30`, `1e3`, a date."""
    image = LockedImage("web:0123456789ab", A, "", "0123456789ab", None, packages)
    text = text_of(lock(**dict.fromkeys(names, image)), "stack.yml")
    path = Path(f"/dev/shm/{abs(hash(text))}.lock.yml")
    path.write_text(text)
    try:
        found = read(path)
    finally:
        path.unlink()
    assert found is not None
    assert {n: found.get(n, image.asks) for n in names} == dict.fromkeys(names, image)
    assert yaml.safe_load(text)["images"][image.asks]["packages"] == packages


def test_a_lock_holds_several_images_of_one_server(tmp_path: Path) -> None:
    """Environments may ask for different ones; and after an update of one server another has the older of the same."""
    other = LockedImage("redis:8", B)
    both = replaced(lock(cache=REDIS, www=web(A), blog=web(B)), {"cache": other}, {"cache": "redis:8"}, None)
    found = written(tmp_path / "stack.lock.yml", both)
    assert found.get("cache", "redis:7") == REDIS
    assert found.get("cache", "redis:8") == other
    assert (found.get("www", web(A).asks), found.get("blog", web(B).asks)) == (web(A), web(B))


def test_what_nobody_asks_for_any_more_goes(tmp_path: Path) -> None:
    """A server that left, an image that was changed: unless another environment asks for it, or nobody can tell."""
    old, mine = lock(cache=REDIS, www=web(A)), {"cache": "redis:8"}
    new = LockedImage("redis:8", B)
    assert replaced(old, {"cache": new}, mine, ()).servers == {"cache": {"redis:8": new}}
    assert replaced(old, {"cache": new}, mine, [("www", web(A).asks)]).servers.keys() == {"cache", "www"}
    assert replaced(old, {"cache": new}, mine, None).servers["cache"].keys() == {"redis:7", "redis:8"}
    assert replaced(old, {"cache": new}, mine, (), ["cache"]).servers.keys() == {"cache", "www"}


def test_diffs_are_small(tmp_path: Path) -> None:
    """Where all servers of an image move on, its id and the packages that changed do; the servers' lines stay."""
    servers = {f"s{n}": web(A) for n in range(20)}
    old = written(tmp_path / "stack.lock.yml", lock(**servers))
    moved = {n: web(B, tzdata="20240101") for n in servers}
    before, after = (
        text_of(lo, "stack.yml").splitlines()
        for lo in (old, replaced(old, moved, {n: i.asks for n, i in moved.items()}, ()))
    )
    diff = [line for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[:3] not in ("---", "+++")]
    assert sorted(line for line in diff if line[0] in "+-") == [
        '+      tzdata: "20240101"',
        f"+    id: {B}",
        '-      tzdata: "20230311"',
        f"-    id: {A}",
    ]


def test_the_same_lock_is_not_written_again_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "stack.lock.yml"
    assert write(path, lock(cache=REDIS), "stack.yml")
    path.chmod(0o640)
    assert not write(path, lock(cache=REDIS), "stack.yml")
    before = path.read_bytes()
    (tmp_path / "stack.lock.yml.new").mkdir()
    with pytest.raises(UsageError, match=r"stack.lock.yml can't be written"):
        write(path, lock(cache=REDIS, www=web(B)), "stack.yml")
    assert path.read_bytes() == before
    (tmp_path / "stack.lock.yml.new").rmdir()
    assert write(path, lock(cache=REDIS, www=web(B)), "stack.yml")
    assert path.stat().st_mode & 0o777 == 0o640
    assert "`consolidate lock` writes this file" in path.read_text().splitlines()[0]


GOOD = f"lock: 1\nservers:\n  cache: redis:7\nimages:\n  redis:7:\n    id: {A}\n    digest: {DIGEST}\n"


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("lock: 1", "lock: 2", "1:7", "the form 2"),
        ("cache: redis:7", "cache: redis:8", "3:10", "no 'redis:8' under images"),
        (f"id: {A}", "id: latest", "6:9", "can't stand here"),
        (f"id: {A}", f"id: {A}\n    hash: 1", "7:5", "unknown key 'hash'"),
        (f"digest: {DIGEST}", "packages: {nginx: 1.10}", "7:23", "should be text"),
        (f"digest: {DIGEST}", 'packages: {nginx: "1\\nPin: x"}', "7:23", "can't stand here"),
        (f"digest: {DIGEST}", 'packages: {"a b": "1"}', "7:16", "can't be a key here"),
        ("images:", "<<<<<<< HEAD\nimages:", "5:1", "no colon"),
    ],
)
def test_what_is_wrong_has_its_place(tmp_path: Path, old: str, new: str, place: str, said: str) -> None:
    """Also what a merge has left in it, and what would mean something to apt."""
    path = tmp_path / "stack.lock.yml"
    path.write_text(GOOD)
    assert read(path) == Lock({"cache": {"redis:7": REDIS}}, read(path).places, {("redis:7", A): "redis:7"})  # type: ignore[union-attr]
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(StackInvalid) as raised:
        read(path)
    problem = raised.value.problems[0]
    assert (str(problem.place).startswith(f"{path}:{place}"), said in problem.what) == (True, True), str(problem)
