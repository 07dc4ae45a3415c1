"""The memory of text columns, for kernels.

All of it is read-only for them. Arrow's is writable where it was computed, and read-only where a file is
mapped or a column is empty; kernels are compiled for each kind of array that they get.
"""

from typing import TypeVar

import numpy as np
import pyarrow as pa

from laion_etl.core.kernels import Bytes, Ints

ArrayT = TypeVar("ArrayT", Bytes, Ints)


def buffers_of(texts: pa.StringArray) -> tuple[Bytes, Ints]:
    """Return data and offsets of a column, not copied: text i is data[offsets[i]:offsets[i + 1]], UTF-8.

    What a null has there is not defined: fill nulls before.
    """
    if not len(texts):
        return np.frombuffer(b"", np.uint8), np.frombuffer(bytes(4), np.int32)
    _, offsets, data = texts.buffers()
    numbers = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    return read_only(np.frombuffer(data or b"", np.uint8)), read_only(numbers)


def read_only(array: ArrayT) -> ArrayT:
    """Return an array as kernels see a mapped file or a constant: they are compiled once for all of them."""
    view = array.view()
    view.setflags(write=False)
    return view
