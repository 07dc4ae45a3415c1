"""Pairs of PDQ hashes that differ in few bits, without comparing all with all.

Hashes are cut into `bits + 1` bands: two that differ in at most `bits` bits agree in at least one band,
so only hashes with an equal band are compared. With 10 bits a band has 23 bits, eight million values, so that
few bands agree by chance up to some ten million hashes. PDQ is meaningless for flat images: their hashes have
(almost) all bits equal; `is_informative` leaves them out.

Hashes are rows of 32 bytes, uint8 (n, 32).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

HASH_BYTES, HASH_BITS = 32, 256
_RUN = 512  # hashes of one run of a band compared at once
_COMPARED = 1 << 18  # pairs of two sets compared at once, 16 MB
_MIN_ONES = 96  # set bits of an informative hash: PDQ sets half of its 256 bits

Hashes = NDArray[np.uint8]
Ints = NDArray[np.int64]


def is_informative(hashes: Hashes) -> NDArray[np.bool_]:
    """Return a mask (n) of the hashes that describe their image, which those of flat images do not."""
    ones = np.bitwise_count(hashes).sum(axis=1)
    informative: NDArray[np.bool_] = (ones >= _MIN_ONES) & (ones <= HASH_BITS - _MIN_ONES)
    return informative


def near_pairs(hashes: Hashes, bits: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows, the lower first, that differ in at most `bits` bits; some come more than once."""
    for band in _bands(hashes, bits + 1):
        for run in _runs(band):
            yield from _close(hashes, run, bits)


class NearIndex:
    """An index for looking up near hashes; takes 16 bytes per hash and band."""

    def __init__(self, hashes: Hashes, bits: int) -> None:
        self._hashes = hashes
        self._bits = bits
        self._orders: list[Ints] = []
        self._values: list[NDArray[np.uint64]] = []
        for band in _bands(hashes, bits + 1):
            order = np.argsort(band, kind="stable")
            self._orders.append(order)
            self._values.append(band[order])

    def near(self, others: Hashes) -> Ints:
        """Return the rows of the index, ascending, within `bits` bits of any of the other hashes."""
        found = np.zeros(len(self._hashes), np.bool_)
        banded = zip(_bands(others, self._bits + 1), self._orders, self._values, strict=True)
        for band, order, values in banded:
            ascending = np.argsort(band)  # lookups in order hit warm caches: five times as fast
            wanted = band[ascending]
            starts, ends = (np.searchsorted(values, wanted, side) for side in ("left", "right"))
            for numbers, places in _meetings(starts, ends):
                rows, mine = ascending[numbers], order[places]
                differing = np.bitwise_count(self._hashes[mine] ^ others[rows]).sum(axis=1)
                found[mine[differing <= self._bits]] = True
        return np.flatnonzero(found)


def _meetings(starts: Ints, ends: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield (row, place) for all places from starts[row] to ends[row], at most _COMPARED at once."""
    counts = ends - starts
    totals = np.cumsum(counts)
    for first in range(0, int(totals[-1]) if len(totals) else 0, _COMPARED):
        numbers = np.arange(first, min(first + _COMPARED, int(totals[-1])))
        rows = np.searchsorted(totals, numbers, "right")
        yield rows, starts[rows] + numbers - (totals[rows] - counts[rows])


def _bands(hashes: Hashes, count: int) -> Iterator[NDArray[np.uint64]]:
    """Yield each band of all hashes as numbers: bands of equal width, the last ones one bit shorter."""
    for columns in np.array_split(np.arange(HASH_BITS), count):
        first = columns[0] // 8
        bits = np.unpackbits(hashes[:, first : columns[-1] // 8 + 1], axis=1)
        values = np.zeros(len(hashes), np.uint64)
        for column in columns[:64]:
            values = (values << np.uint64(1)) | bits[:, column - 8 * first]
        yield values


def _runs(band: NDArray[np.uint64]) -> Iterator[Ints]:
    """Yield the places of each number that occurs more than once."""
    order = np.argsort(band, kind="stable")
    ends = np.flatnonzero(np.append(band[order][1:] != band[order][:-1], True)) + 1
    starts = np.append(0, ends[:-1])
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end]


def _close(hashes: Hashes, run: Ints, bits: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of places of a run whose hashes differ in at most `bits` bits."""
    for start in range(0, len(run), _RUN):
        rows = run[start : start + _RUN]
        for other in range(start, len(run), _RUN):
            columns = run[other : other + _RUN]
            differing = np.bitwise_count(hashes[rows][:, None, :] ^ hashes[columns][None, :, :]).sum(axis=2)
            for first, second in zip(*np.nonzero(differing <= bits), strict=True):
                if rows[first] < columns[second]:
                    yield int(rows[first]), int(columns[second])
