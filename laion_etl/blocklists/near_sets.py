"""Finds the hashes that are near a better one that is kept, each set of connected hashes on its own.

A hash can only be near members of its set. It is compared with the kept ones of that, as long as these are at
most 2,048. A set that keeps more is decided by the bits in which its hashes differ: as in near_rest.py they
are in few groups, near hashes differ in at most two bits of one of these, and a hash is compared with the
kept ones whose value in a group is so close to its own.
"""

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_kept import ALL
from laion_etl.blocklists.near_kernels import Masks, Places, distance
from laion_etl.blocklists.near_rest import Way, cheapest, unpacked, values_of
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.kernels import Longs
from laion_etl.core.numba_cache import kernel

_MOST_KEPT = 2_048  # as many as leaders in near_runs.py: 5 microseconds for each hash of a set

Values = NDArray[np.uint16]


def mark_near_in_sets(words: Words, sets: Longs, bits: int, near: Masks, listed: int = ALL) -> int:
    """Set `near` for each hash within `bits` of an earlier one of its set for which it is not set.

    `listed` is as for `mark_near_kept`.
    Returns how many steps that took: comparisons of two hashes, and values looked up.
    """
    rows = np.flatnonzero(np.bincount(sets, minlength=len(sets))[sets] > 1)
    rows = rows[np.argsort(sets[rows], kind="stable")]
    members, own = words[rows], sets[rows]
    is_listed = rows < listed if listed >= 0 else np.empty(0, np.bool_)
    found, kept = np.zeros(len(rows), np.bool_), np.empty((_MOST_KEPT, 4), np.uint64)
    large = np.empty((len(rows) // _MOST_KEPT + 1, 2), np.int64)
    count, steps = _mark(members, own, bits, kept, found, large, is_listed)
    for start, end in large[:count].tolist():
        first_kept = start + np.flatnonzero(~found[start:end])[:_MOST_KEPT]
        steps += mark_near_in_large_set(
            members[start:end], members[first_kept], bits, found[start:end], is_listed[start:end]
        )
    near[rows] = found
    return steps


def mark_near_in_large_set(words: Words, some_kept: Words, bits: int, near: Masks, is_listed: Masks) -> int:
    """Set `near` as `mark_near_in_sets`, for one set, by the bits in which its kept hashes differ.

    `some_kept` are some of those; copies of a few hashes would not show which bits divide the others.
    """
    way = cheapest(unpacked(some_kept), bits, len(words))
    values = np.stack([values_of(words, group) for group in way.groups])
    masks, bounds = _masks(way)
    width = max(map(len, way.groups))
    heads = np.full((len(way.groups), 1 << width), -1, np.int32)
    nexts = np.empty(values.shape, np.int32)
    return int(_mark_by_groups(words, bits, values, masks, bounds, heads, nexts, near, is_listed))


def _masks(way: Way) -> tuple[Values, Longs]:
    """Return what may differ in each group, one after the other, and where each group's begin and end."""
    found = [list(way.masks(len(group))) for group in way.groups]
    bounds = np.cumsum([0, *map(len, found)])
    return np.array([mask for masks in found for mask in masks], np.uint16), bounds


@kernel
def _mark(
    words: Words, sets: Longs, bits: int, kept: Words, near: Masks, large: Longs, is_listed: Masks
) -> tuple[int, int]:
    """Mark hashes, sorted by their sets; returns how many sets keep more than there is room for, and steps.

    The bounds of those sets are in `large`. `is_listed` is empty unless only listed hashes are compared with.
    """
    start, found, steps = 0, 0, 0
    for end in range(1, len(words) + 1):
        if end < len(words) and sets[end] == sets[start]:
            continue
        count = 0
        for row in range(start, end):
            for number in range(0 if len(is_listed) and is_listed[row] else count):
                steps += 1
                if distance(words, row, kept, number) <= bits:
                    near[row] = True
                    break
            if near[row] or (len(is_listed) and not is_listed[row]):
                continue
            if count == len(kept):
                large[found, 0], large[found, 1] = start, end
                found += 1
                break
            kept[count] = words[row]
            count += 1
        start = end
    return found, steps


@kernel
def _mark_by_groups(
    words: Words, bits: int, values: Values, masks: Values, bounds: Longs,
    heads: Places, nexts: Places, near: Masks, is_listed: Masks,
) -> int:  # fmt: skip
    """Mark hashes; `heads` (groups, values) and `nexts` (groups, rows) get lists of the kept ones."""
    steps = 0
    for row in range(len(words)):
        near[row] = False
        for group in range(0 if len(is_listed) and is_listed[row] else len(values)):
            for number in range(bounds[group], bounds[group + 1]):
                other = heads[group, values[group, row] ^ masks[number]]
                steps += 1
                while other >= 0 and not near[row]:
                    steps += 1
                    near[row] = distance(words, row, words, other) <= bits
                    other = nexts[group, other]
                if near[row]:
                    break
            if near[row]:
                break
        if near[row] or (len(is_listed) and not is_listed[row]):
            continue
        for group in range(len(values)):
            value = values[group, row]
            nexts[group, row] = heads[group, value]
            heads[group, value] = row
    return steps
