"""Connections to an engine by TLS. Each is carried by a thread of its own, both ways, from a socket of this machine."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from urllib.parse import urlsplit

from consolidate.docker_engine.address import Tls
from consolidate.errors import EngineUnavailable, UsageError

PORT = 2376
CONNECT = 30.0  # seconds until a connection has to be there
PIECE = 2**16
# A restore may say nothing for an hour, and a firewall forgets who says nothing. Linux's own first question comes after two
# hours; other systems have other names for these (tcp(7)).
KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
)


class TlsLine:
    """The way to the engine at a tcp:// address by TLS. Safe to use from several threads."""

    def __init__(self, url: str, tls: Tls) -> None:
        """Raises UsageError for certificates that are none."""
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        self.url, self.tls = url, tls
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or PORT
        self.trouble = ""
        try:
            self.context = ssl.create_default_context(cafile=tls.authority)
            if tls.certificate:
                self.context.load_cert_chain(*tls.certificate)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"the certificates in {tls.folder} can't be used: {error}", hint="they have to be PEM"
            ) from None
        if not tls.verify:
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    def open(self) -> socket.socket:
        """A connection to the engine. Raises EngineUnavailable."""
        try:
            raw = socket.create_connection((self.host, self.port), timeout=CONNECT)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for level, option, value in KEEP_ALIVE:
                raw.setsockopt(level, option, value)
            carrier = _Carrier(raw, self.context, self.host)
            carrier.greet()
        except OSError as error:  # those of TLS are such, too
            raise self._explained(error) from None
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._carry, args=(carrier, theirs), daemon=True, name="tls").start()
        return ours

    def broken(self) -> EngineUnavailable:
        """Why a connection has ended."""
        if self.trouble:
            return self._refused(self.trouble)
        what = f"the engine at {self.url} has closed the connection"
        return EngineUnavailable(what, hint="is its daemon running? `systemctl status docker` there says it")

    def close(self) -> None:
        """Each connection ends by itself, when our end of it does."""

    def _carry(self, carrier: _Carrier, theirs: socket.socket) -> None:
        with theirs, carrier.raw:
            try:
                carrier.carry(theirs)
            except OSError as error:  # whoever is at our end sees the end
                # A refused certificate comes after the greeting, and a reset may come before the word of it.
                if isinstance(error, ssl.SSLError) or not carrier.answered:
                    self.trouble = str(error)

    def _explained(self, error: OSError) -> EngineUnavailable:
        if isinstance(error, ssl.SSLCertVerificationError):
            authority = (
                self.tls.authority or f"the authorities that this machine trusts ({self.tls.folder} has no ca.pem)"
            )
            what = f"the engine's certificate at {self.url} is not trusted: {error.verify_message}"
            return EngineUnavailable(what, hint=f"it has to name {self.host}, and to be signed by {authority}")
        if isinstance(error, ssl.SSLError):
            return self._refused(str(error))
        hint = "is its daemon running, with `-H tcp://…` and `--tlsverify`? does a firewall let this machine in?"
        return EngineUnavailable(f"no engine answers at {self.url}: {error.strerror or error}", hint=hint)

    def _refused(self, text: str) -> EngineUnavailable:
        if any(
            word in text.upper().replace(" ", "_") for word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER")
        ):
            hint = "is it the right port? without certificates: unset DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
            return EngineUnavailable(f"what answers at {self.url} does not speak TLS", hint=hint)
        folder = self.tls.folder
        hint = f"it has to be signed by the authority that the engine has as --tlscacert; {folder}/cert.pem was shown"
        if not self.tls.certificate:
            hint = f"put the certificate that it wants, and its key, into {folder} as cert.pem and key.pem"
        what = "our certificate" if self.tls.certificate else "a client without a certificate"
        return EngineUnavailable(f"the engine at {self.url} refuses {what}", hint=f"{hint} ({text})")


class _Carrier:
    """TLS on one connection. Unlike the library's sockets it can end its half of a conversation and go on to listen."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self.raw, self.answered = raw, False
        self.come, self.go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.come, self.go, server_hostname=host)

    def greet(self) -> None:
        """Raises ssl.SSLError, and OSError."""
        try:
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    self.raw.sendall(self.go.read())
                    if not (data := self.raw.recv(PIECE)):
                        raise ConnectionResetError(0, "it has hung up") from None
                    self.come.write(data)
                else:
                    self.raw.sendall(self.go.read())
                    break
        except BaseException:
            with contextlib.suppress(OSError):
                self.raw.sendall(self.go.read())  # why, for the engine's log
            self.raw.close()
            raise
        self.raw.setblocking(False)

    def carry(self, near: socket.socket) -> None:
        """Both ways, until the engine has ended. No more is read of one end than the other has taken.

        Our end is told to the engine once all that has come is decrypted: OpenSSL takes more of it for an error then.
        """
        near.setblocking(False)
        inward, outward = b"", b""
        saying, listening, told = True, True, False
        while True:
            if listening and not inward:
                inward, listening = self._decrypted()
            if not inward and not listening:
                return
            if not saying and not told and not inward:
                told = True
                with contextlib.suppress(ssl.SSLWantReadError):  # it has been told, the other end goes on
                    self.tls.unwrap()
            outward += self.go.read()
            ready = _ready(
                {
                    self.raw: (listening and not inward, bool(outward)),
                    near: (saying and not outward, bool(inward)),
                }
            )
            if ready[near][1]:
                inward = inward[near.send(inward) :]
            if ready[self.raw][1]:
                outward = outward[self.raw.send(outward) :]
            if ready[self.raw][0]:
                if data := self.raw.recv(PIECE):
                    self.come.write(data)
                else:
                    self.come.write_eof()
            if ready[near][0]:
                if data := near.recv(PIECE):
                    self.tls.write(data)
                else:
                    saying = False

    def _decrypted(self) -> tuple[bytes, bool]:
        """What has come, and whether more may come."""
        try:
            data = self.tls.read(PIECE)
        except ssl.SSLWantReadError:
            return b"", True
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b"", False
        self.answered = self.answered or bool(data)
        return data, bool(data)


def _ready(wanted: dict[socket.socket, tuple[bool, bool]]) -> dict[socket.socket, tuple[bool, bool]]:
    """Wait until one of these can be read or written as it is wanted; whether each can."""
    poll, ended = select.poll(), select.POLLHUP | select.POLLERR
    for one, (read, write) in wanted.items():
        if read or write:  # else the end of one would wake us again and again
            poll.register(one, read * select.POLLIN | write * select.POLLOUT)
    found = dict(poll.poll())
    return {
        one: (
            read and bool(found.get(one.fileno(), 0) & (select.POLLIN | ended)),
            write and bool(found.get(one.fileno(), 0) & (select.POLLOUT | ended)),
        )
        for one, (read, write) in wanted.items()
    }
