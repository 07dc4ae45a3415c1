"""Proxies between client and Postgres: a network that breaks, TLS, a pooler in transaction mode.

All speak the frontend/backend protocol 3.0 (PostgreSQL documentation, chapter "Frontend/Backend Protocol").
"""

import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_READY, _AUTHENTICATION, _IDLE, _KEY = b"Z", b"R", b"I", b"K"
_OWN_KEY = struct.pack("!ciii", _KEY, 12, 1, 1)


class _Listener:
    """Accepts connections on a port of 127.0.0.1 and serves each in a thread until it is left."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port = self._socket.getsockname()[1]

    def url(self, database: str, host: str = "127.0.0.1") -> str:
        return f"postgresql://postgres@{host}:{self.port}/{database}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close(self._socket)
        self.cut()

    def cut(self) -> None:
        """Ends all connections, as a broken network does."""
        for end in list(self._open):
            self._close(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # left
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._served, args=(client,), daemon=True).start()

    def _served(self, client: socket.socket) -> None:
        self._open.add(client)
        with suppress(OSError):  # cut
            self._serve(client)
        self._close(client)

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _close(self, end: socket.socket) -> None:
        self._open.discard(end)
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Network(_Listener):
    """A proxy to the server behind a Unix socket, by TLS where a context is given; breaks on request."""

    def __init__(self, socket_dir: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.socket_dir = socket_dir
        self.held = threading.Event()
        self.cuts = 0
        self._tls = tls
        self._hold_after: int | None = None
        self._mute: bytes | None = None

    def hold_after(self, sent: int | None) -> None:
        """Holds back everything of a connection after so many bytes to the server; `held` is set then."""
        self._hold_after = sent
        self.held.clear()

    def mute(self, request: bytes) -> None:
        """Cuts the next connection that sends this, when the server has answered and before the answer."""
        self._mute = request

    def _serve(self, client: socket.socket) -> None:
        start, client = self._negotiated(client)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self.socket_dir / ".s.PGSQL.5432"))
        self._open |= {server, client}
        try:
            server.sendall(start)
            connection = _Connection(self, client, server)
            back = threading.Thread(target=connection.answers, daemon=True)
            back.start()
            connection.requests()
            back.join()
        finally:
            self._close(server)
            self._close(client)

    def _negotiated(self, client: socket.socket) -> tuple[bytes, socket.socket]:
        """Returns the startup message, and the socket, which may be a TLS one by then."""
        while True:
            head = _exactly(client, 8)
            length, code = struct.unpack("!ii", head)
            if code == _SSL_REQUEST and self._tls is not None:
                client.sendall(b"S")
                client = self._tls.wrap_socket(client, server_side=True)
            elif code in (_SSL_REQUEST, _GSS_REQUEST):
                client.sendall(b"N")
            else:
                return head + _exactly(client, length - 8), client


@dataclass
class _Connection:
    network: Network
    client: socket.socket
    server: socket.socket
    muted: bool = False

    def requests(self) -> None:
        sent = 0
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                if self.network._mute is not None and self.network._mute in data:
                    self.network._mute, self.muted = None, True
                sent += len(data)
                limit = self.network._hold_after
                if limit is not None and sent > limit:
                    self.network.held.set()
                    while self.network._hold_after is not None and self.client.fileno() >= 0:
                        threading.Event().wait(0.01)
                self.server.sendall(data)
        self._end()

    def answers(self) -> None:
        with suppress(OSError):
            while data := self.server.recv(1 << 16):
                if self.muted:
                    self.network.cuts += 1
                    break
                self.client.sendall(data)
        self._end()

    def _end(self) -> None:
        self.network._close(self.client)
        self.network._close(self.server)


@dataclass
class _Backend:
    """A connection to the server past its startup."""

    socket: socket.socket
    greeting: bytes = b""
    parameters: list[bytes] = field(default_factory=list)


class TransactionPooler(_Listener):
    """Like PgBouncer with pool_mode = transaction: each transaction has another server connection."""

    def __init__(self, socket_dir: Path, database: str, servers: int = 6) -> None:
        super().__init__()
        self._free: deque[_Backend] = deque()
        self._freed = threading.Condition()
        for _ in range(servers):
            self._free.append(self._backend(socket_dir, database))

    def _backend(self, socket_dir: Path, database: str) -> _Backend:
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(socket_dir / ".s.PGSQL.5432"))
        self._open.add(end)
        words = b"".join(word.encode() + b"\0" for word in ("user", "postgres", "database", database)) + b"\0"
        end.sendall(struct.pack("!ii", len(words) + 8, 3 << 16) + words)
        backend = _Backend(end)
        for kind, message in _messages(end):
            # Like PgBouncer it gives clients a key for cancelling that is its own, so no process id.
            backend.greeting += _OWN_KEY if kind == _KEY else message
            if kind == _READY:
                break
        return backend

    def _serve(self, client: socket.socket) -> None:
        while True:
            length, code = struct.unpack("!ii", _exactly(client, 8))
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                break
            client.sendall(b"N")
        _exactly(client, length - 8)
        client.sendall(self._free[0].greeting)
        requests = _messages(client)
        for kind, message in requests:
            if kind == b"X":
                return
            with self._borrowed() as server:
                server.sendall(message)
                self._transaction(client, requests, server)

    def _transaction(
        self, client: socket.socket, requests: Iterator[tuple[bytes, bytes]], server: socket.socket
    ) -> None:
        """Waits until the server is idle again, which is the end of the transaction."""
        answers = _messages(server)
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if server in ready:
                kind, message = next(answers)
                client.sendall(message)
                if kind == _READY and message[5:6] == _IDLE:
                    return
            if client in ready:
                kind, message = next(requests)
                if kind == b"X":
                    raise OSError("gone within a transaction")
                server.sendall(message)

    @contextmanager
    def _borrowed(self) -> Iterator[socket.socket]:
        with self._freed:
            self._freed.wait_for(lambda: self._free)
            backend = self._free.popleft()
        yield backend.socket
        with self._freed:  # unless the client was lost within its transaction
            self._free.append(backend)
            self._freed.notify()


def _messages(end: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = _exactly(end, 5)
        yield head[:1], head + _exactly(end, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(end: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = end.recv(count - len(data))
        if not part:
            raise OSError("the other end is gone")
        data += part
    return bytes(data)
