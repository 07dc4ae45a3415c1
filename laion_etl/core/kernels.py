"""Types of columns in compiled loops, and small loops that several packages use."""

import numpy as np
import numpy.typing as npt

from laion_etl.core.numba_cache import kernel

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@kernel
def equals(data: Bytes, start: int, other: Bytes) -> bool:
    """Whether `other` is at `start`; the caller checks that there is room for it."""
    for i in range(other.size):
        if data[start + i] != other[i]:
            return False
    return True


@kernel
def hash_of(data: Bytes, start: int, end: int) -> np.uint64:
    """Computes 64-bit FNV-1a of a span, ASCII letters lower-cased; compare texts with equal hashes."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        byte = data[i]
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    return value


@kernel
def holds(sorted_hashes: Hashes, value: np.uint64) -> bool:
    """Whether a value is among sorted ones."""
    found = np.searchsorted(sorted_hashes, value)
    return bool(found < sorted_hashes.size and sorted_hashes[found] == value)


def constant(text: bytes) -> Bytes:
    """Returns bytes as an array, which kernels treat as a compile-time constant."""
    return np.frombuffer(text, np.uint8)
