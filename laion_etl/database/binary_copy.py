"""Converts columns to rows of Postgres' binary COPY format and back.

A row is a 16-bit field count, then a 32-bit length and the bytes of each field, big-endian; before the first
row come 19 bytes of signature, flags and extension length, after the last row a field count of -1
(PostgreSQL documentation, COPY, "Binary Format").
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from psycopg import Connection, sql

from laion_etl.core.quantities import quantity
from laion_etl.core.text_columns import buffers_of
from laion_etl.database import kernels
from laion_etl.database.kernels import Bytes, Hashes, Ints, Longs
from laion_etl.database.queries import query

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_BYTES_PER_WRITE = 1 << 18


@dataclass(frozen=True, slots=True)
class Texts:
    """A text column: value i is data[offsets[i]:offsets[i + 1]], UTF-8."""

    offsets: Ints
    data: Bytes

    @property
    def size(self) -> int:
        """The bytes of all values."""
        return int(self.offsets[-1] - self.offsets[0])

    @classmethod
    def from_column(cls, column: pa.StringArray) -> "Texts":
        """The buffers of an Arrow column without nulls, not copied."""
        data, offsets = buffers_of(column)
        return cls(offsets, data)


def page_numbers(url: Texts, licence: Texts, first: int) -> Ints:
    """Numbers the pages of the rows from `first` on; neighbours with the same URL and licence share one."""
    rows = len(url.offsets) - 1
    return kernels.page_numbers(url.offsets, url.data, licence.offsets, licence.data, rows, first)


def host_hashes(url: Texts) -> Hashes:
    """Returns a 64-bit hash of each URL's host."""
    return kernels.host_hashes(url.offsets, url.data)


def read_rows(rows: bytes, schema: pa.Schema) -> pa.Table:
    """Reads rows without header and trailer into columns; the schema has only bytes and texts, without nulls.

    Raises ValueError when a row has a different number of fields.
    """
    buffer = np.frombuffer(rows, np.uint8)
    starts, lengths = kernels.fields(buffer, len(schema))
    if starts.shape[1] != len(schema):
        raise ValueError(
            f"cannot read rows of COPY: they do not have {quantity(len(schema), 'field')}; check the query"
        )
    columns = [_column(buffer, starts[:, i], lengths[:, i], field.type) for i, field in enumerate(schema)]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(buffer: Bytes, starts: Longs, lengths: Longs, kind: pa.DataType) -> pa.Array:
    data = pa.py_buffer(kernels.gathered(buffer, starts, lengths))
    if isinstance(kind, pa.FixedSizeBinaryType):
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(starts), [None, data])
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), data)


@contextmanager
def copy_in(connection: Connection, name: str) -> Iterator[Callable[[Bytes], None]]:
    """Runs a named COPY .. FROM STDIN; yields the function that sends it encoded rows."""

    def send(block: Bytes) -> None:
        view = block.data
        for start in range(0, len(view), _BYTES_PER_WRITE):
            copy.write(view[start : start + _BYTES_PER_WRITE])

    with connection.cursor() as cursor, cursor.copy(query(name)) as copy:
        copy.write(HEADER)
        yield send
        copy.write(TRAILER)


def copy_out(connection: Connection, statement: sql.SQL | sql.Composed) -> Iterator[bytes]:
    """Yields the rows of a COPY .. TO STDOUT, one by one."""
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for message in copy:
            row = bytes(message).removeprefix(HEADER)
            if row and row != TRAILER:
                yield row


def joined(rows: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Joins non-empty rows into blocks of `size` rows; the last one may be shorter."""
    while block := b"".join(islice(rows, size)):
        yield block
