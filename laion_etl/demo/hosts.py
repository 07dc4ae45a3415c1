"""Which addresses a server on loopback answers to.

A web page can point its own domain at 127.0.0.1 and so talk to local servers as if they were its own (DNS
rebinding). The browser still sends that name in the Host header, so other names are refused.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def loopback_hosts(port: int) -> tuple[str, str]:
    """Return the Host headers that a browser on this machine sends to a server on 127.0.0.1."""
    return f"127.0.0.1:{port}", f"localhost:{port}"


class HostCheck:
    """ASGI middleware: answers 400 to requests whose Host header is not exactly one of `hosts`."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allows(Headers(scope=scope).getlist("host")):
            await self._app(scope, receive, send)
            return
        served = " and ".join(sorted(self._hosts))
        refusal = PlainTextResponse(
            f"cannot answer: this server is {served}; use one of these addresses", 400
        )
        await refusal(scope, receive, send)

    def _allows(self, named: list[str]) -> bool:
        return len(named) == 1 and named[0].lower() in self._hosts
