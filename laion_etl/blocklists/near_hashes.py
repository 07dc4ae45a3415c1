"""PDQ hashes that differ in few bits, found without comparing all with all.

Hashes are cut into `bits + 1` bands: two that differ in at most `bits` bits agree in at least one band,
so only hashes with an equal band are compared. With 10 bits a band has 23 bits, eight million values, so that
few bands agree by chance up to some ten million hashes. PDQ is meaningless for images with little to see: the
hash comes with a quality, and nothing is decided by a low one (core/pdq_quality.py). Rows of earlier versions
have no quality; of theirs `is_informative` leaves out the hashes of flat images, which have (almost) all bits
equal.

Hashes are rows of 32 bytes, uint8 (n, 32).
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_kernels import (
    list_near_any,
    list_near_listed,
    mark_near_any,
    mark_near_listed,
)
from laion_etl.core.errors import InputError
from laion_etl.core.kernels import Hashes as Words

HASH_BYTES, HASH_BITS = 32, 256
_COMPARED = 1 << 18  # pairs of two sets compared at once, 16 MB
_MAX_EQUAL_BITS = 15  # bands of 16 bits or more
_MAX_BITS = 31
_MAX_LISTED = ((1 << 31) - 1) // 17  # each has 17 entries in a band, whose places are 32 bits
_MIN_ONES = 96  # set bits of an informative hash: PDQ sets half of its 256 bits

Hashes = NDArray[np.uint8]
Ints = NDArray[np.int64]


def is_informative(hashes: Hashes) -> NDArray[np.bool_]:
    """Return a mask (n) of the hashes that describe their image, which those of flat images do not."""
    ones = np.bitwise_count(hashes).sum(axis=1)
    informative: NDArray[np.bool_] = (ones >= _MIN_ONES) & (ones <= HASH_BITS - _MIN_ONES)
    return informative


def to_words(hashes: Hashes) -> Words:
    """Return hashes as rows of four 64-bit numbers."""
    found: Words = np.ascontiguousarray(hashes).view(">u8").astype(np.uint64)
    return found


def cuts(bits: int) -> tuple[Ints, Ints]:
    """Return first bit and width of each of the `bits + 1` bands by which near hashes meet."""
    bands = _cuts(bits + 1)
    firsts, widths = (np.array([band[place] for band in bands], np.int64) for place in (0, 1))
    return firsts, widths


class NearListed:
    """A list of hashes to compare any number of others with, 150 ns each for a list of 1,000.

    Two hashes that differ in at most 31 bits differ in at most one bit in one of 16 bands of 16 bits. So each
    listed hash is indexed under the 17 values that a near hash may have in each band, and another hash is
    compared only with those indexed under its own values: with four of 1,000 on average. Beyond 31 bits each
    hash is compared with the whole list.

    Takes 1.1 kB per listed hash. Raises InputError for more hashes than places of 32 bits can name.
    """

    def __init__(self, listed: Hashes, bits: int) -> None:
        if bits <= _MAX_BITS and len(listed) > _MAX_LISTED:
            raise InputError(
                f"cannot compare images with {len(listed):,} listed hashes: at most {_MAX_LISTED:,} fit into "
                "the index; list fewer PDQ hashes"
            )
        self._listed = _native_words(listed)
        self._bits = bits
        if bits > _MAX_BITS:
            return
        bands = self._listed.view("<u2")  # the first 16 bits of each word are its last ones
        flips = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
        self._starts = np.empty((16, (1 << 16) + 1), np.int32)
        self._entries = np.empty((16, len(flips) * len(listed)), np.int32)
        for band in range(16):
            values = (bands[:, band, None] ^ flips).ravel()
            order = np.argsort(values, kind="stable")
            self._starts[band] = np.searchsorted(values[order], np.arange((1 << 16) + 1))
            self._entries[band] = order // len(flips)
        self._met = np.packbits(np.diff(self._starts) > 0, axis=1, bitorder="little")

    def near(self, others: Hashes) -> NDArray[np.bool_]:
        """Return a mask of those other hashes that are within `bits` bits of a listed one."""
        near = np.zeros(len(others), np.bool_)
        words = _native_words(others)
        if self._bits > _MAX_BITS:
            mark_near_any(words, self._listed, self._bits, near)
        else:
            mark_near_listed(words, self._listed, self._bits, self._starts, self._entries, self._met, near)
        return near

    def pairs(self, others: Hashes) -> Ints:
        """Return rows of other hashes and of listed ones (n, 2) within `bits` bits, each pair once."""
        words, found = _native_words(others), np.empty((4 * len(others), 2), np.int64)
        count = self._list(words, found)
        if count > len(found):
            found = np.empty((count, 2), np.int64)
            self._list(words, found)
        return found[:count]

    def _list(self, words: Words, found: Ints) -> int:
        if self._bits > _MAX_BITS:
            return list_near_any(words, self._listed, self._bits, found)
        return list_near_listed(words, self._listed, self._bits, self._starts, self._entries, found)


def _native_words(hashes: Hashes) -> Words:
    """Return hashes as rows of four numbers in the byte order of most CPUs."""
    found: Words = np.array(hashes, order="C").view("<u8")
    return found


class NearIndex:
    """An index for looking up near hashes, one or many at once.

    Up to 15 bits the bands are looked up as they are. For more bits they would be so narrow that too many
    hashes share one. Half as many bands are twice as wide, and in one of them near hashes differ in at most
    one bit, so values one bit apart are looked up as well. Beyond 31 bits each hash is compared with all.

    Takes 32 bytes per hash, and 6 (bands of 16 bits) to 12 for each of its bands.
    """

    def __init__(self, hashes: Hashes, bits: int) -> None:
        self._hashes = hashes
        self._bits = bits
        apart = bits > _MAX_EQUAL_BITS
        self._count = (bits // 2 if apart else bits) + 1 if bits <= _MAX_BITS else 0
        places = np.int32 if len(hashes) < 1 << 31 else np.int64
        self._orders: list[NDArray[np.integer]] = []
        self._values: list[NDArray[np.unsignedinteger]] = []
        self._probes: list[NDArray[np.unsignedinteger]] = []
        for band, (_, width, _) in zip(_bands(hashes, self._count), _cuts(self._count), strict=True):
            order = np.argsort(band, kind="stable")
            self._orders.append(order.astype(places))
            self._values.append(band[order])
            self._probes.append(np.array([0, *(1 << bit for bit in range(width * apart))], band.dtype))

    def near(self, others: Hashes) -> Ints:
        """Return the rows of the index, ascending, within `bits` bits of any of the other hashes."""
        found = np.zeros(len(self._hashes), np.bool_)
        for band, order, values, probes in self._banded(others):
            for probe in probes:
                looked_up = band ^ probe
                ascending = np.argsort(looked_up)  # lookups in order hit warm caches: five times as fast
                for numbers, places in _meetings(*_equal(values, looked_up[ascending])):
                    rows, mine = ascending[numbers], order[places]
                    found[mine[self._is_near(mine, others[rows])]] = True
        return np.flatnonzero(found)

    def has_near(self, other: Hashes) -> bool:
        """Whether a hash of the index is within `bits` bits of the one other hash, uint8 (1, 32)."""
        places = [
            order[start:end]
            for band, order, values, probes in self._banded(other)
            for start, end in zip(*_equal(values, band ^ probes), strict=True)
            if start < end
        ]
        return bool(places) and bool(self._is_near(np.concatenate(places), other).any())

    def _banded(self, others: Hashes) -> Iterator[Any]:
        return zip(_bands(others, self._count), self._orders, self._values, self._probes, strict=True)

    def _is_near(self, mine: NDArray[np.integer], others: Hashes) -> NDArray[np.bool_]:
        """Compare hashes of the index with as many others, or with one."""
        differing = np.bitwise_count(self._hashes[mine] ^ others).sum(axis=1, dtype=np.int64)
        near: NDArray[np.bool_] = differing <= self._bits
        return near


def _equal(values: NDArray[np.unsignedinteger], wanted: NDArray[np.unsignedinteger]) -> tuple[Ints, Ints]:
    """Return where each wanted value starts and ends among sorted values."""
    return np.searchsorted(values, wanted), np.searchsorted(values, wanted, "right")


def _meetings(starts: Ints, ends: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield (row, place) for all places from starts[row] to ends[row], at most _COMPARED at once."""
    counts = ends - starts
    totals = np.cumsum(counts)
    for first in range(0, int(totals[-1]) if len(totals) else 0, _COMPARED):
        numbers = np.arange(first, min(first + _COMPARED, int(totals[-1])))
        rows = np.searchsorted(totals, numbers, "right")
        yield rows, starts[rows] + numbers - (totals[rows] - counts[rows])


@cache
def _cuts(count: int) -> tuple[tuple[int, int, Any], ...]:
    """Return first bit, width and type of each band: of equal widths, the last ones one bit narrower.

    Of bands wider than 64 bits the first 64 count; `count` 0 is one band without bits, shared by all hashes.
    """
    width, wider = divmod(HASH_BITS, count) if count else (0, 0)
    widths = [width + (number < wider) for number in range(max(count, 1))]
    firsts = [sum(widths[:number]) for number in range(len(widths))]
    shown = [min(width, 64) for width in widths]
    return tuple((first, n, np.min_scalar_type((1 << n) - 1)) for first, n in zip(firsts, shown, strict=True))


def _bands(hashes: Hashes, count: int) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield each band of all hashes as numbers."""
    for first, width, dtype in _cuts(count):
        byte, offset = divmod(first, 8)
        if offset == 0 and width == 8 * dtype.itemsize:
            aligned = hashes[:, byte : byte + dtype.itemsize].copy().view(dtype.newbyteorder(">"))
            yield aligned[:, 0].astype(dtype)
            continue
        bits = np.unpackbits(hashes[:, byte : (first + width + 7) // 8], axis=1)
        values = np.zeros(len(hashes), dtype)
        for column in range(offset, offset + width):
            values = (values << dtype.type(1)) | bits[:, column]
        yield values
