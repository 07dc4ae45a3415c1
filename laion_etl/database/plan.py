"""Plan stage: cuts the new pairs of a crawl into batches, the work queue of the downloaders.

The batch files are written first and the rows that make them claimable last, in one transaction; a
killed planner leaves files that its retry overwrites with the same bytes.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.database.load import crawl_number
from laion_etl.database.queries import query
from laion_etl.records import (
    BATCH_SCHEMA,
    Output,
    StageStats,
    batch_file_name,
    fingerprint,
    plan_stats_name,
)
from laion_etl.settings import Settings
from laion_etl.storage import Store


def plan_batches(crawl: str, settings: Settings, store: Store, connection: Connection) -> StageStats:
    """Cuts what is loaded and not yet planned; returns the stats of all batches of the crawl so far.

    Writes `batches/<crawl>/<batch>.parquet` (BATCH_SCHEMA, at most `batch_size` rows, by pair_id) and
    `_stats.json`, whose details list the batch numbers. Partitions loaded later make further batches.
    """
    crawl_no = crawl_number(connection, crawl)
    with connection.transaction():
        connection.execute(query("plan.lock_planner"))
        rows = connection.execute(query("plan.unplanned_partitions"), {"crawl_no": crawl_no})
        partitions = [row[0] for row in rows]
        if partitions:
            keys = {"crawl_no": crawl_no, "partitions": partitions}
            _cut(crawl, keys, settings.plan.batch_size, store, connection)
            connection.execute(query("plan.mark_planned"), keys)
    return _write_stats(crawl, crawl_no, store, connection)


def forget_crawl(crawl: str, connection: Connection) -> None:
    """Removes a crawl's pairs, partitions and batches from Postgres; files in the store stay."""
    keys = {"crawl_no": crawl_number(connection, crawl)}
    with connection.transaction():
        connection.execute(query("plan.lock_planner"))
        connection.execute(query("load.lock_for_unload"), keys)
        for statement in ("forget_pairs", "forget_batches", "forget_partitions", "forget_crawl"):
            connection.execute(query(f"plan.{statement}"), keys)


def _cut(crawl: str, keys: dict[str, Any], batch_size: int, store: Store, connection: Connection) -> None:
    row = connection.execute(query("plan.next_batch")).fetchone()
    first = int(row[0]) if row else 0
    for batch, table in enumerate(_new_pairs(connection, keys, batch_size), first):
        with store.create(batch_file_name(crawl, batch)) as file:
            pq.write_table(table, file, compression="zstd")
        output = file.output
        connection.execute(
            query("plan.insert_batch"),
            {
                "batch": batch,
                "crawl_no": keys["crawl_no"],
                "pairs": table.num_rows,
                "file": Jsonb({"name": output.name, "bytes": output.bytes, "sha256": output.sha256}),
            },
        )


def _new_pairs(connection: Connection, keys: dict[str, Any], batch_size: int) -> Iterator[pa.Table]:
    """Tables of BATCH_SCHEMA with `batch_size` rows, the last one with what is left."""
    with connection.cursor("new_pairs", binary=True) as cursor:
        cursor.execute(query("plan.new_pairs"), keys)
        while rows := cursor.fetchmany(batch_size):
            identifiers, *texts = zip(*rows, strict=True)
            columns = [[value.bytes for value in identifiers], *map(list, texts)]
            yield pa.table(columns, schema=BATCH_SCHEMA)


def _write_stats(crawl: str, crawl_no: int, store: Store, connection: Connection) -> StageStats:
    keys = {"crawl_no": crawl_no}
    row = connection.execute(query("plan.planned_totals"), keys).fetchone()
    batches = connection.execute(query("plan.batches"), keys).fetchall()
    stats = StageStats(
        stage="plan",
        crawl=crawl,
        unit="batches",
        fingerprint=fingerprint("plan", batches),
        input=int(row[0]) if row else 0,
        kept=sum(pairs for _, pairs, _ in batches),
        outputs=tuple(Output(**file) for _, _, file in batches),
        details={"batches": [batch for batch, _, _ in batches]},
    )
    return store.write_stats(plan_stats_name(crawl), stats)
