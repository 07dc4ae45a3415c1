"""Gzip members of a file, one by one, with their offsets; a damaged one loses only itself.

WARC writers compress each record as a member of its own, so members are where reading can start again after
damage. The end of a member is guessed at the next gzip magic and checked by inflating: so the inflater never
gets to see, and copy, what follows, and igzip (isal) runs at nearly the speed of one continuous stream.
"""

import struct
from bisect import bisect_left
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import deflate
from isal import isal_zlib
from isal.igzip_lib import IsalError

from laion_etl.parse.kernels.magics import MagicFinder

_BrokenGzip: type[Exception] = IsalError  # type: ignore[assignment]  # declared as an instance by its stubs
_MAGIC = b"\x1f\x8b\x08"
_HEADER_BYTES = 18  # header and trailer: no member is shorter
_CHUNK_BYTES = 1 << 20
_REFILL_BYTES = 1 << 17  # less than this ahead, and the window is extended
_TRAILER = struct.Struct("<II")  # checksum and size (RFC 1952, 2.3.1)
_GZIP = 31  # window bits that ask zlib for a gzip wrapper
_TRIAL_BYTES = 4096

MAX_MEMBER_BYTES = 32 * 1024 * 1024  # Common Crawl cuts pages at 5 MiB; more than this is no record of its


class Member(NamedTuple):
    """An inflated member and the offset of its first compressed byte."""

    offset: int
    data: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from an offset on that are no whole member; reading went on at the next good one, if any."""

    offset: int
    cause: str


class Stream(Protocol):
    """A file, or what reads like one."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Window:
    """The part of the file in memory: `data`, whose first byte is at `base`; `more()` extends it.

    One buffer is filled again and again: fresh memory for every chunk costs more than inflating it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray(2 * _CHUNK_BYTES)
        self._finder = MagicFinder(self._buffer)
        self._magics: list[int] | None = None
        self.size = 0
        self.base = 0
        self.ended = False
        self.data = memoryview(self._buffer)[:0]

    def more(self) -> bool:
        """Appends a chunk; False at the end of the file."""
        if self.size + _CHUNK_BYTES > len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))
            self._finder = MagicFinder(self._buffer)
        room = memoryview(self._buffer)[self.size : self.size + _CHUNK_BYTES]
        read = 0 if self.ended else self._stream.readinto(room)
        self.ended = not read
        self._resize(self.size + (read or 0))
        return bool(read)

    def drop(self, count: int) -> None:
        """Forgets the first bytes."""
        rest = self.size - count
        view = memoryview(self._buffer)
        view[:rest] = view[count : self.size]
        self.base += count
        self._resize(rest)

    def _resize(self, size: int) -> None:
        self.size = size
        self.data = memoryview(self._buffer)[:size]
        self._magics = None

    def magics_from(self, start: int) -> list[int]:
        """Where gzip magics begin in the window."""
        if self._magics is None:
            self._magics = self._finder.find(self.size)
        return self._magics[bisect_left(self._magics, start) :]

    def next_magic(self, start: int) -> int:
        """Where the next gzip magic begins; -1 if there is none in the window."""
        return next(iter(self.magics_from(start)), -1)


def read_members(stream: Stream) -> Iterator[Member | Damage]:
    """Members and damages in the order of the file; memory is bounded by MAX_MEMBER_BYTES and a chunk."""
    window = _Window(stream)
    position = 0  # in the window
    while True:
        if window.size - position < _REFILL_BYTES and not window.ended:
            window.drop(position)
            window.more()
            position = 0
        behind = yield from _plain_members(window, position)
        if behind > position and not window.ended:
            position = behind  # the last of the window goes on in the next chunk
            continue
        position = behind
        if position >= window.size:
            return
        found = _inflate(window, position)
        if isinstance(found, str):
            yield Damage(window.base + position, found)
            position = _next_good(window, position + 1)
        else:
            data, end = found
            yield Member(window.base + position, data)
            position = end


def _plain_members(window: _Window, position: int) -> Generator[Member, None, int]:
    """Members that end where the next magic is, one call each; where the first begins that does not.

    libdeflate takes a member at once, which is a quarter faster than any stream, but passes over what follows
    it; so the checksum at the end has to be the member's.
    """
    data, base = window.data, window.base
    for end in window.magics_from(position + _HEADER_BYTES):
        checksum, size = _TRAILER.unpack_from(data, end - 8)
        if not 0 < size <= MAX_MEMBER_BYTES:
            break
        try:
            inflated = deflate.gzip_decompress(data[position:end], size)
        except deflate.DeflateError:
            break
        if deflate.crc32(inflated) != checksum:
            break
        yield Member(base + position, inflated)
        position = end
    return position


def _inflate(window: _Window, start: int) -> tuple[bytes, int] | str:
    """The member at `start` of the window and where it ends, or why there is none."""
    if window.data[start : start + len(_MAGIC)] != _MAGIC:
        return "not gzip"
    inflater = isal_zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size, fed = 0, start
    while not inflater.eof:
        end = _guess_end(window, start, fed)
        try:
            part = inflater.decompress(window.data[fed:end], MAX_MEMBER_BYTES - size + 1)
        except _BrokenGzip as error:
            return str(error)
        parts.append(part)
        size += len(part)
        if size > MAX_MEMBER_BYTES:
            return f"over {MAX_MEMBER_BYTES} bytes"
        if end == fed and not inflater.eof:
            return "cut off"
        fed = end
    return b"".join(parts), fed - len(inflater.unused_data)


def _guess_end(window: _Window, start: int, fed: int) -> int:
    """The next gzip magic behind what was fed, else the end of the window, which is extended if possible."""
    if fed == window.size:
        window.more()
    found = window.next_magic(max(fed + 1, start + _HEADER_BYTES))
    return found if found >= 0 else window.size


def _next_good(window: _Window, start: int) -> int:
    """Where in the window the next member that holds a WARC record begins; its end if there is none."""
    while True:
        start = window.next_magic(start)
        if start < 0:
            tail = len(_MAGIC) - 1
            window.drop(max(0, window.size - tail))
            start = 0
            if not window.more():
                return window.size
        elif _begins_a_record(window.data[start : start + _TRIAL_BYTES]):
            return start
        else:
            start += 1


def _begins_a_record(data: memoryview) -> bool:
    try:
        return bytes(isal_zlib.decompressobj(_GZIP).decompress(data, 5)) == b"WARC/"
    except _BrokenGzip:
        return False
