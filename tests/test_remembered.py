"""What is remembered of a stack is what would be worked out anew; as soon as anything differs it is worked out anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from consolidate import remembered
from consolidate.errors import StackInvalid
from consolidate.listing import urls
from consolidate.naming import BASE_IMAGE
from consolidate.pipeline import Prepared, prepare
from consolidate.remembered import recall
from consolidate.source import Source, ask
from consolidate.store import save_secrets
from tests.memory_engine import MemoryEngine

ROOT = Path(__file__).resolve().parent.parent
STACK = """\
stack: t
templates: [./kinds]
servers:
  www: {kind: web, content: ./site, domains: [www.test], environment: {A: "${C_OF_FILE-}", B: "${C_OF_SHELL-}"}}
  own: {kind: mine}
  app: {kind: container, build: ./app, secrets: {token: {}}}
"""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files that were written a moment ago count as settled, and the cache is this test's own."""
    monkeypatch.setattr(remembered, "TICK", -3600.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine()
    made.images.add(BASE_IMAGE)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "stack"
    (folder / "site/below").mkdir(parents=True)
    (folder / "site/index.html").write_text("one")
    (folder / "site/link").symlink_to("index.html")
    (folder / "kinds/mine/files").mkdir(parents=True)
    (folder / "kinds/mine/kind.yml").write_text("summary: mine\nimage: debian:bookworm\ncommand: [cat]\n")
    (folder / "kinds/mine/files/settings.j2").write_text("for {{ server.name | shell }}\n")
    (folder / "app/__pycache__").mkdir(parents=True)
    (folder / "app/__pycache__/m.pyc").write_text("one")
    (folder / "app/Dockerfile").write_text("FROM debian:bookworm-slim\n")
    (folder / "stack.yml").write_text(STACK)
    (folder / "stack.prod.yml").write_text("servers: {www: {resources: {memory: 64M}}}\n")
    return Source(folder / "stack.yml", "prod")


def known(source: Source) -> bool:
    return recall(source.key) is not None


def settled(source: Source, engine: MemoryEngine) -> Prepared:
    """The stack with its secrets in the store, so that it is remembered."""
    prepared = prepare(source, engine)
    save_secrets(engine, prepared.desired.stack, prepared.secrets)
    return prepare(source, engine)


def _replaced(path: Path, text: str) -> None:
    """Another file of the same size and time in its place, as tools that keep times leave it."""
    was = path.stat()
    new = path.with_name("new")
    new.write_text(text)
    os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
    new.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "the stack file": lambda f: (f / "stack.yml").write_text(STACK.replace("www.test", "web.test")),
    "the overlay": lambda f: (f / "stack.prod.yml").write_text("servers: {www: {resources: {memory: 65M}}}\n"),
    "content, of the same size and time": lambda f: _replaced(f / "site/index.html", "two"),
    "a file that a language keeps": lambda f: (f / "app/__pycache__/m.pyc").write_text("two"),
    "an empty folder": lambda f: (f / "site/below").rmdir(),
    "content, in place": lambda f: (f / "site/index.html").write_text("two"),
    "a file more": lambda f: (f / "site/below/more").write_text(""),
    "a file less": lambda f: (f / "site/index.html").unlink(),
    "a link that leads elsewhere": lambda f: ((f / "site/link").unlink(), (f / "site/link").symlink_to("below")),
    "the content as a whole": lambda f: shutil.rmtree(f / "site"),
    "a mode": lambda f: (f / "site/index.html").chmod(0o755),
    "a manifest": lambda f: (f / "kinds/mine/kind.yml").write_text(
        "summary: mine\nimage: debian:trixie\ncommand: [cat]\n"
    ),
    "a template": lambda f: (f / "kinds/mine/files/settings.j2").write_text("for whom\n"),
    "a kind in front of another": lambda f: shutil.copytree(ROOT / "templates/web", f / "kinds/web"),
    "a lock": lambda f: (f / "stack.lock.yml").write_text("lock: 1\nservers: {}\nimages: {}\n"),
    "what is built": lambda f: (f / "app/Dockerfile").write_text("FROM debian:bookworm-slim\nRUN true\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_remembered_once_anything_has_changed(source: Source, engine: MemoryEngine, change: str) -> None:
    """Whatever went into a stack: as long as it's the same the stack is known, and afterwards it isn't."""
    settled(source, engine)
    assert known(source)
    CHANGES[change](source.file.parent)
    assert not known(source)


def test_a_variable_that_changes_works_everything_out_anew(
    source: Source, engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file names counts, set, unset and changed; other variables don't."""
    env_file = source.file.with_name(".env")
    for change in (
        lambda: monkeypatch.setenv("C_OF_SHELL", "some text"),
        lambda: monkeypatch.setenv("C_OF_SHELL", ""),
        lambda: monkeypatch.delenv("C_OF_SHELL"),
        lambda: env_file.write_text("C_OF_FILE=1\n"),
        lambda: monkeypatch.setenv("C_OF_FILE", "2"),
        env_file.unlink,
    ):
        settled(source, engine)
        monkeypatch.setenv("C_OF_NOBODY", str(change))
        assert known(source)
        change()
        assert not known(source)
        afresh = prepare(source, engine, asked=ask(source, engine, afresh=True))
        assert settled(source, engine).desired.digest == afresh.desired.digest


def test_a_library_or_the_program_that_is_new_works_everything_out_anew(
    source: Source, engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of packages that changed, a package whose files were replaced, another program and Python know nothing."""
    libraries, program = tmp_path / "site-packages", tmp_path / "program"
    (libraries / "jinja2").mkdir(parents=True)
    program.mkdir()
    (program / "render.py").write_text("one")
    monkeypatch.syspath_prepend(libraries)
    monkeypatch.setattr(remembered, "PROGRAM", str(program))
    settled(source, engine)
    assert known(source)
    (libraries / "more").mkdir()
    assert not known(source)
    settled(source, engine)
    (libraries / "jinja2/more").write_text("")
    assert not known(source)
    settled(source, engine)
    (program / "render.py").write_text("two")
    assert not known(source)
    settled(source, engine)
    monkeypatch.setattr(remembered, "PROGRAM", str(tmp_path))
    assert not known(source)
    settled(source, engine)
    monkeypatch.setattr("sys.version", "4")
    assert not known(source)


def test_each_source_has_a_memory_of_its_own(
    source: Source, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another environment, other templates and another current folder are other stacks."""
    settled(source, engine)
    assert not known(Source(source.file))
    assert not known(Source(source.file, "prod", (ROOT / "templates",)))
    monkeypatch.chdir("/")
    assert not known(source)


@pytest.mark.parametrize("stack", ["hello", "acme", "many-webs"])
def test_a_remembered_stack_has_the_plan_of_one_that_is_worked_out(
    stack: str, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stack of ours: plan, warnings and addresses come out alike, with no template read."""
    source = Source(ROOT / "stacks" / stack / "stack.yml")
    first = settled(source, engine)
    monkeypatch.setattr("consolidate.pipeline.resolve_document", None)
    monkeypatch.setattr(engine, "facts", lambda: replace(MemoryEngine.facts(engine), cpus=0))
    second = prepare(source, engine)
    assert second.plan == first.plan
    assert {s: urls(s, second.resolved) for s in second.resolved.servers} == {
        s: urls(s, first.resolved) for s in first.resolved.servers
    }
    explicit = any(s.explicit_cpus for s in first.resolved.servers.values())
    assert bool(second.resolved.warnings) == explicit, "the host's processors are asked for anew"


def test_no_secret_is_written(engine: MemoryEngine, tmp_path: Path) -> None:
    """The values in the store stand in nothing that is kept; the files are the user's alone."""
    prepared = settled(Source(ROOT / "stacks/acme/stack.yml"), engine)
    files = list((tmp_path / "cache/consolidate").iterdir())
    assert [oct(f.stat().st_mode)[-3:] for f in files] == ["600"]
    assert oct((tmp_path / "cache/consolidate").stat().st_mode)[-3:] == "700"
    for record in prepared.secrets.values():
        assert record.value.reveal().encode() not in files[0].read_bytes()


def test_a_changed_secret_is_in_the_plan(engine: MemoryEngine) -> None:
    """A secret that was rotated behind a remembered stack replaces who reads it."""
    source = Source(ROOT / "stacks/acme/stack.yml")
    before = settled(source, engine)
    address = next(a for a in before.secrets if a.startswith("blog/"))
    changed = replace(before.secrets[address], id="another")
    save_secrets(engine, before.desired.stack, before.secrets | {address: changed})
    assert known(source)
    now = prepare(source, engine)
    assert now.desired.servers["blog"].container.fingerprint != before.desired.servers["blog"].container.fingerprint
    assert now.desired.servers["shop"].container == before.desired.servers["shop"].container


def test_what_the_host_refuses_has_its_place(
    source: Source, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remembered stack that no longer fits its host is refused with file and line, as a new one is."""
    settled(source, engine)
    monkeypatch.setattr(engine, "facts", lambda: replace(MemoryEngine.facts(engine), memory=2**25))
    assert known(source)
    with pytest.raises(StackInvalid) as refused:
        prepare(source, engine)
    assert str(refused.value.problems[0].place).endswith("stack.prod.yml:1:37")


def test_a_file_that_just_changed_is_not_remembered(
    source: Source, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change once more within one tick of the file system's clock, which its times would not show."""
    monkeypatch.setattr(remembered, "TICK", 2.0)
    settled(source, engine)
    assert not known(source)


def test_a_template_that_changes_between_two_plans_of_one_run_is_read_again(
    source: Source, engine: MemoryEngine, tmp_path: Path
) -> None:
    """An `up` plans again where the engine has changed meanwhile, and so may templates have."""
    (tmp_path / "stack/kinds/mine/files/settings.j2").write_text("first")
    prepare(source, engine)
    (tmp_path / "stack/kinds/mine/files/settings.j2").write_text("second")
    (volume,) = prepare(source, engine).desired.servers["own"].files
    assert [f.text for f in volume.files.files] == ["second"]


def test_a_stack_that_changes_while_it_is_planned_is_read_as_a_whole(
    source: Source, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets that do not fit what is remembered, and another file by now: nothing of both is mixed."""
    before = settled(source, engine)
    asked = ask(source, engine)
    records = {a: replace(r, id="another") for a, r in before.secrets.items()}
    save_secrets(engine, before.desired.stack, records)
    source.file.write_text(STACK.replace("token: {}", "token: {}, more: {}"))
    now = prepare(source, engine, asked=asked)
    assert now.desired.servers["app"].server.secrets.keys() == {"token", "more"}
    assert "app/more" in now.secrets


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", ["the file", "the folder", "a link's"])
def test_what_others_can_write_is_never_unpickled(
    source: Source, engine: MemoryEngine, tmp_path: Path, whose: str
) -> None:
    """Root with another's home reads nothing that the other could have put there."""
    settled(source, engine)
    (file,) = (tmp_path / "cache/consolidate").iterdir()
    if whose == "a link's":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        os.chown(file if whose == "the file" else file.parent, 65534, -1)
    assert not known(source)


@pytest.mark.parametrize("harm", ["open to others", "cut off", "no memory at all"])
def test_what_may_not_be_ours_is_not_read(source: Source, engine: MemoryEngine, tmp_path: Path, harm: str) -> None:
    """A file that others could have written, or that is damaged, is as good as none, and the next one replaces it."""
    settled(source, engine)
    (file,) = (tmp_path / "cache/consolidate").iterdir()
    if harm == "open to others":
        file.chmod(0o622)
    else:
        file.write_bytes(file.read_bytes()[:-20] if harm == "cut off" else b"what is this?")
    assert not known(source)
    settled(source, engine)
    assert known(source)


def test_without_a_place_for_it_nothing_is_remembered(
    source: Source, engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder can be made, as on a full or read-only disk: the plan comes out all the same."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert settled(source, engine).plan
    assert not known(source)


def test_what_may_not_be_read_is_no_error(
    source: Source, engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that only others may enter is not copied, and keeps nothing from being remembered."""
    real = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    settled(source, engine)
    assert known(source)


def test_the_cache_does_not_grow(
    source: Source, engine: MemoryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go; the newest is there."""
    monkeypatch.setattr(remembered, "KEPT", 2)
    for index in range(4):
        folder = shutil.copytree(source.file.parent, tmp_path / f"s{index}", symlinks=True)
        settled(Source(folder / "stack.yml"), engine)
    assert len(list((tmp_path / "cache/consolidate").iterdir())) == 2
    assert known(Source(tmp_path / "s3/stack.yml"))
    assert not known(Source(tmp_path / "s0/stack.yml"))
