"""Gzip members of a file, one by one, with their offsets; a damaged one loses only itself.

WARC writers compress each record as a member of its own, so members are where reading can start again after
damage. The end of a member is guessed at the next gzip magic and checked by inflating: so the inflater never
gets to see, and copy, what follows, and igzip (isal) runs at nearly the speed of one continuous stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from isal import isal_zlib
from isal.igzip_lib import IsalError

_BrokenGzip: type[Exception] = IsalError  # type: ignore[assignment]  # declared as an instance by its stubs
_MAGIC = b"\x1f\x8b\x08"
_HEADER_BYTES = 18  # header and trailer: no member is shorter
_CHUNK_BYTES = 1 << 20
_GZIP = 31  # window bits that ask zlib for a gzip wrapper
_TRIAL_BYTES = 4096

MAX_MEMBER_BYTES = 64 * 1024 * 1024  # Common Crawl cuts pages at 1 MiB; more than this is no record of its


@dataclass(frozen=True, slots=True)
class Member:
    """An inflated member and the offset of its first compressed byte."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from an offset on that are no whole member; reading went on at the next good one, if any."""

    offset: int
    cause: str


class _Window:
    """The part of the file in memory: `data`, whose first byte is at `base`; `more()` extends it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.data = b""
        self.base = 0
        self.ended = False

    def more(self) -> bool:
        """Appends a chunk; False at the end of the file."""
        chunk = b"" if self.ended else self._stream.read(_CHUNK_BYTES)
        self.ended = not chunk
        self.data += chunk
        return bool(chunk)

    def drop(self, count: int) -> None:
        """Forgets the first bytes."""
        self.data = self.data[count:]
        self.base += count


def read_members(stream: BinaryIO) -> Iterator[Member | Damage]:
    """Members and damages in the order of the file; memory is bounded by MAX_MEMBER_BYTES and a chunk."""
    window = _Window(stream)
    position = 0  # in the window
    while True:
        if len(window.data) - position < _CHUNK_BYTES and not window.ended:
            window.drop(position)
            position = 0
            window.more()
            continue
        if position >= len(window.data):
            return
        found = _inflate(window, position)
        if isinstance(found, str):
            yield Damage(window.base + position, found)
            position = _next_good(window, position + 1)
        else:
            data, end = found
            yield Member(window.base + position, data)
            position = end


def _inflate(window: _Window, start: int) -> tuple[bytes, int] | str:
    """The member at `start` of the window and where it ends, or why there is none."""
    if not window.data.startswith(_MAGIC, start):
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
    if fed == len(window.data):
        window.more()
    found = window.data.find(_MAGIC, max(fed + 1, start + _HEADER_BYTES))
    return found if found >= 0 else len(window.data)


def _next_good(window: _Window, start: int) -> int:
    """Where in the window the next member that holds a WARC record begins; its end if there is none."""
    while True:
        start = window.data.find(_MAGIC, start)
        if start < 0:
            tail = len(_MAGIC) - 1
            window.drop(max(0, len(window.data) - tail))
            start = 0
            if not window.more():
                return len(window.data)
        elif _begins_a_record(window.data[start : start + _TRIAL_BYTES]):
            return start
        else:
            start += 1


def _begins_a_record(data: bytes) -> bool:
    try:
        return bytes(isal_zlib.decompressobj(_GZIP).decompress(data, 5)) == b"WARC/"
    except _BrokenGzip:
        return False
