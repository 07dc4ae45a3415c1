"""Lists of hashes that agree in a band, where a long list is divided by the bits in which its hashes differ.

Lists are short, but for kinds of images, such as scans of text, that have the same 23 bits of a band and
different ones elsewhere. A list that is much longer than chance would make it is divided: the 256 bits are
cut into as many groups as there are bands, in each of which the hashes of the list differ about equally
often, and there are lists of the hashes that agree in all bits of a group. Two hashes that differ in fewer
bits than there are groups agree in at least one group. A list of a group may be divided once more.

Refused: groups of as many bits each. Hashes that agree in 64 bits of low frequencies agree in whole groups of
these, too, whose lists would be as long as the one that was divided.

A list whose hashes differ in too few bits stays as it is: its parts would have no less to compare in all.

A division writes a hash down for each group, and a second one for each group of each group: 11 to 14 kB where
a million agree in 192 bits. So the arrays have a largest size for each hash; who fills the lists then finds
near hashes another way (near_better.py).
"""

from typing import NamedTuple

import numpy as np

from laion_etl.blocklists.near_kernels import Places, band_value
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.kernels import Longs
from laion_etl.core.numba_cache import kernel

NONE = -1  # a list without hashes; -2 and below: a divided list
_LONG, _TIMES_BY_CHANCE = 64, 16  # hashes of a list that is divided: so many, and so many times the average
_MOST_DIVISIONS = 2  # of a list
_SLOTS, _DIVIDED = 1 << 17, 1 << 6  # at first
# 27 bytes each while they are doubled: 430 for each hash, or 57 MB for few hashes.
_MOST_SLOTS_PER_HASH, _ALWAYS_ALLOWED_SLOTS = 16, 1 << 21
_MOST_SLOTS = 1 << 31  # entries are numbered by 32 bits
_MIX, _MORE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_HALF, _ONE = np.uint64(32), np.uint64(1)


class Lists(NamedTuple):
    """The lists, as arrays that are made larger between calls of the loop that fills them.

    `heads` (bands, slots) and `following` (bands, hashes): the lists of bands, whose entries are rows
    (`own_rows`); values that share a slot share one. `keys` and `starts` (slots): those of groups, found by
    key; `rows` and `nexts` are their entries. `masks` (divided lists, groups, words): the bits of each group;
    `depths`: how often a list is divided. `used`: how many entries and divided lists there are. `long`: from
    how many hashes on a list is divided.
    """

    heads: Places
    following: Places
    own_rows: Places
    keys: Words
    starts: Places
    rows: Places
    nexts: Places
    masks: Words
    depths: Longs
    used: Longs
    long: int


def empty_lists(hashes: int, widths: Longs) -> Lists:
    """Return lists for so many hashes and bands of some widths."""
    groups, values = len(widths), 1 << int(widths.min())
    slots = 1 << max(hashes - 1, 1).bit_length()
    return Lists(
        np.full((groups, slots), NONE, np.int32),
        np.empty((groups, hashes), np.int32),
        np.arange(hashes, dtype=np.int32),
        np.empty(_SLOTS, np.uint64),
        np.full(_SLOTS, NONE, np.int32),
        np.empty(_entries(_SLOTS), np.int32),
        np.empty(_entries(_SLOTS), np.int32),
        np.empty((_DIVIDED, groups, 4), np.uint64),
        np.empty(_DIVIDED, np.int64),
        np.zeros(2, np.int64),
        max(_LONG, _TIMES_BY_CHANCE * hashes // values),
    )


def enlarged(lists: Lists) -> Lists | None:
    """Return lists in which the arrays without room for another hash are twice as long.

    Returns None if they would be longer than allowed for so many hashes.
    """
    if lists.used[1] == len(lists.depths):
        lists = lists._replace(
            masks=np.concatenate([lists.masks, np.empty_like(lists.masks)]),
            depths=np.concatenate([lists.depths, np.empty_like(lists.depths)]),
        )
    if has_room(lists):
        return lists
    slots = 2 * len(lists.keys)
    if slots > min(max(_MOST_SLOTS_PER_HASH * len(lists.own_rows), _ALWAYS_ALLOWED_SLOTS), _MOST_SLOTS):
        return None
    keys, starts = np.empty(slots, np.uint64), np.full(slots, NONE, np.int32)
    copy_lists(lists.keys, lists.starts, keys, starts)
    more = np.empty(_entries(slots) - len(lists.rows), np.int32)
    rows, nexts = np.append(lists.rows, more), np.append(lists.nexts, more)
    return lists._replace(keys=keys, starts=starts, rows=rows, nexts=nexts)


def _entries(slots: int) -> int:
    """Return for how many entries a table of lists has slots: it gets three quarters full at most."""
    return slots // 4 * 3


@kernel
def has_room(lists: Lists) -> bool:
    """Whether there are entries for one more hash, in all lists that it may be in, and for some divisions."""
    groups = lists.masks.shape[1]
    return bool(len(lists.rows) - lists.used[0] >= groups * (groups * groups + 4 * lists.long))


@kernel
def slot_of(value: np.uint64, slots: int) -> int:
    """Return one of so many slots, a power of two."""
    return int(np.int64(((value * _MIX) >> _HALF) & np.uint64(slots - 1)))


@kernel
def place_of(keys: Words, starts: Places, key: np.uint64) -> int:
    """Return where the list with a key is, or may be put."""
    place = slot_of(key, len(keys))
    while starts[place] != NONE and keys[place] != key:
        place = (place + 1) & (len(keys) - 1)
    return place


@kernel
def copy_lists(keys: Words, starts: Places, new_keys: Words, new_starts: Places) -> None:
    """Put all lists into a larger table."""
    for place in range(len(keys)):
        if starts[place] != NONE:
            other = place_of(new_keys, new_starts, keys[place])
            new_keys[other], new_starts[other] = keys[place], starts[place]


@kernel
def key_of(words: Words, row: int, lists: Lists, divided: int, group: int) -> np.uint64:
    """Return the key of the list that a hash belongs to, in a group of a divided list."""
    key = np.uint64(divided * lists.masks.shape[1] + group + 1) * _MIX
    for word in range(4):
        key = (key ^ (words[row, word] & lists.masks[divided, group, word])) * _MORE
        key ^= key >> _HALF
    return key


@kernel
def _add_to_group(words: Words, row: int, lists: Lists, divided: int, group: int) -> int:
    """Add a hash to its list of a group, unless that is divided; returns the place of the list."""
    key = key_of(words, row, lists, divided, group)
    place = place_of(lists.keys, lists.starts, key)
    if lists.starts[place] >= NONE:
        entry = lists.used[0]
        lists.keys[place] = key
        lists.rows[entry], lists.nexts[entry] = row, lists.starts[place]
        lists.starts[place] = entry
        lists.used[0] += 1
    return place


@kernel
def _bit(words: Words, row: int, bit: int) -> int:
    return int(np.int64((words[row, bit >> 6] >> np.uint64(bit & 63)) & _ONE))


@kernel
def _divided(words: Words, members: Places, lists: Lists, depth: int) -> int:
    """Divide a list; returns what stands for it, or NONE where there is no room or it would not help.

    One list becomes one for each group, so it helps only if each of these is that many times shorter.
    """
    groups, number = lists.masks.shape[1], lists.used[1]
    room = len(lists.rows) - lists.used[0] - len(members) * groups
    if number == len(lists.depths) or room < groups * groups * groups:
        return NONE
    differing, total, halvings = np.zeros(256, np.int64), 0, 1
    for bit in range(256):
        ones = 0
        for row in members:
            ones += _bit(words, row, bit)
        differing[bit] = min(ones, len(members) - ones)
        total += differing[bit]
    while 1 << halvings <= groups:
        halvings += 1
    if 2 * total < len(members) * groups * halvings:
        return NONE
    lists.masks[number, :, :] = 0
    before = 0
    for bit in range(256):
        group = min(before * groups // total, groups - 1)
        lists.masks[number, group, bit >> 6] |= _ONE << np.uint64(bit & 63)
        before += differing[bit]
    lists.depths[number] = depth
    lists.used[1] += 1
    for row in members:
        for group in range(groups):
            _add_to_group(words, row, lists, number, group)
    return int(-2 - number)


@kernel
def _after_adding(
    words: Words, start: int, rows: Places, nexts: Places, lists: Lists, depth: int
) -> tuple[int, int]:
    """Return what stands for a list that a hash was added to, and the number of its entries.

    It is divided when it gets long; where that is not possible, it is tried again whenever it has doubled.
    """
    entry, count = start, 0
    while entry >= 0:
        entry = nexts[entry]
        count += 1
    if depth > _MOST_DIVISIONS or count < lists.long or count & (count - 1):
        return start, count
    members, entry = np.empty(count, np.int32), start
    for number in range(count):
        members[number], entry = rows[entry], nexts[entry]
    found = _divided(words, members, lists, depth)
    return (start if found == NONE else found), count


@kernel
def _add_to_groups(words: Words, row: int, divided: int, lists: Lists, left: Longs) -> int:
    """Add a hash to a divided list; returns the number of steps."""
    left[0], count, steps = divided, 1, 0
    while count:
        count -= 1
        one = left[count]
        for group in range(lists.masks.shape[1]):
            place = _add_to_group(words, row, lists, one, group)
            steps += 1
            if lists.starts[place] < NONE:
                left[count] = -2 - lists.starts[place]
                count += 1
                continue
            lists.starts[place], more = _after_adding(
                words, lists.starts[place], lists.rows, lists.nexts, lists, lists.depths[one] + 1
            )
            steps += more
    return steps


@kernel
def add(words: Words, row: int, firsts: Longs, widths: Longs, lists: Lists, left: Longs) -> int:
    """Add a hash that is kept to its list of each band; returns the number of steps."""
    steps = 0
    for band in range(len(firsts)):
        slot = slot_of(band_value(words, row, firsts[band], widths[band]), lists.heads.shape[1])
        if lists.heads[band, slot] < NONE:
            steps += _add_to_groups(words, row, -2 - lists.heads[band, slot], lists, left)
            continue
        lists.following[band, row] = lists.heads[band, slot]
        lists.heads[band, slot], more = _after_adding(
            words, row, lists.own_rows, lists.following[band], lists, 1
        )
        steps += more
    return steps
