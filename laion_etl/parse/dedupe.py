"""Finds repeated pairs and captions in bounded memory."""

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes
from laion_etl.parse.kernels.pairs import add_unseen, count_texts, rehash

_FIRST_SLOTS = 1 << 12
_LOAD = 3 / 4


class RecentPairs:
    """Remembers at least the last `max_pairs` / 2 distinct pair ids exactly, and never more than `max_pairs`.

    Ids are kept in a table of 16-byte slots that is filled to three quarters. When it holds `max_pairs` / 2
    ids it becomes the older generation and the generation before it is discarded. Which ids are remembered
    depends only on the ids and their order.
    """

    def __init__(self, max_pairs: int) -> None:
        self._generation = max(1, max_pairs // 2)
        self._older: Hashes = np.empty((0, 2), np.uint64)
        self._begin()

    def _begin(self) -> None:
        self._table: Hashes = np.zeros((_FIRST_SLOTS, 2), np.uint64)
        self._count = 0

    def add(self, pair_ids: Bytes) -> Bytes:
        """Returns 1 for each id (row of 16 bytes) not seen before, here or in earlier calls, else 0."""
        ids = pair_ids.view(np.uint64)
        fresh = np.empty(len(ids), np.uint8)
        done = 0
        while done < len(ids):
            free_slots = min(int(len(self._table) * _LOAD), self._generation) - self._count
            looked, added = add_unseen(
                ids[done:], len(ids) - done, self._table, free_slots, self._older, fresh[done:]
            )
            done += looked
            self._count += added
            if done < len(ids):
                self._grow()
        return fresh

    def _grow(self) -> None:
        if self._count >= self._generation:
            self._older = self._table
            self._begin()
            return
        larger = np.zeros((2 * len(self._table), 2), np.uint64)
        rehash(self._table, larger)
        self._table = larger


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
