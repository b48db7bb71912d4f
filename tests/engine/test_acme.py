"""stacks/acme, used as people would: browsers, mail programs, an administrator, and `up` again."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.engine.conftest import StackFactory, logged_in
from tests.engine.recorder import recorded
from tests.engine.support import Acme, Stack, curl, free_port, wait_until
from tests.mail_client import MailServer, fetch, message, send, tls
from tests.wordpress_client import WordPress, plugin_archive

pytestmark = pytest.mark.engine

READING = ("exec_", "health_status", "archive-path")  # the engine's events when something is only looked at
SITES = {"www.acme.test": "www", "acme.test": "www", "shop.acme.test": "shop"}


@pytest.fixture(scope="session")
def mail(acme: Acme) -> MailServer:
    return MailServer(
        "mail.acme.test", acme.authority.read_text(), acme.submission, acme.submissions, acme.imaps, smtp=0
    )


# The web


@pytest.mark.parametrize(("host", "site"), SITES.items())
def test_each_host_gets_its_site(acme: Acme, host: str, site: str) -> None:
    answer = acme.get(host)
    assert answer.status == 200
    assert answer.body == (acme.folder / "sites" / site / "index.html").read_text()


def test_http_leads_to_https(acme: Acme) -> None:
    answer = curl(f"http://shop.acme.test:{acme.http}/a%20b?c=d")
    assert answer.status in (301, 302, 307, 308)
    assert answer.header("Location") == f"https://shop.acme.test:{acme.https}/a%20b?c=d"


def test_an_unknown_host_gets_404(acme: Acme) -> None:
    assert curl(f"http://nobody.test:{acme.http}/").status == 404
    assert curl(f"https://nobody.test:{acme.https}/", "--insecure").status == 404


def test_http_2(acme: Acme) -> None:
    assert acme.get("www.acme.test", "/", "--http2").version == "2"
    assert acme.get("www.acme.test", "/", "--http1.1").version == "1.1"


@pytest.mark.parametrize("host", [*SITES, "blog.acme.test"])
def test_each_name_has_a_certificate_of_the_stacks_authority(acme: Acme, host: str) -> None:
    context = tls(host, acme.authority.read_text())
    with (
        socket.create_connection(("127.0.0.1", acme.https), 10) as plain,
        context.wrap_socket(plain) as connection,
    ):
        names = [value for kind, value in connection.getpeercert()["subjectAltName"] if kind == "DNS"]  # type: ignore[index]
        assert host in names
        assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_old_tls_is_refused(acme: Acme) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", acme.https), 10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="www.acme.test").close()


# WordPress


def test_the_blog_shows_its_title(acme: Acme) -> None:
    answer = acme.get("blog.acme.test")
    assert answer.status == 200
    assert "<title>Acme" in answer.body


def test_the_blogs_links_keep_the_port(acme: Acme) -> None:
    links = re.findall(r'(?:href|src)=["\'](https?://blog\.acme\.test[^"\']*)', acme.get("blog.acme.test").body)
    assert links
    assert [li for li in links if not f"{li}/".startswith(f"https://blog.acme.test:{acme.https}/")] == []


def test_the_administrator_logs_in(admin: WordPress) -> None:
    assert "Dashboard" in admin.page("/wp-admin/").text


def test_a_wrong_password_does_not(acme: Acme) -> None:
    from tests.wordpress_client import NotDone

    blog = WordPress(f"https://127.0.0.1:{acme.https}", f"blog.acme.test:{acme.https}", verify=str(acme.authority))
    with pytest.raises(NotDone, match="incorrect"):
        blog.login("ada", "not it")


def test_a_plugin_is_installed_and_runs(ticking: WordPress) -> None:
    assert ticking.page("/?tick").text.startswith("ticked: ")


def test_what_wordpress_sends_arrives(acme: Acme, mail: MailServer, admin: WordPress) -> None:
    admin.ask_for_password("ada")
    letter = fetch(mail, "ada@acme.test", acme.secret("mail/ada@acme.test"), "Password Reset")
    assert "DKIM-Signature" in letter
    assert letter["To"] == "ada@acme.test"
    assert letter["From"].endswith("<wordpress@blog.acme.test>")
    assert f"https://blog.acme.test:{acme.https}/wp-login.php" in letter.get_content()


# Mail


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "TLS"])
def test_a_message_sent_through_submission_is_read(acme: Acme, mail: MailServer, implicit: bool) -> None:
    subject = f"To sales, {time.monotonic_ns()}"
    sent = message("ada@acme.test", "sales@acme.test", subject, "Grüße\n")
    send(mail, "ada@acme.test", acme.secret("mail/ada@acme.test"), sent, implicit=implicit)
    got = fetch(mail, "bob@acme.test", acme.secret("mail/bob@acme.test"), subject)
    assert got.get_content().strip() == "Grüße"
    assert got["From"] == "ada@acme.test"
    assert re.search(r"\bd=acme\.test\b", got["DKIM-Signature"])


def test_mail_is_refused_where_it_should_be(acme: Acme, mail: MailServer) -> None:
    import smtplib

    password = acme.secret("mail/ada@acme.test")
    with pytest.raises(smtplib.SMTPAuthenticationError):
        send(mail, "ada@acme.test", "not it", message("ada@acme.test", "bob@acme.test", "wrong password"))
    with pytest.raises(smtplib.SMTPException):
        send(mail, "ada@acme.test", password, message("bob@acme.test", "ada@acme.test", "as somebody else"))
    with mail.submit() as smtp, pytest.raises(smtplib.SMTPException):
        smtp.sendmail("ada@acme.test", ["bob@acme.test"], "Subject: no login\n\n")


# What consolidate says, and `up` again


def test_ps_says_that_all_is_ready(acme: Acme) -> None:
    rows = acme.run("ps", "--format", "json").json
    keys = {"server", "kind", "state", "health", "generation", "image", "urls", "published", "since"}
    keeps = {"edge", "blog", "db", "mail"}
    assert all(set(row) == keys | ({"backup", "drill"} if row["server"] in keeps else set()) for row in rows)
    assert {(r["backup"], r["drill"]) for r in rows if r["server"] in keeps} == {(None, None)}
    assert {(r["server"], r["kind"]) for r in rows} == {
        ("edge", "proxy"),
        ("www", "web"),
        ("shop", "web"),
        ("blog", "wordpress"),
        ("db", "mysql"),
        ("mail", "mail"),
    }
    assert {(r["state"], r["health"]) for r in rows} == {("running", "ready")}
    by_server = {r["server"]: r for r in rows}
    assert by_server["www"]["urls"] == [f"https://{h}:{acme.https}/" for h in ("www.acme.test", "acme.test")]
    assert f"127.0.0.1:{acme.imaps}/tcp" in by_server["mail"]["published"]
    for server, inspected in acme.containers().items():
        row = by_server[server]
        assert row["generation"] == int(inspected["Config"]["Labels"]["io.consolidate.generation"])
        assert row["image"] == inspected["Config"]["Image"]
        assert row["state"] == inspected["State"]["Status"]


def test_up_again_writes_nothing(acme: Acme) -> None:
    before, start = acme.identities(), time.time()
    with recorded() as recording:
        done = acme.up(env={"DOCKER_HOST": recording.url})
    assert "nothing to change" in done.out
    assert recording.calls
    assert [c for c in recording.calls if not c.startswith(("GET ", "HEAD "))] == []
    assert acme.identities() == before
    events = acme.daemon.events(
        since=int(start),
        until=int(time.time()) + 1,
        decode=True,
        filters={"label": f"io.consolidate.stack={acme.name}"},
    )
    assert [e["Action"] for e in events if not e["Action"].startswith(READING)] == []


def test_a_copy_of_the_stack_elsewhere_changes_nothing(acme: Acme, tmp_path: Path) -> None:
    copy = tmp_path / "another place" / "acme"
    shutil.copytree(acme.folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    before = acme.identities()
    moved = Stack(copy, acme.name, acme.daemon, is_up=True)
    assert moved.run("plan", "--detailed-exitcode").out.strip() == f"{acme.name}: nothing to change"
    moved.up()
    assert acme.identities() == before


# Stacks of their own, which change


def test_blog_and_mail_outlive_down_and_up(
    make_stack: StackFactory, tmp_path: Path, daemon: object, token: str
) -> None:
    stack = Acme.copy(tmp_path / "acme", f"{token}-keep", daemon)
    try:
        stack.up()
        stack.export_authority()
        blog = logged_in(stack)
        post = blog.create_post("It stays", "This post outlives its container.")
        address = blog.upload("dot.gif", base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAA="), "image/gif")
        picture = "/" + address.split("/", 3)[3]
        blog.install_plugin(
            plugin_archive("stays", "add_action('wp_head', function () { echo '<!-- a plugin -->'; });")
        )
        mail = MailServer("mail.acme.test", stack.authority.read_text(), stack.submission, 0, stack.imaps, 0)
        passwords = {n: stack.secret(f"mail/{n}@acme.test") for n in ("ada", "bob")}
        send(mail, "ada@acme.test", passwords["ada"], message("ada@acme.test", "bob@acme.test", "It stays too"))
        fetch(mail, "bob@acme.test", passwords["bob"], "It stays too")
        volumes = {
            v for v in stack.volumes() if stack.daemon.api.inspect_volume(v)["Labels"]["io.consolidate.role"] == "data"
        }

        done = stack.run("down")
        assert all(volume in done.both for volume in volumes), "it says what is kept"
        assert stack.containers() == {}
        assert volumes <= stack.volumes()

        stack.up()
        path = "/" + str(post["link"]).split("/", 3)[3]
        assert "This post outlives its container." in stack.get("blog.acme.test", path).body
        assert stack.get("blog.acme.test", picture).header("Content-Type") == "image/gif"
        assert "<!-- a plugin -->" in stack.get("blog.acme.test").body
        assert fetch(mail, "bob@acme.test", passwords["bob"], "It stays too")["From"] == "ada@acme.test"
        logged_in(stack)
    finally:
        stack.destroy()
        stack.purge()


def test_a_server_that_leaves_the_file_leaves_the_engine_but_for_its_data(make_stack: StackFactory) -> None:
    stack = make_stack("leave")
    stays = f"  www: {{kind: web, publish: ['{free_port()}:80']}}\n"
    stack.write(
        stays
        + "  keep: {kind: container, image: 'debian:bookworm-slim', command: sleep 999, volumes: ['data:/data']}\n"
    )
    stack.up()
    volume = f"{stack.name}_keep_data"
    before = stack.identities()
    stack.inside("keep", "sh", "-c", "echo precious > /data/file")
    stack.write(stays)

    planned = stack.run("plan")
    assert re.search(r"- +keep +remove +it is no longer in the stack", planned.out)
    assert stack.identities() == before, "a plan does nothing"
    done = stack.up()
    assert volume in done.err, "it says what is kept"
    assert stack.identities() == {"www": before["www"]}
    assert {v for v in stack.volumes() if "_keep_" in v} == {volume}

    stack.write(
        stays
        + "  keep: {kind: container, image: 'debian:bookworm-slim', command: sleep 999, volumes: ['data:/data']}\n"
    )
    stack.up()
    assert stack.inside("keep", "cat", "/data/file") == (0, "precious\n")


def test_a_new_mailbox_a_setting_and_a_new_certificate_drop_no_open_session(make_stack: StackFactory) -> None:
    stack = make_stack("box")
    submission, imaps = free_port(), free_port()
    servers = (
        "  mail:\n    kind: mail\n    domains: [acme.test]\n"
        f"    publish: ['{submission}:587', '{imaps}:993']\n"
        "    mailboxes: {ada@acme.test: {}}\n"
    )
    stack.write(servers)
    stack.up()

    def client() -> MailServer:
        certificate = stack.secret("mail/certificate")
        authority = certificate[: certificate.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
        return MailServer("mail.acme.test", authority, submission, 0, imaps, 0)

    ada = stack.secret("mail/ada@acme.test")
    before = stack.identities()
    with client().read("ada@acme.test", ada) as session:
        stack.edit("{ada@acme.test: {}}", "{ada@acme.test: {}, new@acme.test: {}}\n    message_size_limit: 7M")
        stack.run("secret", "rotate", "mail/certificate")
        told = stack.run("plan")
        assert re.search(r"mail +reload ", told.out)
        assert re.search(r"^  \+new@acme\.test:.*<secret mail/new@acme\.test>", told.out, re.M)
        values = [ada, *stack.secret("mail/certificate").split("\n")]
        assert [v for v in values if len(v) > 8 and v in told.both and not v.startswith("-----")] == []
        stack.up()
        reloaded = time.monotonic()
        assert session.noop()[0] == "OK"
        assert stack.identities() == before
        mail = client()  # it trusts the new certificate alone
        with mail.submit("ada@acme.test", ada) as smtp:
            assert smtp.esmtp_features["size"] == str(7 * 2**20)
        send(mail, "ada@acme.test", ada, message("ada@acme.test", "new@acme.test", "Welcome"))
        fetch(mail, "new@acme.test", stack.secret("mail/new@acme.test"), "Welcome")
        time.sleep(max(0, reloaded + 11.5 - time.monotonic()))  # Dovecot would end those that are idle for 10 s
        assert session.search(None, "ALL")[0] == "OK"
    assert stack.run("plan", "--detailed-exitcode").status == 0


def test_a_new_site_recreates_no_proxy(make_stack: StackFactory) -> None:
    stack = make_stack("site")
    http = free_port()
    servers = f"  edge: {{kind: proxy, http: {http}, tls: 'off'}}\n  a: {{kind: web, domains: [a.test]}}\n"
    stack.write(servers)
    stack.up()
    before = stack.identities()
    stack.write(servers + "  b: {kind: web, domains: [b.test]}\n")
    stack.up()
    assert {s: i for s, i in stack.identities().items() if s != "b"} == before
    assert "<h1>b</h1>" in curl(f"http://b.test:{http}/").body or curl(f"http://b.test:{http}/").status == 200
    assert curl(f"http://a.test:{http}/").status == 200
    stack.write(servers)
    stack.up()
    assert stack.identities() == before
    assert curl(f"http://b.test:{http}/").status == 404


def test_forwarded_headers_and_websockets_through_the_proxy(echo: Stack) -> None:
    echo.up()
    pem = echo.secret("edge/authority")
    authority = echo.folder / "root.pem"
    authority.write_text(pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n")
    https = re.search(r"https: (\d+)", echo.file.read_text())[1]  # type: ignore[index]
    lies = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Real-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6"]
    lies += ["Forwarded: for=6.6.6.6", "X-Forwarded-Host: evil.test"]
    words = [w for lie in lies for w in ("--header", lie)]
    seen = json.loads(curl(f"https://echo.test:{https}/", *words, authority=authority).body)
    headers: dict[str, list[str]] = {}
    for name, value in seen:
        headers.setdefault(name.lower(), []).append(value)
    assert "6.6.6.6" not in json.dumps(seen)
    assert "evil.test" not in json.dumps(seen)
    assert headers["x-forwarded-proto"] == ["https"]
    assert len(headers["x-forwarded-for"]) == 1
    socket.inet_aton(headers["x-forwarded-for"][0])
    assert headers["host"] == [f"echo.test:{https}"]

    with (
        socket.create_connection(("127.0.0.1", int(https)), 10) as plain,
        tls("echo.test", authority.read_text()).wrap_socket(plain) as connection,
    ):
        connection.sendall(
            f"GET /socket HTTP/1.1\r\nHost: echo.test:{https}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        stream = connection.makefile("rb")
        assert b" 101 " in stream.readline()
        answer = b"".join(iter(stream.readline, b"\r\n"))
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, "the key's answer, from RFC 6455"
        for text in (b"one", b"two"):
            masked = bytes(b ^ m for b, m in zip(text, b"\1\2\3\4", strict=False))
            connection.sendall(bytes([0x81, 0x80 | len(text)]) + b"\1\2\3\4" + masked)
            assert stream.read(2 + len(text)) == bytes([0x81, len(text)]) + text
            time.sleep(0.2)
        stream.close()


def test_consumers_of_one_database_server_see_only_their_own(make_stack: StackFactory) -> None:
    stack = make_stack("two")
    stack.write("  db: {kind: mysql}\n")
    stack.up()
    image = stack.containers()["db"]["Config"]["Image"]  # it has a MySQL client
    consumer = f"{{kind: container, image: '{image}', command: sleep 999, user: '1000:1000', database: db}}"
    stack.write(f"  db: {{kind: mysql}}\n  one: {consumer}\n  on-e: {consumer}\n")
    stack.up()

    def sql(server: str, statement: str) -> tuple[int, str]:
        login = (
            'exec mariadb --host="$DATABASE_HOST" --user="$DATABASE_USER" --password="$(cat $DATABASE_PASSWORD_FILE)"'
        )
        return stack.inside(server, "sh", "-c", f'{login} -N -e "$0"', statement)

    def databases(server: str) -> set[str]:
        code, said = sql(server, "SHOW DATABASES")
        assert code == 0, said
        return set(said.split()) - {"information_schema"}

    assert databases("one") == {"one"}
    assert databases("on-e") == {"on_e"}
    code, said = sql("one", "CREATE TABLE one.t (i INT); INSERT INTO one.t VALUES (42); SELECT i FROM one.t")
    assert (code, said) == (0, "42\n")
    for statement in (
        "SELECT * FROM one.t",
        "CREATE DATABASE mine",
        "SELECT * FROM mysql.user",
        "CREATE TABLE oneX.t (i INT)",
    ):
        code, said = sql("on-e", statement)
        assert code != 0, statement
        assert "denied" in said, said
    code, said = sql("on-e", "SELECT LOAD_FILE('/run/secrets/x')")
    assert (code, said.strip()) == (0, "NULL"), "no FILE privilege"

    stack.write(f"  db: {{kind: mysql}}\n  on-e: {consumer}\n")
    stack.up()
    code, said = stack.inside("db", "mariadb", "--user=mysql", "--protocol=socket", "-Ne", "SELECT i FROM one.t")
    assert (code, said) == (0, "42\n"), "what it owned is kept"
    wait_until(lambda: databases("on-e") == {"on_e"}, "the other one goes on")
