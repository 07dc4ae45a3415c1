"""Reads the gzip members of a file one by one, with their offsets; a damaged member only loses itself.

WARC writers compress each record as its own member, others cut the stream into equal blocks: either way
reading can resume at the next member after damage. Intact members are inflated in a row by a kernel; a
truncated, damaged or large one is read as a stream (isal), up to the next gzip magic at which a WARC record
begins, or a member that is intact to its end, by its CRC.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.kernels import Bytes, Ints, Longs
from laion_etl.parse.kernels.inflate import FULL, Decompressor, inflate_members
from laion_etl.parse.warc_records import begins_a_record

_BrokenGzip: type[Exception] = IsalError  # type: ignore[assignment]  # declared as an instance by its stubs
_MAGIC = b"\x1f\x8b\x08"
_HEADER_BYTES = 18  # header and trailer, the minimum size of a member
_CHUNK_BYTES = 1 << 20
_REFILL_BYTES = 1 << 17  # with less than this ahead, the window is extended
_GZIP = 31  # window bits that ask zlib for a gzip wrapper
_TRIAL_BYTES = 4096
_TRIAL_INFLATED_BYTES = 64  # padding may precede a record
_MAX_GROUP_MEMBERS = 1 << 14  # of a group

MAX_MEMBER_BYTES = 32 * 1024 * 1024  # Common Crawl cuts pages at 5 MiB: anything larger is not its record
TOO_LARGE = f"a gzip member of more than {MAX_MEMBER_BYTES >> 20} MiB"  # inflated


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from an offset on that are not an intact member; reading resumed at the next intact one."""

    offset: int
    cause: str


@dataclass(slots=True)
class Members:
    """Inflated members, consecutive in an arena, and the damages found before or between them.

    `ends` (in the arena) and `offsets` (of the first compressed byte in the file) have one row per member.
    """

    ends: Ints = field(default_factory=lambda: np.empty(_MAX_GROUP_MEMBERS, np.int32))
    offsets: Longs = field(default_factory=lambda: np.empty(_MAX_GROUP_MEMBERS, np.int64))
    damages: list[Damage] = field(default_factory=list)
    count: int = 0

    def cut(self) -> "Members":
        """Returns the group without unused rows."""
        return Members(self.ends[: self.count], self.offsets[: self.count], self.damages, self.count)


class ByteSource(Protocol):
    """A binary file, or anything with its `readinto`."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Window:
    """The part of the file in memory: `data`, whose first byte is at offset `base`; `more()` extends it.

    One buffer is reused: allocating memory for every chunk costs more than inflating it.
    """

    def __init__(self, stream: ByteSource) -> None:
        self._stream = stream
        self._buffer = bytearray(2 * _CHUNK_BYTES)
        self.size = 0
        self.base = 0
        self.ended = False
        self.data = memoryview(self._buffer)[:0]

    def more(self) -> bool:
        """Appends a chunk. Returns False at the end of the file."""
        if self.size + _CHUNK_BYTES > len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))
        room = memoryview(self._buffer)[self.size : self.size + _CHUNK_BYTES]
        read = 0 if self.ended else self._stream.readinto(room)
        self.ended = not read
        self._resize(self.size + (read or 0))
        return bool(read)

    def drop(self, count: int) -> None:
        """Discards the first bytes."""
        rest = self.size - count
        view = memoryview(self._buffer)
        view[:rest] = view[count : self.size]
        self.base += count
        self._resize(rest)

    def _resize(self, size: int) -> None:
        self.size = size
        self.data = memoryview(self._buffer)[:size]

    @property
    def bytes(self) -> Bytes:
        return np.frombuffer(self._buffer, np.uint8)

    def next_magic(self, start: int) -> int:
        """Returns where the next gzip magic begins; -1 if there is none in the window."""
        return self._buffer.find(_MAGIC, start, self.size)


def read_members(stream: ByteSource, arena: ByteArena, max_bytes: int) -> Iterator[Members]:
    """Yields the members of a file in order, in groups of at most `max_bytes` inflated or of one member.

    The arena is cleared for each group and belongs to the caller until the next group is requested. Memory is
    bounded by the window and the larger of `max_bytes` and MAX_MEMBER_BYTES.
    """
    window, decompressor = _Window(stream), Decompressor()
    group, position = Members(), 0
    arena.clear()
    arena.reserve(max_bytes)
    while True:
        if window.size - position < _REFILL_BYTES and not window.ended:
            window.drop(position)
            window.more()
            position = 0
        position, full = _whole_members(decompressor, window, position, arena, max_bytes, group)
        if not full:
            if window.size - position < _REFILL_BYTES and not window.ended:
                continue  # the rest may continue in the next chunk
            if position == window.size:
                break
            position, full = _odd_member(window, position, arena, max_bytes, group)
        if full:
            yield group.cut()
            group = Members()
            arena.clear()
    if group.count or group.damages:
        yield group.cut()


def _whole_members(
    decompressor: Decompressor,
    window: _Window,
    position: int,
    arena: ByteArena,
    max_bytes: int,
    group: Members,
) -> tuple[int, bool]:
    """Reads members while they are intact. Returns where it stopped, and whether the group is full."""
    if not decompressor.handle:
        return position, False
    source, rows = (window.bytes, position, window.size), (group.ends, group.offsets)
    out = arena.data[:max_bytes]
    end, arena.size, count, why = inflate_members(
        decompressor.handle, source, out, arena.size, rows, group.count
    )
    group.offsets[group.count : count] += window.base
    group.count = count
    return end, why == FULL


def _odd_member(
    window: _Window, position: int, arena: ByteArena, max_bytes: int, group: Members
) -> tuple[int, bool]:
    """Reads one member as a stream, or skips damage. If the group is full, the member stays for the next."""
    found = _inflate(window, position)
    if isinstance(found, str):
        group.damages.append(Damage(window.base + position, found))
        return _next_good(window, position + 1), len(group.damages) == _MAX_GROUP_MEMBERS
    data, end = found
    if group.count == _MAX_GROUP_MEMBERS or (group.count and arena.size + len(data) > max_bytes):
        return position, True
    group.ends[group.count] = arena.add(data)[1]
    group.offsets[group.count] = window.base + position
    group.count += 1
    return end, False


def _inflate(window: _Window, start: int) -> tuple[bytes, int] | str:
    """Returns the member at `start` of the window and where it ends, or why there is none."""
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
            return TOO_LARGE
        if end == fed and not inflater.eof:
            return "cut off"
        fed = end
    return b"".join(parts), fed - len(inflater.unused_data)


def _guess_end(window: _Window, start: int, fed: int) -> int:
    """Returns the next gzip magic after the bytes fed, else the end of the window, extended if possible."""
    if fed == window.size:
        window.more()
    found = window.next_magic(max(fed + 1, start + _HEADER_BYTES))
    return found if found >= 0 else window.size


def _next_good(window: _Window, start: int) -> int:
    """Returns where the next member with a WARC record, or an intact one, begins; the end without one."""
    while True:
        start = window.next_magic(start)
        if start < 0:
            tail = len(_MAGIC) - 1
            window.drop(max(0, window.size - tail))
            start = 0
            if not window.more():
                return window.size
        elif window.size - start < _TRIAL_BYTES and not window.ended:
            window.drop(start)
            window.more()
            start = 0
        elif _begins_with_a_record(window.data[start : start + _TRIAL_BYTES]) or _is_intact(window, start):
            return start
        else:
            start += 1


def _begins_with_a_record(data: memoryview) -> bool:
    try:
        return begins_a_record(bytes(isal_zlib.decompressobj(_GZIP).decompress(data, _TRIAL_INFLATED_BYTES)))
    except _BrokenGzip:
        return False


def _is_intact(window: _Window, start: int) -> bool:
    return not isinstance(_inflate(window, start), str)
