"""Load stage: the pairs of a partition into Postgres, where the primary key is the dedupe.

Its keys are looked up, its new rows go by binary COPY straight into table pair, through several connections
that commit before the partition itself does. What a killed loader leaves is a partition without
fingerprint: it is not planned, and its next load replaces its rows in one transaction, as it does for a
corrected partition; what others had lost to rows that do not come again is given back to them. A loaded
partition is not loaded again.

Whatever the order in which partitions are loaded, the rows and the counts end the same: a pair that several
partitions of a crawl hold belongs to the lowest of them (under rule url: to the one with the best text), so
a later loader takes it over where it has to, unless its batch is already cut.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError, StorageError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.schemas import parse_stats_name, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.conflicts import Owner, Placement, find_incumbents, insert, insert_free, place
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, Keys, PairsFile, keys_of
from laion_etl.database.loaded import check_rules, load_fingerprint
from laion_etl.database.queries import query
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

IMPORTED = "imported-memory"  # the crawl that keys of an imported memory belong to

_log = logging.getLogger(__name__)


def load_partition(
    crawl: str, partition: int, settings: Settings, store: Store, database: Database
) -> StageStats:
    """Loads `pairs/<crawl>/part-<partition>.parquet`; returns its stats, also kept in `load/<crawl>/`.

    Raises DatabaseError when the partition was parsed anew after its pairs were cut into batches, or when the
    database was begun with another dedupe rule, SettingsError when it was parsed by other rules.
    """
    if crawl == IMPORTED:
        raise DatabaseError(f"{IMPORTED} is the name of imported memories; give the crawl another one")
    ensure_compiled()
    rule = DedupeRule.of(settings.load)
    unit = partition_name(partition)
    parsed = store.read_stats(parse_stats_name(crawl, partition))
    check_rules(crawl, partition, parsed, settings.parse)
    crawl_no = database.run(partial(_begin, crawl=crawl, rule=rule))
    load = _Load(crawl, crawl_no, partition, rule, parsed, settings, store, database)
    store.begin(_stats_name(crawl, unit))
    for partition_no in database.run(load.changed_partitions, settings.database.bulk_timeout_s):
        database.run(stats_to_store(partition_no, store))
    return store.read_stats(_stats_name(crawl, unit))


def _begin(connection: Connection, crawl: str, rule: DedupeRule) -> int:
    """The number of a crawl, which is given on first sight; the rule of the database has to be this one."""
    settle_rule(connection, rule)
    connection.execute(query("load.register_crawl"), {"crawl": crawl})
    return crawl_number(connection, crawl)


def crawl_number(connection: Connection, crawl: str) -> int:
    """The number of a loaded crawl; raises DatabaseError for an unknown one."""
    row = connection.execute(query("load.crawl_number"), {"crawl": crawl}).fetchone()
    if row is None:
        raise DatabaseError(f"nothing of {crawl} is loaded yet; run `laion-etl load --crawl {crawl}` first")
    return int(row[0])


def add_partition(connection: Connection, crawl_no: int, partition: int) -> int:
    """The number of a new partition, without fingerprint: it is not loaded yet."""
    keys = {"crawl_no": crawl_no, "partition": partition}
    row = connection.execute(query("load.add_partition"), keys).fetchone()
    return int(row[0]) if row else 0


def settle_rule(connection: Connection, rule: DedupeRule) -> None:
    """The first load decides on the rule of a database; raises DatabaseError where it was another one."""
    connection.execute(query("load.set_rule"), {"rule": rule})
    row = connection.execute(query("load.rule")).fetchone()
    if row is not None and row[0] != rule:
        raise DatabaseError(
            f"this database removes duplicates by {row[0]} and LAION_ETL_LOAD_DEDUPE says {rule}: set it to "
            f"{row[0]}, or use another database"
        )


def _stats_name(crawl: str, unit: str) -> str:
    return f"load/{crawl}/{unit}.json"


def delete_load_stats(crawl: str, store: Store) -> None:
    """No partition of the crawl is loaded any more."""
    for name in store.list(f"load/{crawl}"):
        store.delete(name)


def stats_to_store(partition_no: int, store: Store) -> Callable[[Connection], None]:
    """Writes what Postgres says of a partition; of two writers the later one has the later state."""

    def write(connection: Connection) -> None:
        keys = {"partition_no": partition_no}
        connection.execute(query("load.lock_stats"), keys)
        row = connection.execute(query("load.stats_of"), keys).fetchone()
        if row is not None and row[2]:
            crawl, partition, plain = row
            name, stats = _stats_name(crawl, partition_name(partition)), StageStats.from_plain(plain)
            if not store.exists(name) or store.read_stats(name) != stats:
                store.write_stats(name, stats)

    return write


@dataclass(frozen=True, slots=True)
class _Load:
    """One partition on its way into the database."""

    crawl: str
    crawl_no: int
    partition: int
    rule: DedupeRule
    parsed: StageStats
    settings: Settings
    store: Store
    database: Database

    def changed_partitions(self, connection: Connection) -> list[int]:
        """Loads the partition unless that is done; returns the partitions whose stats may be new."""
        keys: dict[str, Any] = {"crawl_no": self.crawl_no, "partition": self.partition}
        known = connection.execute(query("load.partition"), keys).fetchone()
        if known and known[1] == self.identity:
            return [known[0]]
        candidates = self._own_pairs.candidates()
        connection.execute(query("load.lock"))
        known = connection.execute(query("load.partition_for_update"), keys).fetchone()
        if known and known[1] == self.identity:
            return [known[0]]  # another loader was quicker
        if known:
            freed = self._unload(connection, known)
            me = Owner(known[0], self.crawl_no, self.partition)
            incumbents = find_incumbents(connection, candidates, self.rule)
            placed = place(connection, me, candidates, incumbents, self.rule)
            insert(connection, me.partition_no, self._own_pairs, candidates.where(placed.won))
            self._save(connection, me, candidates, placed)
            changed = _note_taken(connection, placed)
            return [me.partition_no, *changed, *self._give_back(connection, me, freed, candidates)]
        me = Owner(self._announce(), self.crawl_no, self.partition)
        with ExitStack() as stack:
            others = [stack.enter_context(other) for other in self._side_connections()]
            incumbents = insert_free(
                connection, others, me.partition_no, self._own_pairs, candidates, self.rule
            )
        placed = place(connection, me, candidates, incumbents, self.rule)
        taken = candidates.where(placed.won & placed.contested)
        insert(connection, me.partition_no, self._own_pairs, taken)
        self._save(connection, me, candidates, placed)
        return [me.partition_no, *_note_taken(connection, placed)]

    def _announce(self) -> int:
        """Commits the partition without fingerprint: its rows may be there, it is not loaded."""
        with self.database.side_connection(self.settings.database.statement_timeout_s) as connection:
            return add_partition(connection, self.crawl_no, self.partition)

    def _side_connections(self) -> Iterator[AbstractContextManager[Connection]]:
        timeout_s = self.settings.database.bulk_timeout_s
        for _ in range(max(1, self.settings.load.connections)):
            yield self.database.side_connection(timeout_s)

    @property
    def identity(self) -> str:
        """What the partition is known by once it is loaded."""
        return load_fingerprint(self.parsed, self.rule)

    @property
    def _own_pairs(self) -> PairsFile:
        return self._pairs(self.crawl, self.partition)

    def _pairs(self, crawl: str, partition: int) -> PairsFile:
        return PairsFile(self.store, f"pairs/{crawl}/{partition_name(partition)}.parquet", self.rule)

    def _unload(self, connection: Connection, known: tuple[int, str, bool, object]) -> Keys:
        """Removes the rows of the partition's former version; returns their keys, ascending."""
        partition_no, _, planned, _ = known
        if planned:
            raise DatabaseError(
                f"partition {self.partition} of {self.crawl} is already cut into batches and its pairs have "
                f"changed since; to rebuild the crawl run `laion-etl forget --crawl {self.crawl}` first"
            )
        keys = {"partition_no": partition_no}
        connection.execute(query("load.summarize"))
        rows = connection.execute(query("load.unload_pairs"), keys, binary=True).fetchall()
        connection.execute(query("load.unload_pages"), keys)
        return np.sort(keys_of([key for (key,) in rows]))

    def _save(self, connection: Connection, me: Owner, candidates: Candidates, placed: Placement) -> None:
        """From here on the partition is loaded."""
        dropped = {
            LoadReason.DUPLICATE_IN_PARTITION: self.parsed.kept - len(candidates),
            LoadReason.DUPLICATE_IN_CRAWL: placed.lost_in_crawl,
            LoadReason.DUPLICATE_OF_EARLIER_CRAWL: placed.lost_earlier,
        }
        stats = StageStats(
            "load",
            self.crawl,
            partition_name(self.partition),
            self.identity,
            self.parsed.kept,
            int(placed.won.sum()),
            {str(reason): count for reason, count in dropped.items() if count},
        )
        keys = {"partition_no": me.partition_no, "fingerprint": self.identity}
        connection.execute(query("load.save_partition"), {**keys, "stats": Jsonb(stats.to_plain())})

    def _give_back(self, connection: Connection, me: Owner, freed: Keys, candidates: Candidates) -> list[int]:
        """Other partitions get what they had lost to the former version of this one."""
        lost = _without(freed, candidates.keys) if self.rule is DedupeRule.PAIR else freed
        if not len(lost):
            return []
        changed: list[int] = []
        losers = connection.execute(query("load.losers"), {"partition_no": me.partition_no}).fetchall()
        for crawl, crawl_no, partition, partition_no, identity, plain in losers:
            if not self._has_file_of(crawl, partition, identity):
                continue
            other = Owner(partition_no, crawl_no, partition)
            pairs = self._pairs(crawl, partition)
            theirs = pairs.candidates()
            found = theirs.where(theirs.among(lost))
            incumbents = find_incumbents(connection, found, self.rule)
            placed = place(connection, other, found, incumbents, self.rule)
            won = int(placed.won.sum())
            if not won:
                continue
            insert(connection, partition_no, pairs, found.where(placed.won))
            reason = (
                LoadReason.DUPLICATE_IN_CRAWL
                if crawl_no == me.crawl_no
                else LoadReason.DUPLICATE_OF_EARLIER_CRAWL
            )
            _adjust(connection, partition_no, _moved(StageStats.from_plain(plain), won, reason))
            changed += [partition_no, *_note_taken(connection, placed)]
        return changed

    def _has_file_of(self, crawl: str, partition: int, identity: str) -> bool:
        """Whether the pairs file is there that another partition was loaded from."""
        unit = partition_name(partition)
        try:
            parsed = self.store.read_stats(parse_stats_name(crawl, partition))
        except StorageError as error:
            _log.warning("what %s of %s had lost is not given back to it: %s", unit, crawl, error)
            return False
        if load_fingerprint(parsed, self.rule) != identity:
            _log.warning("%s of %s was parsed anew; load it too", unit, crawl)
            return False
        return True


def _note_taken(connection: Connection, placed: Placement) -> list[int]:
    """The partitions that lost rows count them as duplicates; returns their numbers."""
    for partition_no, count in placed.taken.items():
        row = connection.execute(query("load.stats_of"), {"partition_no": partition_no}).fetchone()
        if row is not None and row[2]:  # a partition whose load broke off is counted when it is loaded again
            stats = StageStats.from_plain(row[2])
            _adjust(connection, partition_no, _moved(stats, -count, LoadReason.DUPLICATE_IN_CRAWL))
    return list(placed.taken)


def _moved(stats: StageStats, won: int, reason: LoadReason) -> StageStats:
    """Stats with `won` pairs more kept, and as many less dropped for a reason."""
    dropped = {**stats.dropped, str(reason): stats.dropped.get(reason, 0) - won}
    return replace(
        stats, kept=stats.kept + won, dropped={name: count for name, count in dropped.items() if count}
    )


def _adjust(connection: Connection, partition_no: int, stats: StageStats) -> None:
    keys = {"partition_no": partition_no, "stats": Jsonb(stats.to_plain())}
    connection.execute(query("load.adjust_stats"), keys)


def _without(keys: Keys, others: Keys) -> Keys:
    """Keys that are not among others; both ascending."""
    return np.setdiff1d(keys, others, assume_unique=True)
