"""Equal ranges of pair_id: what loaders lock, and what a statement that handles many pairs handles at once.

A key is a hash, so equal ranges hold equally many rows. Two kinds of ranges are used. The *key ranges* of a
database, 64 unless set otherwise when it was created, are what loaders lock and commit (range_locks.py); they
never change, and leaves of table pair and key ranges share their bounds. `ranges_of_table` cuts finer: one of
its ranges is one short transaction, whatever the size of the table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import numpy as np

from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Keys
from laion_etl.database.kernels import Longs

_ROWS_PER_RANGE = 1 << 16  # read or deleted within a second
_MAX_RANGES = 1 << 24


@dataclass(frozen=True, slots=True)
class KeyRanges:
    """The key ranges of a database, numbered from 0 in the order of the keys."""

    count: int

    @classmethod
    def of(cls, database: Database) -> "KeyRanges":
        """Return those of a database."""
        ((count,),) = database.rows("load.key_ranges")
        return cls(count)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all ranges."""
        return list(range(self.count))

    def places(self, keys: Keys) -> Longs:
        """Return where each range begins among ascending keys, and where the last one ends: (ranges + 1)."""
        firsts = np.array([self._first(number).to_bytes(16) for number in self.numbers], "S16")
        return np.append(np.searchsorted(keys, firsts), len(keys))

    def numbers_of(self, keys: Keys) -> Longs:
        """Return the number of the range that each of these ascending keys is in."""
        return np.repeat(np.arange(self.count), np.diff(self.places(keys)))

    def between(self, first: UUID, last: UUID) -> list[int]:
        """Return the ranges that hold keys from `first` to `last`."""
        return [
            number
            for number in self.numbers
            if self._first(number) <= last.int and first.int < self._first(number + 1)
        ]

    def bounds(self, number: int) -> tuple[UUID, UUID]:
        """Return the first and the last key of a range."""
        return UUID(int=self._first(number)), UUID(int=self._first(number + 1) - 1)

    def _first(self, number: int) -> int:
        """The first key, cut to 32 bits as the bounds of the leaves are."""
        return (number * 2**32 // self.count) << 96


def key_ranges(count: int, within: tuple[UUID, UUID] | None = None) -> Iterator[tuple[UUID, UUID]]:
    """Yields the first and the last key of `count` equal ranges that cover all keys, ascending.

    `within`: or the keys from its first to its last one.
    """
    start, end = (within[0].int, within[1].int + 1) if within else (0, 2**128)
    bounds = (start + number * (end - start) // count for number in range(count + 1))
    for low, high in pairwise(bounds):
        yield UUID(int=low), UUID(int=high - 1)


def ranges_of_table(
    database: Database, within: tuple[UUID, UUID] | None = None
) -> Iterator[tuple[UUID, UUID]]:
    """Yields ranges with some 65,000 rows of table pair each, those of all crawls together.

    `within`: those of the keys from its first to its last one.
    """
    ((rows,),) = database.rows("plan.stored_pairs")
    if within:
        rows = rows * (within[1].int + 1 - within[0].int) // 2**128
    return key_ranges(max(1, min(_MAX_RANGES, -(-rows // _ROWS_PER_RANGE))), within)
