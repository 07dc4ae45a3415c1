"""Finds the hashes that are near a better one that is kept, in memory.

Comparing each hash with the kept ones (near_kept.py) is fastest for the hashes of a crawl, and grows with the
square of their number where very many agree in most of their bits: 80,000 that agree in 192 of 256 took six
minutes of CPU. Where that begins, near hashes are connected first (near_runs.py), which takes a second for
each band. Then each set of connected hashes is decided on its own (near_sets.py), and what is connected to
none is kept.

Refused: connecting always. It takes seven times as long for the hashes of a crawl.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Hashes, cuts, to_words
from laion_etl.blocklists.near_kept import ALL, mark_near_kept
from laion_etl.blocklists.near_kernels import band_values, flatten, join
from laion_etl.blocklists.near_runs import connected
from laion_etl.blocklists.near_sets import mark_near_in_sets
from laion_etl.core.kernels import Hashes as Words
from laion_etl.core.kernels import Longs

# For each hash, on average. The hashes of a crawl take 30; 320,000 that all agree in 96 bits take 800.
_MOST_STEPS = 2_000
_log = logging.getLogger(__name__)


def near_listed(listed: Hashes, hashes: Hashes, bits: int) -> NDArray[np.bool_]:
    """Return a mask of the hashes that are within `bits` of a listed one, at a cost as of `near_better`."""
    return _near(np.concatenate([listed, hashes]), bits, len(listed))[len(listed) :]


def near_better(hashes: Hashes, bits: int) -> NDArray[np.bool_]:
    """Return a mask (n) of the hashes, given best first, that are within `bits` of one that is kept.

    The first is kept, and so is each later one that is not near a kept one. Hashes are compared only with
    kept ones, which are far from each other, so many equal or nearly equal hashes cost no more than others.

    With 10 bits it takes at most 700 bytes for each hash, and 60 MB, whatever the hashes are: comparing with
    the kept ones 52 and 12 for each of the `bits + 1` bands, and 430 where many agree in a band; connecting
    and deciding sets, once that is freed, up to 520.
    """
    return _near(hashes, bits, ALL)


def _near(hashes: Hashes, bits: int, listed: int) -> NDArray[np.bool_]:
    """Return what `mark_near_kept` sets."""
    firsts, widths = cuts(bits)
    words, near = to_words(hashes), np.zeros(len(hashes), np.bool_)
    if mark_near_kept(words, bits, firsts, widths, near, _MOST_STEPS * len(words), listed) >= 0:
        return near
    sets = _sets(words, bits)
    near[:] = False
    steps = mark_near_in_sets(words, sets, bits, near, listed)
    _log.info(
        "%d hashes agree in so many bits that they were compared by connected sets, in %d steps",
        len(words), steps,
    )  # fmt: skip
    return near


def _sets(words: Words, bits: int) -> Longs:
    """Return the set of each hash: near ones are connected, and all that are connected have the same."""
    sets = np.arange(len(words))
    for band, (first, width) in enumerate(zip(*(one.tolist() for one in cuts(bits)), strict=True)):
        values = band_values(words, first, width)
        order = np.argsort(values, kind="stable")
        edges = order[connected(words[order], values[order], bits, band)]
        join(sets, edges[:, 0].copy(), edges[:, 1].copy())
    flatten(sets)
    return sets
