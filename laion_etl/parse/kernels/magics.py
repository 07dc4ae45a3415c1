"""Where the gzip magic (1f 8b 08) stands in a window of a file."""

import numpy as np

from laion_etl.parse.kernels import Bytes, Hashes, Longs, kernel

_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_FIRST, _SECOND, _ = (np.uint64(byte * 0x0101010101010101) for byte in b"\x1f\x8b\x08")


class MagicFinder:
    """Finds the magics in a buffer whose length is a multiple of 8."""

    def __init__(self, buffer: bytearray) -> None:
        self._data = np.frombuffer(buffer, np.uint8)
        self._words = self._data.view(np.uint64)
        self._found = np.empty(len(buffer) // 3 + 1, np.int64)

    def find(self, size: int) -> list[int]:
        """Offsets of all magics in the first `size` bytes, ascending."""
        count = _positions(self._data[:size], self._words[: size // 8], self._found)
        found: list[int] = self._found[:count].tolist()
        return found


@kernel
def _positions(data: Bytes, words: Hashes, found: Longs) -> int:
    count = 0
    for i in range(words.size):
        word = words[i]
        after = words[i + 1] if i + 1 < words.size else np.uint64(0)
        second = (word >> np.uint64(8)) | (after << np.uint64(56))
        x = (word ^ _FIRST) | (second ^ _SECOND)
        # The word that ends the array is looked at byte by byte, as what follows it may complete a magic.
        if ((x - _ONES) & ~x & _HIGHS) == 0 and i + 1 < words.size:
            continue
        for position in range(8 * i, 8 * i + 8):
            count = _add(data, position, found, count)
    for position in range(8 * words.size, data.size):
        count = _add(data, position, found, count)
    return count


@kernel
def _add(data: Bytes, position: int, found: Longs, count: int) -> int:
    """Appends a position where the magic stands; the new count."""
    if position + 3 > data.size:
        return count
    if data[position] != 0x1F or data[position + 1] != 0x8B or data[position + 2] != 0x08:
        return count
    found[count] = position
    return count + 1
