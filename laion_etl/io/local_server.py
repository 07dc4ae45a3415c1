"""Serves a web application on this machine to the user who started it only.

Other users of the machine can connect to 127.0.0.1 too, and a web page can resolve a name of its own to it
(DNS rebinding). So the printed address has a random token, which is exchanged for a session cookie; without
it every request is refused, and so is every Host header but this machine's. Waiting connections cost memory
and open files: their number and the time that headers and bodies may take are limited.
"""

import asyncio
import hmac
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
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
        token, port = secrets.token_urlsafe(_TOKEN_BYTES), made.getsockname()[1]
        self.address = f"http://{HOST}:{port}/?{_TOKEN}={token}"
        self._socket = made
        limits = limits or Limits()
        config = uvicorn.Config(
            OneUser(app, token, f"laion-etl-{port}", limits.body_s),
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
    """ASGI middleware: lets in requests to this machine's name with the token or the cookie made from it."""

    def __init__(self, app: ASGIApp, token: str, cookie: str, body_s: float) -> None:
        self._app = app
        self._token = token.encode()
        self._session = secrets.token_urlsafe(_TOKEN_BYTES)
        self._cookie = cookie  # cookies are shared by all ports of a host, so its name has the port
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
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.late:
                raise

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach the application."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if (host.rpartition(":")[0] or host) not in _OWN_HOSTS:
            return PlainTextResponse("this server answers to 127.0.0.1 and localhost only", 421, _HEADERS)
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop(_TOKEN, [""])[0].encode()
        if scope["method"] == "GET" and hmac.compare_digest(given, self._token):
            rest = f"?{urlencode(query, doseq=True)}" if query else ""
            answer = RedirectResponse(f"{scope['path']}{rest}", 303, _HEADERS)
            answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
            return answer
        if hmac.compare_digest(_cookie(headers, self._cookie).encode(), self._session.encode()):
            return None
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


def _cookie(headers: Headers, name: str) -> str:
    with suppress(CookieError):
        found = SimpleCookie(headers.get("cookie", "")).get(name)
        return found.value if found else ""
    return ""


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
