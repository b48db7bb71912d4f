"""A mail client for tests: sends through submission and reads through IMAPS, as a person's program would.

It connects to an address of this machine but checks the certificate for the server's own name, so a test needs no DNS.
"""

from __future__ import annotations

import email
import imaplib
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from email.utils import formatdate, make_msgid
from typing import Any, cast


class _NamedContext(ssl.SSLContext):
    """A context that checks certificates for one name, whatever address it is connected to."""

    name = ""

    def wrap_socket(self, sock: Any, *args: Any, **words: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **(words | {"server_hostname": self.name}))


def tls(name: str, authority: str) -> ssl.SSLContext:
    """A context that trusts the certificate `authority` (PEM) alone, and only for `name`."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.load_verify_locations(cadata=authority)
    return context


@dataclass(frozen=True)
class MailServer:
    """Where a mail server is reached. `name` is the one in its certificate, `authority` the PEM that signed it."""

    name: str
    authority: str
    submission: int = 587
    submissions: int = 465
    imaps: int = 993
    smtp: int = 25
    address: str = "127.0.0.1"
    timeout: float = 30

    @contextmanager
    def submit(self, user: str | None = None, password: str = "", *, implicit: bool = False) -> Iterator[smtplib.SMTP]:
        """A connection for sending, encrypted and, given a user, logged in: port 587, or 465 with `implicit`."""
        context = tls(self.name, self.authority)
        smtp: smtplib.SMTP
        if implicit:
            smtp = smtplib.SMTP_SSL(self.address, self.submissions, timeout=self.timeout, context=context)
        else:
            smtp = smtplib.SMTP(self.address, self.submission, timeout=self.timeout)
        with smtp:
            if not implicit:
                smtp.starttls(context=context)
            if user is not None:
                smtp.login(user, password)
            yield smtp

    @contextmanager
    def deliver(self) -> Iterator[smtplib.SMTP]:
        """A connection as another mail server would make it: port 25, no login."""
        with smtplib.SMTP(self.address, self.smtp, timeout=self.timeout) as smtp:
            yield smtp

    @contextmanager
    def read(self, user: str, password: str) -> Iterator[imaplib.IMAP4_SSL]:
        """A connection for reading, with the inbox selected."""
        context = tls(self.name, self.authority)
        with imaplib.IMAP4_SSL(self.address, self.imaps, ssl_context=context, timeout=self.timeout) as imap:
            imap.login(user, password)
            imap.select()
            yield imap


def message(sender: str, to: str, subject: str, text: str = "Hello.\n") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, to, subject
    made["Date"], made["Message-ID"] = formatdate(), make_msgid(domain="client.test")
    made.set_content(text)
    return made


def send(server: MailServer, user: str, password: str, mail: EmailMessage, *, implicit: bool = False) -> None:
    """Submit `mail` as `user`. Raises smtplib.SMTPException where the server refuses."""
    with server.submit(user, password, implicit=implicit) as smtp:
        smtp.send_message(mail)


def fetch(server: MailServer, user: str, password: str, subject: str, *, within: float = 10) -> EmailMessage:
    """The newest message with `subject` in the inbox of `user`, waited for. Raises TimeoutError."""
    return email.message_from_bytes(fetch_bytes(server, user, password, subject, within=within), policy=default)


def fetch_bytes(server: MailServer, user: str, password: str, subject: str, *, within: float = 10) -> bytes:
    """Like `fetch`, the message as it was stored, e.g. to verify a signature."""
    end = time.monotonic() + within
    with server.read(user, password) as imap:
        while True:
            imap.noop()
            found = imap.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
            if found:
                parts = imap.fetch(found[-1].decode(), "(RFC822)")[1]
                return cast(bytes, parts[0][1])  # type: ignore[index]
            if time.monotonic() > end:
                raise TimeoutError(f"no message '{subject}' for {user} within {within} s")
            time.sleep(0.05)
