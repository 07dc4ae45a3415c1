"""Stats of loaded partitions: kept in Postgres, where other loads change them, and copied to the store.

Table partition_range has the counts of each range; they change under the lock of the range. The stats of a
loaded partition are their sum, and change in the same transactions.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.funnel import LoadReason
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.kernels import Ints, Longs
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.io.storage import Store

_READERS = 8
_REASONS = (LoadReason.DUPLICATE_IN_CRAWL, LoadReason.DUPLICATE_OF_EARLIER_CRAWL)


def load_stats_name(crawl: str, unit: str) -> str:
    """Return the name of the load stats of a partition in the store."""
    return f"load/{crawl}/{unit}.json"


def parse_counters(parsed: StageStats) -> dict[str, object]:
    """Return what is kept of the stats of parse with the loaded partition: plain JSON values."""
    counters = {"input": parsed.input, "kept": parsed.kept, "dropped": parsed.dropped}
    return {**counters, "records": parsed.details.get("records")}


def delete_load_stats(crawl: str, store: Store) -> None:
    """Deletes the load stats of all partitions of a crawl."""
    for name in store.list(f"load/{crawl}"):
        store.delete(name)


def stats_to_store(partition_no: int, store: Store, database: Database) -> None:
    """Writes a partition's stats from Postgres to the store.

    A lock, not waited for in a transaction, makes the last of several writers write the latest state.
    """
    keys = {"partition_no": partition_no}

    def write(connection: Connection) -> bool | None:
        locked = connection.execute(query("load.lock_stats"), keys).fetchone()
        if locked is None or not locked[0]:
            return None
        row = connection.execute(query("load.stats_of"), keys).fetchone()
        connection.execute(query("locks.drop_snapshot"))  # the store may be slow
        if row is not None and row[2]:
            crawl, partition, plain = row
            stats = StageStats.from_plain(plain)
            if not _has_stats(crawl, partition, stats, store):
                store.write_stats(load_stats_name(crawl, partition_name(partition)), stats)
        return True

    poll(lambda: database.run(write), lambda: "another writer of the same stats", "writing of load stats")


def outdated_in_store(
    crawl: str, partitions: Sequence[tuple[int, int, dict[str, Any]]], store: Store
) -> list[int]:
    """Return which partitions (partition_no, number, stats in Postgres) have other stats in the store.

    They are compared in parallel: almost all are the same, and a crawl has a thousand.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        same = pool.map(
            lambda one: _has_stats(crawl, one[1], StageStats.from_plain(one[2]), store), partitions
        )
        return [one[0] for one, is_same in zip(partitions, same, strict=True) if not is_same]


def _has_stats(crawl: str, partition: int, stats: StageStats, store: Store) -> bool:
    name = load_stats_name(crawl, partition_name(partition))
    return store.exists(name) and store.read_stats(name) == stats


@dataclass(frozen=True, slots=True)
class StatsChanges:
    """Pairs that partitions have got or lost in a transaction, by (partition_no, range): numbers of rows."""

    _lost: Counter[tuple[int, int, LoadReason]] = field(default_factory=Counter)

    def lose(self, owners: Ints, ranges: Longs) -> None:
        """Counts rows that partitions of the same crawl have lost: the owner and the range of each."""
        for (owner, number), count in _counts(owners, ranges):
            self._lost[owner, number, LoadReason.DUPLICATE_IN_CRAWL] += count

    def get(self, partition_no: int, ranges: Longs, reason: LoadReason) -> None:
        """Counts rows that a partition has got, which were dropped for a reason before: the range of each."""
        for (owner, number), count in _counts(np.full(len(ranges), partition_no), ranges):
            self._lost[owner, number, reason] -= count

    def save(self, connection: Connection) -> list[int]:
        """Changes the counts and stats, as the last thing of a transaction; returns the partitions."""
        lost = {key: count for key, count in self._lost.items() if count}
        places = sorted({(owner, number) for owner, number, _ in lost})
        if not places:
            return []
        by_reason = [[lost.get((*place, reason), 0) for place in places] for reason in _REASONS]
        keys = {
            "partitions": [owner for owner, _ in places],
            "ranges": [number for _, number in places],
            "kept": [-sum(counts) for counts in zip(*by_reason, strict=True)],
            "in_crawl": by_reason[0],
            "earlier": by_reason[1],
        }
        connection.execute(query("load.change_ranges"), keys)
        numbers = sorted({owner for owner, _ in places})
        rows = connection.execute(query("load.stats_to_change"), {"numbers": numbers}).fetchall()
        # An interrupted partition has none: it is counted from its ranges when it is loaded.
        changed = {
            number: self._changed(StageStats.from_plain(plain), number) for number, plain in rows if plain
        }
        if changed:
            values = [Jsonb(stats.to_plain()) for stats in changed.values()]
            connection.execute(query("load.change_stats"), {"numbers": list(changed), "stats": values})
        return numbers

    def _changed(self, stats: StageStats, partition_no: int) -> StageStats:
        dropped = dict(stats.dropped)
        kept = stats.kept
        for (owner, _, reason), count in self._lost.items():
            if owner == partition_no:
                kept -= count
                dropped[str(reason)] = dropped.get(str(reason), 0) + count
        return replace(stats, kept=kept, dropped={name: count for name, count in dropped.items() if count})


def _counts(owners: Ints | Longs, ranges: Longs) -> Iterable[tuple[tuple[int, int], int]]:
    """Returns how often each pair of owner and range occurs."""
    pairs, counts = np.unique(np.stack([owners, ranges]), axis=1, return_counts=True)
    return zip(map(tuple, pairs.T.tolist()), counts.tolist(), strict=True)
