"""Reads HTTP/1.1 responses from possibly hostile servers, every step bounded (RFC 9112).

asks and h11 were used before; per request they need 5.8 and 1.5 times the CPU time of this reader
(benchmarks/http_client.py). The tests compare with h11: any bytes that h11 accepts as a response must give
the same result here. What else is accepted is the subject of `http_head.py`.
"""

import re
from dataclasses import replace
from typing import Protocol

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.http_head import Framing, Head, bad_response, framing_of, is_success, parse_head
from laion_etl.download.link_failed import LinkFailed

MAX_HEAD_BYTES = 65_536  # of a response, including the 1xx responses before it
_HEAD_BYTES = 4_096  # received at once: a head, and little of the body, which would be copied once more
_CHUNKS_BYTES, _BODY_BYTES = 65_536, 262_144
_MAX_CHUNK_LINE = MAX_HEAD_BYTES  # whatever the packets that it comes in
_MIN_MEAN_CHUNK_BYTES = 64  # a body in smaller chunks, on average, is an attack on the reader
_CHUNKS_FREE = 1_000
_MIN_MEAN_RECEIVE_BYTES = 256
_RECEIVES_FREE = 500

_CHUNK_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_END_OF_HEAD = re.compile(rb"\r{0,2}\n\r{0,2}\n")
_LONGEST_END = 6
_BEGINNING = re.compile(rb"[\r\n]{0,4}HTTP/", re.IGNORECASE)  # some servers send empty lines first
_LONGEST_BEGINNING = 9
_BEFORE_TRAILERS = b"HTTP/1.1 200"  # they are parsed like a head
_SETTINGS_FRAME = re.compile(rb"\x00[\s\S]{2}\x04[\s\S]\x00{4}")


class Stream(Protocol):
    """Bytes to and from a server; `receive` returns b"" at the end of the connection."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self, max_bytes: int) -> bytes: ...


class StepLimits(Protocol):
    """Is notified of every step that can take long, so that it can limit its time."""

    def waiting_for_answer(self) -> None: ...
    def answering(self) -> None: ...


class Connection:
    """One connection to a server: `request`, then `part` until it returns b""; if reusable, start over."""

    def __init__(self, stream: Stream, max_bytes: int) -> None:
        self.stream = stream
        self.used = False  # has returned a response before
        self.reusable = False  # the last response was read to an unambiguous end
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._limits: StepLimits
        self.framing: Framing  # of the last response
        self.trailers: Head | None = None  # of the last response, once its body was read
        self._length: int | None = 0  # bytes left of the body or the chunk; None: until the connection ends
        self._chunked = False
        self._keeps = False
        self._received = 0
        self._receives = 0
        self._chunks = 0
        self._body_bytes = 0

    async def request(self, message: bytes, limits: StepLimits) -> Head:
        """Sends a request without body and reads the head of the response, skipping 1xx responses."""
        self._limits, self.reusable, self.trailers = limits, False, None
        self._received = self._receives = self._chunks = self._body_bytes = 0
        limits.waiting_for_answer()
        await self.stream.send(message)
        head = await self._head()
        while head.status < 200:
            if head.status == 101:
                raise bad_response("another protocol")
            head = await self._head()
        framing = framing_of(head)
        if framing.fault and is_success(head.status):  # of others the status says all
            raise bad_response(framing.fault)
        self.used = True
        self._begin(framing)
        return head

    async def drain(self, max_bytes: int) -> None:
        """Reads what is left of the body, if the connection can be used again after at most `max_bytes`."""
        if not self._keeps or (self._length or 0) > max_bytes:
            return
        drained = 0
        while drained <= max_bytes and (part := await self.part()):
            drained += len(part)

    async def _head(self) -> Head:
        raw = await self._raw_head()
        if raw.startswith(b"HTTP"):
            return parse_head(raw)
        while not raw.strip(b"\r\n"):
            raw = await self._raw_head()
        return replace(parse_head(raw.lstrip(b"\r\n")), odd=True)

    async def _raw_head(self) -> bytes:
        """Reads up to the next empty line."""
        buffer, looked = self._buffer, 0
        while (end := _END_OF_HEAD.search(buffer, max(0, looked - _LONGEST_END + 1))) is None:
            looked = len(buffer)
            if self._received > MAX_HEAD_BYTES:
                raise bad_response("head too long")
            if looked >= _LONGEST_BEGINNING and not _BEGINNING.match(buffer):
                raise bad_response("HTTP/2" if _SETTINGS_FRAME.match(buffer) else "not HTTP")
            if not await self._receive():
                raise bad_response("no answer" if not looked else "cut off in the head")
        if self._received - len(buffer) + end.end() > MAX_HEAD_BYTES:
            raise bad_response("head too long")
        raw = bytes(buffer[: end.start()])
        del buffer[: end.end()]
        return raw

    def _begin(self, framing: Framing) -> None:
        self.framing = framing
        self._keeps, self._chunked = framing.keeps, framing.chunked
        self._length = 0 if framing.chunked else framing.length
        if self._length == 0 and not self._chunked:
            self._end()

    async def part(self) -> bytes:
        """Returns the next part of the body without chunk framing, still content-encoded; b"" at its end."""
        if self._chunked and self._length == 0 and not await self._next_chunk():
            return b""
        if self._length == 0:
            return b""
        data = self._buffered() if self._buffer else await self._received_part()
        self._body_bytes += len(data)
        if self._length is not None:
            self._length -= len(data)
            if self._length == 0 and not self._chunked:
                self._end()
        return data

    def _buffered(self) -> bytes:
        """Takes what the buffer has of the body, or of the chunk."""
        buffer = self._buffer
        # Usually all of it: a slice would be copied twice.
        is_whole = self._length is None or self._length >= len(buffer)
        data = bytes(buffer) if is_whole else bytes(buffer[: self._length])
        del buffer[: len(data)]
        return data

    async def _received_part(self) -> bytes:
        """Receives more of the body, or of the chunk, past the buffer if nothing else comes with it."""
        data = await self._next_bytes(_CHUNKS_BYTES if self._chunked else _BODY_BYTES)
        if not data:
            if self._length is None:
                return b""
            raise self._broken("cut off")
        if self._length is None or len(data) <= self._length:
            return data
        self._buffer += data
        return self._buffered()

    def _end(self) -> None:
        """Marks the body as complete. Bytes beyond it are unsolicited: the connection is not reused."""
        self._length, self._chunked = 0, False
        self.reusable = self._keeps and not self._buffer

    def _broken(self, message: str) -> LinkFailed:
        """Returns the failure of a body whose end can no longer be found."""
        self._keeps = False
        return bad_response(message)

    async def _next_chunk(self) -> bool:
        """Reads up to the data of the next chunk. Returns False at the end of the body, past the trailers."""
        if self._chunks and await self._line() != b"":
            raise self._broken("broken chunk")
        self._chunks += 1
        if self._chunks > _CHUNKS_FREE + self._body_bytes / _MIN_MEAN_CHUNK_BYTES:
            raise self._broken("tiny chunks")
        size = _CHUNK_LINE.fullmatch(await self._line())
        if size is None:
            raise self._broken("broken chunk")
        self._length = int(size[1], 16)
        if self._length:
            return True
        await self._read_trailers()
        self._end()
        return False

    async def _read_trailers(self) -> None:
        """Reads the trailers. The connection may end instead: after the last chunk the body is whole."""
        lines, size = [_BEFORE_TRAILERS], 0
        while (has_line := await self._has_line()) and (line := self._take_line()):
            lines.append(line)
            size += len(line)
            if size > MAX_HEAD_BYTES:
                raise self._broken("trailers too long")
        if not has_line:
            self._keeps = False
        if len(lines) > 1:
            self.trailers = parse_head(b"\n".join(lines))

    async def _line(self) -> bytes:
        """Reads a line of chunk framing, without its line end."""
        if not await self._has_line():
            raise self._broken("cut off")
        return self._take_line()

    async def _has_line(self) -> bool:
        """Receives the rest of a line. Returns False if the connection ends before it does."""
        buffer = self._buffer
        while buffer.find(b"\n") < 0:
            if len(buffer) > _MAX_CHUNK_LINE:
                raise self._broken("broken chunk")
            if not await self._receive():
                return False
        return True

    def _take_line(self) -> bytes:
        line, _, _ = self._buffer.partition(b"\n")
        del self._buffer[: len(line) + 1]
        return bytes(line).removesuffix(b"\r")

    async def _receive(self) -> bool:
        """Reads more bytes into the buffer. Returns False at the end of the connection."""
        data = await self._next_bytes(_CHUNKS_BYTES if self._chunked else _HEAD_BYTES)
        self._buffer += data
        return bool(data)

    async def _next_bytes(self, most: int) -> bytes:
        data = await self.stream.receive(most)
        self._limits.answering()
        self._received += len(data)
        self._receives += 1
        if self._received > self._max_bytes:
            raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
        if self._receives > _RECEIVES_FREE + self._received / _MIN_MEAN_RECEIVE_BYTES:
            raise self._broken("tiny packets")
        return data
