"""Plan stage: cuts the new pairs of a crawl into batches, the work queue of the downloaders.

The batch files are written first and the rows that make them claimable last, in one transaction; a
killed planner leaves files that its retry overwrites with the same bytes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError
from laion_etl.core.schemas import BATCH_SCHEMA, batch_file_name, plan_stats_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.binary_copy import Texts, copy_out, host_hashes, joined, read_rows
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.load import crawl_number
from laion_etl.database.load_stats import delete_load_stats, stats_to_store
from laion_etl.database.loaded import plan_fingerprint
from laion_etl.database.queries import query
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import BatchNumbers, contents_digest
from laion_etl.plan.batching import assign_batches, assign_batches_by_language
from laion_etl.settings import PlanSettings, Settings

_SORTS = (
    16  # ranges of keys that are sorted one after the other, so that a sort needs a sixteenth of the disk
)
_WRITERS = 8  # to S3, writing a batch file is mostly waiting


def plan_batches(crawl: str, settings: Settings, store: Store, database: Database) -> StageStats:
    """Cuts the pairs that are loaded and not yet planned; returns the stats of all batches of the crawl.

    Writes `batches/<crawl>/<batch>.parquet` (BATCH_SCHEMA, at most `batch_size` rows) and `_stats.json`,
    whose details list the batch numbers. Partitions loaded later get further batches.
    """
    store.begin(plan_stats_name(crawl))
    planner = partial(_plan, crawl=crawl, settings=settings.plan, store=store)
    crawl_no = database.run(planner, settings.database.bulk_timeout_s)
    for (partition_no,) in database.rows("plan.planned_partitions", {"crawl_no": crawl_no}):
        # A loader may have been killed between taking pairs over and writing the stats of their losers.
        database.run(stats_to_store(partition_no, store))
    return _write_stats(crawl, crawl_no, store, database)


def forget_crawl(crawl: str, settings: Settings, store: Store, database: Database) -> None:
    """Removes a crawl's pairs, partitions and batches from Postgres, and the stats of their load.

    Other files in the store stay. The stats are deleted first: after a kill, `load` writes them again or
    another `forget` finishes. They are deleted again at the end, in case a loader was just writing its own.
    """
    crawl_no = database.run(lambda connection: crawl_number(connection, crawl))

    def forget(connection: Connection) -> None:
        keys = {"crawl_no": crawl_no}
        connection.execute(query("plan.lock_planner"))
        connection.execute(query("load.lock"))
        delete_load_stats(crawl, store)
        connection.execute(query("load.summarize"))
        for table in ("pairs", "pages", "batches", "partitions", "crawl"):
            connection.execute(query(f"plan.forget_{table}"), keys)

    database.run(forget, settings.database.bulk_timeout_s)
    delete_load_stats(crawl, store)


def _plan(connection: Connection, crawl: str, settings: PlanSettings, store: Store) -> int:
    """Cuts batches and marks partitions as planned in one transaction; returns the number of the crawl."""
    crawl_no = crawl_number(connection, crawl)
    connection.execute(query("plan.lock_planner"))
    rows = connection.execute(query("plan.unplanned_partitions"), {"crawl_no": crawl_no}).fetchall()
    partitions, pairs = [number for number, _ in rows], sum(kept for _, kept in rows)
    if not partitions:
        return crawl_no
    connection.execute(query("load.summarize"))
    numbers = BatchNumbers(crawl, store, partial(_taken, connection))
    written = list(_batch_files(connection, crawl, partitions, pairs, numbers, settings, store))
    planned = sum(count for _, count, _ in written)
    if planned != pairs:
        raise DatabaseError(
            f"cannot plan {crawl}: {planned:,} of its {pairs:,} new pairs were found; nothing was planned, "
            f"run `laion-etl db forget --crawl {crawl}` and load it again"
        )
    _invalidate(crawl, [(batch, output) for batch, _, output in written], store)
    for batch, count, output in written:
        file = Jsonb({"name": output.name, "bytes": output.bytes, "sha256": output.sha256})
        keys = {"batch": batch, "crawl_no": crawl_no, "pairs": count, "file": file}
        connection.execute(query("plan.insert_batch"), keys)
    connection.execute(query("plan.mark_planned"), {"partitions": partitions})
    return crawl_no


def _invalidate(crawl: str, batches: Sequence[tuple[int, Output]], store: Store) -> None:
    """Deletes the stats of shards that a forgotten plan left under the numbers of new batches.

    A batch has the number of an earlier one if its pairs are the same; it may still differ in their languages
    or pages, or the record of numbers was lost. Shards of an identical batch stay: a crawl that is forgotten
    and loaded again unchanged is not downloaded again.
    """
    name = plan_stats_name(crawl)
    before = {output.name: output for output in store.read_stats(name).outputs} if store.exists(name) else {}
    left = {found for folder in ("shards", "scored") for found in store.list(f"{folder}/{crawl}")}
    for batch, output in batches:
        if before.get(output.name) == output:
            continue
        for stem in (scored_stem(crawl, batch), shard_stem(crawl, batch)):
            if (stats := f"{stem}_stats.json") in left:
                store.delete(stats)


def _batch_files(
    connection: Connection,
    crawl: str,
    partitions: list[int],
    pairs: int,
    numbers: BatchNumbers,
    settings: PlanSettings,
    store: Store,
) -> Iterator[tuple[int, int, Output]]:
    """Writes batch files; yields number, pairs and file of each."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        for window in _windows(connection, partitions, pairs, settings.window_pairs):
            tables = [window.take(pa.array(rows)) for rows in _assigned(window, settings)]
            given = numbers.give([contents_digest(table) for table in tables])
            outputs = pool.map(partial(_write_batch, crawl, store), given, tables)
            sizes = [table.num_rows for table in tables]
            yield from zip(given, sizes, outputs, strict=True)


def _taken(connection: Connection, first: int, last: int) -> Iterator[int]:
    """Yields the batch numbers from first to last that the database has."""
    for (batch,) in connection.execute(query("plan.numbers_taken"), {"first": first, "last": last}):
        yield int(batch)


def _assigned(window: pa.Table, settings: PlanSettings) -> list[Any]:
    limits = (settings.batch_size, settings.max_pairs_per_host)
    hosts = host_hashes(Texts.from_column(window.column("url").combine_chunks()))
    if settings.per_language:
        languages = window.column("language").to_numpy(zero_copy_only=False)
        return list(assign_batches_by_language(hosts, languages, *limits))
    return list(assign_batches(hosts, *limits))


def _write_batch(crawl: str, store: Store, batch: int, table: pa.Table) -> Output:
    with store.create(batch_file_name(crawl, batch)) as file:
        pq.write_table(table, file, compression="zstd")
    return file.output


def _windows(
    connection: Connection, partitions: list[int], pairs: int, window_pairs: int
) -> Iterator[pa.Table]:
    """Yields the new pairs in windows of even size, ordered by pair_id.

    It is a hash, so each window is a fair sample of all hosts.
    """
    windows = max(1, -(-pairs // window_pairs))
    size = max(1, -(-pairs // windows))
    for block in joined(_rows(connection, partitions), size):
        yield read_rows(block, BATCH_SCHEMA)


def _rows(connection: Connection, partitions: Sequence[int]) -> Iterator[bytes]:
    """Yields rows of BATCH_SCHEMA in the format of COPY, ascending by key."""
    row = connection.execute(query("load.rule")).fetchone()
    by_url = row is not None and row[0] == DedupeRule.URL
    bounds = [n * 2**128 // _SORTS for n in range(_SORTS + 1)]
    for low, high in pairwise(bounds):
        statement = sql.SQL(query("plan.copy_new_pairs")).format(
            by_url=sql.Literal(by_url),
            first=sql.Literal(UUID(int=low)),
            last=sql.Literal(UUID(int=high - 1)),
            partitions=sql.Literal(list(partitions)),
        )
        yield from copy_out(connection, statement)


def _write_stats(crawl: str, crawl_no: int, store: Store, database: Database) -> StageStats:
    keys = {"crawl_no": crawl_no}
    totals = database.rows("plan.planned_totals", keys)
    batches = database.rows("plan.batches", keys)
    stats = StageStats(
        stage="plan",
        crawl=crawl,
        unit="batches",
        fingerprint=plan_fingerprint(batches),
        input=int(totals[0][0]),
        kept=sum(pairs for _, pairs, _ in batches),
        outputs=tuple(Output(**file) for _, _, file in batches),
        details={"batches": [batch for batch, _, _ in batches]},
    )
    return store.write_stats(plan_stats_name(crawl), stats)
