"""Compares what the store and Postgres have of a crawl, after one of them was restored from a backup.

Both record what is loaded, planned and downloaded, and a restored backup of one is older than the other. What
the store has is listed once (stored_crawl.py), the batches of Postgres are read page by page, and stats are
read of parsed partitions and of batches that may be done. Only numbers are kept in memory, so a crawl of
300,000 batches takes some ten megabytes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from laion_etl.core.documented_enum import DocumentedEnum
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import plan_stats_name, shard_stats_name
from laion_etl.core.stage_stats import UNFINISHED, StageStats
from laion_etl.database.connection import Database, Keys
from laion_etl.database.loaded import load_fingerprint
from laion_etl.database.partition_copies import incomplete_partitions
from laion_etl.database.queries import query
from laion_etl.database.rollups import roll_up
from laion_etl.database.servers import range_servers
from laion_etl.database.stored_crawl import READERS, StoredCrawl, readable_stats
from laion_etl.io.outputs import has_shard
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store

_PAGE = 500  # batches of one transaction
_READ_AT_ONCE = 10_000


class Kind(DocumentedEnum):
    """Kinds of differences, with the sentence that says what to do."""

    LOST_PARTITION = (
        "partition_not_in_database",
        "loaded according to the store, not in the database; --fix loads it",
    )
    CHANGED_PARTITION = (
        "partition_of_other_pairs",
        "loaded from other pairs than the store has now; restore the pairs, or forget the crawl and load it",
    )
    MISSING_PAIRS = (
        "partition_without_pairs",
        "loaded, but its pairs are not in the store; restore them, or parse it again",
    )
    INCOMPLETE_PARTITION = (
        "partition_without_ranges",
        "loaded, but a server lacks key ranges of it; restore all servers from backups of one moment, or "
        "forget the crawl and load it",
    )
    UNKNOWN_BATCH = (
        "batch_not_in_database",
        "planned according to the store, not in the database; --fix plans what is loaded, and the same pairs "
        "get the same numbers",
    )
    UNRECORDED_BATCH = (
        "batch_not_in_plan",
        "in the database, not in the store's list of batches; --fix writes the list",
    )
    MISSING_BATCH_FILE = (
        "batch_without_file",
        "not downloaded, and its file is not in the store; restore it, or forget the crawl and load it",
    )
    FINISHED = (
        "batch_finished_in_store",
        "downloaded according to the store, not according to the database; --fix marks it as downloaded",
    )
    MISSING_SHARD = (
        "batch_without_shard",
        "downloaded according to the database, its shard is not in the store; --fix returns it to the queue",
    )
    MISSING_SCORES = (
        "batch_without_scores",
        "scored according to the database, not in the store; --fix has it scored again",
    )


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs of a crawl: numbers of partitions or batches by kind, only kinds that occur."""

    crawl: str
    numbers: dict[Kind, list[int]]
    finished: dict[int, StageStats]  # of batches that are FINISHED

    def of(self, *kinds: Kind) -> list[int]:
        """Return the numbers of some kinds."""
        return [number for kind in kinds for number in self.numbers.get(kind, ())]

    def to_plain(self) -> list[dict[str, Any]]:
        """Return plain JSON values."""
        return [
            {"kind": str(kind), "numbers": numbers, "meaning": kind.sentence}
            for kind, numbers in self.numbers.items()
        ]


def find_differences(crawl: str, stored: StoredCrawl, store: Store, database: Database) -> Differences:
    """Compare store and database. Batches that a worker holds are left out: both are about to change."""
    rule = database.rows("load.rule")
    loaded: dict[int, str] = dict(database.rows("reconcile.partitions", {"crawl": crawl}))
    current = {
        partition: load_fingerprint(stats, rule[0][0] if rule else "")
        for partition, stats in stored.parsed.items()
    }
    planned = set(planned_batches(crawl, store)) if store.exists(plan_stats_name(crawl)) else set()
    with range_servers(database) as servers:
        incomplete = incomplete_partitions(crawl, servers)
    known: set[int] = set()
    waiting: dict[int, int] = {}  # batch -> its pairs, of those whose shard may be finished
    without_file, without_shard, without_scores = [], [], []
    for batch, pairs, state, is_downloaded, held in _batches(crawl, database):
        known.add(batch)
        if held:
            continue
        if is_downloaded:
            if batch not in stored.shards and batch not in stored.scored:
                without_shard.append(batch)
            elif state == "scored" and batch not in stored.scored:
                without_scores.append(batch)
            continue
        if batch in stored.shards:
            waiting[batch] = pairs
        if batch not in stored.batches:
            without_file.append(batch)
    finished = _finished(crawl, waiting, store)
    numbers = {
        Kind.LOST_PARTITION: sorted(stored.loaded - loaded.keys()),
        Kind.CHANGED_PARTITION: [n for n in loaded if current.get(n, loaded[n]) != loaded[n]],
        Kind.MISSING_PAIRS: [n for n in loaded if n not in current],
        Kind.INCOMPLETE_PARTITION: incomplete,
        Kind.UNKNOWN_BATCH: sorted(planned - known),
        Kind.UNRECORDED_BATCH: sorted(known - planned),
        Kind.MISSING_BATCH_FILE: [batch for batch in without_file if batch not in finished],
        Kind.FINISHED: sorted(finished),
        Kind.MISSING_SHARD: without_shard,
        Kind.MISSING_SCORES: without_scores,
    }
    return Differences(crawl, {kind: found for kind, found in numbers.items() if found}, finished)


def known_batches(crawl: str, database: Database) -> set[int]:
    """Return the numbers of all batches of a crawl in Postgres."""
    return {batch for batch, *_ in _batches(crawl, database)}


def _batches(crawl: str, database: Database) -> Iterator[tuple[int, int, str, bool, bool]]:
    """Yield number, pairs and state of each batch, ascending; whether it is downloaded, and is held."""
    after = -1
    while rows := database.rows("reconcile.batches", {"crawl": crawl, "after": after, "rows": _READ_AT_ONCE}):
        yield from rows
        after = rows[-1][0]


def mend_batches(differences: Differences, database: Database) -> Differences:
    """Mark batches that are finished in the store as downloaded, and return those without a shard, or without
    scores, to the queue.

    Returns what differs after that: the other kinds, and batches that a worker has claimed meanwhile. It
    works in many short transactions; after an interruption, compare and fix again.
    """
    finished = [
        (batch, {"batch": batch, "stats": Jsonb(stats.to_plain())})
        for batch, stats in differences.finished.items()
    ]
    missing, unscored = (
        [(batch, {"batch": batch}) for batch in differences.of(kind)]
        for kind in (Kind.MISSING_SHARD, Kind.MISSING_SCORES)
    )
    left = {
        Kind.FINISHED: _not_updated("reconcile.finish", finished, database),
        Kind.MISSING_SHARD: _not_updated("reconcile.reopen", missing, database),
        Kind.MISSING_SCORES: _not_updated("reconcile.score_again", unscored, database),
    }
    roll_up(database)
    numbers = {kind: left.get(kind, found) for kind, found in differences.numbers.items()}
    stats = {batch: differences.finished[batch] for batch in left[Kind.FINISHED]}
    return Differences(differences.crawl, {kind: found for kind, found in numbers.items() if found}, stats)


def _not_updated(name: str, rows: Sequence[tuple[int, Keys]], database: Database) -> list[int]:
    """Run a named update for each batch, some in a transaction; return the batches that it did not change."""

    def update(some: Sequence[tuple[int, Keys]]) -> list[int]:
        return database.run(
            lambda connection: [
                batch for batch, keys in some if connection.execute(query(name), keys).rowcount == 0
            ]
        )

    pages = (rows[start : start + _PAGE] for start in range(0, len(rows), _PAGE))
    return [batch for page in pages for batch in update(page)]


def _finished(crawl: str, pairs: dict[int, int], store: Store) -> dict[int, StageStats]:
    """Return the stats of those batches whose shard in the store has an outcome for each of their pairs.

    Its files are read whole, so that they are those of the stats; there are as many as there is to mend. Once
    scored it may lack its tar.
    """

    def stats_of(batch: int) -> StageStats | None:
        stats = readable_stats(shard_stats_name(crawl, batch), store)
        finished = (
            stats is not None
            and (stats.stage, stats.crawl, stats.unit) == ("download", crawl, batch_name(batch))
            and stats.input == pairs[batch]
            and stats.fingerprint != UNFINISHED
            and has_shard(stats, store)
        )
        return stats if finished else None

    with ThreadPoolExecutor(READERS) as pool:
        found = zip(pairs, pool.map(stats_of, pairs), strict=True)
        return {batch: stats for batch, stats in found if stats is not None}
