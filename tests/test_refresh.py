"""What `update --check` tells, by example, of distributions and registries that answer or don't."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from consolidate import naming, packages
from consolidate.console import show_news
from consolidate.desire.content import restic_image
from consolidate.errors import OperationFailed, UsageError
from consolidate.pipeline import Prepared
from consolidate.refresh import News, check, check_up_to_date, updating
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Entry
from tests.world import World, programs, resolved

IMAGE, OLD, NEW = "example.test/site:1", f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
OFFER = "Inst tiny [1.0] (1.1 Debian-Security:12/stable-security [all])\n"
SERVERS = {
    "www": {"kind": "page", "domains": ["www.test"]},
    "shop": {"kind": "page", "domains": ["shop.test"], "image": IMAGE},
    "edge": {"kind": "gate"},
}


class Distribution(MemoryEngine):
    """An engine whose images have an apt that ends with `status` and says `said`, and a registry with `digest`."""

    status, said, digest = 0, "", OLD

    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        return self.status, self.said

    def registry_digest(self, tag: str, timeout: float) -> str:
        if not self.digest:
            raise OperationFailed("no answer within 20 s")
        return self.digest


@pytest.fixture
def engine() -> Distribution:
    made = Distribution(programs)
    World(made).up(resolved({"stack": "one", "servers": SERVERS}))
    made.images[f"example.test/site@{OLD}"] = made.images[IMAGE]
    return made


def prepared(engine: MemoryEngine, **changes: Any) -> Prepared:
    world, stack = World(engine), resolved({"stack": "one", "servers": SERVERS | changes})
    plan = world.make_plan(stack)
    assert world.desired is not None
    return Prepared(stack, world.desired, world.observe(stack), world.secrets, {}, plan)


def told(engine: MemoryEngine, *servers: str) -> tuple[News, dict[str, list[Any]]]:
    """What is told, and of each server that has news: package, old, new, security."""
    engine.writes.clear()
    news = check(engine, prepared(engine), servers)
    assert engine.writes == []
    found: dict[str, list[Any]] = {}
    for row in news.to_json()["changes"]:
        found.setdefault(row["server"], []).append((row["package"], row["old"], row["new"], row["security"]))
    return news, found


def test_without_news_nothing_is_told(engine: Distribution) -> None:
    """An apt that upgrades nothing, a tag that has its digest still."""
    assert told(engine) == (News("one", ()), {})


def test_news_are_told_of_each_server(engine: Distribution) -> None:
    """Packages of what was built, digests of what was pulled; of named servers alone where some are."""
    engine.said, engine.digest = OFFER, NEW
    package = ("tiny", "1.0", "1.1", True)
    moved = (IMAGE, "a" * 12, "b" * 12, None)
    assert told(engine)[1] == {"www": [package], "shop": [moved], "edge": [package]}
    assert told(engine, "shop")[1] == {"shop": [moved]}
    with pytest.raises(UsageError, match="no server 'shpo'"):
        told(engine, "shpo")


def test_who_can_not_be_asked_hides_no_news_of_others(engine: Distribution) -> None:
    """A registry that does not answer, an apt that finds no mirror: named with the reason, and the rest is told."""
    engine.said, engine.digest = OFFER, ""
    news, found = told(engine)
    assert (found.keys(), news.failures.keys()) == ({"www", "edge"}, {"shop"})
    assert "no answer within 20 s" in str(news.failures["shop"])
    engine.status, engine.said, engine.digest = 100 + 1, "E: Could not resolve 'mirror.test'", NEW
    news, found = told(engine)
    assert (found.keys(), news.failures.keys()) == ({"shop"}, {"www", "edge"})
    assert news.failures["www"].log == ("E: Could not resolve 'mirror.test'",)


def test_what_came_from_no_registry_is_no_failure(engine: Distribution) -> None:
    """An image that was loaded into the engine has no digest to compare: nobody is asked."""
    del engine.images[f"example.test/site@{OLD}"]
    engine.digest = ""
    assert told(engine) == (News("one", ()), {})


def test_a_tag_that_has_moved_on_the_engine_is_told(engine: Distribution) -> None:
    """Pulled for another server, or built and tagged by hand: nobody is asked for it."""
    has = engine.images[IMAGE]
    engine.images.add(IMAGE)
    engine.digest = ""
    moved = (IMAGE, has[7:19], engine.images[IMAGE][7:19], None)
    assert told(engine)[1] == {"shop": [moved]}


def test_an_image_without_apt_is_told(engine: Distribution) -> None:
    """Whether it has news shows in the build alone."""
    engine.status = 100
    news, found = told(engine)
    assert found == {}
    assert [n.partition(":")[0] for n in news.notes] == ["www", "edge"]


def test_an_update_is_no_way_to_bring_other_changes(engine: Distribution) -> None:
    """Where the file has changes that are not up it is refused for the servers that have them."""
    changed = prepared(engine, www=SERVERS["www"] | {"resources": {"memory": "48M"}})
    with pytest.raises(OperationFailed, match="www: not as the stack file says"):
        check_up_to_date(changed, ())
    check_up_to_date(changed, ["shop"])


@pytest.mark.parametrize("how", ["json", "plain", "quiet"])
def test_a_failure_is_told_as_progress_is(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who reads standard error as JSON finds nothing else there; people find it in words."""
    failures = {"www": OperationFailed("no registry answers", log=["a line", "another"])}
    show_news(News("shop", (), (), failures), "json", how)
    lines = capsys.readouterr().err.splitlines()
    told = [json.loads(li)["detail"] for li in lines] if how == "json" else lines
    assert told == ["failed: www: no registry answers", "  | a line", "  | another"]


# The image that backups are made with


STAMP = datetime(2024, 6, 1, tzinfo=UTC)


class Building(Distribution):
    """An engine whose builds have what `news` says of packages; `asked` are the images that apt was asked in."""

    def __init__(self) -> None:
        super().__init__(programs)
        self.asked = list[str]()

    def run_once(self, image: str, command: Sequence[str]) -> tuple[int, str]:
        self.asked.append(image)
        return self.status, self.said


@pytest.fixture
def with_tool() -> tuple[Building, str]:
    """An engine on which backups have been made, and the image that they are made with."""
    engine = Building()
    World(engine).up(resolved({"stack": "one", "servers": SERVERS}))
    tag = restic_image().tag
    engine.images.add(tag)
    dpkg(engine, tag, "1.0")
    return engine, tag


def dpkg(engine: MemoryEngine, tag: str, version: str) -> None:
    """A list of packages in an image."""
    text = f"Package: restic\nStatus: install ok installed\nVersion: {version}\n\n"
    engine.images.files[engine.images[tag]] = {
        packages.DPKG.lstrip("/"): Entry(tarfile.REGTYPE, 0o644, 0, 0, text.encode())
    }


def test_the_image_that_backups_are_made_with_has_news_too(with_tool: tuple[Building, str]) -> None:
    """It is asked like a server's, and told in a row of its own; not where servers are named, and not without backups."""
    engine, tag = with_tool
    engine.said = OFFER.replace("tiny", "restic")
    assert told(engine)[1]["(backups)"] == [("restic", "1.0", "1.1", True)]
    assert engine.images[tag] in engine.asked
    engine.asked.clear()
    assert "(backups)" not in told(engine, "www")[1] and engine.images[tag] not in engine.asked
    engine.status, engine.said = 100 + 1, "E: Could not resolve 'mirror.test'"
    assert "(backups)" in told(engine)[0].failures
    del engine.images[tag]
    assert "(backups)" not in told(engine)[0].failures


def test_an_update_builds_it_again_and_removes_the_older(with_tool: tuple[Building, str]) -> None:
    """The next backup takes the newest. A build that fails leaves the one that works."""
    engine, tag = with_tool
    engine.said = OFFER.replace("tiny", "restic")
    new = naming.refreshed_image(tag, "20240601T000000")
    for built in (False, True):
        with updating(engine, prepared(engine), (), STAMP, lambda _: None) as update:
            assert f"image:{new}" in {o.id for o in update.provide().operations}
            if built:
                engine.images.add(new)
                dpkg(engine, new, "1.1")
            update.plan()
            found = [(c.change.old, c.change.new) for c in update.news.changes if c.server == "(backups)"]
            assert found == ([("1.0", "1.1")] if built else [])
        assert engine.observe("one").newest(tag) == (new if built else tag)
    assert tag not in engine.images
