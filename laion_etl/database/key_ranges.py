"""Equal ranges of pair_id: what a statement that reads or deletes many pairs handles at once.

A key is a hash, so equal ranges hold equally many rows. One range is one short transaction: see locks.py.
"""

from collections.abc import Iterator
from itertools import pairwise
from uuid import UUID

from laion_etl.database.connection import Database

_ROWS_PER_RANGE = 1 << 16  # read or deleted within a second
_MAX_RANGES = 1 << 24


_KEYS = 2**128


def key_ranges(count: int, within: tuple[UUID, UUID] | None = None) -> Iterator[tuple[UUID, UUID]]:
    """Yields the first and the last key of `count` equal ranges that cover all keys, ascending.

    `within`: or the keys from its first to its last one.
    """
    start, end = (within[0].int, within[1].int + 1) if within else (0, _KEYS)
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
        rows = rows * (within[1].int + 1 - within[0].int) // _KEYS
    return key_ranges(max(1, min(_MAX_RANGES, -(-rows // _ROWS_PER_RANGE))), within)
