"""Repositories on servers: addresses, credentials, what a refusal means; and a passphrase that changes everywhere or nowhere."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from consolidate import naming, vault
from consolidate.actions import CreateNetwork, OpenRepository, RemoveNetwork
from consolidate.backup import access, keys, plans, reading, work
from consolidate.backup.access import Given
from consolidate.custody import Custody
from consolidate.desired import Image
from consolidate.errors import OperationFailed, StackInvalid, UsageError
from consolidate.execute import reaching, restic, saving
from consolidate.naming import PASSPHRASE
from consolidate.observed import Observed
from consolidate.pipeline import Prepared
from consolidate.repository import Repository, check_credential, parse
from consolidate.resolved import Resolved
from consolidate.runner import Runner, without_sessions
from consolidate.secret import Secret, SecretRecord
from consolidate.source import Source, load_stack
from consolidate.store import read_secrets, save_secrets
from consolidate.values import Wrong
from tests.memory_engine import MemoryEngine
from tests.memory_parts import Box
from tests.world import World, resolved

NOW = datetime(2024, 5, 1, 3, tzinfo=UTC)
HOST_KEY = "nas ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAqqAEN4TBbl/krNZgfDwfWWtQCHBprJsnCdd8TAr6F2"
SFTP = f"backup: {{repository: 'sftp:ada@nas:/srv/b/', ssh_key: {{file: key}}, known_hosts: ['{HOST_KEY}']}}\n"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n-----END OPENSSH PRIVATE KEY-----"


# Addresses


@pytest.mark.parametrize(
    ("text", "kind", "server", "user"),
    [
        ("/srv/b", "folder", "", ""),
        ("sftp:ada@nas:/srv/b", "sftp", "nas", "ada"),
        ("sftp:nas:backups", "sftp", "nas", ""),
        ("sftp://ada@nas.example.org:2222//srv/b", "sftp", "nas.example.org:2222", "ada"),
        ("sftp://[fd00::1]:2222//srv/b", "sftp", "[fd00::1]:2222", ""),
        ("s3:https://s3.example.org/bucket/some/prefix", "s3", "s3.example.org", ""),
        ("s3:s3.amazonaws.com/bucket", "s3", "s3.amazonaws.com", ""),
        ("rest:https://ada@nas:8000", "rest", "nas:8000", "ada"),
        ("rest:http://nas/below", "rest", "nas", ""),
        ("rclone:dav:backups", "rclone", "rclone's remote dav", ""),
    ],
)
def test_what_restic_takes_is_understood(text: str, kind: str, server: str, user: str) -> None:
    place = parse(text + ("" if kind == "s3" else "/"))
    assert (place.kind, place.server, place.user, place.text) == (kind, server, user, text)


@pytest.mark.parametrize(
    "text",
    [
        "backups",
        "sftp:nas",
        "sftp:-oProxyCommand=id:/srv",
        "sftp:ada@-x:/srv",
        "sftp:nas:/srv/../etc",
        "sftp://nas:22//",
        "sftp:nas:/srv b",
        "s3:https://s3.example.org",
        "s3:https://s3.example.org/bu?cket",
        "rest:nas:8000",
        "rest:https://nas:8000/a\nb",
        "rest:http://ada@nas:8000/",
        "azure:container:/",
        "rclone:dav:",
        "rclone::memory:backups",
        "rclone:dav,user=x:backups",
        "rclone:dav:a/../b",
        "/a:b",
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """Also what ssh would take for an option, and a password that would cross the network in the clear."""
    with pytest.raises(Wrong):
        parse(text)


@pytest.mark.parametrize("text", ["b2:bucket:path", "azure:c:/", "gs:bucket:/", "swift:c:/p"])
def test_what_restic_reaches_by_itself_goes_by_a_remote_of_rclones(text: str) -> None:
    with pytest.raises(Wrong, match=f"'{text.partition(':')[0]}:' is not taken") as refused:
        parse(text)
    assert "rclone:REMOTE:FOLDER" in refused.value.hint


def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(StackInvalid) as refused:
        stack(tmp_path, "backup: {repository: 'rest:https://ada:hunter22@nas:8000/'}\n")
    assert "there is a password in the address" in str(refused.value) and "hunter22" not in str(refused.value)


def test_restic_is_told_the_password_so_that_it_finds_the_end_of_it() -> None:
    assert (
        parse("rest:https://ada@nas/x").location({"password": "a/b@c:d %"})
        == "rest:https://ada:a%2Fb%40c%3Ad%20%25@nas/x"
    )
    assert parse("sftp:ada@nas:x").location({}) == "sftp:ada@nas:x"


DAV = "[dav]\ntype = webdav\nurl = https://nas\npass = 100%\n"
B2 = "[b]\ntype = b2\n"
BESIDE = "in a folder beside rclone"
ODD = "no REMOTE:FOLDER of a remote in there"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DAV, ""),
        (f"\ufeff# mine\n[ dav ]\n  type: webdav\n{B2}remote = a key of the backend's own\n", ""),
        (f"{DAV}[c]\ntype = crypt\nremote = dav:below\n[x]\ntype = union\nupstreams = c: b:x:ro\n{B2}", ""),
        ('[dav]\ntype = union\nupstreams = "b:my folder" b:\n' + B2, ""),
        ('[dav]\ntype = combine\nupstreams = "one=b:my folder" two=b:\n' + B2, ""),
        (B2, "no remote 'dav'"),
        ("key", "no configuration"),
        ("[dav]\ntype = b2\ntype = local\n", "something twice"),
        ("[dav]\ntype = b2\n  type = local\n", "something twice"),
        ("# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nx\n", "is encrypted"),
        ("[DEFAULT]\ntype = b2\n[dav]\nurl = https://x\n", "without a plain type"),
        ("[dav]\ntype = `local`\n", "without a plain type"),
        ("[dav]\nType = b2\ntype = local\n", BESIDE),
        ("[dav]\ntype = memory\n", "in rclone's memory"),
        ("[dav]\ntype = cache\nremote = b:\n" + B2, "behind a cache"),
        ("[dav]\ntype = sftp\nhost = nas\n", "write sftp:USER@HOST:/FOLDER"),
        ("[dav]\ntype = local\n", BESIDE),
        ("[dav]\ntype = combine\nupstreams = b2=b: here=there:\n[there]\ntype = local\n" + B2, f"'there' {BESIDE}"),
        ("[dav]\ntype = alias\nremote = /srv\n", ODD),
        ("[dav]\ntype = alias\nremote = b,type=local:/srv\n" + B2, ODD),
        ("[dav]\ntype = crypt\nremote = :memory:x\n", ODD),
        ("[dav]\ntype = crypt\nremote = dav:x\n", "made of itself"),
        ("".join(f"[{'dav' if n == 0 else n}]\ntype = alias\nremote = {n + 1}:\n" for n in range(2000)), "too many"),
        (DAV.replace("https", "http"), "in the clear"),
        ("[dav]\ntype = ftp\nhost = nas\n", "in the clear"),
        ("[dav]\ntype = ftp\nhost = nas\nexplicit_tls = true\n", ""),
    ],
)
def test_a_remote_of_rclones_is_refused_where_it_is_not_safe(text: str, told: str) -> None:
    """Backups would go with the session, or a password in the clear; also one below it, such as crypt's. A % is only a %."""
    found = check_credential(parse("rclone:dav:b"), "rclone_config", text)
    assert told in found if told else not found


@pytest.mark.parametrize(("listed", "status"), [(0, 7), (3, 7), (1, 1), (6, 1), (124, 124)])
def test_rclone_is_asked_before_restic_believes_that_nothing_is_there(tmp_path: Path, listed: int, status: int) -> None:
    """Its status 3 says that there is no such folder; only then, or where it lists it, restic is run."""
    program = tmp_path / "rclone"
    program.write_text(f'#!/bin/sh\necho "asked $*" >&2\nexit {listed}\n')
    program.chmod(0o755)
    words = reaching.first(parse("rclone:dav:b/"), "sh", "-c", "exit 7")
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == status and done.stderr.startswith("asked lsf") and done.stderr.endswith(" dav:b\n")
    assert reaching.first(parse("/srv/b"), "restic") == ("restic",)


# The stack file


def stack(folder: Path, text: str) -> Resolved:
    (folder / "stack.yml").write_text(f"stack: acme\n{text}servers:\n  www: {{kind: web, content: site}}\n")
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "index.html").write_text("hello")
    return load_stack(Source(folder / "stack.yml"))


def test_credentials_are_secrets_of_the_stack(tmp_path: Path) -> None:
    """Those that the place needs, where the stack file does not tell them they are set by hand."""
    found = stack(tmp_path, SFTP).backups
    assert (found.repository, found.known_hosts) == ("sftp:ada@nas:/srv/b/acme", (HOST_KEY,))
    (key,) = found.credentials
    assert (key.address, key.source and key.source.value) == ("backup/ssh_key", "key")
    by_hand = stack(tmp_path, "backup: {repository: 's3:https://s3.example.org/bucket'}\n").backups
    assert [(s.address, s.source) for s in by_hand.credentials] == [
        ("backup/access_key", None),
        ("backup/secret_key", None),
    ]
    without = stack(tmp_path, "backup: {repository: 'rest:http://nas:8000/'}\n").backups
    assert (without.repository, without.credentials) == ("rest:http://nas:8000/acme", ())


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        ("{repository: 'sftp:nas:/b', ssh_key: {file: k}}", "backup.repository", "`ssh-keyscan nas`"),
        ("{repository: 'sftp://nas:222//b'}", "backup.repository", "`ssh-keyscan -p 222 nas`"),
        ("{ssh_key: {file: k}}", "backup.ssh_key", "a folder needs no credentials"),
        ("{repository: 's3:h/b', password: {env: X}}", "backup.password", "it takes: access_key, secret_key, ca"),
        (f"{{repository: 's3:h/b', known_hosts: ['{HOST_KEY}']}}", "backup.known_hosts", "does not take"),
        ("{repository: 'sftp:nas:/b', known_hosts: ['nas']}", "backup.known_hosts", "no line of a file of known hosts"),
    ],
)
def test_what_does_not_belong_to_the_place_is_told_with_its_line(
    tmp_path: Path, text: str, path: str, told: str
) -> None:
    with pytest.raises(StackInvalid) as refused:
        stack(tmp_path, f"backup: {text}\n")
    (problem,) = refused.value.problems
    assert problem.place is not None and problem.place.line == 2
    assert problem.path.startswith(path) and told in str(problem)


def test_no_server_has_a_secret_where_those_of_backups_are() -> None:
    with pytest.raises(StackInvalid, match="backup/password is a secret of backups"):
        resolved({"stack": "shop", "servers": {"backup": {"kind": "page", "secrets": {"password": {}}}}})


def prepared_with(found: Resolved, secrets: dict[str, SecretRecord]) -> Prepared:
    world = World()
    world.up(resolved({"stack": "acme", "servers": {"db": {"kind": "depot"}}}))
    assert world.desired is not None
    return Prepared(found, world.desired, world.engine.observe("acme"), secrets, {})


def record(address: str, value: str, opens: str = "") -> SecretRecord:
    return replace(vault.record(address, Secret(value), NOW), opens=opens)


def test_a_credential_comes_from_the_command_line_the_stack_file_or_the_store(tmp_path: Path) -> None:
    """What is no key is refused before anything is done, and never shown."""
    found = stack(tmp_path, SFTP)
    (tmp_path / "key").write_text(f"{KEY}\n")
    known = {PASSPHRASE: record(PASSPHRASE, "p")}
    records, _ = work.passphrase(prepared_with(found, known))
    assert records["backup/ssh_key"].value.reveal() == KEY
    other = Given(credentials={"ssh_key": KEY.replace("xyz", "abc")})
    assert "abc" in work.passphrase(prepared_with(found, known), other)[0]["backup/ssh_key"].value.reveal()
    (tmp_path / "key").write_text("hunter22")
    with pytest.raises(UsageError, match="backup/ssh_key is no private key") as refused:
        work.passphrase(prepared_with(found, known))
    assert "hunter22" not in str(refused.value)
    by_hand = stack(tmp_path, "backup: {repository: 's3:h/b'}\n")
    with pytest.raises(UsageError, match="needs the secret backup/access_key") as refused:
        work.passphrase(prepared_with(by_hand, known))
    assert "consolidate secret set backup/access_key" in refused.value.hint
    stored = {a: record(a, "x") for a in ("backup/access_key", "backup/secret_key")}
    assert work.passphrase(prepared_with(by_hand, known | stored))[0].keys() >= stored.keys()


def test_a_credential_that_the_repository_has_no_use_for_is_refused(tmp_path: Path) -> None:
    """It may be meant for another one; nothing that nobody asks for gets into the store."""
    folder = stack(tmp_path, "backup: {repository: /srv/b}\n")
    for name in ("ssh_key", "known_hosts"):
        with pytest.raises(UsageError, match=f"takes no '{name}'"):
            work.passphrase(prepared_with(folder, {PASSPHRASE: record(PASSPHRASE, "p")}), Given(None, {name: KEY}))
    with pytest.raises(UsageError, match="takes no 'password'"):
        access.alone_with("/b", Given("p", {"password": "x"}))


@pytest.mark.parametrize("phrase", [None, "q"])
@pytest.mark.parametrize("opens", [False, True])
def test_what_the_command_line_gives_is_kept_once_it_has_opened_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool, phrase: str | None
) -> None:
    """A wrong key would keep all later backups from theirs."""

    class Enough(Exception): ...

    @contextlib.contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[str]:
        if not opens:
            raise OperationFailed("no")
        yield "session"

    def enough(*_: Any) -> Any:
        raise Enough

    by_hand = stack(tmp_path, SFTP.replace("ssh_key: {file: key}, ", ""))
    known = {
        PASSPHRASE: record(PASSPHRASE, "p", by_hand.backups.repository),
        "backup/ssh_key": record("backup/ssh_key", KEY),
    }
    prepared = prepared_with(by_hand, known | {"db/new": record("db/new", "made")})
    kept = dict[str, str]()
    monkeypatch.setattr(work, "opened", opened)
    monkeypatch.setattr(work.restic, "snapshots", lambda *_: [])
    monkeypatch.setattr(work, "stack_files", enough)
    monkeypatch.setattr(
        work, "save_secrets", lambda _, __, records: kept.update({a: r.value.reveal() for a, r in records.items()})
    )
    runner = Runner(MemoryEngine(), lambda _: None, lambda _: None, print)
    other = KEY.replace("xyz", "abc")
    with pytest.raises(Enough if opens else OperationFailed):
        work.back_up(
            Source(tmp_path / "stack.yml"), runner, prepared, (), print, given=Given(phrase, {"ssh_key": other})
        )
    assert kept == ({PASSPHRASE: phrase or "p", "backup/ssh_key": other, "db/new": "made"} if opens else {})


def test_a_repository_alone_asks_for_what_it_needs() -> None:
    with pytest.raises(UsageError, match="the keys of nas are not known"):
        access.alone_with("sftp:nas:/b/acme", Given("p"))
    with pytest.raises(UsageError, match="needs the private key") as refused:
        access.alone_with("sftp:nas:/b/acme", Given("p", {"known_hosts": HOST_KEY}))
    assert refused.value.hint == "give it in a file: --credential ssh_key=FILE"
    backups, records = access.alone_with(
        "sftp:nas:/b/acme", Given("p", {"known_hosts": f"{HOST_KEY}\n", "ssh_key": KEY})
    )
    assert (backups.known_hosts, records.keys()) == ((HOST_KEY,), {PASSPHRASE, "backup/ssh_key"})
    with pytest.raises(UsageError, match="no credential 'key'"):
        access.alone_with("/b", Given("p", {"key": "x"}))


# A session that reaches a server


def test_a_session_has_a_network_only_for_a_server_and_secrets_in_files_alone(tmp_path: Path) -> None:
    """One of its own, with a way out; neither the plan nor the container tells a secret."""
    observed, image = World().engine.observe("acme"), Image("tools:1", "build")
    for text, networks in (("", 0), (SFTP, 1)):
        found = stack(tmp_path, text).backups
        plan = plans.open_plan(observed, image, "acme.backup.a1", found, (), "me", new=False, writes=False, alone=True)
        made = [o.action for o in plan.operations if isinstance(o.action, CreateNetwork)]
        (opened,) = [o.action for o in plan.operations if isinstance(o.action, OpenRepository)]
        assert len(made) == networks and opened.network == ("acme_backup_a1" if networks else "")
        assert all(not n.internal and n.masquerade and n.name == opened.network for n in made)
    place = parse("rest:https://ada@nas:8000/acme")
    opens = {"passphrase": "hunter22", "password": "hunter33", "ca": "-----BEGIN CERTIFICATE-----"}
    variables, files = dict(reaching.environment(place, opens)), dict(reaching.files(place, opens, ()))
    assert all(v.startswith(("/run/restic/", "/nonexistent")) for v in variables.values())
    assert files["/run/restic/location"] == "rest:https://ada:hunter33@nas:8000/acme"
    assert variables["SSL_CERT_FILE"] in files
    place, opens = parse("rclone:dav:b/acme"), {"passphrase": "hunter22", "rclone_config": DAV}
    variables, rclone = dict(reaching.environment(place, opens)), dict(reaching.files(place, opens, ()))
    assert (
        variables["RCLONE_CONFIG"] in rclone and variables["RCLONE_ASK_PASSWORD"] == "false"
    )  # there is nobody to ask
    assert (rclone["/run/restic/rclone.conf"].strip(), rclone["/run/restic/location"]) == (
        DAV.strip(),
        "rclone:dav:b/acme",
    )


def test_a_session_network_is_no_change_while_it_is_used_and_goes_after_it(tmp_path: Path) -> None:
    world = World()
    found = resolved({"stack": "shop", "servers": {"db": {"kind": "depot"}}})
    world.up(found)
    backups = stack(tmp_path, SFTP).backups
    plan = plans.open_plan(
        world.engine.observe("shop"),
        Image("t", "build"),
        "shop.backup.a1",
        backups,
        (),
        "me",
        new=False,
        writes=False,
        alone=True,
    )
    world.engine.create_network(next(o.action for o in plan.operations if isinstance(o.action, CreateNetwork)))
    plan = world.make_plan(found)
    assert [type(o.action) for o in plan.operations] == [RemoveNetwork]
    assert world.desired is not None
    with world.engine.lock("shop", "ada", print):
        prepared = Prepared(found, world.desired, world.engine.observe("shop"), {}, {}, plan)
        assert not without_sessions(prepared).plan
    work.leftovers(world.engine, world.engine.observe("shop"))
    assert not world.make_plan(found)


class Server(MemoryEngine):
    """An engine whose sessions get these answers of restic's, one after the other; it keeps what was asked."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, ...]]()

        def program(_: MemoryEngine, __: Box, command: tuple[str, ...], ___: bytes | None) -> tuple[int, str]:
            if "restic" not in command:
                return 0, ""
            self.asked.append(command[command.index("restic") + 1 :])
            return self.answers.pop(0) if self.answers else (0, "")

        super().__init__(program)
        self.import_image(None, "tools")

    def start(self, container: str, *, new: bool = False) -> None:
        super().start(container, new=new)
        self.boxes[container].state = "running"


def opening(*, new: bool = False, alone: bool = False) -> OpenRepository:
    return OpenRepository("shop.backup.1", "shop", "tools", "sftp:ada@nas:/b/shop", (), new, alone=alone, host="here")


OPENS = {"passphrase": "p", "ssh_key": KEY}
ABSENT = (
    "Fatal: unable to open config file: Lstat: file does not exist\nIs there a repository at the following location?"
)
REFUSED = (
    "subprocess ssh: ssh: connect to host nas port 22: Connection refused\nFatal: unable to open repository at x: EOF"
)
LOCKS = [f"{n}{'0' * 63}" for n in "ab"]


def test_a_server_that_does_not_answer_is_asked_three_times_and_no_repository_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To be away is not to have none: nothing is made there, however new the stack is."""
    monkeypatch.setattr(restic, "PAUSES", (0.0, 0.0))
    engine = Server(*[(1, REFUSED)] * 3)
    with pytest.raises(OperationFailed, match="nas can't be reached"):
        restic.open_repository(engine, opening(new=True), OPENS)
    assert len(engine.asked) == 3 and not any("init" in a for a in engine.asked)
    engine = Server((1, REFUSED), (1, ABSENT), (0, "created"))
    restic.open_repository(engine, opening(new=True), OPENS)
    assert "init" in engine.asked[-1]
    engine = Server((1, ABSENT))
    with pytest.raises(OperationFailed, match="no repository of backups in sftp:ada@nas:/b/shop"):
        restic.open_repository(engine, opening(), OPENS)
    assert len(engine.asked) == 1


def test_what_the_stack_file_has_dropped_is_not_used_any_more() -> None:
    """A certificate that only the store still has does not make a server trusted; nothing secret is in the container's making."""
    engine = Server()
    action = OpenRepository(
        "s", "shop", "tools", "rest:https://ada@nas:8000/shop", (), False, credentials=("password",)
    )
    secrets = {a: record(a, "hunter22") for a in (PASSPHRASE, "backup/password", "backup/ca")}
    saving.act(engine, action, secrets, threading.Event())
    made = engine.boxes["s"].made
    assert made is not None and dict(made.environment).keys() == {"RESTIC_PASSWORD_FILE", "RESTIC_REPOSITORY_FILE"}
    assert "hunter22" not in repr(made)


def lock(host: str) -> str:
    return "repository x opened\n" + json.dumps({"time": "2024-05-01T03:00:00.1Z", "hostname": host, "pid": 12})


def test_locks_that_this_host_has_left_go_and_those_of_another_stay() -> None:
    """Who is alone with the repository on this engine knows that nobody of here works in it, and nothing of others."""
    engine = Server((0, LOCKS[0]), (0, ""), (0, LOCKS[0]), (0, lock("here")), (0, ""))
    restic.open_repository(engine, opening(alone=True), OPENS)
    assert engine.asked[-1][-2:] == ("unlock", "--remove-all")
    engine = Server((0, "\n".join(LOCKS)), (0, ""), (0, "\n".join(LOCKS)), (0, lock("here")), (0, lock("there")))
    with pytest.raises(
        OperationFailed, match="there works in the repository sftp:ada@nas:/b/shop, since 2024-05-01T03:00:00"
    ):
        restic.open_repository(engine, opening(alone=True), OPENS)
    assert not any("--remove-all" in a for a in engine.asked)
    engine = Server((0, LOCKS[0]))  # who only looks
    restic.open_repository(engine, opening(), OPENS)
    assert len(engine.asked) == 1


DAVS, RCLONE = parse("rclone:dav:b"), 'Failed to create file system for "dav:b": read metadata failed: '
NAS, BUCKET, REST = parse("sftp:ada@nas:/b"), parse("s3:https://s3.example.org/b"), parse("rest:https://ada@nas:8000/")
CONFIG = "Fatal: unable to open config file: "


@pytest.mark.parametrize(
    ("place", "said", "told", "hint"),
    [
        (NAS, "subprocess ssh: Host key verification failed.", "nas has none of the keys", "`ssh-keyscan nas`"),
        (
            NAS,
            "subprocess ssh: No ED25519 host key is known for nas and you have requested",
            "none of the keys",
            "known_hosts",
        ),
        (
            NAS,
            "subprocess ssh: ada@nas: Permission denied (publickey).",
            "let us in as ada with backup/ssh_key",
            "secret set",
        ),
        (NAS, REFUSED, "nas can't be reached", "see that it runs"),
        (NAS, "Save(<data/1>) returned error, retrying: sftp: no space left on device", "is full", "free some space"),
        (
            NAS,
            'Save(<data/1>) returned error: Write: sftp: "Failure" (SSH_FX_FAILURE)',
            "its disk may be full",
            "free some",
        ),
        (
            BUCKET,
            f"{CONFIG}Stat: The request signature we calculated does not match",
            "backup/access_key and backup/secret_key",
            "",
        ),
        (
            BUCKET,
            f"{CONFIG}Stat: The AWS Access Key Id you provided does not exist in our records.",
            "does not let us in",
            "",
        ),
        (
            REST,
            f"{CONFIG}unexpected HTTP response (401): 401 Unauthorized",
            "let us in as ada with backup/password",
            "",
        ),
        (REST, f"{CONFIG}x509: certificate signed by unknown authority", "nas:8000 is not trusted", "ca: {file"),
        (REST, f'{CONFIG}Head "https://ada:***@nas/": dial tcp: lookup nas: no such host', "can't be reached", ""),
        (REST, "Fatal: wrong password or no key found", "made with another passphrase", "--passphrase-file"),
        (
            DAVS,
            f"{RCLONE}403 Forbidden",
            "rclone's remote dav does not let us in with backup/rclone_config",
            "secret set",
        ),
        (DAVS, f"{RCLONE}503 Service Unavailable", "rclone's remote dav can't be reached", ""),
        (
            None,
            "Fatal: unable to create lock in backend: repository is already locked by PID 1",
            "somebody else works",
            "",
        ),
        (
            None,
            "subprocess ssh: Connection reset\nssh command exited: exit status 255",
            "reached any more",
            "nothing half done",
        ),
    ],
)
def test_a_refusal_says_whose_it_is_and_what_to_do(place: Repository | None, said: str, told: str, hint: str) -> None:
    error = restic.refusal(said, "restic ended with status 1", place)
    assert told in error.what and hint in error.hint


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        (ABSENT, True),
        (f"{CONFIG}Stat: The specified key does not exist.", True),
        (f"{CONFIG}Stat: The specified bucket does not exist", True),
        (f"{CONFIG}<config/> does not exist", True),
        (f"{CONFIG}Stat: The AWS Access Key Id you provided does not exist in our records.", False),
        (REFUSED, False),
        (f"{CONFIG}Stat: Access Denied.", False),
    ],
)
def test_a_repository_is_missing_only_where_the_server_says_so(said: str, absent: bool) -> None:
    assert reaching.is_missing(said) == absent


def test_what_restic_says_shows_no_password() -> None:
    told = restic.refusal("Fatal: can't open rest:https://ada:hunter22@nas:8000/: no", "x", REST)
    assert "hunter22" not in str(told) + "".join(told.log) and "ada:***@nas" in told.log[0]
    signed = restic.refusal('Failed: Head "https://x.example/c?sv=1&sig=hunter22&se=2": EOF', "x", DAVS)
    assert "hunter22" not in "".join(signed.log) and "sig=***&se=2" in signed.log[0]


# The passphrase is changed


class Cut(BaseException):
    """The program is killed."""


class Vault(MemoryEngine):
    """An engine whose restic knows only of keys. `left` acts are done until it is killed, each either before or after."""

    def __init__(self, passphrase: str) -> None:
        self.opens = {passphrase: "k0"}
        self.told: dict[str, str] = {}
        self.left = 10**6
        super().__init__(self._say)
        self.import_image(None, naming.BASE_IMAGE)

    def start(self, container: str, *, new: bool = False) -> None:
        super().start(container, new=new)
        self.boxes[container].state = "running"

    def put(self, container: str, path: str, archive: Any) -> None:
        with self._act():
            super().put(container, path, archive)

    @contextlib.contextmanager
    def _act(self) -> Iterator[None]:
        self.left -= 1
        if self.left == 0:
            raise Cut
        yield
        self.left -= 1
        if self.left == 0:
            raise Cut

    def _say(self, _: MemoryEngine, __: Box, command: tuple[str, ...], stdin: bytes | None) -> tuple[int, str]:
        if found := re.search(r"cat > (\S+)", command[-1]):
            assert stdin is not None
            self.told[found[1]] = stdin.decode()
        if "restic" not in command or "key" not in command:
            return 0, "[]"
        file = (
            command[command.index("--password-file") + 1]
            if "--password-file" in command
            else f"{reaching.KEY}/passphrase"
        )
        if self.told[file] not in self.opens:
            return 1, "Fatal: wrong password or no key found"
        match command[command.index("key") + 1 :]:
            case ("add", _, new):
                with self._act():
                    self.opens.setdefault(self.told[new], f"k{len(self.told)}{len(self.opens)}")
            case ("remove", key):
                assert self.opens[self.told[file]] != key, "restic refuses that"
                with self._act():
                    self.opens = {p: k for p, k in self.opens.items() if k != key}
            case ("list", _):
                rows = [{"id": k, "current": p == self.told[file]} for p, k in self.opens.items()]
                return 0, json.dumps(rows)
        return 0, ""


REPOSITORY = "/srv/b/shop"


def vault_of(passphrase: str, secrets: dict[str, SecretRecord]) -> tuple[Vault, Runner, Prepared]:
    engine = Vault(passphrase)
    found = resolved({"stack": "shop", "backup": {"repository": "/srv/b"}, "servers": {"db": {"kind": "depot"}}})
    world = World()
    world.up(found)
    assert world.desired is not None
    save_secrets(engine, "shop", secrets)
    runner = Runner(engine, lambda _: None, lambda _: None, print)
    return engine, runner, Prepared(found, world.desired, engine.observe("shop"), secrets, {})


def stored(engine: MemoryEngine) -> dict[str, str]:
    return {a: r.value.reveal() for a, r in read_secrets(engine, engine.observe("shop")).items()}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions start without an image: what happens in them is at issue."""

    @contextlib.contextmanager
    def opened(engine: Vault, *_: Any, **__: Any) -> Iterator[str]:
        engine.create_helper("s", {naming.STACK: "shop", naming.HELPER: "backup"}, {})
        engine.boxes["s"].state = "running"
        engine.told[f"{reaching.KEY}/passphrase"] = stored(engine)[PASSPHRASE]
        yield "s"
        engine.remove("s")

    monkeypatch.setattr(keys, "opened", opened)


@pytest.mark.usefixtures("session")
def test_a_change_of_the_passphrase_that_is_killed_anywhere_leaves_one_that_opens() -> None:
    """And the next backup makes one of two: the store's opens the repository, the other does not, and a key of others stays."""
    for left in range(1, 100):
        secrets = {PASSPHRASE: record(PASSPHRASE, "old", REPOSITORY), "db/x": record("db/x", "x")}
        engine, runner, prepared = vault_of("old", secrets)
        engine.opens["the admin's own"] = "k9"
        engine.left = left
        whole = False
        with contextlib.suppress(Cut):
            keys.change(runner, prepared, record(PASSPHRASE, "new"))
            whole = True
        engine.left = 10**6
        assert stored(engine)[PASSPHRASE] in engine.opens
        engine.remove("s")
        now = read_secrets(engine, engine.observe("shop"))
        after = keys.up_to_date(runner, replace(prepared, secrets=now)).secrets
        assert engine.opens.keys() == {after[PASSPHRASE].value.reveal(), "the admin's own"}
        assert stored(engine) == {a: r.value.reveal() for a, r in after.items()}
        assert after.keys() == {PASSPHRASE, "db/x"} and after[PASSPHRASE].opens == REPOSITORY
        if whole:
            assert "new" in engine.opens
            break
    else:
        raise AssertionError("it was never whole")
    assert left > 8  # it was killed at many places


@pytest.mark.usefixtures("session")
def test_a_change_that_is_refused_changes_nothing() -> None:
    """Where the passphrase of now does not open the repository."""
    engine, runner, prepared = vault_of("another", {PASSPHRASE: record(PASSPHRASE, "old", REPOSITORY)})
    with pytest.raises(OperationFailed):
        keys.change(runner, prepared, record(PASSPHRASE, "new"))
    assert (stored(engine)[PASSPHRASE], engine.opens.keys()) == ("old", {"another"})


def test_the_passphrase_of_the_stack_file_counts_once_the_repository_has_it(tmp_path: Path) -> None:
    """Until the next backup the one of before opens it; a file that is wrong by now keeps nobody from the backups."""
    found = stack(tmp_path, "backup: {repository: /srv/b, passphrase: {file: phrase}}\n")
    (tmp_path / "phrase").write_text("new\n")
    known = {PASSPHRASE: record(PASSPHRASE, "old", "/srv/b/acme")}
    prepared = prepared_with(found, known)
    records, _ = work.passphrase(prepared)
    assert records[PASSPHRASE].value.reveal() == "old"
    wish = access.wished(prepared)
    assert wish is not None and wish.value.reveal() == "new"
    (tmp_path / "phrase").write_text("old\n")
    assert access.wished(prepared) is None
    elsewhere = {PASSPHRASE: record(PASSPHRASE, "generated")}  # it has opened nothing yet
    assert work.passphrase(prepared_with(found, elsewhere))[0][PASSPHRASE].value.reveal() == "old"


def custody(folder: Path, engine: MemoryEngine) -> tuple[Custody, list[str]]:
    told: list[str] = []
    runner = Runner(engine, lambda _: None, lambda _: None, print)
    return Custody(Source(folder / "stack.yml"), runner, lambda _, __, value: told.append(value.reveal())), told


def test_secret_set_and_rotate_know_what_opens_the_repository(tmp_path: Path) -> None:
    """The passphrase goes to the repository, too; credentials are the server's, so they are set and never made up."""
    stack(tmp_path, "backup: {repository: 'sftp:ada@nas:/b', known_hosts: ['" + HOST_KEY + "']}\n")
    engine = MemoryEngine()
    engine.import_image(None, naming.BASE_IMAGE)
    secrets, told = custody(tmp_path, engine)
    secrets.set(PASSPHRASE, "new")
    secrets.rotate([PASSPHRASE])
    assert told[0] == "new" and len(told[1]) == 32
    with pytest.raises(UsageError, match="is made by whoever runs"):
        secrets.rotate(["backup/ssh_key"])
    with pytest.raises(UsageError, match="is no private key"):
        secrets.set("backup/ssh_key", "hunter22")
    secrets.set("backup/ssh_key", KEY)
    assert secrets.show("backup/ssh_key") == KEY
    stack(tmp_path, "backup: {repository: 'rclone:dav:b'}\n")
    with pytest.raises(UsageError, match="backup/rclone_config has no remote 'dav'") as other:
        custody(tmp_path, engine)[0].set("backup/rclone_config", "[x]\ntype = b2\nkey = hunter22\n")
    assert "hunter22" not in f"{other.value} {other.value.hint}"
    stack(tmp_path, "backup: {passphrase: {file: phrase}}\n")
    with pytest.raises(UsageError, match="comes from the file 'phrase'") as refused:
        custody(tmp_path, engine)[0].rotate([PASSPHRASE])
    assert "consolidate backup" in refused.value.hint


def test_a_network_that_a_killed_look_has_left_goes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine()
    for net, name, holder in ((1, "ended", "gone"), (2, "works", "here")):
        labels = {naming.STACK: reading.NOBODY, naming.HELPER: "backup", naming.PROCESS: holder}
        engine.create_network(CreateNetwork(name, f"10.{net}.0.0/28", False, True, tuple(labels.items())))
    monkeypatch.setattr(reading.process, "fate", lambda identity: {"gone": "ended", "here": "lives"}[identity])
    reading.nobodys(engine)
    observed: Observed = engine.observe(reading.NOBODY)
    assert [n.name for n in observed.networks] == ["works"]
