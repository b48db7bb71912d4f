"""With a lock each server is made of the very image that it says, by example; and what a lock says of a stack."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from consolidate import naming
from consolidate.actions import CreateContainer, ProvideImage, RemoveImage
from consolidate.console import show_differences
from consolidate.desired import Desired
from consolidate.diff import Refresh
from consolidate.errors import OperationFailed, StackInvalid, UsageError
from consolidate.lock_file import read, write
from consolidate.locked import Lock, LockedImage
from consolidate.packages import DPKG
from consolidate.pinned import asked, check_fits, pinned, unlocked
from consolidate.pipeline import Prepared, check_images
from consolidate.refresh import Difference, Look, Moving, Update, behind, choices, differences, lock_of, missing
from consolidate.resolved import Resolved
from consolidate.source import Source, described, environments, in_environment, load_document
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Entry, Killed
from tests.planned import Planned, planned
from tests.shop import acts, the
from tests.world import NOW, World, faults, resolved

__all__ = ["planned"]  # a fixture
IMAGE = "example.test/site:1"
STAMP = "20240501T120000"
ELSEWHERE = f"sha256:{'e' * 64}"  # an image that this engine has never seen


def pages(**servers: Any) -> Resolved:
    page = {"kind": "page", "domains": ["www.test"]}
    given = {"edge": {"kind": "gate"}, "www": page, "blog": page | {"domains": ["blog.test"]}} | servers
    return resolved({"stack": "pages", "servers": {n: s for n, s in given.items() if s}})


SITE = {"kind": "page", "image": IMAGE, "domains": ["shop.test"]}


@pytest.fixture
def up() -> World:
    """A gate, two pages of one built image, and one of a pulled one; their packages can be read."""
    world = World()
    world.up(pages(shop=SITE))
    for name, id_ in list(world.engine.images.items()):
        if name.startswith("consolidate/page:"):
            install(world, id_, nginx="1.0")
    world.engine.images[f"example.test/site@sha256:{'d' * 64}"] = world.engine.images[IMAGE]
    return world


def install(world: World, image: str, **packages: str) -> None:
    rows = (f"Package: {n}\nStatus: install ok installed\nVersion: {v}\n" for n, v in packages.items())
    entry = Entry(tarfile.REGTYPE, 0o644, 0, 0, "\n".join(rows).encode())
    world.engine.images.files[image] = {DPKG.lstrip("/"): entry}


def desired(world: World, stack: Resolved) -> Desired:
    world.make_plan(stack)
    assert world.desired is not None
    return world.desired


def locked(world: World, stack: Resolved, *servers: str) -> Lock:
    """What `lock` would write."""
    want, observed = desired(world, stack), world.observe(stack)
    chosen = choices(want, observed, world.lock, servers)
    return lock_of(Look(world.engine, observed), want, chosen, world.lock, Source(Path("/nowhere/stack.yml")), servers)


def of(lock: Lock, server: str) -> LockedImage:
    (found,) = lock.servers[server].values()
    return found


def elsewhere(lock: Lock, *servers: str, **changes: Any) -> Lock:
    """The same with another image for these servers, which this engine has not."""
    more = {s: {i.asks: replace(i, id=ELSEWHERE, **changes) for i in lock.servers[s].values()} for s in servers}
    return Lock({**lock.servers, **more})


def test_a_lock_says_what_runs(up: World) -> None:
    """Of what was built the context, the base and each package; of what was pulled the digest; of both the id."""
    lock = locked(up, pages(shop=SITE))
    page = of(lock, "www")
    assert (page.id, page.packages) == (up.box("www").image_id, {"nginx": "1.0"})
    assert page.asks == f"page:{page.context}"
    assert page.base is not None
    assert page.base.id == up.engine.images[naming.BASE_IMAGE]
    assert page is of(lock, "blog") or page == of(lock, "blog")
    assert of(lock, "shop") == LockedImage(IMAGE, up.box("shop").image_id, f"example.test/site@sha256:{'d' * 64}")


def test_with_its_lock_there_is_nothing_to_do(up: World) -> None:
    up.lock = locked(up, pages(shop=SITE))
    assert not up.make_plan(pages(shop=SITE))
    assert locked(up, pages(shop=SITE)).servers == up.lock.servers


def test_a_server_moves_to_the_image_of_the_lock_wherever_it_has_its_tag(up: World) -> None:
    """One that was brought from another engine is known by its id. Others of the same kind stay."""
    up.lock = locked(up, pages(shop=SITE))
    up.engine.images.add("brought:1")
    id_ = up.engine.images["brought:1"]
    up.lock = Lock({**up.lock.servers, "www": {of(up.lock, "www").asks: replace(of(up.lock, "www"), id=id_)}})
    before = up.starts()
    plan = up.make_plan(pages(shop=SITE))
    assert the(plan, "create:www").reason.startswith("the lock has another image; image ")
    assert the(plan, "start:www").impact == "rolling"
    assert up.run().ok
    assert up.box("www").image_id == id_
    assert up.starts() | {"www": before["www"]} == before
    assert faults(up, pages(shop=SITE)) == []
    assert not up.make_plan(pages(shop=SITE))


def test_a_tag_that_has_moved_moves_nobody(up: World) -> None:
    """Neither the servers that run, nor one that is replaced for another reason, nor one that comes anew."""
    up.lock = locked(up, pages(shop=SITE))
    old = up.box("shop").image_id
    up.engine.images.add(IMAGE)
    assert not up.make_plan(pages(shop=SITE))
    up.up(pages(shop=SITE | {"resources": {"memory": "48M"}}))
    assert up.box("shop").image_id == old
    up.up(pages(shop=None))
    up.up(pages(shop=SITE))
    assert up.box("shop").image_id == up.engine.images[of(up.lock, "shop").digest] != up.engine.images[IMAGE]


def test_what_is_not_there_is_pulled_by_its_digest(up: World) -> None:
    digest = f"example.test/site@sha256:{'f' * 64}"
    up.lock = elsewhere(locked(up, pages(shop=SITE)), "shop", digest=digest)
    plan = up.make_plan(pages(shop=SITE))
    (image,) = (o.action.image for o in plan.operations if isinstance(o.action, ProvideImage))
    assert (image.tag, image.how, image.servers) == (digest, "pull", ("shop",))
    assert f"image:{digest}" in up.plan_needs("create:shop")
    assert up.run().ok
    assert up.box("shop").image_id == up.engine.images[digest]
    assert not up.make_plan(pages(shop=SITE))


@pytest.mark.parametrize("hint", ["check its name", None])
def test_a_pull_that_fails_is_told_as_the_locks(hint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the engine says of it, and with both ways on."""
    world, stack = World(), pages(shop=SITE | {"image": naming.BASE_IMAGE})
    world.up(stack)
    lock = locked(world, stack)
    world.up(pages(shop=None))
    world.lock = elsewhere(lock, "shop", digest=f"debian@sha256:{'f' * 64}")
    world.make_plan(stack)

    def pull(*_: Any) -> None:
        raise OperationFailed("the registry has gone", hint=hint)

    monkeypatch.setattr(world.engine, "pull", pull)
    (failed,) = world.run().failed
    assert "the image of the lock, " in failed.message and "the registry has gone" in failed.message
    assert f"{hint or 'bring it'}" in failed.message and "`consolidate lock -s shop`" in failed.message
    assert "None" not in failed.message


def test_a_server_of_the_base_image_itself_is_locked_like_one_that_is_pulled(tmp_path: Path) -> None:
    """By its id, and its digest where a registry had it: only then can it be had where it isn't."""
    world, stack = World(), pages(shop=SITE | {"image": naming.BASE_IMAGE})
    world.up(stack)
    lock = world.lock = locked(world, stack)
    assert of(lock, "shop") == LockedImage(naming.BASE_IMAGE, world.engine.images[naming.BASE_IMAGE])
    write(tmp_path / "stack.lock.yml", lock, "stack.yml")
    again = read(tmp_path / "stack.lock.yml")
    assert again is not None and again.servers == lock.servers
    assert not world.make_plan(stack)
    world.up(pages(shop=None))
    world.lock = elsewhere(lock, "shop")
    with pytest.raises(OperationFailed, match=r"shop: the image of the lock, .* and no registry had it"):
        check_images(world.make_plan(stack))
    digest = f"debian@sha256:{'f' * 64}"
    world.lock = elsewhere(lock, "shop", digest=digest)
    world.up(stack)
    assert world.box("shop").image_id == world.engine.images[digest] != world.engine.images[naming.BASE_IMAGE]


def test_what_was_built_elsewhere_is_built_again_once_for_all_that_have_it(up: World) -> None:
    """Under a name that says what it has to have; the next `up` finds it by that name, and leaves it alone."""
    first = of(locked(up, pages(shop=SITE)), "www")
    up.lock = elsewhere(locked(up, pages(shop=SITE)), "www", "blog")
    plan = up.make_plan(pages(shop=SITE))
    (provided,) = (o for o in plan.operations if isinstance(o.action, ProvideImage))
    assert isinstance(provided.action, ProvideImage)
    assert (provided.server, provided.action.locked) == ("www, blog", of(up.lock, "www"))
    name = provided.action.image.tag
    assert name == naming.locked_image(f"consolidate/{first.asks}", first.content)
    create = the(plan, "create:www").action
    assert isinstance(create, CreateContainer)
    assert create.image == name
    up.engine.images.add(name)
    assert not [o for o in up.make_plan(pages(shop=SITE)).operations if isinstance(o.action, ProvideImage)]
    assert up.run().ok
    assert not up.make_plan(pages(shop=SITE))
    assert locked(up, pages(shop=SITE)).servers == up.lock.servers  # it is as the lock says

    up.lock = Lock()
    back = Refresh(f"consolidate/{first.asks}", "back", back=True)
    up.engine.images.add(f"consolidate/{first.asks}")
    plan = up.make_plan(
        resolved({"stack": "pages", "generations": 0, "servers": PLAIN}), refreshes={"www": back, "blog": back}
    )
    assert name in [o.action.name for o in plan.operations if isinstance(o.action, RemoveImage)]


PLAIN: dict[str, Any] = {
    "edge": {"kind": "gate"},
    "www": {"kind": "page", "domains": ["www.test"]},
    "blog": {"kind": "page", "domains": ["blog.test"]},
    "shop": SITE,
}


def test_what_can_not_be_had_is_told_before_anything_is_done(up: World) -> None:
    """An image that no registry has, and one without a list of packages to hold a new build against."""
    for server, change in (("shop", {"digest": ""}), ("www", {"packages": None})):
        world = up.copy()
        world.lock = elsewhere(locked(up, pages(shop=SITE)), server, **change)
        with pytest.raises(OperationFailed, match=f"{server}: the image of the lock") as raised:
            check_images(world.make_plan(pages(shop=SITE)))
        assert f"`consolidate lock -s {server}`" in raised.value.hint


def test_what_a_lock_names_is_not_tidied_away(up: World) -> None:
    """Also while nothing is made of it yet: a newer build of the same is there."""
    tag = f"consolidate/{of(locked(up, pages(shop=SITE)), 'www').asks}"
    lock = locked(up, pages(shop=SITE))
    brought = naming.refreshed_image(tag, STAMP)
    up.engine.images.add(brought)
    up.engine.images.add(naming.refreshed_image(tag, "20240601T120000"))
    gone = {o.action.name for o in up.make_plan(pages(shop=SITE)).operations if isinstance(o.action, RemoveImage)}
    assert gone == {brought}
    moved = replace(of(lock, "www"), id=up.engine.images[brought])
    up.lock = Lock({**lock.servers, "www": {moved.asks: moved}})
    assert "remove image" not in acts(up.make_plan(pages(shop=SITE)))


def test_a_server_that_a_lock_does_not_know_is_refused(up: World) -> None:
    """With what to type; and one whose image is another, with the lock's place."""
    lock = locked(up, pages())
    lock = Lock(lock.servers, {"www": None})
    with pytest.raises(StackInvalid) as raised:
        check_fits(desired(up, pages(shop=SITE, www={"kind": "page", "image": IMAGE, "domains": ["www.test"]})), lock)
    one, other = sorted(raised.value.problems, key=lambda p: p.path)
    assert "the lock has no server 'shop'" in one.what
    assert "`consolidate lock -s shop`" in one.hint
    assert "the stack asks for example.test/site:1" in other.what
    check_fits(desired(up, pages()), lock)


def in_folder(folder: Path, **files: str) -> Source:
    """A stack of kinds that everybody has: a build of its own and a page, with an overlay."""
    stack = "stack: acme\nservers:\n  app: {kind: container, build: ./app}\n  www: {kind: web}\n"
    texts = {"stack.yml": stack, "stack.prod.yml": "servers: {www: {image: 'debian:12'}}\n"} | files
    (folder / "app").mkdir()
    (folder / "app/Dockerfile").write_text("FROM debian:12\n")
    for name, text in texts.items():
        (folder / name).write_text(text)
    return Source(folder / "stack.yml")


def test_environments_ask_in_the_same_words(tmp_path: Path) -> None:
    """A build of one's own has the stack's name in its tag, and that has the environment in it. What only another
    environment asks for stays in the lock, as long as it does."""
    source = in_folder(tmp_path)
    dev, prod = described(source), described(in_environment(source, "prod"))
    assert dev.images[1].tag != prod.images[1].tag
    words = [asked(d.resolved, d.images) for d in (dev, prod)]
    assert words[0]["app"] == words[1]["app"] == f"app:{dev.images[1].context.content}"
    assert words[1]["www"] == "debian:12"

    engine = MemoryEngine()
    for image in (*dev.images, *prod.images):
        engine.images.add(image.tag)
    lock = Lock()
    for want, where in ((dev, source), (prod, in_environment(source, "prod")), (dev, source)):
        observed = engine.observe(want.stack)
        lock = lock_of(Look(engine, observed), want, choices(want, observed, lock), lock, where)
        assert not unlocked(want, lock)
    assert lock.servers["www"].keys() == {words[0]["www"], "debian:12"}
    (tmp_path / "stack.prod.yml").write_text("{}\n")
    lock = lock_of(Look(engine, observed), dev, choices(dev, observed, lock), lock, source)
    assert lock.servers["www"].keys() == {words[0]["www"]}


def test_no_environment_is_called_lock(tmp_path: Path) -> None:
    """Its overlay would be the lock itself; and the lock is no overlay whose name was mistyped."""
    source = in_folder(tmp_path, **{"stack.lock.yml": "lock: 1\nservers: {}\nimages: {}\n"})
    for call in (lambda: in_environment(source, "lock"), lambda: load_document(replace(source, environment="lock"))):
        with pytest.raises(UsageError, match="'lock' can't be an environment's name"):
            call()
    assert in_environment(source, "locks").environment is None
    assert environments(source) == ["prod"]


def test_verbs_that_bring_a_stack_up_want_a_lock_that_fits(planned: Planned) -> None:
    """The others, such as `rollback` and `backup`, take of a lock what fits. None is remembered that doesn't."""
    planned.up()
    id_ = planned.engine.images["debian:bookworm"]
    stack = f"servers:\n  own: debian:bookworm\nimages:\n  debian:bookworm: {{id: {id_}}}\n"
    planned.put("stack.lock.yml", f"lock: 1\n{stack}")
    assert not planned.prepare(strict=True).plan
    planned.put("stack.lock.yml", "lock: 1\nservers: {}\nimages: {}\n")
    for _ in range(2):
        with pytest.raises(StackInvalid, match=r"stack.yml:4:8: servers.own: the lock has no server 'own'"):
            planned.prepare(strict=True)
        assert not planned.prepare().plan
    planned.put("stack.lock.yml", f"lock: 1\n{stack.replace(id_, ELSEWHERE)}")
    with pytest.raises(OperationFailed, match="no registry had it"):
        planned.prepare(strict=True)
    planned.put("stack.lock.yml", "lock: [\n")
    for _ in range(2):
        with pytest.raises(StackInvalid, match=r"stack.lock.yml:2:1"):
            planned.prepare(strict=True)
        assert not planned.prepare().plan  # a damaged one keeps nobody from a backup


def test_a_server_that_does_not_run_keeps_its_place_unless_it_is_named(up: World) -> None:
    """So a lock that came with the stack is not rewritten on an engine where nothing is up yet."""
    up.lock = elsewhere(locked(up, pages(shop=SITE)), "www", "blog", "shop")
    new = World()
    new.lock = up.lock
    new.up(resolved({"stack": "pages", "servers": {"edge": {"kind": "gate"}}}))
    assert locked(new, pages(shop=SITE)).servers == up.lock.servers | {"edge": locked(new, pages()).servers["edge"]}
    want = desired(new, pages(shop=SITE))
    wanted = missing(want, choices(want, new.observe(pages()), up.lock, ["www"]))
    assert [o.server for o in wanted.operations] == ["www"]
    assert not missing(want, choices(want, new.observe(pages()), up.lock))


def test_differences_are_told_by_server(up: World) -> None:
    """What runs and isn't in the lock, what the stack asks for otherwise, what nobody asks for."""
    stack = pages(shop=SITE)
    assert [d.why for d in differences(desired(up, stack), Lock(), locked(up, stack))] == ["not locked yet"] * 4
    up.lock = locked(up, stack)
    assert differences(desired(up, stack), up.lock, locked(up, stack)) == []
    tag = naming.refreshed_image(f"consolidate/{of(up.lock, 'www').asks}", STAMP)
    up.engine.images.add(tag)
    install(up, up.engine.images[tag], nginx="1.1")
    old, up.lock = up.lock, Lock()
    up.make_plan(stack, refreshes={"www": Refresh(tag, "nginx 1.0 → 1.1")})
    assert up.run().ok
    up.lock = old
    (found,) = differences(desired(up, stack), old, locked(up, stack))
    assert (found.server, found.why) == ("www", "it has another image")
    assert found.to_json()["packages"] == [{"package": "nginx", "old": "1.0", "new": "1.1"}]
    other = pages(shop=SITE | {"image": "example.test/site:2"}, blog=None)
    whys = {d.server: d.why for d in differences(desired(up, other), old, locked(up, other))}
    assert whys == {
        "www": "it has another image",
        "shop": "the stack asks for another",
        "blog": "no environment asks for it any more",
    }
    up.lock = Lock({**old.servers, "shop": {"example.test/site:2": LockedImage("example.test/site:2", ELSEWHERE)}})
    (found,) = behind(desired(up, other), up.observe(other), up.lock)
    assert (found.server, found.why) == ("shop", "it runs what the stack asked for before")


def test_a_move_to_a_lock_may_be_killed_anywhere(up: World) -> None:
    """The next `up` ends with each server on the image of the lock, and with nothing left to do."""
    stack = pages(shop=SITE)
    lock = locked(up, stack)
    up.engine.images.add("brought:1")
    moved = replace(of(lock, "www"), id=up.engine.images["brought:1"])
    up.lock = Lock({**lock.servers, "www": {moved.asks: moved}})
    whole = up.copy()
    whole.up(stack)
    assert whole.box("www").image_id == moved.id
    count = len(whole.engine.writes)
    assert count > 4
    for writes in range(count):
        world = up.copy()
        world.make_plan(stack)
        world.engine.kill_after(writes)
        with pytest.raises(Killed):
            world.run()
        world.engine.revive()
        world.up(stack)
        assert faults(world, stack) == []
        assert world.box("www").image_id == moved.id
        assert not world.make_plan(stack)


def test_an_update_goes_before_the_lock(up: World) -> None:
    """What it has built is for the servers that it names, whatever the lock has for them until now."""
    stack = pages(shop=SITE)
    up.lock = locked(up, stack)
    tag = naming.refreshed_image(f"consolidate/{of(up.lock, 'www').asks}", STAMP)
    up.engine.images.add(tag)
    plan = up.make_plan(stack, refreshes={"www": Refresh(tag, "nginx 1 → 2")})
    create = the(plan, "create:www").action
    assert isinstance(create, CreateContainer)
    assert create.image == tag
    assert "blog" not in {o.server for o in plan.operations}


def test_a_database_is_dumped_before_the_lock_moves_it() -> None:
    """As before an update: another image may be another version of its program."""
    world, stack = World(), resolved({"stack": "shop", "servers": {"db": {"kind": "depot"}}})
    world.up(stack)
    world.lock = locked(world, stack)
    world.engine.images.add("brought:1")
    moved = replace(of(world.lock, "db"), id=world.engine.images["brought:1"])
    world.lock = Lock({"db": {moved.asks: moved}})
    assert the(world.make_plan(stack), "dump:db")
    assert world.run().ok
    assert faults(world, stack) == []


def test_what_the_lock_has_is_part_of_what_is_desired(up: World) -> None:
    """A plan in a file is for one lock."""
    stack = pages(shop=SITE)
    lock = locked(up, stack)
    plain = desired(up, stack)
    assert pinned(plain, lock).digest != plain.digest != pinned(plain, elsewhere(lock, "www")).digest
    assert asked(plain.resolved, plain.images)["shop"] == IMAGE


def test_an_update_moves_the_lock_before_any_server_moves(up: World, tmp_path: Path) -> None:
    """A run that was killed in between leaves a lock that the next `up` goes on to; a server that stayed has its image
    back in it."""
    stack, source = pages(shop=SITE), Source(tmp_path / "stack.yml")
    before = locked(up, stack)
    write(source.lock, before, "stack.yml")
    up.lock = before
    tag = naming.refreshed_image(f"consolidate/{of(before, 'www').asks}", STAMP)
    up.engine.images.add(tag)
    new = up.engine.images[tag]
    install(up, new, nginx="1.1")
    prepared = Prepared(stack, desired(up, stack), up.observe(stack), up.secrets, {})
    change = Update(up.engine, prepared, (), NOW, print, moving={"www": new})
    assert Moving(source, up.engine, change).begin() == ["www"]
    after = read(source.lock)
    assert after is not None
    assert (of(after, "www").id, of(after, "www").packages) == (new, {"nginx": "1.1"})
    assert {s: i for s, i in after.servers.items() if s != "www"} == {
        s: i for s, i in before.servers.items() if s != "www"
    }

    killed = up.copy()
    killed.lock = after
    assert killed.up(stack).ok
    assert killed.box("www").image_id == new
    assert not killed.make_plan(stack)

    moving = Moving(source, up.engine, change)
    write(source.lock, before, "stack.yml")
    moving.begin()
    assert moving.end() == ["www"]
    found = read(source.lock)
    assert found is not None
    assert found.servers == before.servers


def test_without_a_lock_an_update_writes_none(up: World, tmp_path: Path) -> None:
    stack, source = pages(shop=SITE), Source(tmp_path / "stack.yml")
    prepared = Prepared(stack, desired(up, stack), up.observe(stack), up.secrets, {})
    change = Update(up.engine, prepared, (), NOW, print, moving={"www": up.box("www").image_id})
    moving = Moving(source, up.engine, change)
    assert (moving.begin(), moving.end(), source.lock.exists()) == ([], [], False)


def test_differences_are_shown_by_server_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """In the table the first packages that differ, in JSON all of them."""
    old, new = (
        LockedImage("web:0", f"sha256:{c * 64}", "", "0" * 12, None, {f"p{n}": v for n in range(7)})
        for c, v in (("a", "1"), ("b", "2"))
    )
    found = [Difference("www", "it has another image", old, new)]
    show_differences(found, "table", "wrote stack.lock.yml")
    said = " ".join(capsys.readouterr().out.split())
    assert "aaaaaaaaaaaa" in said
    assert "p4 1 → 2" in said
    assert "and 2 more" in said
    show_differences(found, "json", "")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["server"], row["now"]["id"], len(row["packages"])) == ("www", new.id, 7)
