"""Connects near hashes among those that agree in a band, also where very many do that are not near.

Each hash is compared with leaders that are far from each other (`connect_run`). Few are needed where many
images are nearly one, but as many as there are hashes where a kind of image, such as scans of text, has the
same 23 bits of a band and different ones elsewhere: a million of those would be compared all with all, for
half an hour. So a run that needs too many leaders is cut again into `bits + 1` bands of the bits outside its
band: two near hashes differ in at most `bits` bits there, so they agree in at least one of these bands, too.
What is found to be near is the same.
"""

import logging
from itertools import pairwise

import numpy as np

from laion_etl.blocklists.near_hashes import HASH_BITS, Ints, cuts
from laion_etl.blocklists.near_kernels import add_joining, band_values, connect
from laion_etl.core.kernels import Hashes as Words

_MOST_LEADERS = 2_048  # 4 microseconds for each hash of a run
_WORD = 64
_log = logging.getLogger(__name__)


def connected(words: Words, values: Words, bits: int, band: int) -> Ints:
    """Return pairs of rows (n, 2) that connect near hashes with the same value of a band, sorted by it."""
    firsts, widths = cuts(bits)
    edges, scratch = np.empty((len(words), 2), np.int64), np.empty((3, len(words)), np.int64)
    cut_off = np.empty((len(words) // _MOST_LEADERS + 1, 2), np.int64)
    count, runs = connect(words, values, bits, band, firsts, widths, scratch, edges, _MOST_LEADERS, cut_off)
    found = [edges[:count]]
    for start, end in cut_off[:runs].tolist():
        found.append(start + connected_by_the_rest(words[start:end], bits, band))
    return np.concatenate(found)


def connected_by_the_rest(words: Words, bits: int, band: int) -> Ints:
    """Return pairs of rows that connect near hashes, all of which agree in a band, by their other bits."""
    firsts, widths = cuts(bits)
    first, width = int(firsts[band]), int(widths[band])
    rest = _rotated(words, (first + width) % HASH_BITS)
    edges, scratch = np.empty((len(words), 2), np.int64), np.empty((3, len(words)), np.int64)
    parents, joined, total, longest = np.arange(len(words)), np.empty((len(words), 2), np.int64), 0, 0
    bounds = [(HASH_BITS - width) * number // (bits + 1) for number in range(bits + 2)]
    for start, end in pairwise(bounds):
        values = band_values(rest, start, min(end - start, _WORD))
        order = np.argsort(values, kind="stable")
        values = values[order]
        count, _ = connect(
            words[order],
            values,
            bits,
            band,
            firsts,
            widths,
            scratch,
            edges,
            len(words),
            np.empty((0, 2), np.int64),
        )
        total = add_joining(parents, order, edges[:count], joined, total)
        longest = max(longest, _longest_run(values))
    _log.info(
        "%d hashes agree in bits %d to %d; by their other bits at most %d were compared with each other",
        len(words), first, first + width - 1, longest,
    )  # fmt: skip
    return joined[:total]


def _rotated(words: Words, bits: int) -> Words:
    """Return hashes that begin with bit `bits` of others, and end with the bit before it."""
    whole, part = divmod(bits, _WORD)
    nexts = [np.roll(words, -whole - step, axis=1) for step in (0, 1)]
    if part == 0:
        return np.ascontiguousarray(nexts[0])
    found: Words = (nexts[0] << np.uint64(part)) | (nexts[1] >> np.uint64(_WORD - part))
    return found


def _longest_run(values: Words) -> int:
    """Return how many of sorted values are equal, at most."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    return int(np.diff(ends, prepend=-1).max())
