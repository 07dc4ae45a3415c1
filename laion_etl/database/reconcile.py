"""Compares what the store and Postgres have of a crawl, after one of them was restored from a backup.

Both say what is loaded, planned and downloaded, and a backup of one is older than the other. Files
are found by listing the crawl's folders; stats are read of loaded partitions and of batches that may be done.
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from laion_etl.core.documented_enum import DocumentedEnum
from laion_etl.core.errors import DamagedFileError, MissingFileError, NewerFormatError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import parse_stats_name, plan_stats_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, Keys
from laion_etl.database.loaded import load_fingerprint
from laion_etl.database.partition_copies import incomplete_partitions
from laion_etl.database.queries import query
from laion_etl.database.rollups import roll_up
from laion_etl.database.servers import range_servers
from laion_etl.io.outputs import has_outputs
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store

_READERS = 8
_PAGE = 500  # batches of one transaction
_log = logging.getLogger(__name__)
_FILES_OF_A_SHARD = (".tar", ".parquet", "_stats.json")


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
        "downloaded according to the store, not according to the database; --fix marks it as done",
    )
    MISSING_SHARD = (
        "batch_without_shard",
        "done according to the database, its shard is not in the store; --fix returns it to the queue",
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


def find_differences(crawl: str, store: Store, database: Database) -> Differences:
    """Compare store and database. Batches that a worker holds are left out: both are about to change."""
    rule = database.rows("load.rule")
    loaded: dict[int, str] = dict(database.rows("reconcile.partitions", {"crawl": crawl}))
    batches = database.rows("reconcile.batches", {"crawl": crawl})
    current = _current_fingerprints(crawl, loaded, rule[0][0] if rule else "", store)
    files = {name for folder in ("batches", "shards", "scored") for name in store.list(f"{folder}/{crawl}")}
    planned = set(planned_batches(crawl, store)) if plan_stats_name(crawl) in files else set()
    with range_servers(database) as servers:
        incomplete = incomplete_partitions(crawl, servers)
    known = {batch for batch, *_ in batches}
    whole = {batch for batch in known if _has_shard(crawl, batch, files)}
    free = [(batch, pairs, file, state) for batch, pairs, file, state, held in batches if not held]
    finished = _finished(
        crawl, {batch: pairs for batch, pairs, _, state in free if state != "done" and batch in whole}, store
    )
    numbers = {
        Kind.LOST_PARTITION: sorted(_said_to_be_loaded(crawl, store) - loaded.keys()),
        Kind.CHANGED_PARTITION: [n for n in loaded if current[n] not in {None, loaded[n]}],
        Kind.MISSING_PAIRS: [n for n in loaded if current[n] is None],
        Kind.INCOMPLETE_PARTITION: incomplete,
        Kind.UNKNOWN_BATCH: sorted(planned - known),
        Kind.UNRECORDED_BATCH: sorted(known - planned),
        Kind.MISSING_BATCH_FILE: [
            batch for batch, _, file, state in free
            if state != "done" and batch not in finished and file not in files
        ],
        Kind.FINISHED: sorted(finished),
        Kind.MISSING_SHARD: [
            batch for batch, _, _, state in free
            if state == "done" and batch not in whole and not _is_scored(crawl, batch, files)
        ],
    }  # fmt: skip
    return Differences(crawl, {kind: found for kind, found in numbers.items() if found}, finished)


def mend_batches(differences: Differences, database: Database) -> Differences:
    """Mark batches that are finished in the store as done, and return those without a shard to the queue.

    Returns what differs after that: the other kinds, and batches that a worker has claimed meanwhile. It
    works in many short transactions; after an interruption, compare and mend again.
    """
    finished = [
        (batch, {"batch": batch, "stats": Jsonb(stats.to_plain())})
        for batch, stats in differences.finished.items()
    ]
    missing = [(batch, {"batch": batch}) for batch in differences.of(Kind.MISSING_SHARD)]
    left = {
        Kind.FINISHED: _not_updated("reconcile.finish", finished, database),
        Kind.MISSING_SHARD: _not_updated("reconcile.reopen", missing, database),
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


def _current_fingerprints(
    crawl: str, partitions: Iterable[int], rule: str, store: Store
) -> dict[int, str | None]:
    """Return the fingerprint that a load of each partition would have now, None without its pairs."""
    files = set(store.list(f"pairs/{crawl}"))

    def current(partition: int) -> str | None:
        name = parse_stats_name(crawl, partition)
        if name not in files:
            return None
        stats = _readable_stats(name, store)
        whole = stats is not None and {file.name for file in stats.outputs} <= files
        return load_fingerprint(stats, rule) if stats and whole else None

    numbers = list(partitions)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(numbers, pool.map(current, numbers), strict=True))


def _said_to_be_loaded(crawl: str, store: Store) -> set[int]:
    """Return the partitions with stats of a load in the store."""
    names = (name.rpartition("/part-")[2].removesuffix(".json") for name in store.list(f"load/{crawl}"))
    return {int(number) for number in names if number.isdigit()}


def _has_shard(crawl: str, batch: int, files: set[str]) -> bool:
    return all(f"{shard_stem(crawl, batch)}{ending}" in files for ending in _FILES_OF_A_SHARD)


def _is_scored(crawl: str, batch: int, files: set[str]) -> bool:
    return f"{scored_stem(crawl, batch)}_stats.json" in files


def _finished(crawl: str, pairs: dict[int, int], store: Store) -> dict[int, StageStats]:
    """Return the stats of those batches whose shard in the store has an outcome for each of their pairs.

    Its files are read whole, so that they are those of the stats; there are as many as there is to mend.
    """

    def stats_of(batch: int) -> StageStats | None:
        stats = _readable_stats(f"{shard_stem(crawl, batch)}_stats.json", store)
        finished = (
            stats is not None
            and (stats.stage, stats.crawl, stats.unit) == ("download", crawl, batch_name(batch))
            and stats.input == pairs[batch]
            and has_outputs(stats, store)
        )
        return stats if finished else None

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(pairs, pool.map(stats_of, pairs), strict=True)
        return {batch: stats for batch, stats in found if stats is not None}


def _readable_stats(name: str, store: Store) -> StageStats | None:
    """Return stats; None where they are damaged, or were deleted since they were listed."""
    try:
        return store.read_stats(name)
    except (DamagedFileError, NewerFormatError, MissingFileError) as error:
        _log.warning("%s", error)
        return None
