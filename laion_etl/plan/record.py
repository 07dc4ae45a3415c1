"""Writes the plan's record in the store from what Postgres has; see laion_etl/io/planned.py."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.database.connection import Database
from laion_etl.database.locks import HeldLocks
from laion_etl.database.queries import query
from laion_etl.io.planned import OpenRound, PlannedBatch, plan_stats, runs, window_file_name, write_window
from laion_etl.io.storage import Store

_BATCHES = 1_000  # in a window of what an earlier version planned


def write_record(
    crawl: str,
    crawl_no: int,
    held: HeldLocks,
    store: Store,
    database: Database,
) -> StageStats:
    """Write the stats of the plan stage; returns them. A process that has lost its locks replaces nothing."""
    found = database.rows("plan.to_record", {"crawl_no": crawl_no})
    pairs_in, being_planned, *_ = found[0]
    windows = [(pairs, numbers, file) for _, _, pairs, numbers, file in found if file is not None]
    _restore_files(crawl, windows, store, database)
    stats = plan_stats(
        crawl,
        (int(pairs_in), sum(pairs for pairs, *_ in windows)),
        [(Output(**file), numbers) for _, numbers, file in windows],
        OpenRound(**being_planned) if being_planned else None,
    )
    return store.write_stats(plan_stats_name(crawl), stats, lambda: held.run(lambda _: None))


def _restore_files(crawl: str, rows: Sequence[Any], store: Store, database: Database) -> None:
    """Write the files of windows that the store lacks, such as one from a backup."""
    there = set(store.list(f"plan/{crawl}"))
    for _, numbers, file in rows:
        if file["name"] not in there:
            wanted = [number for first, last in numbers for number in range(first, last + 1)]
            found = database.rows("plan.batches_among", {"numbers": wanted})
            write_window(file["name"], crawl, [_batch(*row) for row in found], store)


def adopt_earlier_plan(crawl: str, crawl_no: int, held: HeldLocks, store: Store, database: Database) -> None:
    """Give the batches that a version without windows planned their windows: a round 0, which is done."""
    keys: dict[str, object] = {"crawl_no": crawl_no}
    if database.rows("plan.last_round", keys)[0][0] is not None or not database.rows("plan.a_batch_of", keys):
        return
    of = fingerprint("round", crawl, 0)
    windows: list[tuple[int, list[int], Output]] = []
    for batches in _all_batches(crawl_no, database):
        file = write_window(window_file_name(crawl, of, len(windows)), crawl, batches, store)
        windows.append((sum(batch.pairs for batch in batches), [batch.number for batch in batches], file))
    if not windows:
        return
    keys |= {"round": 0, "fingerprint": of, "done": True, "pairs": sum(pairs for pairs, *_ in windows)}

    def record(connection: Connection) -> None:
        connection.execute(query("plan.add_round"), keys)
        with connection.cursor() as cursor, cursor.copy(query("plan.copy_earlier_windows")) as copy:
            for window_no, (pairs, numbers, file) in enumerate(windows):
                counts = (pairs, len(numbers), Jsonb(runs(numbers)), Jsonb(asdict(file)))
                copy.write_row((crawl_no, 0, window_no, numbers[0], numbers[-1], True, *counts))

    held.run(record)


def _all_batches(crawl_no: int, database: Database) -> Iterator[list[PlannedBatch]]:
    after = -1
    while rows := database.rows(
        "plan.batches_after", {"crawl_no": crawl_no, "after": after, "rows": _BATCHES}
    ):
        yield [_batch(*row) for row in rows]
        after = rows[-1][0]


def _batch(number: int, pairs: int, file: dict[str, Any]) -> PlannedBatch:
    return PlannedBatch(number, pairs, Output(**file))
