"""Finds hashes that are near a better one that is kept, also where very many agree in a band.

Kept hashes are in lists, one for each value of each band, and a hash is compared with those in the lists of
its own values. Where these are long, they are divided (near_lists.py): of a million hashes that agree in a
band each would be compared with all before it.
"""

import numpy as np

from laion_etl.blocklists.near_kernels import Masks, Places, band_value, distance
from laion_etl.blocklists.near_lists import (
    NONE,
    Lists,
    add,
    empty_lists,
    enlarged,
    has_room,
    key_of,
    place_of,
    slot_of,
)
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.kernels import Longs
from laion_etl.core.numba_cache import kernel

_NO_END = (1 << 63) - 1
ALL = -1  # each hash is compared with earlier ones, and later ones with it


def mark_near_kept(
    words: Words,
    bits: int,
    firsts: Longs,
    widths: Longs,
    near: Masks,
    most_steps: int = _NO_END,
    listed: int = ALL,
) -> int:
    """Set `near` for each hash within `bits` of an earlier one for which it is not set.

    With `listed`, the first so many are only compared with, and set `near` for the others, which are not.

    Returns how many steps that took: comparisons of two hashes, and lists and their entries looked at; or -1
    if it takes more than `most_steps`, or longer lists than are allowed, and then not all is set.
    """
    lists: Lists | None = empty_lists(len(words), widths)
    row = steps = 0
    while lists is not None:
        row, more = _mark(words, row, bits, firsts, widths, near, lists, most_steps - steps, listed)
        steps += more
        if steps > most_steps:
            return -1
        if row == len(words):
            return steps
        lists = enlarged(lists)
    return -1


@kernel
def _near_in_list(
    words: Words, row: int, bits: int, start: int, rows: Places, nexts: Places
) -> tuple[bool, int]:
    """Whether a hash is near one of a list, and after how many steps that was found."""
    entry, steps = start, 0
    while entry >= 0:
        steps += 1
        if distance(words, row, words, rows[entry]) <= bits:
            return True, steps
        entry = nexts[entry]
    return False, steps


@kernel
def _near_in_groups(
    words: Words, row: int, bits: int, divided: int, lists: Lists, left: Longs
) -> tuple[bool, int]:
    """Whether a hash is near one of a divided list, and after how many steps that was found."""
    left[0], count, steps = divided, 1, 0
    while count:
        count -= 1
        one = left[count]
        for group in range(lists.masks.shape[1]):
            start = lists.starts[place_of(lists.keys, lists.starts, key_of(words, row, lists, one, group))]
            if start < NONE:
                left[count] = -2 - start
                count += 1
            is_near, more = _near_in_list(words, row, bits, start, lists.rows, lists.nexts)
            steps += 1 + more
            if is_near:
                return True, steps
    return False, steps


@kernel
def _mark(
    words: Words,
    first: int,
    bits: int,
    firsts: Longs,
    widths: Longs,
    near: Masks,
    lists: Lists,
    most_steps: int,
    listed: int,
) -> tuple[int, int]:
    """Mark hashes from `first` on while there is room; returns where to go on, and the number of steps.

    Ends early after more than `most_steps`.
    """
    steps, left = 0, np.empty(len(firsts) + 1, np.int64)
    for row in range(first, len(words)):
        if steps > most_steps or lists.used[1] == len(lists.depths) or not has_room(lists):
            return row, steps
        for band in range(len(firsts) if row >= listed else 0):
            start = lists.heads[
                band, slot_of(band_value(words, row, firsts[band], widths[band]), lists.heads.shape[1])
            ]
            if start < NONE:
                near[row], more = _near_in_groups(words, row, bits, -2 - start, lists, left)
            else:
                near[row], more = _near_in_list(
                    words, row, bits, start, lists.own_rows, lists.following[band]
                )
            steps += 1 + more
            if near[row]:
                break
        if not near[row] and (listed < 0 or row < listed):
            steps += add(words, row, firsts, widths, lists, left)
    return len(words), steps
