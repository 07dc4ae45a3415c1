"""Carries out removal requests in Postgres: a pair loses its URL and caption but keeps its key, so that it
still counts as seen.

Rows without text already exist (imported keys); plan gives them an empty slot in the batch, which is never
fetched.
"""

from collections.abc import Iterable

from psycopg import Connection

from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.queries import query
from laion_etl.settings import Settings

_IDS_AT_ONCE = 100_000


def redact_pairs(pair_ids: Iterable[str], settings: Settings, database: Database) -> int:
    """Empties the rows of pairs; returns how many had texts. These stay on disk until the next vacuum.

    `pair_ids`: hexadecimal. Only the owner of the schema may do this. Rows are found by their key, except
    where pairs are deduped by URL: there the whole table is read once per 100,000 ids.
    """
    ids = sorted(pair_ids)

    def redact(connection: Connection) -> int:
        row = connection.execute(query("load.rule")).fetchone()
        by_url = row is not None and row[0] == DedupeRule.URL
        connection.execute(query("plan.lock_planner"))
        connection.execute(query("load.lock"))
        name = "removal.redact_pairs_of_urls" if by_url else "removal.redact_pairs"
        return sum(
            connection.execute(query(name), {"ids": ids[start : start + _IDS_AT_ONCE]}).rowcount
            for start in range(0, len(ids), _IDS_AT_ONCE)
        )

    return database.run(redact, settings.database.bulk_timeout_s)
