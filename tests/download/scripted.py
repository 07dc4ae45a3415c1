"""A loopback server that follows a script: what each connection gets for its first request, its second ..."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

_LONGEST_S = 120.0  # for a hang
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass
class Scripted:
    """`paths` are those requested, by connection.

    `unasked`: all replies follow the first request. `early`: no request is read before its reply.
    """

    port: int = 0
    unasked: bool = False
    early: bool = False
    paths: list[list[str]] = field(default_factory=list)


class _Encrypted:
    """The server's side of TLS: what is sent at once leaves together, in as many records as it has parts."""

    def __init__(self, sock: Any, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while not self._done(self._tls.do_handshake):
            self._incoming.write(sock.recv(65_536))

    def _done(self, step: Any) -> bool:
        try:
            step()
        except ssl.SSLWantReadError:
            return False
        finally:
            if data := self._outgoing.read():
                self._sock.sendall(data)
        return True

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                if not (data := self._sock.recv(65_536)):
                    return b""
                self._incoming.write(data)

    def sendall(self, *parts: bytes) -> None:
        for part in parts:
            self._tls.write(part)
        self._sock.sendall(self._outgoing.read())


class _Plain:
    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def recv(self, size: int) -> bytes:
        return bytes(self._sock.recv(size))

    def sendall(self, *parts: bytes) -> None:
        self._sock.sendall(b"".join(parts))


class Reset:
    """The server resets the connection."""


# Parts are TLS records of their own. None: the server closes the connection instead of waiting.
Reply = bytes | tuple[bytes, ...] | Reset | None


@contextmanager
def scripted_server(*connections: Sequence[Reply], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """The last script is that of all further connections."""
    running = Scripted()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(_LONGEST_S)
            paths: list[str] = []
            running.paths.append(paths)
            script = connections[min(len(running.paths), len(connections)) - 1]
            with suppress(OSError, ssl.SSLError):
                peer = _Encrypted(self.request, tls) if tls else _Plain(self.request)
                for reply in script:
                    if isinstance(reply, Reset):
                        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                        self.request.close()
                    if reply is None or isinstance(reply, Reset):
                        return
                    request, unasked = b"", running.early or (paths and running.unasked)
                    while b"\r\n\r\n" not in request and not unasked:
                        if not (part := peer.recv(65_536)):
                            return
                        request += part
                    paths += [line.split(b" ", 2)[1].decode() for line in [request] if line]
                    peer.sendall(*(reply if isinstance(reply, tuple) else (reply,)))
                peer.recv(1)  # until the client closes or asks for more than the script has

    class Server(ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        running.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        server.shutdown()
