"""Reads parquet files that another program may have made, within bounds that are checked before any row.

A file of 4 kB can hold 20 GB: the dictionary of a column has one long text, to which every row refers. A page
of zeros compresses ten thousand times, and a footer takes twenty times its size when it is parsed. What a
file says of itself, such as its statistics, cannot be trusted. So the headers of all pages are read (20 us
each), and the dictionaries of texts: where a value is long, fewer rows are read at once, and a table is read
as a whole only if its pages cannot hold too much.

Refused: a limit for the memory of the process, which other threads share and which ends it anywhere.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.parquet_pages import (
    DICTIONARY_PAGE,
    Chunk,
    chunks_of,
    longest_in_dictionary,
    pages_of,
    read_at,
)
from laion_etl.core.parquet_widths import Width, widths

LARGE_TABLE_BYTES = 16 << 30  # what a file of pairs, or a matrix of embeddings, may take
_MOST_TABLE_BYTES = 2 << 30  # all other files that are read as a whole have the rows of a batch, or fewer
_MOST_FOOTER_BYTES = 8 << 20
_MOST_COLUMNS = 2_000
_MOST_PAGES = 1_000_000
_MOST_PAGE_BYTES = 128 << 20  # DuckDB writes pages of 108 MB
_MOST_PAGE_VALUES = 64 << 20
_MOST_BATCH_BYTES = 512 << 20  # of a column: 16,384 captions of 32 kB, and the longest have 8 kB
_ROWS_COUNTED_AT_ONCE = 4_096
_TAIL = struct.Struct("<I4s")


class BoundedParquet:
    """A parquet file that is read in batches of rows, of at most about half a gigabyte for each column.

    Raises pa.ArrowInvalid or OSError for a damaged file, as pyarrow does, and for one beyond the bounds.
    """

    def __init__(self, file: BinaryIO) -> None:
        size, self._footer = _footer(file)
        try:
            self._parquet = pq.ParquetFile(file)
            self._schema = self._parquet.schema_arrow
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid("the name of a column is damaged") from error
        if (columns := self.metadata.num_columns) > _MOST_COLUMNS:
            raise pa.ArrowInvalid(f"it has {columns:,} columns, more than {_MOST_COLUMNS:,}")
        self._longest, self._bytes, self._nested_bytes = 1, 0, 0
        self._measure(file, size)
        file.seek(0)

    @property
    def metadata(self) -> pq.FileMetaData:
        return self._parquet.metadata

    @property
    def schema_arrow(self) -> pa.Schema:
        return self._schema

    def iter_batches(
        self, rows: int, columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield up to so many rows at once; fewer where a long value may be repeated in all of them.

        `groups`: numbers of the row groups to read; all without it.
        """
        if self._nested_bytes > _MOST_BATCH_BYTES:  # a row may have all values of a list
            raise pa.ArrowInvalid(f"its lists may take {self._nested_bytes:,} bytes")
        rows = max(1, min(rows, _MOST_BATCH_BYTES // self._longest))
        return iter(self._parquet.iter_batches(rows, row_groups=groups, columns=columns))

    def read(
        self,
        columns: Sequence[str] | None = None,
        most_rows: int | None = None,
        most_bytes: int = _MOST_TABLE_BYTES,
    ) -> pa.Table:
        """Read the table, or some columns, as a whole. Raises pa.ArrowInvalid if it may be larger."""
        if most_rows is not None and self.metadata.num_rows > most_rows:
            raise pa.ArrowInvalid(f"it has {self.metadata.num_rows:,} rows, more than {most_rows:,}")
        if self._bytes > most_bytes:  # by its pages; the values decide
            found = 0
            for batch in self.iter_batches(_ROWS_COUNTED_AT_ONCE, columns):
                if (found := found + batch.nbytes) > most_bytes:
                    raise pa.ArrowInvalid(f"it takes more than {most_bytes:,} bytes of memory")
        return self._parquet.read(columns=columns)

    def numbers_of_groups(self, column: str) -> list[tuple[int, int] | None]:
        """Return the least and the greatest whole number of a column in each row group, None if not known."""
        path = (column.encode(),)
        found = [chunk.numbers for chunk in chunks_of(self._footer) if chunk.path == path]
        if len(found) != self._parquet.num_row_groups:
            raise pa.ArrowInvalid(f"it has the column {column} not once in each row group")
        return found

    def _measure(self, file: BinaryIO, size: int) -> None:
        """Find the longest value that a batch may hold many of, and what all rows may take in memory."""
        pages = 0
        for chunk, width, rows in self._chunks():
            in_dictionary, chunk_bytes = 0, 0
            self._longest = max(self._longest, width.of_row)
            for page, at in pages_of(file, size, chunk):
                pages += 1
                if pages > _MOST_PAGES:
                    raise pa.ArrowInvalid(f"it has more than {_MOST_PAGES:,} pages")
                if not (0 <= page.unpacked <= _MOST_PAGE_BYTES and page.packed >= 0):
                    raise pa.ArrowInvalid(f"it has a page of {page.unpacked:,} bytes")
                if not 0 <= page.values <= _MOST_PAGE_VALUES:
                    raise pa.ArrowInvalid(f"it has a page of {page.values:,} values")
                if page.kind == DICTIONARY_PAGE:
                    in_dictionary = max(in_dictionary, longest_in_dictionary(file, at, page, chunk))
                    self._longest = max(self._longest, in_dictionary)
                else:
                    self._longest = max(self._longest, page.longest(in_dictionary))
                    chunk_bytes += page.most_bytes(in_dictionary, width.of_value)
            self._bytes += chunk_bytes + rows * width.of_row
            self._nested_bytes += chunk_bytes if len(chunk.path) > 1 else 0

    def _chunks(self) -> Iterator[tuple[Chunk, Width, int]]:
        """Yield each chunk, how wide its column is, and the rows of its group.

        Raises pa.ArrowInvalid where a chunk is not said to be of its column: pyarrow goes by the schema.
        """
        columns, groups = widths(self._schema, self._parquet.schema), self.metadata.num_row_groups
        found = list(chunks_of(self._footer))
        if len(found) != groups * len(columns):
            raise pa.ArrowInvalid("its row groups do not have all columns")
        for number, chunk in enumerate(found):
            group, column = divmod(number, len(columns))
            width = columns[column]
            if (b".".join(chunk.path), chunk.kind) != (width.path.encode(), width.kind):
                raise pa.ArrowInvalid(f"its column {width.path} is not that of its schema")
            yield chunk, width, self.metadata.row_group(group).num_rows


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Return the size of a file, at whose start it leaves it, and its footer.

    Raises pa.ArrowInvalid for a large one; pyarrow says what else is wrong with a file.
    """
    size, footer = file.seek(0, 2), b""
    if size >= _TAIL.size:
        length, magic = _TAIL.unpack(read_at(file, size - _TAIL.size, _TAIL.size))
        if magic == b"PAR1" and length > _MOST_FOOTER_BYTES:
            raise pa.ArrowInvalid(f"its footer has {length:,} bytes, more than {_MOST_FOOTER_BYTES:,}")
        if length + _TAIL.size <= size:
            footer = read_at(file, size - _TAIL.size - length, length)
    file.seek(0)
    return size, footer
