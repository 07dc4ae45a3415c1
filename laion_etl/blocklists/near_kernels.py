"""Compiled loops over PDQ hashes: four words of 64 bits each, the first bits in the first word."""

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.kernels import Bytes, Longs
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.numba_cache import kernel

_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EIGHTS, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_ONE, _TWO, _FOUR = np.uint64(1), np.uint64(2), np.uint64(4)
_WORD, _LAST_BYTE, _LOW = np.uint64(64), np.uint64(56), np.uint64(0xFFFF)
_ROWS, _PAIRS_AT_ONCE = 1 << 12, 1 << 12

Masks = NDArray[np.bool_]
Places = NDArray[np.int32]


@kernel
def _ones(word: np.uint64) -> int:
    """Return the number of set bits; compiles to one instruction where the CPU has it."""
    word -= (word >> _ONE) & _PAIRS
    word = (word & _FOURS) + ((word >> _TWO) & _FOURS)
    word = (word + (word >> _FOUR)) & _EIGHTS
    return int(np.int64((word * _SUM) >> _LAST_BYTE))


@kernel
def distance(words: Words, row: int, others: Words, other: int) -> int:
    """Return in how many bits two hashes differ."""
    found = _ones(words[row, 0] ^ others[other, 0]) + _ones(words[row, 1] ^ others[other, 1])
    return found + _ones(words[row, 2] ^ others[other, 2]) + _ones(words[row, 3] ^ others[other, 3])


@kernel
def band_value(words: Words, row: int, first: int, width: int) -> np.uint64:
    """Return up to 64 bits of a hash, from bit `first` on."""
    word, offset = first >> 6, first & 63
    value = words[row, word] << np.uint64(offset)
    if offset + width > 64:
        value |= words[row, word + 1] >> (_WORD - np.uint64(offset))
    return np.uint64(value >> (_WORD - np.uint64(width)))


@kernel
def band_values(words: Words, first: int, width: int) -> Words:
    """Return a band of all hashes as numbers."""
    values = np.empty(len(words), np.uint64)
    for row in range(len(words)):
        values[row] = band_value(words, row, first, width)
    return values


@kernel
def _met_before(
    words: Words, row: int, others: Words, other: int, band: int, firsts: Longs, widths: Longs
) -> bool:
    """Whether two hashes agree in an earlier band."""
    for number in range(band):
        first, width = firsts[number], widths[number]
        if band_value(words, row, first, width) == band_value(others, other, first, width):
            return True
    return False


@kernel
def mark_near_others(
    words: Words, values: Words, others: Words, other_values: Words,
    bits: int, band: int, firsts: Longs, widths: Longs, near: Masks,
) -> None:  # fmt: skip
    """Set `near` for hashes within `bits` of another one with the same value of a band, sorted by it.

    Pairs that also agree in an earlier band are skipped here.
    """
    first = 0
    for row in range(len(words)):
        while first < len(others) and other_values[first] < values[row]:
            first += 1
        other = first
        while other < len(others) and other_values[other] == values[row]:
            if distance(words, row, others, other) <= bits:
                near[row] = not _met_before(words, row, others, other, band, firsts, widths)
                break
            other += 1


@kernel
def _mark_pairs(
    words: Words, listed: Words, bits: int, rows: Places, others: Places, count: int, near: Masks
) -> None:
    for pair in range(count):
        near[rows[pair]] |= distance(words, rows[pair], listed, others[pair]) <= bits


@kernel
def mark_near_listed(
    words: Words, listed: Words, bits: int, starts: Places, entries: Places, met: Bytes, near: Masks
) -> None:
    """Set `near` for hashes within `bits` of a listed one that agrees in a band except for at most one bit.

    There are 16 bands of 16 bits. `entries[band]` has the listed hashes for each value of a band, from
    `starts[band, value]` on, and `met` (bands, bytes) a bit for each value that has any. The loop takes some
    thousand hashes band by band, and looks up many values before it compares many pairs, so the tables stay
    in the cache and the CPU does not wait for one step to start the next. That is five times as fast as
    taking one hash with all its bands after another.
    """
    hits = np.empty(_ROWS, np.int32)
    rows, others = np.empty(_PAIRS_AT_ONCE, np.int32), np.empty(_PAIRS_AT_ONCE, np.int32)
    for first in range(0, len(words), _ROWS):
        for band in range(16):
            word, shift, count = band >> 2, np.uint64((band & 3) << 4), 0
            for row in range(first, min(first + _ROWS, len(words))):
                value = np.int64((words[row, word] >> shift) & _LOW)
                hits[count] = row
                count += (met[band, value >> 3] >> (value & 7)) & 1
            pairs = 0
            for row in hits[:count]:
                value = np.int64((words[row, word] >> shift) & _LOW)
                for place in range(starts[band, value], starts[band, value + 1]):
                    rows[pairs], others[pairs] = row, entries[band, place]
                    pairs += 1
                    if pairs == _PAIRS_AT_ONCE:
                        _mark_pairs(words, listed, bits, rows, others, pairs, near)
                        pairs = 0
            _mark_pairs(words, listed, bits, rows, others, pairs, near)


@kernel
def mark_near_any(words: Words, listed: Words, bits: int, near: Masks) -> None:
    """Set `near` for hashes within `bits` of any of the listed ones."""
    for row in range(len(words)):
        for other in range(len(listed)):
            if distance(words, row, listed, other) <= bits:
                near[row] = True
                break


@kernel
def _listed_before(words: Words, row: int, listed: Words, other: int, band: int) -> bool:
    """Whether a hash meets a listed one in an earlier band: the two differ there in at most one bit."""
    for number in range(band):
        shift = np.uint64((number & 3) << 4)
        value = np.int64(((words[row, number >> 2] ^ listed[other, number >> 2]) >> shift) & _LOW)
        if value & (value - 1) == 0:
            return True
    return False


@kernel
def list_near_listed(
    words: Words, listed: Words, bits: int, starts: Places, entries: Places, found: Longs
) -> int:
    """Write the pairs of which `mark_near_listed` marks one, each once, as far as there is room.

    Returns how many there are.
    """
    count = 0
    for row in range(len(words)):
        for band in range(16):
            value = np.int64((words[row, band >> 2] >> np.uint64((band & 3) << 4)) & _LOW)
            for place in range(starts[band, value], starts[band, value + 1]):
                other = entries[band, place]
                if distance(words, row, listed, other) > bits or _listed_before(
                    words, row, listed, other, band
                ):
                    continue
                if count < len(found):
                    found[count, 0], found[count, 1] = row, other
                count += 1
    return count


@kernel
def list_near_any(words: Words, listed: Words, bits: int, found: Longs) -> int:
    """Write the pairs within `bits` bits, as far as there is room; returns how many there are."""
    count = 0
    for row in range(len(words)):
        for other in range(len(listed)):
            if distance(words, row, listed, other) <= bits:
                if count < len(found):
                    found[count, 0], found[count, 1] = row, other
                count += 1
    return count


@kernel
def _root(parents: Longs, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@kernel
def join(parents: Longs, ones: Longs, others: Longs) -> None:
    """Join the sets of each pair of rows; the lowest row of a set is its root."""
    for pair in range(len(ones)):
        one, other = _root(parents, ones[pair]), _root(parents, others[pair])
        parents[max(one, other)] = min(one, other)


@kernel
def flatten(parents: Longs) -> None:
    """Make the parent of each row the root of its set."""
    for row in range(len(parents)):
        parents[row] = parents[parents[row]]  # roots are the lowest of their sets: parents come first


@kernel
def connect_run(
    words: Words, start: int, end: int, bits: int, band: int, firsts: Longs, widths: Longs,
    scratch: Longs, edges: Longs, count: int, most: int,
) -> int:  # fmt: skip
    """Add edges that connect all hashes of a run which are within `bits`; returns how many edges there are.

    Returns -1 if that takes more than `most` leaders; edges behind `count` mean nothing then.

    A hash within `bits` of a leader joins the first such; any other is a leader itself. Two near hashes have
    leaders that differ in at most `bits` more than the farthest of their hashes do from them, so those
    leaders are connected, too. That may connect more than is near, never less, and many hashes that are
    all near to each other are compared with a leader each, not all with all.

    `scratch` (3, rows): leaders, how far their hashes are, and sets of leaders.
    """
    leaders, radius, sets = scratch[0], scratch[1], scratch[2]
    found = 0
    for row in range(start, end):
        joined = False
        for number in range(found):
            apart = distance(words, row, words, leaders[number])
            if apart <= bits:
                radius[number] = max(radius[number], apart + 1)  # 0: it has no others
                if not _met_before(words, row, words, leaders[number], band, firsts, widths):
                    edges[count, 0], edges[count, 1] = row, leaders[number]
                    count += 1
                joined = True
                break
        if not joined:
            if found == most:
                return -1
            leaders[found], radius[found], sets[found] = row, 0, found
            found += 1
    for one in range(found):
        if radius[one] < 2:  # alone, or all its hashes are equal
            continue
        for other in range(found):
            limit = bits + radius[one] - 1 + max(radius[other] - 1, 0)
            if other == one or distance(words, leaders[one], words, leaders[other]) > limit:
                continue
            roots = _root(sets, one), _root(sets, other)
            if roots[0] != roots[1]:
                sets[max(roots[0], roots[1])] = min(roots[0], roots[1])
                edges[count, 0], edges[count, 1] = leaders[one], leaders[other]
                count += 1
    return count


@kernel
def connect(
    words: Words, values: Words, bits: int, band: int, firsts: Longs, widths: Longs,
    scratch: Longs, edges: Longs, most: int, cut_off: Longs,
) -> tuple[int, int]:  # fmt: skip
    """Write edges that connect near hashes with the same value of a band, sorted by it; returns how many.

    Returns also how many runs of hashes take more than `most` leaders: their bounds are in `cut_off`.
    """
    start, count, runs = 0, 0, 0
    for end in range(1, len(words) + 1):
        if end == len(words) or values[end] != values[start]:
            if end - start > 1:
                found = connect_run(
                    words, start, end, bits, band, firsts, widths, scratch, edges, count, most
                )
                if found < 0:
                    cut_off[runs, 0], cut_off[runs, 1] = start, end
                    runs += 1
                else:
                    count = found
            start = end
    return count, runs


@kernel
def add_joining(parents: Longs, rows: Longs, edges: Longs, joined: Longs, count: int) -> int:
    """Add those edges, between places of `rows`, that join two sets; returns how many there are then."""
    for edge in range(len(edges)):
        one, other = rows[edges[edge, 0]], rows[edges[edge, 1]]
        roots = _root(parents, one), _root(parents, other)
        if roots[0] != roots[1]:
            parents[max(roots[0], roots[1])] = min(roots[0], roots[1])
            joined[count, 0], joined[count, 1] = one, other
            count += 1
    return count
