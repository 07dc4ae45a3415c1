"""Arrow tables from rows, without pandas.

`pa.array` and `Table.from_pylist` import pandas where it is installed, to find out whether they were given
one of its columns: 0.27 CPU s and 40 MB for a process that has no other use for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_INTEGERS = {pa.int32(): np.int32, pa.int64(): np.int64}


def table_of_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Returns a table of texts, binary ids of one length and whole numbers; what a row lacks is null."""
    columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    known = np.fromiter((value is not None for value in values), np.bool_, len(values))
    nulls = len(values) - int(np.count_nonzero(known))
    present = pa.py_buffer(np.packbits(known, bitorder="little")) if nulls else None
    return pa.Array.from_buffers(kind, len(values), [present, *_content(values, kind)], nulls)


def _content(values: Sequence[Any], kind: pa.DataType) -> list[pa.Buffer]:
    """Returns the buffers of a column, but for the one that says which values are there."""
    if (integer := _INTEGERS.get(kind)) is not None:
        return [pa.py_buffer(np.asarray([0 if value is None else value for value in values], integer))]
    if pa.types.is_string(kind):
        texts = [b"" if value is None else value.encode() for value in values]
        ends = np.zeros(len(texts) + 1, np.int32)
        np.cumsum([len(text) for text in texts], out=ends[1:], dtype=np.int32)
        return [pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    if not pa.types.is_fixed_size_binary(kind):
        raise TypeError(f"cannot make a column of {kind}: it is neither text nor an id nor a whole number")
    wrong = [value for value in values if value is not None and len(value) != kind.byte_width]
    if wrong:
        raise ValueError(f"cannot make a column of {kind}: {wrong[0]!r} has another length")
    return [pa.py_buffer(b"".join(bytes(kind.byte_width) if value is None else value for value in values))]
