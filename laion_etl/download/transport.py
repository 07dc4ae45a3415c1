"""Connections: TCP to a checked address, TLS by the host's name, and a byte budget on what comes back.

The streams have the interface asks expects of anyio's (`send`, `receive`, `aclose`, `_active`). An end of the
connection is b"" instead of an exception, which h11 turns into the right thing for every kind of framing.
"""

import ssl
from dataclasses import dataclass
from functools import cache

import ada_url
import trio

from laion_etl.download.outcome import LinkFailed
from laion_etl.download.resolver import Resolver
from laion_etl.funnel import DownloadStatus

DEFAULT_PORTS = {"http": 80, "https": 443}
_ADDRESSES_TRIED = 2
_RECEIVE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """A hop's URL in parts; `host` is punycode or an address literal in URL notation."""

    url: str
    scheme: str
    host: str
    port: int


def parse_target(url: str, base: str | None = None) -> Target:
    """An http(s) URL by the WHATWG standard; raises LinkFailed for what is none."""
    try:
        parsed = ada_url.URL(url, base=base) if base else ada_url.URL(url)
    except ValueError as error:
        raise LinkFailed(DownloadStatus.URL_INVALID, "not a URL") from error
    scheme = str(parsed.protocol).rstrip(":")
    if scheme not in DEFAULT_PORTS:
        raise LinkFailed(DownloadStatus.URL_INVALID, f"scheme {scheme[:20]}")
    if parsed.username or parsed.password:
        raise LinkFailed(DownloadStatus.URL_INVALID, "user name in URL")
    parsed.hash = ""
    port = int(parsed.port) if parsed.port else DEFAULT_PORTS[scheme]
    return Target(str(parsed.href), scheme, str(parsed.hostname), port)


class Transport:
    """A connection with a budget: more than `max_bytes` received is TOO_MANY_BYTES."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], max_bytes: int) -> None:
        self._stream = stream
        self._budget = max_bytes
        self._active = True

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, max_bytes: int = _RECEIVE_BYTES) -> bytes:
        data = bytes(await self._stream.receive_some(max(max_bytes, _RECEIVE_BYTES)))
        self._budget -= len(data)
        if self._budget < 0:
            raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
        return data

    async def aclose(self) -> None:
        """Closes at once: a hostile peer's TLS goodbye is not waited for."""
        await trio.aclose_forcefully(self._stream)


async def connect(target: Target, resolver: Resolver, ports: tuple[int, ...], max_bytes: int) -> Transport:
    """Connects to a checked address of the target. Raises LinkFailed; the caller bounds the time."""
    endpoint = resolver.override(target.host)
    if target.port not in ports:
        raise LinkFailed(DownloadStatus.PORT_REFUSED)
    if endpoint is not None:
        stream = await _open((endpoint,))
    else:
        addresses = await resolver.resolve(target.host)
        stream = await _open(tuple((address, target.port) for address in addresses[:_ADDRESSES_TRIED]))
    if target.scheme == "http":
        return Transport(stream, max_bytes)
    return Transport(await _encrypt(stream, target.host), max_bytes)


async def _open(endpoints: tuple[tuple[str, int], ...]) -> trio.SocketStream:
    for address, port in endpoints:
        family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            await sock.connect((address, port))
        except OSError:
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return trio.SocketStream(sock)
    raise LinkFailed(DownloadStatus.CONNECT_FAILED, "no connection")


async def _encrypt(stream: trio.SocketStream, host: str) -> trio.SSLStream[trio.SocketStream]:
    encrypted = trio.SSLStream(
        stream, _tls_context(), server_hostname=host.strip("[]"), https_compatible=True
    )
    try:
        await encrypted.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError, OSError) as error:
        await trio.aclose_forcefully(stream)
        raise LinkFailed(DownloadStatus.TLS_FAILED, _tls_message(error)) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return encrypted


def _tls_message(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"[:100]
    return "handshake"


@cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
