"""Serves a web application on this machine to the user who started it only.

Other users of the machine can connect to 127.0.0.1 too, and a web page can resolve a name of its own to it
(DNS rebinding). So the printed address has a random token, which is exchanged for a session cookie; without
it every request is refused, and so is every Host header but this machine's. Waiting connections cost memory
and open files: their number and the time that headers and bodies may take are limited.

Browsers send the cookies of a host to all of its ports (RFC 6265, 8.5): another user's server could read the
cookie when the user opens a page of it. So all pages are below a path that is random, too, and the cookie is
sent to that path only, which others cannot name. A server of another port can set cookies of the same name;
those are passed over. Refused: a host name of its own below `localhost` (not every system resolves it) and a
cookie that is valid for one Host header only (a server that reads a cookie can send that header as well).
"""

import asyncio
import hmac
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from laion_etl.core.errors import SettingsError

HOST = "127.0.0.1"
_OWN_HOSTS = frozenset({HOST, "localhost"})
_TOKEN = "token"  # noqa: S105 - the name of the parameter
_TOKEN_BYTES = 32
_PATH_BYTES = 16
_COOKIE = "laion-etl"
_END_S = 2  # for requests in progress at shutdown
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may have the token
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take: seconds for the headers and for the body of a request, and how many may be
    open. A browser opens six for each host.
    """

    headers_s: float = 15
    body_s: float = 60
    connections: int = 128


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Listen on a port of 127.0.0.1, 0 for a free one. Raises SettingsError if it is in use."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, port))
            made.listen()  # the printed address answers, if only when the server is ready
        except OSError as error:
            raise SettingsError(
                f"cannot bind port {port}: {error.strerror}; choose another one with --port, 0 for a free one"
            ) from error
        yield made


class LocalServer:
    """An application behind a token, on a socket that listens."""

    def __init__(self, app: ASGIApp, made: socket.socket, limits: Limits | None = None) -> None:
        token, path = secrets.token_urlsafe(_TOKEN_BYTES), f"/{secrets.token_urlsafe(_PATH_BYTES)}"
        self.address = f"http://{HOST}:{made.getsockname()[1]}{path}/?{_TOKEN}={token}"
        self._socket = made
        limits = limits or Limits()
        config = uvicorn.Config(
            OneUser(app, token, path, limits.body_s),
            http=_protocol(limits),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_END_S,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or `stop`."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `run`, which another thread is in."""
        self._server.should_exit = True


class OneUser:
    """ASGI middleware: lets in requests to this machine's name with the token or the cookie made from it.

    The application is below `path`.
    """

    def __init__(self, app: ASGIApp, token: str, path: str, body_s: float) -> None:
        self._app = app
        self._token = token.encode()
        self._session = secrets.token_urlsafe(_TOKEN_BYTES)
        self._path = path
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (answer := self._answer(scope)) is not None:
            await answer(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._body_s)
        try:
            await self._app({**scope, "root_path": self._path}, exchange.receive, exchange.send)
        except Exception:
            if not exchange.late:
                raise

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach the application."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if (host.rpartition(":")[0] or host) not in _OWN_HOSTS:
            return PlainTextResponse("this server answers to 127.0.0.1 and localhost only", 421, _HEADERS)
        if not hmac.compare_digest(self._first(scope["path"]), self._path.encode()):
            return _unknown()
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop(_TOKEN, [""])[0].encode()
        if scope["method"] == "GET" and hmac.compare_digest(given, self._token):
            rest = f"?{urlencode(query, doseq=True)}" if query else ""
            answer = RedirectResponse(f"{scope['path']}{rest}", 303, _HEADERS)
            answer.set_cookie(_COOKIE, self._session, path=f"{self._path}/", httponly=True, samesite="strict")
            return answer
        return None if self._is_let_in(headers) else _unknown()

    def _first(self, path: str) -> bytes:
        """Return as much of a request's path as the application's path has, if a slash follows it."""
        return path[: len(self._path)].encode() if path[len(self._path) :].startswith("/") else b""

    def _is_let_in(self, headers: Headers) -> bool:
        """Whether a cookie is that of the session, whatever other servers have set."""
        pairs = (one.strip().partition("=") for one in "; ".join(headers.getlist("cookie")).split(";"))
        given = [value.encode() for name, _, value in pairs if name == _COOKIE]
        return any(hmac.compare_digest(one, self._session.encode()) for one in given)


def _unknown() -> Response:
    words = "open the address with its token, as the command that started this server printed it"
    return PlainTextResponse(words, 401, _HEADERS)


class _Exchange:
    """A request whose body has to arrive in time: else it is answered, and the application is cut off."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_s: float) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._ends: float | None = asyncio.get_running_loop().time() + body_s
        self.late = False

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            self.late = True
            words = "the request took too long to arrive"
            answer = PlainTextResponse(words, 408, _HEADERS | {"Connection": "close"})
            await answer(self._scope, self._receive, self._send)
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            self._ends = None  # what follows is the end of the connection
        return message

    async def send(self, message: Message) -> None:
        if not self.late:
            await self._send(message)


def _protocol(limits: Limits) -> type[H11Protocol]:
    class Bounded(H11Protocol):
        """Closes connections past the limit, and those whose headers do not arrive in time."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:  # the headers are complete
                self._waited()
            elif self._waiting is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._waited()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._waiting = self.loop.call_later(limits.headers_s, self.transport.abort)

        def _waited(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Bounded
