"""Finds repeated pairs and captions in bounded memory."""

import numpy as np
import numpy.typing as npt

from laion_etl.core.kernels import Bytes, Hashes
from laion_etl.parse.kernels.pairs import Sizes, add_unseen, count_texts, rehash

_FIRST_SLOTS = 1 << 12
_LOAD = 3 / 4
_LARGEST = np.iinfo(np.uint16).max  # size of a URL that is remembered; longer ones count as this long


class RecentPairs:
    """Remembers at least the last `max_pairs` / 2 distinct pair ids exactly, and never more than `max_pairs`.

    Ids are kept in a table of 16-byte slots that is filled to three quarters. When it holds `max_pairs` / 2
    ids it becomes the older generation and the generation before it is discarded. Which ids are remembered
    depends only on the ids and their order. An id is a hash of URL and caption without a separator, as the
    original's: two pairs have one id if the texts are the same together, and the sizes of their URLs differ.
    """

    def __init__(self, max_pairs: int) -> None:
        self._generation = max(1, max_pairs // 2)
        self._older = _empty_table(0)
        self._begin()

    def _begin(self) -> None:
        self._table = _empty_table(_FIRST_SLOTS)
        self._count = 0

    def add(self, pair_ids: Bytes, url_bytes: npt.NDArray[np.integer]) -> Bytes:
        """Returns FRESH for each id (row of 16 bytes) that has not occurred, here or in earlier calls.

        The others are SEEN, or SAME_ID where the pair was another one. `url_bytes`: the sizes of the URLs.
        """
        ids, sizes = pair_ids.view(np.uint64), np.minimum(url_bytes, _LARGEST).astype(np.uint16)
        found = np.empty(len(ids), np.uint8)
        done = 0
        while done < len(ids):
            free_slots = min(int(len(self._table[0]) * _LOAD), self._generation) - self._count
            looked, added = add_unseen(
                ids[done:], sizes[done:], self._table, free_slots, self._older, found[done:]
            )
            done += looked
            self._count += added
            if done < len(ids):
                self._grow()
        return found

    def _grow(self) -> None:
        if self._count >= self._generation:
            self._older = self._table
            self._begin()
            return
        larger = _empty_table(2 * len(self._table[0]))
        rehash(self._table, larger)
        self._table = larger


def _empty_table(slots: int) -> tuple[Hashes, Sizes]:
    return np.zeros((slots, 2), np.uint64), np.zeros(slots, np.uint16)


class RepeatedTextCounter:
    """Counts texts by hash and marks those that occur too often; a table of 1,048,576 texts, 8 MB.

    Once it is full, new texts are not counted. Counts saturate at 1,048,575.
    """

    _SLOTS = 1 << 20

    def __init__(self, max_repeats: int) -> None:
        self._max_repeats = max_repeats
        self._table: Hashes = np.zeros(self._SLOTS, np.uint64)

    def mark(self, hashes: Hashes) -> Bytes:
        """Returns 1 for each text that has occurred more than `max_repeats` times by then, else 0."""
        repeated = np.zeros(hashes.size, np.uint8)
        count_texts(self._table, hashes, self._max_repeats, repeated)
        return repeated
