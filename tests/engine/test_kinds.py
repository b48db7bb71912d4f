"""Kinds that the acme stack shows little of: what mail takes at port 25, and PHP with a database and a mail server."""

from __future__ import annotations

import json
import smtplib
from email.message import EmailMessage

import pytest

from tests.engine.conftest import StackFactory
from tests.engine.support import curl, free_port, wait_until
from tests.mail_client import MailServer

pytestmark = pytest.mark.engine

PHP = """\
<?php
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$password = file_get_contents(getenv('DATABASE_PASSWORD_FILE'));
$where = 'mysql:host=' . getenv('DATABASE_HOST') . ';dbname=' . getenv('DATABASE_NAME');
$db = new PDO($where, getenv('DATABASE_USER'), $password);
$db->exec('CREATE TABLE IF NOT EXISTS seen (path VARCHAR(200))');
$db->prepare('INSERT INTO seen VALUES (?)')->execute([$_SERVER['REQUEST_URI']]);
$count = $db->query('SELECT COUNT(*) FROM seen')->fetchColumn();
$sent = isset($_GET['mail']) && mail('ada@app.test', 'From PHP', 'It works.');
file_put_contents(getenv('DATA') . '/uploads/note.txt', 'kept');
header('Content-Type: application/json');
echo json_encode(['visits' => $_SESSION['visits'], 'count' => (int) $count, 'sent' => $sent,
    'path' => $_SERVER['REQUEST_URI'], 'https' => $_SERVER['HTTPS'] ?? '', 'writable' => is_writable(__FILE__)]);
"""


def letter(sender: str, receiver: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, receiver, "Hello"
    made.set_content("Hello.")
    return made


def test_mail_is_no_open_relay_where_other_servers_deliver(make_stack: StackFactory) -> None:
    """Port 25 takes mail for its own mailboxes and aliases from anybody, and nothing else from anybody; also of a container
    that has been started again.
    """
    stack, port = make_stack("mx"), free_port()
    stack.write(
        "  mail:\n    kind: mail\n    domains: [mx.test]\n"
        f'    publish: ["127.0.0.1:{port}:25"]\n'
        "    mailboxes: {ada@mx.test: {aliases: [info@mx.test]}}\n"
    )
    stack.up()
    stack.run("restart", "mail")
    server = MailServer("mail.mx.test", "", smtp=port)
    for receiver in ("ada@mx.test", "info@mx.test"):
        with server.deliver() as smtp:
            smtp.send_message(letter("someone@else.test", receiver))

    def arrived() -> bool:
        found = stack.inside("mail", "find", "/var/vmail/mx.test/ada", "-type", "f", "-path", "*/new/*")[1]
        return len(found.split()) == 2

    wait_until(arrived, "both letters are in the mailbox")
    for sender, receiver in (
        ("someone@else.test", "victim@elsewhere.test"),
        ("ada@mx.test", "victim@elsewhere.test"),
        ("someone@else.test", "nobody@mx.test"),
        ("someone@else.test", "victim%elsewhere.test@mx.test"),
        ("someone@else.test", '"victim@elsewhere.test"@mx.test'),
        ("ada@mx.test", "ada@mx.test"),  # a sender of ours has to log in
    ):
        with server.deliver() as smtp:
            smtp.ehlo("else.test")
            smtp.mail(sender)
            code, said = smtp.rcpt(receiver)
            assert 400 <= code < 600, f"{sender} → {receiver}: {code} {said!r}"
    with server.deliver() as smtp:
        smtp.ehlo("else.test")
        assert "auth" not in smtp.esmtp_features, "nobody logs in without TLS"
        with pytest.raises(smtplib.SMTPException):
            smtp.login("ada@mx.test", stack.secret("mail/ada@mx.test"))


def test_php_has_its_database_its_mail_and_its_files(make_stack: StackFactory) -> None:
    """A script talks to its database, keeps sessions, sends mail and writes where it may, and nowhere else."""
    stack, http = make_stack("php"), free_port()
    stack.write(
        f'  edge: {{kind: proxy, http: {http}, tls: "off"}}\n'
        "  app:\n    kind: php\n    domains: [app.test]\n    content: ./app\n    database: db\n    relay: mail\n"
        "    front_controller: index.php\n    writable: [uploads]\n"
        "  db: {kind: mysql}\n"
        "  mail: {kind: mail, domains: [app.test], mailboxes: {ada@app.test: {}}}\n",
        app__index_dot_php=PHP,
        app__plain_dot_txt="plain",
    )
    stack.up()
    site = f"http://app.test:{http}"
    first = curl(f"{site}/some/path?mail=1")
    assert first.status == 200, first.body
    said = json.loads(first.body)
    assert (said["visits"], said["sent"]) == (1, True)
    assert said["path"] == "/some/path?mail=1", "the front controller answers what is no file"
    assert not said["writable"], "its own code can't be changed"
    cookie = str(first.header("Set-Cookie")).partition(";")[0]
    assert json.loads(curl(f"{site}/", "--cookie", cookie).body)["visits"] == 2
    assert curl(f"{site}/plain.txt").body.strip() == "plain"
    assert curl(f"{site}/uploads/note.txt").body.strip() == "kept"
    found = "find /var/vmail/app.test/ada -type f -path '*/new/*' -exec cat {} +"
    wait_until(lambda: "From PHP" in stack.inside("mail", "sh", "-c", found)[1], "the letter is in the mailbox")

    stack.put("app/index.php", PHP.replace("It works.", "It works still."))
    stack.up()
    again = json.loads(curl(f"{site}/", "--cookie", cookie).body)
    assert again["visits"] == 3, "sessions outlive an update"
    assert again["count"] >= said["count"] + 2, "and so does the database"
