"""Equal ranges of pair_id: what a statement that reads or deletes many pairs handles at once.

A key is a hash, so equal ranges hold equally many rows. One range is one short transaction: see locks.py.
"""

from collections.abc import Iterator
from itertools import pairwise
from uuid import UUID

from laion_etl.database.connection import Database

_ROWS_PER_RANGE = 1 << 16  # read or deleted within a second
_MAX_RANGES = 1 << 24


def key_ranges(count: int) -> Iterator[tuple[UUID, UUID]]:
    """Yields the first and the last key of `count` equal ranges that cover all keys, ascending."""
    bounds = (number * 2**128 // count for number in range(count + 1))
    for low, high in pairwise(bounds):
        yield UUID(int=low), UUID(int=high - 1)


def ranges_of_table(database: Database) -> Iterator[tuple[UUID, UUID]]:
    """Yields ranges with some 65,000 rows of table pair each, those of all crawls together."""
    ((rows,),) = database.rows("plan.stored_pairs")
    return key_ranges(max(1, min(_MAX_RANGES, -(-rows // _ROWS_PER_RANGE))))
