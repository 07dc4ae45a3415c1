"""Types of columns in compiled loops, and small loops that several packages use."""

import numpy as np
import numpy.typing as npt

from laion_etl.core.numba_cache import borrowing_kernel

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

# In each byte of a word the lowest bit, or the highest.
HIGHS = np.uint64(0x8080808080808080)


@borrowing_kernel
def equals(data: Bytes, start: int, other: Bytes) -> bool:
    """Whether `other` is at `start`; the caller checks that there is room for it."""
    for i in range(other.size):
        if data[start + i] != other[i]:
            return False
    return True


@borrowing_kernel
def hash_of(data: Bytes, start: int, end: int) -> np.uint64:
    """Computes 64-bit FNV-1a of a span, ASCII letters lower-cased; compare texts with equal hashes."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        byte = data[i]
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    return value


@borrowing_kernel
def keyed_hash(data: Bytes, start: int, end: int, key: Hashes) -> np.uint64:
    """Computes SipHash-1-3 of a span, with a key of two numbers, for tables of what strangers choose.

    Anyone who knows the key can make thousands of texts that share a slot, and `hash_of` has no key. So the
    key here is random, and nothing that is stored may depend on the value.
    """
    v0, v1 = key[0] ^ np.uint64(0x736F6D6570736575), key[1] ^ np.uint64(0x646F72616E646F6D)
    v2, v3 = key[0] ^ np.uint64(0x6C7967656E657261), key[1] ^ np.uint64(0x7465646279746573)
    whole = start + (end - start) // 8 * 8
    for position in range(start, whole, 8):
        word = _whole_word(data, position)
        v3 ^= word
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
        v0 ^= word
    word = _last_word(data, whole, end) | (np.uint64(end - start) << np.uint64(56))
    v3 ^= word
    v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= np.uint64(0xFF)
    for _ in range(3):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@borrowing_kernel
def _whole_word(data: Bytes, at: int) -> np.uint64:
    """Reads eight bytes, little-endian; written out, it is one load."""
    low = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
    low |= np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)
    high = np.uint32(data[at + 4]) | np.uint32(data[at + 5]) << np.uint32(8)
    high |= np.uint32(data[at + 6]) << np.uint32(16) | np.uint32(data[at + 7]) << np.uint32(24)
    return np.uint64(low) | np.uint64(high) << np.uint64(32)


@borrowing_kernel
def _last_word(data: Bytes, start: int, end: int) -> np.uint64:
    """Reads up to seven bytes, little-endian."""
    word = np.uint64(0)
    for i in range(end - start):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@borrowing_kernel
def _sip_round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 += v1
    v2 += v3
    v1 = _rotated(v1, 13) ^ v0
    v3 = _rotated(v3, 16) ^ v2
    v0 = _rotated(v0, 32) + v3
    v2 += v1
    v3 = _rotated(v3, 21) ^ v0
    v1 = _rotated(v1, 17) ^ v2
    return v0, v1, _rotated(v2, 32), v3


@borrowing_kernel
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@borrowing_kernel
def holds(sorted_hashes: Hashes, value: np.uint64) -> bool:
    """Whether a value is among sorted ones."""
    found = np.searchsorted(sorted_hashes, value)
    return bool(found < sorted_hashes.size and sorted_hashes[found] == value)


def constant(text: bytes) -> Bytes:
    """Returns bytes as an array, which kernels treat as a compile-time constant."""
    return np.frombuffer(text, np.uint8)
