"""Plan stage: cuts the new pairs of a crawl into batches, the work queue of the downloaders.

The partitions are marked first: from then on loaders leave their rows alone. So the pairs can be read range
by range of the key, in short transactions, and are the same as in one snapshot. The batch files are written
next and the rows that make them claimable last, in one transaction. A killed planner leaves marks that are
no longer in force, because its lock is gone, and files that its retry overwrites with the same bytes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

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
from laion_etl.database.key_ranges import ranges_of_table
from laion_etl.database.load import crawl_number
from laion_etl.database.load_stats import stats_to_store
from laion_etl.database.loaded import plan_fingerprint
from laion_etl.database.locks import PLANNERS, HeldLocks, planner_of, run_locked
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.database.rollups import roll_up
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import BatchNumbers, contents_digest
from laion_etl.plan.batching import assign_batches, assign_batches_by_language
from laion_etl.settings import PlanSettings, Settings

_WRITERS = 8  # to S3, writing a batch file is mostly waiting


def plan_batches(crawl: str, settings: Settings, store: Store, database: Database) -> StageStats:
    """Cuts the pairs that are loaded and not yet planned; returns the stats of all batches of the crawl.

    Writes `batches/<crawl>/<batch>.parquet` (BATCH_SCHEMA, at most `batch_size` rows) and `_stats.json`,
    whose details list the batch numbers. Partitions loaded later get further batches.
    """
    store.begin(plan_stats_name(crawl))
    find = partial(crawl_number, crawl=crawl)
    crawl_no = database.run(find)

    def plan(held: HeldLocks) -> None:
        if held.run(find) != crawl_no:
            raise DatabaseError(
                f"cannot plan {crawl}: it was forgotten and loaded again meanwhile; run it again"
            )
        _plan(held, database, crawl, crawl_no, settings, store)

    run_locked(database, [PLANNERS, planner_of(crawl_no)], f"plan of {crawl}", plan)
    roll_up(database)
    for (partition_no,) in database.rows("plan.planned_partitions", {"crawl_no": crawl_no}):
        # A loader may have been killed between taking pairs over and writing the stats of their losers.
        stats_to_store(partition_no, store, database)
    return _write_stats(crawl, crawl_no, store, database)


def _plan(
    held: HeldLocks, database: Database, crawl: str, crawl_no: int, settings: Settings, store: Store
) -> None:
    """Cuts batches and records them."""
    rows = poll(
        lambda: held.run(partial(_marked, crawl_no=crawl_no)),
        lambda: "a loader that is just recording its partition",
        f"plan of {crawl}",
    )
    partitions, pairs = [number for number, _ in rows], sum(kept for _, kept in rows)
    if not partitions:
        return

    def taken(first: int, last: int) -> Iterator[int]:
        for (batch,) in database.rows("plan.numbers_taken", {"first": first, "last": last}):
            yield int(batch)

    numbers = BatchNumbers(crawl, store, taken)
    new_rows = _rows(held, database, partitions, settings.database.bulk_timeout_s)
    written = list(_batch_files(new_rows, crawl, pairs, numbers, settings.plan, store))
    planned = sum(count for _, count, _ in written)
    if planned != pairs:
        raise DatabaseError(
            f"cannot plan {crawl}: {planned:,} of its {pairs:,} new pairs were found; nothing was planned, "
            f"run `laion-etl db forget --crawl {crawl}` and load it again"
        )
    _invalidate(crawl, [(batch, output) for batch, _, output in written], store)

    def record(connection: Connection) -> None:
        if not connection.execute(query("plan.mark_planned"), {"partitions": partitions}).rowcount:
            return  # a first attempt was committed, and its answer lost
        with connection.cursor() as cursor, cursor.copy(query("plan.copy_batches")) as copy:
            for batch, count, output in written:
                file = Jsonb({"name": output.name, "bytes": output.bytes, "sha256": output.sha256})
                copy.write_row((batch, crawl_no, count, file))

    held.run(record, settings.database.bulk_timeout_s)


def _marked(connection: Connection, crawl_no: int) -> list[tuple[int, int]] | None:
    """Marks the new partitions; returns number and pairs of each, None if a loader is recording one."""
    keys = {"crawl_no": crawl_no}
    rows = connection.execute(query("plan.unplanned_partitions"), keys).fetchall()
    total = connection.execute(query("plan.unplanned"), keys).fetchone()
    if total is None or total[0] != len(rows):
        return None
    connection.execute(query("plan.mark_planning"), {"partitions": [number for number, _ in rows]})
    return rows


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
    rows: Iterator[bytes],
    crawl: str,
    pairs: int,
    numbers: BatchNumbers,
    settings: PlanSettings,
    store: Store,
) -> Iterator[tuple[int, int, Output]]:
    """Writes batch files; yields number, pairs and file of each."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        for window in _windows(rows, pairs, settings.window_pairs):
            tables = [window.take(pa.array(rows)) for rows in _assigned(window, settings)]
            given = numbers.give([contents_digest(table) for table in tables])
            outputs = pool.map(partial(_write_batch, crawl, store), given, tables)
            sizes = [table.num_rows for table in tables]
            yield from zip(given, sizes, outputs, strict=True)


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


def _windows(rows: Iterator[bytes], pairs: int, window_pairs: int) -> Iterator[pa.Table]:
    """Yields the new pairs in windows of even size, ordered by pair_id.

    It is a hash, so each window is a fair sample of all hosts.
    """
    windows = max(1, -(-pairs // window_pairs))
    size = max(1, -(-pairs // windows))
    for block in joined(rows, size):
        yield read_rows(block, BATCH_SCHEMA)


def _rows(
    held: HeldLocks, database: Database, partitions: Sequence[int], timeout_s: float
) -> Iterator[bytes]:
    """Yields rows of BATCH_SCHEMA in the format of COPY, ascending by key, while no transaction is open."""
    rule = database.rows("load.rule")
    for first, last in ranges_of_table(database):
        statement = sql.SQL(query("plan.copy_new_pairs")).format(
            by_url=sql.Literal(rule == [(DedupeRule.URL,)]),
            first=sql.Literal(first),
            last=sql.Literal(last),
            partitions=sql.Literal(list(partitions)),
        )
        yield from held.run(partial(_read, statement=statement), timeout_s)


def _read(connection: Connection, statement: sql.Composed) -> list[bytes]:
    connection.execute(query("plan.index_scans"))
    return list(copy_out(connection, statement))


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
