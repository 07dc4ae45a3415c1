"""Carries out removal requests in Postgres: a pair loses its URL and caption but keeps its key, so that it
still counts as seen.

Rows without text already exist (imported keys); plan gives them an empty slot in the batch, which is never
fetched.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from uuid import UUID

import numpy as np
from psycopg import Connection

from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule, as_keys
from laion_etl.database.key_ranges import KeyRanges, ranges_of_table
from laion_etl.database.locks import PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_locks import run_with_ranges
from laion_etl.settings import Settings

_IDS_AT_ONCE = 10_000


def redact_pairs(pair_ids: Iterable[str], settings: Settings, database: Database) -> int:
    """Empties the rows of pairs; returns how many had texts. These stay on disk until the next vacuum.

    `pair_ids`: hexadecimal. Only the owner of the schema may do this. Rows are found by their key, except
    where pairs are deduped by URL: there the whole table is read once per 100,000 ids.
    """
    ids = sorted(pair_ids)
    purpose, timeout_s = "removal of pairs", settings.database.bulk_timeout_s
    key_ranges = KeyRanges.of(database)

    def redact(held: HeldLocks) -> int:
        by_url = database.rows("load.rule") == [(DedupeRule.URL,)]
        name = "removal.redact_pairs_of_urls" if by_url else "removal.redact_pairs"
        return sum(
            run_with_ranges(
                database,
                held.run,
                key_ranges.between(first, last),
                purpose,
                partial(_execute, name=name, keys={"ids": part, "first": first, "last": last}),
                timeout_s,
            )
            for part in batched(ids)
            for first, last in (ranges_of_table(database) if by_url else _bounds(part, key_ranges))
        )

    def batched(ids: list[str]) -> Iterator[list[str]]:
        for start in range(0, len(ids), _IDS_AT_ONCE):
            yield ids[start : start + _IDS_AT_ONCE]

    return run_locked(database, [PLANNERS], purpose, redact)


def _bounds(ids: list[str], ranges: KeyRanges) -> Iterator[tuple[UUID, UUID]]:
    """Yields bounds of the key ranges that have some of these ids, ascending."""
    keys = as_keys(np.frombuffer(b"".join(map(bytes.fromhex, ids)), np.uint8).reshape(-1, 16))
    for first, end in pairwise(ranges.places(keys)):
        if first < end:
            yield UUID(hex=ids[first]), UUID(hex=ids[end - 1])


def _execute(connection: Connection, name: str, keys: dict[str, object]) -> int:
    return connection.execute(query(name), keys).rowcount
