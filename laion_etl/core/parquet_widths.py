"""What the values of a parquet file's columns take in memory, even where they take no space in the file.

A null of a type of fixed length takes that length in Arrow: 5 kB of nulls of a megabyte each took 17 GB.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

_VALUE_BYTES = 8  # of a number, or of the place and length of a text
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
# As the footer numbers them.
_KINDS = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")


@dataclass(frozen=True, slots=True)
class Width:
    """The bytes that each row and each value of a column takes, whatever it is.

    `path` and `kind` are what the footer has to say of each chunk of the column.
    """

    path: str
    kind: int
    of_row: int
    of_value: int


def widths(schema: pa.Schema, columns: pq.ParquetSchema) -> list[Width]:
    """Return the widths of the columns. Raises pa.ArrowInvalid where the file has others than its schema."""
    leaves = [leaf for field in schema for leaf in _leaves(field.type, 1, 0)]
    if len(leaves) != len(columns):
        raise pa.ArrowInvalid("its columns are not those of its schema")
    return [_width(columns.column(number), *leaf) for number, leaf in enumerate(leaves)]


def _width(column: pq.ColumnSchema, in_row: int, in_value: int, size: int) -> Width:
    size = max(size, column.length)
    kind = _KINDS.index(column.physical_type)
    return Width(column.path, kind, in_row * size, max(_VALUE_BYTES, in_value * size))


def _leaves(kind: pa.DataType, in_row: int, in_value: int) -> Iterator[tuple[int, int, int]]:
    """Yield for each column of a type how many values a row has, or else how many there are for each in the
    file; and the bytes of one.

    The file may have one value, a null, for a list of fixed length, but has each value of other lists.
    """
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(kind.storage_type, in_row, in_value)
    elif pa.types.is_fixed_size_list(kind):
        yield from _leaves(kind.value_type, in_row * kind.list_size, in_value * kind.list_size)
    elif any(is_list(kind) for is_list in _LISTS):
        yield from _leaves(kind.value_type, 0, 1)
    elif pa.types.is_map(kind):
        yield from _leaves(kind.key_type, 0, 1)
        yield from _leaves(kind.item_type, 0, 1)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(field.type, in_row, in_value)
    else:
        yield in_row, in_value, _size(kind)


def _size(kind: pa.DataType) -> int:
    try:
        return int(kind.bit_width + 7) // 8
    except ValueError:  # texts
        return _VALUE_BYTES
