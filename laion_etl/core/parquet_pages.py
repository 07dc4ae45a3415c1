"""Finds the pages of a parquet file, and what their headers and dictionaries say of the values in them.

pyarrow does not give the headers of pages, and a damaged footer whose chunks it lists aborts the process.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from laion_etl.core.compact_thrift import I32, I64, LIST, STRUCT, CompactReader

DICTIONARY_PAGE = 2
# By kind of page: the fields of its header, and of the encoding in that.
_HEADERS = {0: (5, 2), 3: (8, 4), DICTIONARY_PAGE: (7, 2)}
_HEADER_FIELDS = {header for header, _ in _HEADERS.values()}
_DICTIONARY_CODED, _PREFIX_CODED = (2, 8), 7
_WHOLE_NUMBERS, _TEXTS, _FIXED_TEXTS = 2, 6, 7  # INT64, BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_UNPACKED = 0
_SHORT_DICTIONARY_BYTES = 8 << 10  # need not be looked at
_HEADER_BYTES, _MOST_HEADER_BYTES = 256, 1 << 20  # statistics may be among them
_NUMBER_BYTES = 8
_LENGTH = struct.Struct("<I")
_NUMBER = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The pages of a column in a row group; `numbers`: the least and the greatest of its whole numbers."""

    path: tuple[bytes, ...]
    kind: int
    codec: int
    at: int
    packed: int
    numbers: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Page:
    """What the header of a page says."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int

    def longest(self, in_dictionary: int) -> int:
        """Return at least as many bytes as its values have that it repeats, or on average."""
        if self.encoding in _DICTIONARY_CODED:
            return in_dictionary
        if self.encoding == _PREFIX_CODED:  # a value takes its beginning from the one before it
            return self.unpacked
        return self.unpacked // max(1, self.values)

    def most_bytes(self, in_dictionary: int, of_value: int) -> int:
        """Return at least as many bytes as its values take in memory, each of which takes some anyway."""
        if self.encoding in _DICTIONARY_CODED or self.encoding == _PREFIX_CODED:
            return self.values * (self.longest(in_dictionary) + of_value)
        return self.unpacked + self.values * of_value


def chunks_of(footer: bytes) -> Iterator[Chunk]:
    """Yield the chunks that a footer lists."""
    reader = CompactReader(footer)
    try:
        for field, kind in reader.fields():
            if (field, kind) == (4, LIST):
                for _ in range(reader.count()):
                    yield from _chunks_of_group(reader)
            else:
                reader.skip(kind)
    except (IndexError, KeyError):
        raise pa.ArrowInvalid("its footer is damaged") from None


def _chunks_of_group(reader: CompactReader) -> Iterator[Chunk]:
    for field, kind in reader.fields():
        if (field, kind) != (1, LIST):
            reader.skip(kind)
            continue
        for _ in range(reader.count()):
            chunk = None
            for inner, inner_kind in reader.fields():
                if (inner, inner_kind) == (3, STRUCT):
                    chunk = _chunk(reader)
                else:
                    reader.skip(inner_kind)
            if chunk is None:
                raise KeyError
            yield chunk


def _chunk(reader: CompactReader) -> Chunk:
    numbers: dict[tuple[int, int], int] = {}
    path: tuple[bytes, ...] = ()
    statistics: dict[int, bytes] = {}
    for field, kind in reader.fields():
        if kind in (I32, I64):
            numbers[field, kind] = reader.number(kind)
        elif (field, kind) == (3, LIST):
            path = tuple(reader.text() for _ in range(reader.count()))
        elif (field, kind) == (12, STRUCT):
            statistics = reader.texts()
        else:
            reader.skip(kind)
    at, dictionary, of_values = numbers[9, I64], numbers.get((11, I64), 0), numbers[1, I32]
    if dictionary > 0 and not 0 < at < dictionary:  # without rows there may be a dictionary alone
        at = dictionary
    return Chunk(
        path,
        of_values,
        numbers[4, I32],
        at,
        numbers[7, I64],
        _least_and_greatest(statistics) if of_values == _WHOLE_NUMBERS else None,
    )


def _least_and_greatest(statistics: dict[int, bytes]) -> tuple[int, int] | None:
    least, greatest = (statistics.get(new, statistics.get(old, b"")) for new, old in ((6, 2), (5, 1)))
    if len(least) != _NUMBER.size or len(greatest) != _NUMBER.size:
        return None
    return _NUMBER.unpack(least)[0], _NUMBER.unpack(greatest)[0]


def pages_of(file: BinaryIO, size: int, chunk: Chunk) -> Iterator[tuple[Page, int]]:
    """Yield the pages of a chunk, each with the place of its content."""
    at, end = chunk.at, chunk.at + chunk.packed
    if not 0 <= at <= end <= size:
        raise pa.ArrowInvalid("it has pages outside of the file")
    while at < end:
        page, length = _page(file, at)
        at += length
        yield page, at
        at += page.packed


def longest_in_dictionary(file: BinaryIO, at: int, page: Page, chunk: Chunk) -> int:
    """Return the length of the longest value of a dictionary, or more."""
    if chunk.kind == _FIXED_TEXTS:
        return page.unpacked // max(1, page.values)
    if chunk.kind != _TEXTS:
        return _NUMBER_BYTES
    content = read_at(file, at, page.packed)
    if chunk.codec in _CODECS and page.unpacked > _SHORT_DICTIONARY_BYTES:
        content = pa.Codec(_CODECS[chunk.codec]).decompress(content, page.unpacked, asbytes=True)
    elif chunk.codec != _UNPACKED:
        return page.unpacked
    return _longest_text(content)


def _longest_text(content: bytes) -> int:
    """Return the length of the longest of texts that each follow their length.

    Row groups have tens of thousands of them in their dictionaries: calls are avoided.
    """
    longest, at, end, unpack = 0, 0, len(content) - _LENGTH.size, _LENGTH.unpack_from
    while at <= end:
        length = unpack(content, at)[0]
        if length > longest:  # noqa: PLR1730 - max() takes twice as long
            longest = length
        at += 4 + length
    return longest


def _page(file: BinaryIO, at: int) -> tuple[Page, int]:
    """Return the page whose header is at a place of the file, and the length of the header."""
    length = _HEADER_BYTES
    while True:
        reader = CompactReader(read_at(file, at, length))
        try:
            return _page_of(reader), reader.at
        except (IndexError, KeyError):
            if length > _MOST_HEADER_BYTES:
                raise pa.ArrowInvalid("it has a damaged page") from None
            length *= 16


def _page_of(reader: CompactReader) -> Page:
    """Read the header of a page. Raises IndexError where it ends too early, KeyError if it lacks a size."""
    numbers: dict[int, int] = {}
    headers: dict[int, dict[int, int]] = {}
    for field, kind in reader.fields():
        if kind == I32:
            numbers[field] = reader.number(kind)
        elif kind == STRUCT and field in _HEADER_FIELDS:
            headers[field] = reader.numbers()
        else:
            reader.skip(kind)
    of_page = numbers[1]
    if of_page not in _HEADERS:  # an index, which is passed over
        return Page(of_page, numbers[2], numbers[3], 0, 0)
    header, of_encoding = _HEADERS[of_page]
    found = headers[header]
    return Page(of_page, numbers[2], numbers[3], found[1], found[of_encoding])


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """Return so many bytes of a file from a place on, fewer at its end."""
    file.seek(at)
    return file.read(count)
