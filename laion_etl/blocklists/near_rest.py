"""Connects near hashes of a run of one band, by their other bits, however many of these are equal.

The problem: hashes of a kind of image may agree in most of their bits. Where 192 of 256 do, nearly all bands
of the other bits are equal too, and cutting these into `bits + 1` bands compares all with all. The choice:

- Bits by which the hashes differ are chosen, in groups, so that few hashes agree in a group; of equal and of
  dependent bits one says what the others do (`_groups`, by a sample). Two near hashes differ in at most
  `bits // groups` bits of at least one group, whichever bits the groups have. So with fewer and wider groups,
  values that differ in a few bits meet as well (multi-index hashing, Norouzi et al. 2012): of 64 bits that
  differ, four groups of 16 with two of them changed compare 6,000 times less than eleven of five bits.
- How many groups, and how many bits may differ in one, is what costs least by the sample.
- What meets is compared with leaders, as in a run, so that many hashes that are all near cost a step each.

Equal hashes are connected first and compared once.

For each hash it takes 40 bytes of memory, and more in mapped temporary files (spilled_arrays.py), so that
tens of millions of images that agree in a band can be compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_kernels import Masks, add_joining, connect
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.kernels import Longs
from laion_etl.core.numba_cache import kernel
from laion_etl.core.spilled_arrays import spilled

_SAMPLE = 1_024
_WIDEST = 16  # bits of a group: numpy sorts values of 16 bits in linear time
_MOST_CHANGED = 2
_ROUND = 20  # what a round of one mask costs for each hash, in comparisons
_AT_ONCE = 1 << 20  # rows, for which memory is allocated
_TRIED = 24  # bits for each place of a group

Bits = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Way:
    """Groups of bits, and in how many bits of one group near hashes may differ."""

    groups: tuple[tuple[int, ...], ...]
    changed: int
    cost: float

    def masks(self, width: int) -> Iterator[int]:
        """Yield what may differ in a group."""
        for count in range(self.changed + 1):
            for places in combinations(range(width), count):
                yield sum(1 << place for place in places)


@dataclass(slots=True)
class Rest:
    """Connects the hashes of one run, which agree in band `band`.

    `joined` gets pairs of rows; `longest` is how many were compared with each other at most, `compared` how
    many comparisons that takes at most, with the rows that were looked up.
    """

    words: Words
    bits: int
    band: int
    firsts: Longs
    widths: Longs
    longest: int = 1
    compared: int = 0
    _parents: Ints = field(init=False)
    _joined: Ints = field(init=False)
    _total: int = 0

    def __post_init__(self) -> None:
        self._parents = np.arange(len(self.words))
        self._joined = spilled((len(self.words), 2), np.int64)

    def run(self) -> Ints:
        """Return pairs of rows that connect near hashes."""
        order = np.lexsort(self.words.T[::-1])
        new = np.ones(len(order), np.bool_)
        for start in range(1, len(order), _AT_ONCE):
            rows = order[start - 1 : start + _AT_ONCE]
            words = self.words[rows]
            new[start : start + _AT_ONCE] = (words[1:] != words[:-1]).any(axis=1)
        firsts = order[new]
        self._total = _join_copies(self._parents, order, new, self._joined)
        del order, new
        self._compare(firsts)
        return self._joined[: self._total]

    def _compare(self, rows: Ints) -> None:
        """Connect near hashes among some rows."""
        if len(rows) < 2:
            return
        sample = np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)
        way = cheapest(unpacked(self.words[rows[sample]]), self.bits, len(rows))
        for group in way.groups:
            values = values_of(self.words, group, rows)
            for mask in way.masks(len(group)):
                self._round(rows, np.minimum(values, values ^ np.uint16(mask)))

    def _round(self, rows: Ints, values: NDArray[np.uint16]) -> None:
        """Compare the rows that have the same value."""
        order = np.argsort(values, kind="stable")
        ends = np.cumsum(np.bincount(values))
        sizes = np.diff(ends, prepend=0)
        start = 0
        while start < len(rows):  # whole values, about so many rows
            whole = np.searchsorted(ends, start + _AT_ONCE, "right")
            end = int(ends[max(whole - 1, np.searchsorted(ends, start, "right"))])
            self._connect(rows[order[start:end]], values[order[start:end]].astype(np.uint64))
            start = end
        self.longest = max(self.longest, int(sizes.max()))
        self.compared += len(rows) + int((sizes * sizes).sum())

    def _connect(self, rows: Ints, values: Words) -> None:
        """Connect near hashes among rows that are sorted by their values."""
        words = spilled((len(rows), 4), np.uint64)
        np.take(self.words, rows, axis=0, out=words, mode="clip")  # "raise" takes a copy
        edges, scratch = spilled((len(rows), 2), np.int64), spilled((3, len(rows)), np.int64)
        count, _ = connect(
            words, values, self.bits, self.band, self.firsts, self.widths,
            scratch, edges, len(rows), np.empty((0, 2), np.int64),
        )  # fmt: skip
        self._total = add_joining(self._parents, rows, edges[:count], self._joined, self._total)


def cheapest(bits: Bits, near: int, hashes: int) -> Way:
    """Return the groups that take the fewest steps for each of so many hashes, by a sample of them."""
    places = np.linspace(0, len(bits) - 1, min(_SAMPLE, len(bits))).astype(np.int64)
    sample = bits[places]
    ways = []
    for changed in range(min(_MOST_CHANGED, near) + 1):
        count = near // (changed + 1) + 1  # the fewest groups of which one has at most so many that differ
        groups, agreeing = _groups(sample, count, hashes)
        rounds = sum(comb(len(group), k) for group in groups for k in range(changed + 1))
        met = hashes * agreeing * (2 if changed else 1)
        ways.append(Way(groups, changed, rounds * (_ROUND + met)))
    return min(ways, key=lambda way: way.cost)


def _groups(sample: Bits, count: int, hashes: int) -> tuple[tuple[tuple[int, ...], ...], float]:
    """Return groups of bits, and the share of pairs of hashes that agree in one, on average.

    One bit after the other is added to the group whose turn it is: of the bits left, that which divides the
    hashes of the sample with the same value most evenly. No group is wider than tells all hashes apart.
    """
    share = sample.mean(axis=0)
    left = [int(bit) for bit in np.argsort(np.abs(share - 0.5), kind="stable") if 0 < share[bit] < 1]
    widest = min(_WIDEST, max(1, hashes.bit_length()))
    groups: list[list[int]] = [[] for _ in range(count)]
    labels = np.zeros((count, len(sample)), np.int64)
    for turn in range(count * widest):
        number = turn % count
        if not left:
            break
        chosen = min(
            left[:: -(-len(left) // _TRIED)], key=lambda bit: _agreeing(2 * labels[number] + sample[:, bit])
        )
        left.remove(chosen)
        groups[number].append(chosen)
        labels[number] = np.unique(2 * labels[number] + sample[:, chosen], return_inverse=True)[1]
    pairs = max(1, len(sample) * (len(sample) - 1))
    agreeing = [
        max((_agreeing(one) - len(sample)) / pairs, 2.0 ** -len(group))
        for one, group in zip(labels, groups, strict=True)
    ]
    return tuple(map(tuple, groups)), float(np.mean(agreeing))


def _agreeing(labels: Ints) -> int:
    counts = np.bincount(labels)
    return int((counts * counts).sum())


def unpacked(words: Words) -> Bits:
    """Return the bits of hashes."""
    return np.unpackbits(words.astype(">u8").view(np.uint8), axis=1)


def values_of(words: Words, group: tuple[int, ...], rows: Ints | None = None) -> NDArray[np.uint16]:
    """Return the bits of a group of all hashes, or of some rows, as numbers."""
    values = np.zeros(len(words) if rows is None else len(rows), np.uint16)
    for start in range(0, len(values), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        part = words[some] if rows is None else words[rows[some]]
        for bit in group:
            ones = (part[:, bit >> 6] >> np.uint64(63 - (bit & 63))).astype(np.uint16) & np.uint16(1)
            values[some] = (values[some] << np.uint16(1)) | ones
    return values


@kernel
def _join_copies(parents: Longs, order: Longs, new: Masks, joined: Longs) -> int:
    """Join each hash that is not new in `order` with the first one of its value; returns how many."""
    first, count = 0, 0
    for place in range(len(order)):
        if new[place]:
            first = order[place]
            continue
        parents[order[place]] = first
        joined[count, 0], joined[count, 1] = order[place], first
        count += 1
    return count
