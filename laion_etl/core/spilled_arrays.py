"""Arrays that may be larger than memory: above a size they are in a mapped temporary file.

The system writes their pages to the file (TMPDIR), and drops them from memory, when it needs the memory.
Refused: reading and writing such files in parts, which loops that jump between rows cannot do.
"""

import math
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IN_MEMORY = 64 << 20  # bytes


def spilled(shape: tuple[int, ...], dtype: np.dtype[Any] | type[np.generic]) -> NDArray[Any]:
    """Return an array whose content means nothing, or zeros if it is large."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives it
        os.posix_fallocate(file.fileno(), 0, size)  # a hole that no disk has room for would be a SIGBUS
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
