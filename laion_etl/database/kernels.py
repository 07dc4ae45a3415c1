"""Compiled loops over rows of Postgres' binary COPY format and over URLs.

Numbers in the format are big-endian. A text column is a pair of arrays: value i is
data[offsets[i]:offsets[i + 1]].
"""

import numpy as np

from laion_etl.core.intrinsics import copy_bytes, prefetch
from laion_etl.core.kernels import Bytes, Hashes, Ints, Longs, equals
from laion_etl.core.numba_cache import kernel

__all__ = ["Bytes", "Hashes", "Ints", "Longs"]

PAIR_HEAD = 2 + 4 + 4 + 4 + 4 + 4 + 16  # bytes of a row before its texts
PAGE_HEAD = 2 + 4 + 4 + 4 + 4
_AHEAD = 12  # rows; writing so many takes as long as one read from memory
_MOST_BUCKET_BITS = 24
_LARGEST_BUCKET = 64  # hashes; of a hundred million, so many begin alike by chance less than once in 10^30
_LINES = 3  # of the cache, 64 bytes each: the texts of most pairs


@kernel
def _put16(out: Bytes, at: int, value: int) -> int:
    out[at] = (value >> 8) & 0xFF
    out[at + 1] = value & 0xFF
    return at + 2


@kernel
def _put32(out: Bytes, at: int, value: int) -> int:
    out[at] = (value >> 24) & 0xFF
    out[at + 1] = (value >> 16) & 0xFF
    out[at + 2] = (value >> 8) & 0xFF
    out[at + 3] = value & 0xFF
    return at + 4


@kernel
def _put_text(out: Bytes, at: int, offsets: Ints, data: Bytes, row: int) -> int:
    start, end = offsets[row], offsets[row + 1]
    at = _put32(out, at, end - start)
    copy_bytes(out, at, data, start, end - start)
    return int(at + end - start)


@kernel
def encode_texts(
    out: Bytes,
    at: int,
    starts: Longs,
    url_offsets: Ints,
    url: Bytes,
    caption_offsets: Ints,
    caption: Bytes,
    language_offsets: Ints,
    language: Bytes,
    source_offsets: Ints,
    source: Bytes,
    usual_source: Bytes,
) -> int:
    """Writes the text fields of pairs from `at` on, and where those of each begin; returns where they end.

    An empty source, or the usual one, becomes null.
    """
    for row in range(len(starts)):
        starts[row] = at
        at = _put_text(out, at, url_offsets, url, row)
        at = _put_text(out, at, caption_offsets, caption, row)
        at = _put_text(out, at, language_offsets, language, row)
        if _is_stored(source_offsets, source, row, usual_source):
            at = _put_text(out, at, source_offsets, source, row)
        else:
            at = _put32(out, at, -1)  # null
    return at


@kernel
def _is_stored(offsets: Ints, data: Bytes, row: int, usual: Bytes) -> bool:
    start, size = offsets[row], offsets[row + 1] - offsets[row]
    if size == 0:
        return False
    return not (size == len(usual) and equals(data, start, usual))


@kernel
def encode_pages(
    out: Bytes,
    starts: Longs,
    rows: Longs,
    url_offsets: Ints,
    url: Bytes,
    license_offsets: Ints,
    licence: Bytes,
) -> int:
    """Writes the text fields of the pages of some rows, like encode_texts."""
    at = 0
    for place, row in enumerate(rows):
        starts[place] = at
        at = _put_text(out, at, url_offsets, url, row)
        at = _put_text(out, at, license_offsets, licence, row)
    return at


@kernel
def pair_rows(
    out: Bytes,
    done: int,
    keys: Bytes,
    partition_no: int,
    first_page: int,
    pages: Ints,
    starts: Longs,
    sizes: Ints,
    data: Bytes,
) -> tuple[int, int]:
    """Writes as many of the rows after `done` as there is room for; returns how many are done and the size.

    The text fields of row i are data[starts[i]:starts[i] + sizes[i]], its page number is pages[i].
    """
    at, place = 0, done
    while place < len(pages):
        if at + PAIR_HEAD + sizes[place] > len(out):
            break
        if place + _AHEAD < len(pages):
            for line in range(_LINES):
                prefetch(data, starts[place + _AHEAD] + 64 * line)
        at = _put16(out, at, 7)
        at = _put32(out, at, 4)
        at = _put32(out, at, partition_no)
        at = _put32(out, at, 4)
        at = _put32(out, at, first_page + pages[place])
        at = _put32(out, at, 16)
        copy_bytes(out, at, keys, 16 * place, 16)
        copy_bytes(out, at + 16, data, starts[place], sizes[place])
        at += 16 + sizes[place]
        place += 1
    return place, at


@kernel
def page_rows(
    out: Bytes,
    pages: Ints,
    done: int,
    partition_no: int,
    first_page: int,
    starts: Longs,
    sizes: Ints,
    data: Bytes,
) -> tuple[int, int]:
    """Writes rows of table page, like pair_rows; those of pages[i] are `sizes[i]` bytes at `starts[i]`."""
    at, place = 0, done
    while place < len(pages):
        if at + PAGE_HEAD + sizes[place] > len(out):
            break
        at = _put16(out, at, 4)
        at = _put32(out, at, 4)
        at = _put32(out, at, partition_no)
        at = _put32(out, at, 4)
        at = _put32(out, at, first_page + pages[place])
        copy_bytes(out, at, data, starts[place], sizes[place])
        at += sizes[place]
        place += 1
    return place, at


@kernel
def fields(buffer: Bytes, width: int) -> tuple[Longs, Longs]:
    """Returns start and length of each field, shape (rows, width); (0, 0) if a row has another width."""
    rows = 0
    at = 0
    while at < len(buffer):
        if (np.int64(buffer[at]) << 8) + buffer[at + 1] != width:
            return np.empty((0, 0), np.int64), np.empty((0, 0), np.int64)
        at += 2
        for _ in range(width):
            at += 4 + _length(buffer, at)
        rows += 1
    starts = np.empty((rows, width), np.int64)
    lengths = np.empty((rows, width), np.int64)
    at = 0
    for row in range(rows):
        at += 2
        for field in range(width):
            length = _length(buffer, at)
            starts[row, field] = at + 4
            lengths[row, field] = length
            at += 4 + length
    return starts, lengths


@kernel
def _length(buffer: Bytes, at: int) -> int:
    length = 0
    for position in range(4):
        length = (length << 8) + int(buffer[at + position])
    return length


@kernel
def gathered(buffer: Bytes, starts: Longs, lengths: Longs) -> Bytes:
    out = np.empty(lengths.sum(), np.uint8)
    at = 0
    for row in range(len(starts)):
        copy_bytes(out, at, buffer, starts[row], lengths[row])
        at += lengths[row]
    return out


@kernel
def page_numbers(
    url_offsets: Ints, url: Bytes, license_offsets: Ints, licence: Bytes, rows: int, first: int
) -> Ints:
    """Numbers the pages of the rows: one more where page URL or licence differ from the previous row."""
    out = np.empty(rows, np.int32)
    number = first
    for row in range(rows):
        if row and not (_as_before(url_offsets, url, row) and _as_before(license_offsets, licence, row)):
            number += 1
        out[row] = number
    return out


@kernel
def _as_before(offsets: Ints, data: Bytes, row: int) -> bool:
    before, start, end = offsets[row - 1], offsets[row], offsets[row + 1]
    if end - start != start - before:
        return False
    # Slices, and to the end, as most rows are equal: so it is compiled to vectors, a tenth of the time.
    one, other = data[before:start], data[start:end]
    difference = np.uint8(0)
    for i in range(len(one)):
        difference |= one[i] ^ other[i]
    return bool(difference == 0)


@kernel
def host_hashes(offsets: Ints, data: Bytes) -> Hashes:
    """Returns 64-bit FNV-1a of the host of each URL: the bytes between "//" and the next of "/:?#"."""
    out = np.empty(len(offsets) - 1, np.uint64)
    for row in range(len(out)):
        at, end = offsets[row], offsets[row + 1]
        while at + 1 < end and not (data[at] == 47 and data[at + 1] == 47):
            at += 1
        at += 2
        value = np.uint64(0xCBF29CE484222325)
        while at < end and data[at] not in (47, 58, 63, 35):
            value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
            at += 1
        out[row] = value
    return out


@kernel
def order_of_hashes(high: Hashes, low: Hashes) -> Longs:
    """Returns the ascending order of 128-bit hashes, given by their halves; equal ones keep their order.

    They are dealt into buckets by their first bits, some four into each, which leaves little to sort. Returns
    none if so many begin alike that this would be slow.
    """
    rows, bits = len(high), 4
    while bits < _MOST_BUCKET_BITS and (4 << bits) < rows:
        bits += 1
    shift = np.uint64(64 - bits)
    places = np.zeros((1 << bits) + 1, np.int64)
    for row in range(rows):
        places[np.int64(high[row] >> shift) + 1] += 1
    if places.max() > _LARGEST_BUCKET:
        return np.empty(0, np.int64)
    places = np.cumsum(places)
    order, ordered = np.empty(rows, np.int64), np.empty(rows, np.uint64)
    for row in range(rows):
        bucket = np.int64(high[row] >> shift)
        order[places[bucket]], ordered[places[bucket]] = row, high[row]
        places[bucket] += 1
    for end in range(1, rows):
        place, row, first = end, order[end], ordered[end]
        while place > 0 and (
            ordered[place - 1] > first or (ordered[place - 1] == first and low[order[place - 1]] > low[row])
        ):
            order[place], ordered[place] = order[place - 1], ordered[place - 1]
            place -= 1
        order[place], ordered[place] = row, first
    return order
