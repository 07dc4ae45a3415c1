"""Connects near hashes among those that agree in a band, also where very many do that are not near.

Each hash is compared with leaders that are far from each other (`connect_run`). Few are needed where many
images are nearly one, but as many as there are hashes where a kind of image, such as scans of text, has the
same 23 bits of a band and different ones elsewhere: a million of those would be compared all with all, for
half an hour. So a run that needs too many leaders is divided by the bits in which its hashes differ
(near_rest.py). What is found to be near is the same.
"""

import logging

import numpy as np

from laion_etl.blocklists.near_hashes import Ints, cuts
from laion_etl.blocklists.near_kernels import connect
from laion_etl.blocklists.near_rest import Rest
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.spilled_arrays import spilled

_MOST_LEADERS = 2_048  # 4 microseconds for each hash of a run
_log = logging.getLogger(__name__)


def connected(words: Words, values: Words, bits: int, band: int) -> Ints:
    """Return pairs of rows (n, 2) that connect near hashes with the same value of a band, sorted by it."""
    firsts, widths = cuts(bits)
    edges, scratch = (
        spilled((len(words), 2), np.int64),
        np.empty((3, min(len(words), _MOST_LEADERS)), np.int64),
    )
    cut_off = np.empty((len(words) // _MOST_LEADERS + 1, 2), np.int64)
    count, runs = connect(words, values, bits, band, firsts, widths, scratch, edges, _MOST_LEADERS, cut_off)
    if not runs:
        return edges[:count]
    found = [edges[:count]]
    for start, end in cut_off[:runs].tolist():
        joined = connected_by_the_rest(words[start:end], bits, band)
        joined += start
        found.append(joined)
    joined = spilled((sum(map(len, found)), 2), np.int64)
    return np.concatenate(found, out=joined)


def connected_by_the_rest(words: Words, bits: int, band: int) -> Ints:
    """Return pairs of rows that connect near hashes, all of which agree in a band, by their other bits."""
    firsts, widths = cuts(bits)
    rest = Rest(words, bits, band, firsts, widths)
    joined = rest.run()
    first, width = int(firsts[band]), int(widths[band])
    _log.info(
        "%d hashes agree in bits %d to %d; by their other bits at most %d were compared with each other",
        len(words), first, first + width - 1, rest.longest,
    )  # fmt: skip
    return joined
