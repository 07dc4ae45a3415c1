"""Access control of the search server: allowed hosts and sites, body size, and security headers.

The Host header must name this machine, otherwise any site could resolve a name of its own to this server and
read its answers (DNS rebinding). Requests that the browser marks as coming from another site are refused.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN_HOSTS = frozenset({"127.0.0.1", "localhost"})
_OWN_SITES = frozenset({"same-origin", "none"})  # none: typed in, or a bookmark
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class _TooLarge(Exception):  # noqa: N818 - an outcome of one request
    """The body is longer than its header said or than allowed."""


class SecurityMiddleware:
    """ASGI middleware; reads at most `max_bytes` of a body."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, self._bounded(receive), send_with_headers)
        except _TooLarge:
            await _too_large()(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if host not in _OWN_HOSTS:
            return PlainTextResponse("this server answers to 127.0.0.1 and localhost only", 403)
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return PlainTextResponse("requests from other sites are refused", 403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes:
            return _too_large()
        return None

    def _bounded(self, receive: Receive) -> Receive:
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _TooLarge
            return message

        return bounded


def _too_large() -> PlainTextResponse:
    return PlainTextResponse("too large: see LAION_ETL_DOWNLOAD_MAX_BYTES", 413)
