"""Which engine is meant: as Docker's own client finds it, and never another one by accident."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from consolidate.cli.app import run
from consolidate.docker_engine.address import Address, meant
from consolidate.errors import UsageError
from tests.certificates import Authority
from tests.verbs import verbs

TCP, SSH = "tcp://10.0.0.1:2376", "ssh://root@there"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder with two contexts: one by ssh, which is the current one, and one by TLS."""
    config = tmp_path / ".docker"
    context(config, "far", {"Host": SSH, "SkipTLSVerify": False})
    context(config, "safe", {"Host": TCP, "SkipTLSVerify": False}, tls=True)
    config.joinpath("config.json").write_text(json.dumps({"currentContext": "far"}))
    return tmp_path


def context(config: Path, name: str, endpoint: dict[str, Any], *, tls: bool = False) -> None:
    """What `docker context create` writes."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / identity
    meta.mkdir(parents=True, exist_ok=True)
    meta.joinpath("meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if tls:
        Authority(name).give(config / "contexts" / "tls" / identity / "docker", server=False)


@pytest.mark.parametrize(
    ("host", "name", "variables", "found"),
    [
        (None, None, {}, SSH),
        (None, "safe", {}, TCP),
        (None, None, {"DOCKER_CONTEXT": "safe"}, TCP),
        (None, None, {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "safe"}, "unix:///a"),
        (None, "safe", {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "far"}, TCP),
        ("unix:///b", None, {"DOCKER_HOST": "unix:///a", "DOCKER_CONTEXT": "safe"}, "unix:///b"),
        (None, "default", {}, None),
        (None, "default", {"DOCKER_HOST": "unix:///a"}, "unix:///a"),
        (None, None, {"DOCKER_CONTEXT": "default"}, None),
        (None, None, {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}, SSH),
        ("10.0.0.1:2375", None, {}, "10.0.0.1:2375"),
        ("ssh://ada@there:2222/run/user/1000/docker.sock", None, {}, "ssh://ada@there:2222/run/user/1000/docker.sock"),
    ],
)
def test_the_nearest_word_wins(
    home: Path, host: str | None, name: str | None, variables: dict[str, str], found: str | None
) -> None:
    """-H, --context, DOCKER_HOST, DOCKER_CONTEXT, the current context, this machine's socket."""
    assert meant(host, name, variables, home).url == found


def test_nothing_named_is_this_machines_engine(tmp_path: Path) -> None:
    """Without a configuration of Docker's, and with one that names no context."""
    assert meant(None, None, {}, tmp_path) == Address()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"auths": {}}')
    assert meant(None, None, {}, tmp_path) == Address()


def test_contexts_are_found_where_docker_keeps_them(home: Path, tmp_path: Path) -> None:
    """Also where there is no config.json, and in the folder of DOCKER_CONFIG."""
    home.joinpath(".docker", "config.json").unlink()
    assert meant(None, "far", {}, home).url == SSH
    context(tmp_path / "else", "there", {"Host": "tcp://10.0.0.2:2375"})
    assert meant(None, "there", {"DOCKER_CONFIG": str(tmp_path / "else")}, home).url == "tcp://10.0.0.2:2375"


@pytest.mark.parametrize(
    ("host", "name", "variables", "what"),
    [
        ("unix:///a", "far", {}, "both an address"),
        (None, "fra", {}, "no Docker context 'fra'"),
        (None, None, {"DOCKER_CONTEXT": "fra"}, "no Docker context 'fra'"),
        ("ftp://there", None, {}, "'ftp://there' can't be an engine's address"),
        ("tcp://", None, {}, "can't be an engine's address"),
        ("ssh://", None, {}, "can't be an engine's address"),
        ("ssh://ada:secret@there", None, {}, "can't be an engine's address"),
        ("ssh://-oProxyCommand=x", None, {}, "can't be an engine's address"),
        ("ssh://there:x", None, {}, "can't be an engine's address"),
    ],
)
def test_what_names_no_engine_is_an_error(
    home: Path, host: str | None, name: str | None, variables: dict[str, str], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        meant(host, name, variables, home)


@pytest.mark.parametrize("text", ['{"currentContext": "gone"}', '{"currentContext": ', "\xff"])
def test_a_current_context_that_can_t_be_read_is_not_this_machine(home: Path, text: str) -> None:
    """A stack that was to come up elsewhere does not come up here; what is named needs no such file."""
    home.joinpath(".docker", "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"gone|can't be read"):
        meant(None, None, {}, home)
    assert meant(SSH, None, {}, home).url == SSH
    assert meant(None, None, {"DOCKER_HOST": "unix:///a"}, home).url == "unix:///a"


def test_a_context_that_is_damaged_is_told(home: Path) -> None:
    """With its file."""
    next(home.glob(".docker/contexts/meta/*/meta.json")).write_text("{}")
    next(reversed(list(home.glob(".docker/contexts/meta/*/meta.json")))).write_text("{}")
    with pytest.raises(UsageError, match=r"no engine's address that can be read: KeyError.*meta\.json"):
        meant(None, "safe", {}, home)


def test_certificates_come_from_the_context_or_from_variables(home: Path, tmp_path: Path) -> None:
    """For addresses of TCP alone. They are verified, unless a context says otherwise."""
    found = meant(None, "safe", {}, home).tls
    assert found is not None and found.verify and found.authority and found.certificate
    folder = Authority("other").give(tmp_path / "certs", server=False)
    given = {"DOCKER_CERT_PATH": str(folder)}
    for variables in (given, {"DOCKER_TLS_VERIFY": "1"} | given):
        tls = meant(TCP, None, variables, home).tls
        assert tls is not None and tls.verify and tls.authority == folder / "ca.pem"
        assert meant(None, None, {"DOCKER_HOST": TCP} | variables, home).tls == tls
        assert meant("unix:///a", None, variables, home).tls is None
        assert meant(SSH, None, variables, home).tls is None
    of_home = meant(TCP, None, {"DOCKER_TLS_VERIFY": "1"}, home).tls
    assert of_home is not None and of_home.folder == home / ".docker" and of_home.authority is None
    assert meant(TCP, None, {}, home).tls is None
    context(home / ".docker", "safe", {"Host": TCP, "SkipTLSVerify": True})
    unverified = meant(None, "safe", {}, home).tls
    assert unverified is not None and not unverified.verify


def test_a_certificate_without_its_key_is_told(home: Path, tmp_path: Path) -> None:
    folder = Authority("other").give(tmp_path / "certs", server=False)
    (folder / "key.pem").unlink()
    with pytest.raises(UsageError, match=r"there is no .*key\.pem to go with .*cert\.pem"):
        meant(TCP, None, {"DOCKER_CERT_PATH": str(folder)}, home)


# What has to be typed besides.
WORDS = {
    "diff": "dev prod",
    "restart": "www",
    "rollback": "www",
    "ship": "--to ssh://there",
    "restore": "latest",
    "exec": "www true",
    "backup files": "latest out --repository /r --passphrase-file key",
    "secret show": "www/key",
    "secret set": "www/key",
    "secret rotate": "www/key",
}
ASKING = sorted(v for v, c in verbs().items() if any("--host" in p.opts for p in c.params))
ASKING.remove("backup schedule")  # it asks none, and has what it installs ask


class Asked(BaseException):
    """Which engine was asked for; nobody catches it."""


@pytest.mark.parametrize("verb", ASKING)
@pytest.mark.parametrize(
    ("words", "expected"), [("-H ssh://ada@there", ("ssh://ada@there", None)), ("--context far", (None, "far"))]
)
def test_each_verb_asks_the_engine_that_its_command_line_names(
    verb: str, words: str, expected: tuple[str | None, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other one before."""

    def connect(host: str | None = None, name: str | None = None) -> None:
        raise Asked(host, name)

    monkeypatch.setattr("consolidate.docker_engine.connect", connect)
    monkeypatch.setattr("sys.stdin", io.StringIO("value"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere")
    tmp_path.joinpath("key").write_text("key")
    tmp_path.joinpath("stack.prod.yml").write_text("{}")
    tmp_path.joinpath("stack.yml").write_text(
        "stack: shop\nservers: {www: {kind: web, secrets: {key: {}}}}\nbackup: {repository: /r}\n"
    )
    with pytest.raises(Asked) as asked:
        run([*verb.split(), *words.split(), *WORDS.get(verb, "").split()])
    assert asked.value.args == expected
