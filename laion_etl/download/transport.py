"""Connections: TCP to checked addresses by happy eyeballs (RFC 8305), TLS verified against the host name.

trio.open_tcp_stream and httpcore resolve names themselves. Here only addresses that were checked are
connected to, never names, so a name that resolves differently the second time (DNS rebinding) gains nothing.
The end of a connection is b"" instead of an exception: the reader of the response decides what it means.
"""

import errno
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.resolver import Endpoint

_NEXT_ADDRESS_S = 0.25  # RFC 8305, section 5: connection attempt delay
_ADDRESSES_TRIED = 4
_SESSIONS_KEPT = 10_000
# Of host names that OpenSSL compares with wildcards as browsers do: no label begins or ends with a hyphen.
_PLAIN_LABELS = re.compile(r"(?!.*(?:-\.|\.-))[a-z0-9.:-]+")
# What browsers offer up to TLS 1.2. Unlike those of Python they include CBC with SHA-1 and keys exchanged by
# RSA: some old servers have nothing else. They do not include DHE: old servers use it with weak parameters.
# Who gets the key of such a server can read later what it sent: of a public image that is no harm.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:!AESCCM:!PSK"
# SSL_OP_LEGACY_SERVER_CONNECT: servers that do not know RFC 5746, as in browsers.
_UNPATCHED_SERVERS = 0x4
_DECRYPTED_BYTES = 65_536  # at once; a record has 16 kB, and memory is taken for as much as is asked for
_NO_COMMON_PROTOCOL = "no application protocol"  # the ssl module has no code for this alert


class TcpStream:
    """An unencrypted connection."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        while data:
            data = data[await self._sock.send(data) :]

    async def receive(self, max_bytes: int) -> bytes:
        return await self._sock.recv(max_bytes)

    @property
    def silent(self) -> bool:
        """Whether an idle connection can be reused: neither closed nor sending unsolicited data."""
        return not self._sock.is_readable()

    async def close(self) -> None:
        self._sock.close()


class TlsStream:
    """An encrypted connection."""

    def __init__(
        self, stream: "trio.SSLStream[trio.SocketStream]", context: "_ResumingContext", host: str
    ) -> None:
        self._stream = stream
        self._undecrypted = context.last_incoming
        self._context = context
        self._host = host

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, max_bytes: int) -> bytes:
        data = bytes(await self._stream.receive_some(min(max_bytes, _DECRYPTED_BYTES)))
        self._context.remember(self._host, self._stream)  # TLS 1.3 sends its tickets with the first data
        return data

    @property
    def silent(self) -> bool:
        if self._undecrypted.pending or self._stream.pending():  # received together with the last response
            return False
        return not self._stream.transport_stream.socket.is_readable()

    async def close(self) -> None:
        """Closes at once, without waiting for the peer's TLS closure."""
        await trio.aclose_forcefully(self._stream)


class _ResumingContext(ssl.SSLContext):
    """Resumes the session of an earlier connection to the same host; trio has no parameter for it."""

    sessions: dict[str, ssl.SSLSession]
    last_incoming: ssl.MemoryBIO  # of the connection that was made last

    @classmethod
    def make(cls, *, verify: bool, check_names: bool) -> "_ResumingContext":
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.sessions = {}
        context.set_alpn_protocols(["http/1.1"])
        context.set_ciphers(_CIPHERS)
        context.options |= _UNPATCHED_SERVERS
        context.check_hostname = verify and check_names
        context.hostname_checks_common_name = False  # RFC 9525, section 6.3, and browsers
        if verify:
            context.load_default_certs()
        else:
            context.verify_mode = ssl.CERT_NONE
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        host = server_hostname or ""
        known = session or self.sessions.get(host if isinstance(host, str) else host.decode("ascii"))
        self.last_incoming = incoming
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, known)

    def remember(self, host: str, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        """Keeps the session for the next connection to the host."""
        if host not in self.sessions and len(self.sessions) < _SESSIONS_KEPT:
            session = stream.session
            if session is not None and session.has_ticket:
                self.sessions[host] = session


class Tls:
    """State shared by the TLS connections of one worker: certificates, and sessions to resume."""

    def __init__(self, *, verify: bool = True) -> None:
        self._verify = verify
        self._context = _ResumingContext.make(verify=verify, check_names=True)

    @cached_property
    def _unnamed(self) -> _ResumingContext:
        """Verifies certificates, but not the names in them."""
        return _ResumingContext.make(verify=self._verify, check_names=False)

    async def encrypt(self, sock: trio.socket.SocketType, host: str) -> TlsStream:
        """Does the handshake and verifies the host name. Raises LinkFailed. The caller limits the time."""
        name = host.strip("[]").removesuffix(".")  # a final dot is not part of the name (RFC 6066, section 3)
        plain = _PLAIN_LABELS.fullmatch(name) is not None
        context = self._context if plain else self._unnamed
        stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname=name, https_compatible=True)
        encrypted = TlsStream(stream, context, name)
        try:
            await stream.do_handshake()
            if self._verify and not plain:
                _check_name(stream.getpeercert(), name)
        except (trio.BrokenResourceError, ssl.SSLError, OSError, ValueError) as error:
            await trio.aclose_forcefully(stream)
            raise LinkFailed(DownloadStatus.TLS_FAILED, _tls_message(error)) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return encrypted


def _check_name(certificate: Mapping[str, Any], name: str) -> None:
    """Raises LinkFailed unless the certificate is for this name (RFC 9525, section 6.3).

    For names with underscores, or hyphens at the edge of a label: OpenSSL accepts them in certificates, but
    not in place of a wildcard or behind one.
    """
    names = [value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    _, _, parent = name.partition(".")
    wildcard = f"*.{parent}" if "." in parent else name  # never `*.com`
    if name not in names and wildcard not in names:
        raise LinkFailed(DownloadStatus.TLS_FAILED, "certificate: Hostname mismatch")


def _tls_message(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"[:100]
    if isinstance(cause, ssl.SSLError) and _NO_COMMON_PROTOCOL in str(cause):
        return "no HTTP/1.1"
    return "handshake"


async def connect(endpoints: Sequence[Endpoint]) -> trio.socket.SocketType:
    """Connects to the endpoint that answers first. Raises LinkFailed. The caller limits the time.

    IPv6 and IPv4 alternate; the next address is tried when the previous one has failed or has been silent for
    a quarter of a second.
    """
    ordered = _interleaved(endpoints)[:_ADDRESSES_TRIED]
    if len(ordered) == 1:
        winner = await _open(ordered[0])
        if winner is None:
            raise LinkFailed(DownloadStatus.CONNECT_FAILED, "no connection")
        return winner
    open_: list[trio.socket.SocketType] = []

    async def attempt(number: int, failed: Sequence[trio.Event], scope: trio.CancelScope) -> None:
        if number:
            with trio.move_on_after(_NEXT_ADDRESS_S * number):
                await failed[number - 1].wait()
        sock = await _open(ordered[number])
        if sock is None:
            failed[number].set()
            return
        open_.append(sock)
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            events = [trio.Event() for _ in ordered]
            for number in range(len(ordered)):
                nursery.start_soon(attempt, number, events, nursery.cancel_scope)
        if not open_:
            raise LinkFailed(DownloadStatus.CONNECT_FAILED, "no connection")
        return open_.pop(0)
    finally:
        for loser in open_:
            loser.close()


async def _open(endpoint: Endpoint) -> trio.socket.SocketType | None:
    address, port = endpoint
    try:
        sock = trio.socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6
            raise
        return None
    try:
        await sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def _interleaved(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Alternates IPv6 and IPv4, each in its order (RFC 8305, section 4)."""
    six = [endpoint for endpoint in endpoints if ":" in endpoint[0]]
    four = [endpoint for endpoint in endpoints if ":" not in endpoint[0]]
    paired = [endpoint for pair in zip(six, four, strict=False) for endpoint in pair]
    return paired + six[len(four) :] + four[len(six) :]
