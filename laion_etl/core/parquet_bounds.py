"""Reads parquet files that another program may have made, within bounds that are checked before any row.

A file of 4 kB can hold 20 GB: the dictionary of a column has one long text, to which every row refers. A page
of zeros compresses ten thousand times, and a footer takes twenty times its size when it is parsed. What a
file says of itself, such as its statistics, cannot be trusted. So the headers of all pages are read (20 us
each), and the dictionaries of texts: where a value is long, fewer rows are read at once.

Refused: a limit for the memory of the process, which other threads share and which ends it anywhere.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.compact_thrift import LIST, STRUCT, WHOLE, CompactReader

_MOST_FOOTER_BYTES = 8 << 20
_MOST_COLUMNS = 2_000
_MOST_PAGES = 1_000_000
_MOST_PAGE_BYTES = 64 << 20
_MOST_BATCH_BYTES = 512 << 20  # of a column: 16,384 captions of 32 kB, and the longest have 8 kB
_SHORT_DICTIONARY_BYTES = 8 << 10  # need not be looked at
_HEADER_BYTES, _MOST_HEADER_BYTES = 256, 1 << 20  # statistics may be among them
_DICTIONARY_PAGE = 2
_TEXTS = 6  # BYTE_ARRAY, the only type whose values have no fixed length
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_UNPACKED = 0
_TAIL = struct.Struct("<I4s")
_LENGTH = struct.Struct("<I")


class BoundedParquet:
    """A parquet file that is read in batches of rows, of at most about half a gigabyte for each column.

    Raises pa.ArrowInvalid or OSError for a damaged file, as pyarrow does, and for one beyond the bounds.
    """

    def __init__(self, file: BinaryIO) -> None:
        size, footer = _footer(file)
        try:
            self._parquet = pq.ParquetFile(file)
            self._schema = self._parquet.schema_arrow
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid("the name of a column is damaged") from error
        if (columns := self.metadata.num_columns) > _MOST_COLUMNS:
            raise pa.ArrowInvalid(f"it has {columns:,} columns, more than {_MOST_COLUMNS:,}")
        self._longest = max(1, _longest_value(file, size, footer))
        file.seek(0)

    @property
    def metadata(self) -> pq.FileMetaData:
        return self._parquet.metadata

    @property
    def schema_arrow(self) -> pa.Schema:
        return self._schema

    def iter_batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield up to so many rows at once; fewer where a long value may be repeated in all of them."""
        rows = max(1, min(rows, _MOST_BATCH_BYTES // self._longest))
        return iter(self._parquet.iter_batches(rows, columns=columns))


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return the size of a file, at whose start it leaves it, and its footer.

    Raises pa.ArrowInvalid for a large one; pyarrow says what else is wrong with a file.
    """
    size, footer = file.seek(0, 2), b""
    if size >= _TAIL.size:
        length, magic = _TAIL.unpack(_read(file, size - _TAIL.size, _TAIL.size))
        if magic == b"PAR1" and length > _MOST_FOOTER_BYTES:
            raise pa.ArrowInvalid(f"its footer has {length:,} bytes, more than {_MOST_FOOTER_BYTES:,}")
        if length + _TAIL.size <= size:
            footer = _read(file, size - _TAIL.size - length, length)
    file.seek(0)
    return size, footer


def _longest_value(file: BinaryIO, size: int, footer: bytes) -> int:
    """Return at least as many bytes as values have that a batch may hold many of."""
    longest = pages = 0
    for chunk in _chunks(footer):
        for page, at in _pages(file, size, chunk):
            pages += 1
            if pages > _MOST_PAGES:
                raise pa.ArrowInvalid(f"it has more than {_MOST_PAGES:,} pages")
            if not (0 <= page.unpacked <= _MOST_PAGE_BYTES and page.packed >= 0):
                raise pa.ArrowInvalid(f"it has a page of {page.unpacked:,} bytes")
            if page.kind != _DICTIONARY_PAGE:
                longest = max(longest, page.unpacked // max(1, page.values))
            elif chunk.kind == _TEXTS:
                longest = max(longest, _longest_of(_read(file, at, page.packed), page, chunk))
    return longest


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The pages of a column in a row group."""

    kind: int
    codec: int
    at: int
    packed: int


def _chunks(footer: bytes) -> Iterator[_Chunk]:
    """Yield the chunks that a footer lists. That pyarrow lists them was refused: a damaged one aborts it."""
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


def _chunks_of_group(reader: CompactReader) -> Iterator[_Chunk]:
    for field, kind in reader.fields():
        if (field, kind) != (1, LIST):
            reader.skip(kind)
            continue
        for _ in range(reader.count()):
            numbers = {}
            for inner, inner_kind in reader.fields():
                if (inner, inner_kind) == (3, STRUCT):
                    numbers = reader.numbers()
                else:
                    reader.skip(inner_kind)
            if numbers[5] == 0:  # values: it has no pages, and no place
                continue
            at, dictionary = numbers[9], numbers.get(11, 0)
            yield _Chunk(numbers[1], numbers[4], dictionary if 0 < dictionary < at else at, numbers[7])


def _pages(file: BinaryIO, size: int, chunk: _Chunk) -> Iterator[tuple["_Page", int]]:
    """Yield the pages of a chunk, each with the place of its content."""
    at, end = chunk.at, chunk.at + chunk.packed
    if not 0 <= at <= end <= size:
        raise pa.ArrowInvalid("it has pages outside of the file")
    while at < end:
        page, length = _page(file, at)
        at += length
        yield page, at
        at += page.packed


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    unpacked: int
    packed: int
    values: int


def _longest_of(content: bytes, page: _Page, chunk: _Chunk) -> int:
    """Return the length of the longest text of a dictionary, or more."""
    if chunk.codec in _CODECS and page.unpacked > _SHORT_DICTIONARY_BYTES:
        content = pa.Codec(_CODECS[chunk.codec]).decompress(content, page.unpacked, asbytes=True)
    elif chunk.codec != _UNPACKED:
        return page.unpacked
    longest = at = 0
    while at + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        longest = max(longest, length)
        at += _LENGTH.size + length
    return longest


def _page(file: BinaryIO, at: int) -> tuple[_Page, int]:
    """Return the page whose header is at a place of the file, and the length of the header."""
    length = _HEADER_BYTES
    while True:
        reader = CompactReader(_read(file, at, length))
        try:
            return _page_of(reader), reader.at
        except (IndexError, KeyError):
            if length > _MOST_HEADER_BYTES:
                raise pa.ArrowInvalid("it has a damaged page") from None
            length *= 16


def _page_of(reader: CompactReader) -> _Page:
    """Read the header of a page. Raises IndexError where it ends too early, KeyError if it lacks a size."""
    numbers: dict[int, int] = {}
    values = 0
    for field, kind in reader.fields():
        if kind in WHOLE:
            numbers[field] = reader.signed()
        elif kind == STRUCT and field in (5, 7, 8):  # data page, dictionary, data page of version 2
            values = reader.numbers().get(1, 0)
        else:
            reader.skip(kind)
    return _Page(numbers[1], numbers[2], numbers[3], values)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
