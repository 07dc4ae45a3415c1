"""Connections: TCP to checked addresses by happy eyeballs (RFC 8305), TLS verified against the host name.

trio.open_tcp_stream and httpcore resolve names themselves. Here only addresses that were checked are
connected to, never names, so a name that resolves differently the second time (DNS rebinding) gains nothing.
The end of a connection is b"" instead of an exception: the reader of the response decides what it means.
"""

import socket
import ssl
from collections.abc import Sequence

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.resolver import Endpoint

_NEXT_ADDRESS_S = 0.25  # RFC 8305, section 5: connection attempt delay
_ADDRESSES_TRIED = 4
_SESSIONS_KEPT = 10_000


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

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]", remember: "Tls", host: str) -> None:
        self._stream = stream
        self._tls = remember
        self._host = host

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, max_bytes: int) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._tls.remember(self._host, self._stream)  # TLS 1.3 sends its tickets with the first data
        return data

    @property
    def silent(self) -> bool:
        return not self._stream.transport_stream.socket.is_readable()

    async def close(self) -> None:
        """Closes at once, without waiting for the peer's TLS closure."""
        await trio.aclose_forcefully(self._stream)


class _ResumingContext(ssl.SSLContext):
    """Resumes the session of an earlier connection to the same host; trio has no parameter for it."""

    sessions: dict[str, ssl.SSLSession]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        known = session or self.sessions.get(str(server_hostname))
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, known)


class Tls:
    """State shared by the TLS connections of one worker: certificates, and sessions to resume."""

    def __init__(self, *, verify: bool = True) -> None:
        self._context = _ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.sessions = {}
        self._context.set_alpn_protocols(["http/1.1"])
        if verify:
            self._context.load_default_certs()
        else:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    async def encrypt(self, sock: trio.socket.SocketType, host: str) -> TlsStream:
        """Does the handshake and verifies the host name. Raises LinkFailed. The caller limits the time."""
        name = host.strip("[]")
        stream = trio.SSLStream(
            trio.SocketStream(sock), self._context, server_hostname=name, https_compatible=True
        )
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError, OSError, ValueError) as error:
            await trio.aclose_forcefully(stream)
            raise LinkFailed(DownloadStatus.TLS_FAILED, _tls_message(error)) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return TlsStream(stream, self, name)

    def remember(self, host: str, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        """Keeps the session for the next connection to the host."""
        sessions = self._context.sessions
        if host not in sessions and len(sessions) < _SESSIONS_KEPT:
            session = stream.session
            if session is not None and session.has_ticket:
                sessions[host] = session


def _tls_message(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"[:100]
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
    sock = trio.socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
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
