"""Reads .npy files, which a spoiled store, or a stranger, may have written.

numpy's own `load` also opens archives and pickles, and for an odd header it raises whatever its tokenizer,
its parser or an allocation of the announced size raises.
"""

import tokenize
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_OF_ODD_HEADERS = (
    *(tokenize.TokenError, SyntaxError, TypeError, LookupError),
    *(OverflowError, RecursionError, MemoryError),
)


def read_array(file: BinaryIO) -> NDArray[Any]:
    """Return the array of a file. Raises ValueError for any other content, and OSError."""
    try:
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except _OF_ODD_HEADERS as error:
        raise ValueError("its header is damaged, or it does not fit into memory") from error
    except EOFError as error:
        raise ValueError("it is cut off") from error
    return found
