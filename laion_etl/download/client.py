"""The HTTP client: one GET per link through asks, with every hop checked and everything bounded.

asks builds the requests and drives h11. It was made for friendly servers, so these parts are replaced:

- connecting (`transport.py`): asks would resolve by itself, once more, after any check of ours;
- redirects: asks follows them by recursion and raises KeyError where Location is missing; here every hop
  is parsed, resolved and checked like the first, up to `max_redirects`;
- reading the response: asks takes 1xx answers for the response, a body without length for no body, header
  bytes that are not UTF-8 for a crash, and inflates gzip without limit. `_Request._catch_response` lets h11
  decide the framing, and `_inflated` stops at `max_bytes`;
- cookies, authentication, encodings and retries: not used.

Connections are closed after each link: the links of a batch are spread over hosts.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import h11
import trio
from asks.errors import AsksException
from asks.request_object import RequestProcessor

from laion_etl.download.images import sniff
from laion_etl.download.optout import opted_out
from laion_etl.download.outcome import LinkFailed
from laion_etl.download.resolver import Resolver
from laion_etl.download.transport import DEFAULT_PORTS, Target, Transport, connect, parse_target
from laion_etl.funnel import DownloadStatus
from laion_etl.settings import DownloadSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADER_ALLOWANCE_BYTES = 65_536  # header and framing on top of the body's budget
_SNIFF_BYTES = 64
_LARGE_BYTES = 1_000_000  # bodies over this need one of a few slots, which bounds the memory of a worker
_LARGE_BODIES = 24


@dataclass(frozen=True, slots=True)
class _Head:
    """Status and headers of a response; names in lower case, values as Latin-1."""

    status: int
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        values = self.all(name)
        return values[0].strip() if values else ""


class _Request(RequestProcessor):  # type: ignore[misc]
    """asks' request with a response reader for hostile servers: returns the head, the body stays in h11."""

    async def _request_io(self, request: h11.Request, _body: None, connection: h11.Connection) -> _Head:
        self._h11 = connection
        self.streaming = True  # asks keeps its hands off the socket
        # asks announces an empty body, which some servers take for an attack on GET.
        headers = [(name, value) for name, value in request.headers if name != b"content-length"]
        bare = h11.Request(method=request.method, target=request.target, headers=headers)
        await self._send(bare, None, connection)
        while True:
            event = await self._recv_event(connection)
            if isinstance(event, h11.Response):
                names_values = ((str(n, "latin-1"), str(v, "latin-1")) for n, v in event.headers)
                return _Head(event.status_code, tuple(names_values))
            if not isinstance(event, h11.InformationalResponse):
                raise LinkFailed(DownloadStatus.BAD_RESPONSE, "no response")

    async def body_parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded from chunks, still content-encoded."""
        while True:
            event = await self._recv_event(self._h11)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise LinkFailed(DownloadStatus.BAD_RESPONSE, "cut off")


class Client:
    """Fetches links of one batch. Not for use after its trio run has ended."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings.connect_to)
        self._hosts: dict[str, trio.CapacityLimiter] = {}
        self._large_bodies = trio.Semaphore(_LARGE_BODIES)

    @asynccontextmanager
    async def fetch(self, url: str) -> AsyncIterator[bytes]:
        """The body a link leads to, at most `max_bytes`; it looks like an image, but nothing is decoded.

        A context manager, because large bodies hold one of a few slots until the block ends.
        Raises LinkFailed with the status and a short message.
        """
        async with AsyncExitStack() as slots:
            target = parse_target(url)
            for _ in range(self._settings.max_redirects + 1):
                async with self._host(target.host):
                    found = await self._hop(target, slots)
                if isinstance(found, bytes):
                    break
                target = found
            else:
                raise LinkFailed(DownloadStatus.TOO_MANY_REDIRECTS)
            yield found

    def _host(self, host: str) -> trio.CapacityLimiter:
        limit = self._hosts.get(host)
        if limit is None:
            limit = self._hosts[host] = trio.CapacityLimiter(self._settings.connections_per_host)
        return limit

    async def _hop(self, target: Target, slots: AsyncExitStack) -> bytes | Target:
        """One request: the body, or where it redirects to."""
        transport = await self._connect(target)
        try:
            with trio.fail_after(self._settings.timeout_s), _protocol_errors():
                return await self._exchange(target, transport, slots)
        except trio.TooSlowError as error:
            raise LinkFailed(DownloadStatus.TIMEOUT) from error
        finally:
            await transport.aclose()

    async def _connect(self, target: Target) -> Transport:
        budget = self._settings.max_bytes + _HEADER_ALLOWANCE_BYTES
        try:
            with trio.fail_after(self._settings.connect_timeout_s):
                return await connect(target, self._resolver, self._settings.ports, budget)
        except trio.TooSlowError as error:
            raise LinkFailed(DownloadStatus.CONNECT_TIMEOUT) from error

    async def _exchange(self, target: Target, transport: Transport, slots: AsyncExitStack) -> bytes | Target:
        request = _Request(
            None, "GET", target.url, str(target.port), headers=self._headers(target), sock=transport
        )
        _, head = await request.make_request()
        if self._settings.opt_out and opted_out(head.all("x-robots-tag")):
            raise LinkFailed(DownloadStatus.OPTED_OUT, "X-Robots-Tag")
        if head.status in _REDIRECTS and (location := head.one("location")):
            return parse_target(location.encode("latin-1").decode(errors="replace"), target.url)
        if head.status != 200:
            raise LinkFailed(DownloadStatus.HTTP_ERROR, str(head.status))
        return await self._body(request, head, slots)

    def _headers(self, target: Target) -> dict[str, str]:
        standard = DEFAULT_PORTS[target.scheme] == target.port
        return {
            "Host": target.host if standard else f"{target.host}:{target.port}",
            "User-Agent": self._settings.user_agent,
            "Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5",
            "Accept-Encoding": "identity",
        }

    async def _body(self, request: _Request, head: _Head, slots: AsyncExitStack) -> bytes:
        length = head.one("content-length")
        if length.isdigit() and int(length) > self._settings.max_bytes:
            raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
        inflate = _inflater(head.one("content-encoding").lower(), self._settings.max_bytes)
        body = bytearray()
        sniffed = large = False
        async for part in request.body_parts():
            for data in inflate(part):
                body += data
                if len(body) > self._settings.max_bytes:
                    raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
            if not sniffed and len(body) >= _SNIFF_BYTES:
                _refuse_other_than_images(body)
                sniffed = True
            if not large and len(body) > _LARGE_BYTES:
                await slots.enter_async_context(self._large_bodies)
                large = True
        if len(body) < self._settings.min_bytes:
            raise LinkFailed(DownloadStatus.TOO_FEW_BYTES)
        return bytes(body)


def _refuse_other_than_images(body: bytearray) -> None:
    if (status := sniff(bytes(body[:_SNIFF_BYTES]))) is not None:
        raise LinkFailed(status)


class _Inflater:
    """Undoes a gzip or deflate content encoding that was not asked for, a bounded piece at a time."""

    def __init__(self, wbits: int, max_bytes: int) -> None:
        self._wbits = wbits
        self._max_bytes = max_bytes
        self._zlib = zlib.decompressobj(wbits)

    def __call__(self, part: bytes) -> Iterator[bytes]:
        while part:
            if self._zlib.eof:  # a further gzip member
                self._zlib = zlib.decompressobj(self._wbits)
            try:
                yield self._zlib.decompress(part, self._max_bytes)
            except zlib.error as error:
                raise LinkFailed(DownloadStatus.BAD_RESPONSE, "content-encoding broken") from error
            part = self._zlib.unconsumed_tail or self._zlib.unused_data


def _inflater(encoding: str, max_bytes: int) -> Any:
    if encoding in ("", "identity"):
        return lambda part: (part,)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Inflater(zlib.MAX_WBITS | 32, max_bytes)
    raise LinkFailed(DownloadStatus.BAD_RESPONSE, "content-encoding not asked for")


@contextmanager
def _protocol_errors() -> Iterator[None]:
    """What a bad server makes asks, h11 and the sockets raise, as outcomes."""
    try:
        yield
    except (h11.RemoteProtocolError, AsksException, UnicodeError) as error:
        raise LinkFailed(DownloadStatus.BAD_RESPONSE, "not HTTP or cut off") from error
    except (h11.LocalProtocolError, ValueError) as error:
        raise LinkFailed(DownloadStatus.URL_INVALID, "can't be requested") from error
    except (trio.BrokenResourceError, OSError) as error:
        raise LinkFailed(DownloadStatus.BAD_RESPONSE, "connection broken") from error
