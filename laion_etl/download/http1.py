"""Reads HTTP/1.1 responses from possibly hostile servers: head and body, every step bounded (RFC 9112).

asks and h11 were used before; per request they need 5.8 and 1.5 times the CPU time of this reader
(benchmarks/http_client.py). The tests compare with h11: any bytes that h11 accepts as a response must give
the same result here.

Where servers break the rules, this accepts what browsers accept (bare line feeds, malformed header lines) as
long as the end of the body is unambiguous; a connection with any irregularity is not reused.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed

MAX_HEAD_BYTES = 65_536  # of a response, including the 1xx responses before it
_RECEIVE_BYTES = 65_536
_MAX_CHUNK_LINE = 1_024
_MIN_MEAN_CHUNK_BYTES = 64  # a body in smaller chunks, on average, is an attack on the reader
_CHUNKS_FREE = 1_000
_MIN_MEAN_RECEIVE_BYTES = 256
_RECEIVES_FREE = 500

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class Stream(Protocol):
    """Bytes to and from a server; `receive` returns b"" at the end of the connection."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self, max_bytes: int) -> bytes: ...


class StepLimits(Protocol):
    """Is notified of every step that can take long, so that it can limit its time."""

    def waiting_for_answer(self) -> None: ...
    def answering(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response; names in lower case, values as Latin-1."""

    status: int
    minor_version: int
    headers: tuple[tuple[str, str], ...]
    odd: bool  # something broke the rules

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        for key, value in self.headers:
            if key == name:
                return value
        return ""

    @property
    def content_length(self) -> int | None:
        """The announced length; None if absent or the body is chunked. Raises LinkFailed if invalid."""
        if self.one("transfer-encoding"):
            return None
        values = {part.strip() for value in self.all("content-length") for part in value.split(",")}
        if not values:
            return None
        value = values.pop()
        if values or not (value.isascii() and value.isdigit()) or len(value) > 18:
            raise bad_response("wrong content-length")
        return int(value)


def bad_response(message: str) -> LinkFailed:
    return LinkFailed(DownloadStatus.BAD_RESPONSE, message)


def parse_head(raw: bytes) -> Head:
    """Parses a response head without its final empty line. Raises LinkFailed if it is not HTTP."""
    first, *lines = raw.replace(b"\r\n", b"\n").split(b"\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise bad_response("not HTTP")
    headers: list[tuple[str, str]] = []
    odd = b"\r" in raw.replace(b"\r\n", b"")
    for line in lines:
        found = _HEADER_LINE.fullmatch(line)
        if found is not None:
            headers.append((str(found[1], "ascii").lower(), str(found[2], "latin-1")))
        elif line[:1] in (b" ", b"\t") and headers:  # a folded line
            name, value = headers[-1]
            headers[-1] = name, f"{value} {str(line.strip(), 'latin-1')}".strip()
            odd = True
        else:
            odd = True
    return Head(int(status[2]), int(status[1]), tuple(headers), odd)


class Connection:
    """One connection to a server: `request`, then `part` until it returns b""; if reusable, start over."""

    def __init__(self, stream: Stream, max_bytes: int) -> None:
        self.stream = stream
        self.used = False  # has returned a response before
        self.reusable = False  # the last response was read to an unambiguous end
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._limits: StepLimits
        self._length: int | None = 0  # bytes left of the body or the chunk; None: until the connection ends
        self._chunked = False
        self._keeps = False
        self._received = 0
        self._receives = 0
        self._chunks = 0
        self._body_bytes = 0

    async def request(self, message: bytes, limits: StepLimits) -> Head:
        """Sends a request without body and reads the head of the response, skipping 1xx responses."""
        self._limits, self.reusable = limits, False
        self._received = self._receives = self._chunks = self._body_bytes = 0
        limits.waiting_for_answer()
        await self.stream.send(message)
        head = await self._head()
        while head.status < 200:
            if head.status == 101:
                raise bad_response("another protocol")
            head = await self._head()
        self.used = True
        self._frame(head)
        return head

    async def _head(self) -> Head:
        buffer, looked = self._buffer, 0
        while (end := _END_OF_HEAD.search(buffer, max(0, looked - 3))) is None:
            looked = len(buffer)
            if self._received > MAX_HEAD_BYTES:
                raise bad_response("head too long")
            if looked > 8 and not buffer.startswith(b"HTTP/1."):
                raise bad_response("not HTTP")
            if not await self._receive():
                raise bad_response("no answer" if not looked else "cut off in the head")
        if self._received - len(buffer) + end.end() > MAX_HEAD_BYTES:
            raise bad_response("head too long")
        head = parse_head(bytes(buffer[: end.start()]))
        del buffer[: end.end()]
        return head

    def _frame(self, head: Head) -> None:
        """Determines the length of the body (RFC 9112, section 6.3) and whether the connection stays open."""
        options = {part.strip().lower() for value in head.all("connection") for part in value.split(",")}
        keeps = "keep-alive" in options if head.minor_version == 0 else "close" not in options
        codings = [
            part.strip().lower() for value in head.all("transfer-encoding") for part in value.split(",")
        ]
        length = head.content_length
        self._chunked = bool(codings)
        if codings and codings != ["chunked"]:
            raise bad_response("unknown transfer-encoding")
        if codings and (head.minor_version == 0 or head.one("content-length")):
            keeps = False  # a sign of request smuggling
        if head.status in (204, 304):
            self._chunked, length = False, 0
        self._length = 0 if self._chunked else length
        self._keeps = keeps and not head.odd and (self._chunked or length is not None)
        if self._length == 0 and not self._chunked:
            self._end()

    async def part(self) -> bytes:
        """Returns the next part of the body without chunk framing, still content-encoded; b"" at its end."""
        if self._chunked and self._length == 0 and not await self._next_chunk():
            return b""
        if self._length == 0:
            return b""
        buffer = self._buffer
        if not buffer and not await self._receive():
            if self._length is None:
                return b""
            raise bad_response("cut off")
        # Usually all of it: a slice would be copied twice.
        is_whole = self._length is None or self._length >= len(buffer)
        data = bytes(buffer) if is_whole else bytes(buffer[: self._length])
        del buffer[: len(data)]
        self._body_bytes += len(data)
        if self._length is not None:
            self._length -= len(data)
            if self._length == 0 and not self._chunked:
                self._end()
        return data

    def _end(self) -> None:
        """Marks the body as complete. Bytes beyond it are unsolicited: the connection is not reused."""
        self._length, self._chunked = 0, False
        self.reusable = self._keeps and not self._buffer

    async def _next_chunk(self) -> bool:
        """Reads up to the data of the next chunk. Returns False at the end of the body, past the trailers."""
        if self._chunks and await self._line() != b"":
            raise bad_response("broken chunk")
        self._chunks += 1
        if self._chunks > _CHUNKS_FREE + self._body_bytes / _MIN_MEAN_CHUNK_BYTES:
            raise bad_response("tiny chunks")
        size = _CHUNK_LINE.fullmatch(await self._line())
        if size is None:
            raise bad_response("broken chunk")
        self._length = int(size[1], 16)
        if self._length:
            return True
        trailer_bytes = 0
        while line := await self._line():
            trailer_bytes += len(line)
            if trailer_bytes > MAX_HEAD_BYTES:
                raise bad_response("trailers too long")
        self._end()
        return False

    async def _line(self) -> bytes:
        """Reads a line of chunk framing, without its line end."""
        buffer = self._buffer
        while (end := buffer.find(b"\n")) < 0:
            if len(buffer) > _MAX_CHUNK_LINE:
                raise bad_response("broken chunk")
            if not await self._receive():
                raise bad_response("cut off")
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        return line.removesuffix(b"\r")

    async def _receive(self) -> bool:
        """Reads more bytes into the buffer. Returns False at the end of the connection."""
        data = await self.stream.receive(_RECEIVE_BYTES)
        self._limits.answering()
        self._buffer += data
        self._received += len(data)
        self._receives += 1
        if self._received > self._max_bytes:
            raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
        if self._receives > _RECEIVES_FREE + self._received / _MIN_MEAN_RECEIVE_BYTES:
            raise bad_response("tiny packets")
        return bool(data)
