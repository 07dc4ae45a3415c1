"""Carries out removal requests in Postgres: a pair loses its URL and caption but keeps its key, so that it
still counts as seen.

Rows without text already exist (imported keys); plan gives them an empty slot in the batch, which is never
fetched.
"""

from collections.abc import Iterable
from functools import partial
from uuid import UUID

from psycopg import Connection

from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.key_ranges import ranges_of_table
from laion_etl.database.locks import PAIRS, PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.settings import Settings

_IDS_AT_ONCE = 10_000


def redact_pairs(pair_ids: Iterable[str], settings: Settings, database: Database) -> int:
    """Empties the rows of pairs; returns how many had texts. These stay on disk until the next vacuum.

    `pair_ids`: hexadecimal. Only the owner of the schema may do this. Rows are found by their key, except
    where pairs are deduped by URL: there the whole table is read once per 100,000 ids.
    """
    ids = sorted(pair_ids)
    parts = [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]

    def redact(held: HeldLocks) -> int:
        by_url = database.rows("load.rule") == [(DedupeRule.URL,)]
        name = "removal.redact_pairs_of_urls" if by_url else "removal.redact_pairs"
        ranges = list(ranges_of_table(database)) if by_url else [(UUID(int=0), UUID(int=2**128 - 1))]
        return sum(
            held.run(
                partial(_execute, name=name, keys={"ids": part, "first": first, "last": last}), timeout_s
            )
            for part in parts
            for first, last in ranges
        )

    timeout_s = settings.database.bulk_timeout_s
    return run_locked(database, [PLANNERS, PAIRS], "removal of pairs", redact)


def _execute(connection: Connection, name: str, keys: dict[str, object]) -> int:
    return connection.execute(query(name), keys).rowcount
