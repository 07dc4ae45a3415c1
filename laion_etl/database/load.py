"""Load stage: the pairs of a partition into Postgres, where the primary key is the dedupe.

One transaction per partition: binary COPY into a temporary table, then one INSERT .. ON CONFLICT.
A killed loader leaves nothing behind; a loaded partition is not loaded again.
"""

import uuid

import pyarrow.parquet as pq
from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.database.queries import query
from laion_etl.errors import DatabaseError
from laion_etl.funnel import LoadReason, Outcomes
from laion_etl.records import StageStats, fingerprint, partition_name
from laion_etl.storage import Store

_COLUMNS = ["pair_id", "url", "alt", "language", "license", "page_url"]
_COLUMN_TYPES = ["uuid", "text", "text", "text", "text", "text"]
_ROWS_PER_READ = 10_000


def load_partition(crawl: str, partition: int, store: Store, connection: Connection) -> StageStats:
    """Loads `pairs/<crawl>/part-<partition>.parquet`; returns its stats, also kept in `load/<crawl>/`.

    Raises DatabaseError when the partition was parsed anew after its pairs were cut into batches.
    """
    unit = partition_name(partition)
    parsed = store.read_stats(f"pairs/{crawl}/{unit}.json")
    identity = fingerprint("load", parsed.outputs)
    crawl_no = register_crawl(connection, crawl)
    keys = {"crawl_no": crawl_no, "partition": partition}
    with connection.transaction():
        _lock_and_unload_stale(connection, crawl, keys, identity)
        known = connection.execute(query("load.partition_state"), keys).fetchone()
        stats = (
            StageStats.from_plain(known[2])
            if known
            else _load(crawl, unit, identity, keys, store, connection)
        )
    return store.write_stats(f"load/{crawl}/{unit}.json", stats)


def register_crawl(connection: Connection, crawl: str) -> int:
    """The number of a crawl, which is given on first sight."""
    connection.execute(query("load.register_crawl"), {"crawl": crawl})
    return crawl_number(connection, crawl)


def crawl_number(connection: Connection, crawl: str) -> int:
    """The number of a loaded crawl; raises DatabaseError for an unknown one."""
    row = connection.execute(query("load.crawl_number"), {"crawl": crawl}).fetchone()
    if row is None:
        raise DatabaseError(f"nothing of {crawl} is loaded yet; run `laion-etl load --crawl {crawl}` first")
    return int(row[0])


def _lock_and_unload_stale(connection: Connection, crawl: str, keys: dict[str, int], identity: str) -> None:
    """Takes the crawl's lock; if this partition was loaded from other pairs, unloads what is unplanned.

    A pair that another partition lost to the old version of this one must get its chance again, so all
    unplanned partitions of the crawl are unloaded and have to be loaded again.
    """
    known = connection.execute(query("load.partition_state"), keys).fetchone()
    if known is None or known[0] == identity:
        connection.execute(query("load.lock_for_load"), keys)
        return
    if known[1]:
        raise DatabaseError(
            f"partition {keys['partition']} of {crawl} is already cut into batches and its pairs have "
            f"changed since; to rebuild the crawl run `laion-etl forget --crawl {crawl}` first"
        )
    connection.execute(query("load.lock_for_unload"), keys)
    connection.execute(query("load.unload_pairs"), keys)
    connection.execute(query("load.unload_partitions"), keys)


def _load(
    crawl: str, unit: str, identity: str, keys: dict[str, int], store: Store, connection: Connection
) -> StageStats:
    connection.execute(query("load.create_staging"))
    pairs = _copy_pairs(f"pairs/{crawl}/{unit}.parquet", store, connection)
    row = connection.execute(query("load.count_of_earlier_crawls"), keys).fetchone()
    earlier = int(row[0]) if row else 0
    inserted = connection.execute(query("load.insert_pairs"), keys).rowcount
    if pairs > inserted + earlier:
        connection.execute(query("load.take_over_pairs"), keys)
    outcomes = Outcomes[LoadReason]()
    outcomes.keep(inserted)
    outcomes.drop(LoadReason.DUPLICATE_OF_EARLIER_CRAWL, earlier)
    outcomes.drop(LoadReason.DUPLICATE_IN_CRAWL, pairs - inserted - earlier)
    stats = StageStats("load", crawl, unit, identity, pairs, outcomes.kept, outcomes.dropped)
    connection.execute(
        query("load.save_partition"),
        {**keys, "fingerprint": identity, "stats": Jsonb(stats.to_plain())},
    )
    return stats


def _copy_pairs(name: str, store: Store, connection: Connection) -> int:
    """Streams a pairs file into the staging table; returns the number of rows."""
    count = 0
    with (
        store.open(name) as file,
        connection.cursor() as cursor,
        cursor.copy(query("load.copy_staging")) as copy,
    ):
        copy.set_types(_COLUMN_TYPES)
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_PER_READ, columns=_COLUMNS):
            identifiers = [uuid.UUID(bytes=value) for value in batch.column(0).to_pylist()]
            texts = [column.to_pylist() for column in batch.columns[1:]]
            for row in zip(identifiers, *texts, strict=True):
                copy.write_row(row)
            count += batch.num_rows
    return count
