"""How each behaviour looks on the wire. A handler writes a response; returning False ends the connection."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

from laion_etl.minicrawl.behaviours import MEMBERS, Behaviour, Resource
from laion_etl.minicrawl.drawn_images import CONTENT_TYPES, pixel_bomb

GZIP_BOMB_BYTES = 256 * 1024 * 1024  # unpacked; 250 kB on the wire
_SLOW_INTERVAL_S = 0.4
_MAX_CONNECTION_S = 120.0  # upper limit of a connection, so that a forgotten client costs nothing
_CHUNK_BYTES = 64 * 1024

_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_NO_DATA_MINING = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"><plus:DataMining>'
    b"http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED</plus:DataMining></rdf:Description></rdf:RDF></x:xmpmeta>"
)

_STATUS_LINES = {
    200: "200 OK",
    206: "206 Partial Content",
    302: "302 Found",
    400: "400 Bad Request",
    404: "404 Not Found",
    410: "410 Gone",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}

_WEB_PAGE = b"<!DOCTYPE html><html><head><title>Hotlinking is not allowed</title></head><body>" + (
    b"<p>Please visit our gallery to see this picture.</p>\n" * 160 + b"</body></html>"  # words: ok
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The input of a handler: the connection, the resource and the bytes of its image."""

    writer: asyncio.StreamWriter
    resource: Resource
    data: bytes

    @property
    def content_type(self) -> str:
        image = self.resource.image
        return CONTENT_TYPES[image.extension if image else ".jpg"]

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.writer.write(response_head(status, headers))

    async def whole(self, status: int, body: bytes, content_type: str, **more: str) -> bool:
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
        self.head(status, headers | {name.replace("_", "-"): value for name, value in more.items()})
        self.writer.write(body)
        await self.writer.drain()
        return True


Handler = Callable[[Answer], Awaitable[bool]]


def response_head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {_STATUS_LINES[status]}", "Server: minicrawl"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _image(answer: Answer) -> bool:
    return await answer.whole(200, answer.data, answer.content_type)


async def _chunked(answer: Answer) -> bool:
    answer.head(200, {"Content-Type": answer.content_type, "Transfer-Encoding": "chunked"})
    for start in range(0, len(answer.data), 4_000):
        part = answer.data[start : start + 4_000]
        answer.writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    answer.writer.write(b"0\r\n\r\n")
    await answer.writer.drain()
    return True


async def _until_close(answer: Answer) -> bool:
    answer.head(200, {"Content-Type": answer.content_type, "Connection": "close"})
    answer.writer.write(answer.data)
    await answer.writer.drain()
    return False


async def _redirect(answer: Answer) -> bool:
    return await answer.whole(302, b"moved", "text/plain", Location=answer.resource.location)


def _with_header(**header: str) -> Handler:
    async def handler(answer: Answer) -> bool:
        return await answer.whole(200, answer.data, answer.content_type, **header)

    return handler


async def _no_data_mining(answer: Answer) -> bool:
    """The JPEG with an XMP segment (Adobe XMP specification, part 3) after its first marker."""
    packet = _XMP_NAME + _NO_DATA_MINING
    segment = b"\xff\xe1" + (len(packet) + 2).to_bytes(2) + packet
    return await answer.whole(200, answer.data[:2] + segment + answer.data[2:], answer.content_type)


async def _robots_txt(answer: Answer) -> bool:
    rules = f"User-agent: *\nDisallow: {MEMBERS}/\n".encode()
    return await answer.whole(200, rules, "text/plain")


def _error(status: int) -> Handler:
    async def handler(answer: Answer) -> bool:
        page = f"<html><body><h1>{_STATUS_LINES[status]}</h1></body></html>".encode()
        return await answer.whole(status, page, "text/html")

    return handler


async def _empty(answer: Answer) -> bool:
    return await answer.whole(200, b"", answer.content_type)


async def _truncated(answer: Answer) -> bool:
    return await answer.whole(200, answer.data[: len(answer.data) // 2], answer.content_type)


async def _cut_off(answer: Answer) -> bool:
    answer.head(200, {"Content-Type": answer.content_type, "Content-Length": str(len(answer.data))})
    answer.writer.write(answer.data[: len(answer.data) // 2])
    await answer.writer.drain()
    return False


async def _html(answer: Answer) -> bool:
    return await answer.whole(200, _WEB_PAGE, "image/jpeg")


async def _pixel_bomb(answer: Answer) -> bool:
    return await answer.whole(200, await asyncio.to_thread(pixel_bomb), "image/png")


async def _gzip_bomb(answer: Answer) -> bool:
    body = await asyncio.to_thread(_packed_zeros)
    return await answer.whole(200, body, "image/jpeg", Content_Encoding="gzip")


@cache
def _packed_zeros() -> bytes:
    """Gzip members of 1 MiB each: fast to make, and a reader needs only one at a time."""
    member = gzip.compress(bytes(1024 * 1024), mtime=0)
    return member * (GZIP_BOMB_BYTES // (1024 * 1024))


async def _endless(answer: Answer) -> bool:
    answer.head(200, {"Content-Type": answer.content_type})
    answer.writer.write(b"\xff\xd8\xff\xe0")
    async with asyncio.timeout(_MAX_CONNECTION_S):
        while True:
            answer.writer.write(bytes(_CHUNK_BYTES))
            await answer.writer.drain()
            await asyncio.sleep(0)


async def _slow(answer: Answer) -> bool:
    answer.head(200, {"Content-Type": answer.content_type, "Content-Length": str(len(answer.data))})
    async with asyncio.timeout(_MAX_CONNECTION_S):
        for start in range(0, len(answer.data), 16):
            answer.writer.write(answer.data[start : start + 16])
            await answer.writer.drain()
            await asyncio.sleep(_SLOW_INTERVAL_S)
    return True


async def _silent(_: Answer) -> bool:
    await asyncio.sleep(_MAX_CONNECTION_S)
    return False


async def _not_http(answer: Answer) -> bool:
    answer.writer.write(b"\x00\xffSSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)) * 8)
    await answer.writer.drain()
    return False


HANDLERS: dict[Behaviour, Handler] = {
    Behaviour.IMAGE: _image,
    Behaviour.CHUNKED: _chunked,
    Behaviour.UNTIL_CLOSE: _until_close,
    Behaviour.REDIRECT: _redirect,
    Behaviour.NO_AI: _with_header(X_Robots_Tag="noai"),
    Behaviour.NO_IMAGE_AI: _with_header(X_Robots_Tag="noarchive, noimageai"),
    Behaviour.TDM_RESERVED: _with_header(TDM_Reservation="1"),
    Behaviour.NO_DATA_MINING: _no_data_mining,
    Behaviour.ROBOTS_TXT: _robots_txt,
    Behaviour.NOT_FOUND: _error(404),
    Behaviour.GONE: _error(410),
    Behaviour.SERVER_ERROR: _error(500),
    Behaviour.UNAVAILABLE: _error(503),
    Behaviour.EMPTY: _empty,
    Behaviour.TRUNCATED: _truncated,
    Behaviour.CUT_OFF: _cut_off,
    Behaviour.HTML: _html,
    Behaviour.PIXEL_BOMB: _pixel_bomb,
    Behaviour.GZIP_BOMB: _gzip_bomb,
    Behaviour.ENDLESS: _endless,
    Behaviour.SLOW: _slow,
    Behaviour.SILENT: _silent,
    Behaviour.NOT_HTTP: _not_http,
}
