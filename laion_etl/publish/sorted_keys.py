"""Keys in ascending order, each once, of which only some are in memory.

Of a crawl of 300 million rows of which a third is redundant in both of their clusters, 200 million keys come:
1.6 GB, and twice that to sort them. So each part is sorted and put into a mapped temporary file (TMPDIR), 8
bytes a key. They are read back in ranges of values of about a million keys: of each part that has such, a
slice.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from laion_etl.blocklists.near_hashes import Ints
from laion_etl.publish.spools import Spool

_AT_ONCE = 1 << 20


class SortedKeys:
    """Collects keys, some of them more than once."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._ends: list[int] = [0]

    def add(self, keys: Ints) -> None:
        """Add a part."""
        if len(keys):
            self._spool.add(np.unique(keys))
            self._ends.append(self._spool.count)

    def ascending(self) -> Iterator[Ints]:
        """Yield all keys, each once, a range of values after the other."""
        keys: Ints = self._spool.read()
        parts = [keys[start:end] for start, end in pairwise(self._ends)]
        if not parts:
            return
        bounds = _bounds(parts)
        places = np.stack([np.searchsorted(part, bounds) for part in parts])
        before = np.zeros(len(parts), np.int64)
        for column in range(len(bounds) + 1):
            after = places[:, column] if column < len(bounds) else np.array([len(part) for part in parts])
            yield np.unique(
                np.concatenate([part[i:j] for part, i, j in zip(parts, before, after, strict=True)])
            )
            before = after


def _bounds(parts: list[Ints]) -> Ints:
    """Return values between which the parts together have about `_AT_ONCE` keys, twice as many at most."""
    step = max(_AT_ONCE // len(parts), 1)
    samples = np.sort(np.concatenate([part[step::step] for part in parts]))
    return np.unique(samples[len(parts) :: len(parts)])
