"""Load stage: writes the pairs of a partition to Postgres, where the primary key is the dedupe.

Keys are looked up first; new rows then go by binary COPY straight into table pair, over several connections
that commit before the partition itself does. A killed loader leaves a partition without fingerprint: it is
not planned, and its next load replaces its rows in one transaction, as for a corrected partition; pairs a
corrected partition no longer contains go back to the partitions that lost them. A loaded partition is not
loaded again.

Rows and counts do not depend on the order in which partitions are loaded: a pair that several partitions of
a crawl hold belongs to the lowest of them (under rule url: to the one with the best caption), so a later
loader takes it over where needed, unless its batch is already cut.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
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
from laion_etl.database.conflicts import (
    PartitionRef,
    Resolution,
    find_existing_rows,
    insert,
    insert_free,
    resolve,
)
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, Keys, PairsFile, keys_of
from laion_etl.database.load_stats import adjust, load_stats_name, moved, note_taken, stats_to_store
from laion_etl.database.loaded import check_rules, load_fingerprint
from laion_etl.database.queries import query
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

IMPORTED = "imported-memory"  # the crawl that imported keys belong to

_log = logging.getLogger(__name__)


def load_partition(
    crawl: str, partition: int, settings: Settings, store: Store, database: Database
) -> StageStats:
    """Loads `pairs/<crawl>/part-<partition>.parquet`; returns its stats, also kept in `load/<crawl>/`.

    Raises DatabaseError when the partition was parsed again after its pairs were cut into batches, or when
    the database has another dedupe rule; SettingsError when the partition was parsed with other settings.
    """
    if crawl == IMPORTED:
        raise DatabaseError(
            f"cannot load {IMPORTED}: the name is reserved for imported keys; give the crawl another one"
        )
    ensure_compiled()
    rule = DedupeRule.from_settings(settings.load)
    unit = partition_name(partition)
    parsed = store.read_stats(parse_stats_name(crawl, partition))
    check_rules(crawl, partition, parsed, settings.parse)
    crawl_no = database.run(partial(_begin, crawl=crawl, rule=rule))
    load = _Load(crawl, crawl_no, partition, rule, parsed, settings, store, database)
    store.begin(load_stats_name(crawl, unit))
    for partition_no in database.run(load.changed_partitions, settings.database.bulk_timeout_s):
        database.run(stats_to_store(partition_no, store))
    return store.read_stats(load_stats_name(crawl, unit))


def _begin(connection: Connection, crawl: str, rule: DedupeRule) -> int:
    """Returns the number of a crawl, assigned when it is new; the database must have this dedupe rule."""
    settle_rule(connection, rule)
    connection.execute(query("load.register_crawl"), {"crawl": crawl})
    return crawl_number(connection, crawl)


def crawl_number(connection: Connection, crawl: str) -> int:
    """Returns the number of a loaded crawl; raises DatabaseError for an unknown one."""
    row = connection.execute(query("load.crawl_number"), {"crawl": crawl}).fetchone()
    if row is None:
        raise DatabaseError(
            f"cannot find {crawl} in the database: nothing of it is loaded yet; run "
            f"`laion-etl stage load --crawl {crawl}` first"
        )
    return int(row[0])


def add_partition(connection: Connection, crawl_no: int, partition: int) -> int:
    """Adds a partition without fingerprint, which means not loaded yet; returns its number."""
    keys = {"crawl_no": crawl_no, "partition": partition}
    row = connection.execute(query("load.add_partition"), keys).fetchone()
    return int(row[0]) if row else 0


def settle_rule(connection: Connection, rule: DedupeRule) -> None:
    """Sets the dedupe rule at the first load of a database; raises DatabaseError if it has another one."""
    connection.execute(query("load.set_rule"), {"rule": rule})
    row = connection.execute(query("load.rule")).fetchone()
    if row is not None and row[0] != rule:
        raise DatabaseError(
            f"cannot load with LAION_ETL_LOAD_DEDUPE={rule}: this database removes duplicates by {row[0]}; "
            f"set it to {row[0]}, or use another database"
        )


@dataclass(frozen=True, slots=True)
class _Load:
    """The load of one partition."""

    crawl: str
    crawl_no: int
    partition: int
    rule: DedupeRule
    parsed: StageStats
    settings: Settings
    store: Store
    database: Database

    def changed_partitions(self, connection: Connection) -> list[int]:
        """Loads the partition unless it is loaded; returns the partitions whose stats may have changed."""
        keys: dict[str, Any] = {"crawl_no": self.crawl_no, "partition": self.partition}
        known = connection.execute(query("load.partition"), keys).fetchone()
        if known and known[1] == self.fingerprint:
            return [known[0]]
        candidates = self._own_pairs.candidates()
        connection.execute(query("load.lock"))
        known = connection.execute(query("load.partition_for_update"), keys).fetchone()
        if known and known[1] == self.fingerprint:
            return [known[0]]  # another loader has loaded it meanwhile
        if known:
            freed = self._unload(connection, known)
            me = PartitionRef(known[0], self.crawl_no, self.partition)
            existing = find_existing_rows(connection, candidates, self.rule)
            resolved = resolve(connection, me, candidates, existing, self.rule)
            insert(connection, me.partition_no, self._own_pairs, candidates.where(resolved.won))
            self._save(connection, me, candidates, resolved)
            changed = note_taken(connection, resolved)
            return [me.partition_no, *changed, *self._give_back(connection, me, freed, candidates)]
        me = PartitionRef(self._announce(), self.crawl_no, self.partition)
        with ExitStack() as stack:
            others = [stack.enter_context(other) for other in self._side_connections()]
            existing = insert_free(
                connection, others, me.partition_no, self._own_pairs, candidates, self.rule
            )
        resolved = resolve(connection, me, candidates, existing, self.rule)
        taken = candidates.where(resolved.won & resolved.contested)
        insert(connection, me.partition_no, self._own_pairs, taken)
        self._save(connection, me, candidates, resolved)
        return [me.partition_no, *note_taken(connection, resolved)]

    def _announce(self) -> int:
        """Commits the partition without fingerprint: it may have rows already, but is not loaded."""
        with self.database.side_connection(self.settings.database.statement_timeout_s) as connection:
            return add_partition(connection, self.crawl_no, self.partition)

    def _side_connections(self) -> Iterator[AbstractContextManager[Connection]]:
        timeout_s = self.settings.database.bulk_timeout_s
        for _ in range(max(1, self.settings.load.connections)):
            yield self.database.side_connection(timeout_s)

    @property
    def fingerprint(self) -> str:
        """The fingerprint the partition will have when it is loaded."""
        return load_fingerprint(self.parsed, self.rule)

    @property
    def _own_pairs(self) -> PairsFile:
        return self._pairs(self.crawl, self.partition)

    def _pairs(self, crawl: str, partition: int) -> PairsFile:
        return PairsFile(self.store, f"pairs/{crawl}/{partition_name(partition)}.parquet", self.rule)

    def _unload(self, connection: Connection, known: tuple[int, str, bool, object]) -> Keys:
        """Removes the rows of the partition's previous version; returns their keys, ascending."""
        partition_no, _, planned, _ = known
        if planned:
            raise DatabaseError(
                f"cannot load partition {self.partition} of {self.crawl} again: its pairs, or the rules of "
                "loading, have changed since they were cut into batches; to rebuild the crawl run "
                f"`laion-etl db forget --crawl {self.crawl}` first"
            )
        keys = {"partition_no": partition_no}
        connection.execute(query("load.summarize"))
        rows = connection.execute(query("load.unload_pairs"), keys, binary=True).fetchall()
        connection.execute(query("load.unload_pages"), keys)
        return np.sort(keys_of([key for (key,) in rows]))

    def _save(
        self, connection: Connection, me: PartitionRef, candidates: Candidates, resolved: Resolution
    ) -> None:
        """Saves stats and fingerprint: from here on the partition is loaded."""
        dropped = {
            LoadReason.DUPLICATE_IN_PARTITION: self.parsed.kept - len(candidates),
            LoadReason.DUPLICATE_IN_CRAWL: resolved.lost_in_crawl,
            LoadReason.DUPLICATE_OF_EARLIER_CRAWL: resolved.lost_earlier,
        }
        stats = StageStats(
            "load",
            self.crawl,
            partition_name(self.partition),
            self.fingerprint,
            self.parsed.kept,
            int(resolved.won.sum()),
            {str(reason): count for reason, count in dropped.items() if count},
        )
        keys = {"partition_no": me.partition_no, "fingerprint": self.fingerprint}
        connection.execute(query("load.save_partition"), {**keys, "stats": Jsonb(stats.to_plain())})

    def _give_back(
        self, connection: Connection, me: PartitionRef, freed: Keys, candidates: Candidates
    ) -> list[int]:
        """Gives other partitions the pairs they had lost to the previous version of this one."""
        lost = _without(freed, candidates.keys) if self.rule is DedupeRule.PAIR else freed
        if not len(lost):
            return []
        changed: list[int] = []
        losers = connection.execute(query("load.losers"), {"partition_no": me.partition_no}).fetchall()
        for crawl, crawl_no, partition, partition_no, loaded_fingerprint, plain in losers:
            if not self._has_file_of(crawl, partition, loaded_fingerprint):
                continue
            other = PartitionRef(partition_no, crawl_no, partition)
            pairs = self._pairs(crawl, partition)
            theirs = pairs.candidates()
            found = theirs.where(theirs.among(lost))
            existing = find_existing_rows(connection, found, self.rule)
            resolved = resolve(connection, other, found, existing, self.rule)
            won = int(resolved.won.sum())
            if not won:
                continue
            insert(connection, partition_no, pairs, found.where(resolved.won))
            reason = (
                LoadReason.DUPLICATE_IN_CRAWL
                if crawl_no == me.crawl_no
                else LoadReason.DUPLICATE_OF_EARLIER_CRAWL
            )
            adjust(connection, partition_no, moved(StageStats.from_plain(plain), won, reason))
            changed += [partition_no, *note_taken(connection, resolved)]
        return changed

    def _has_file_of(self, crawl: str, partition: int, loaded_fingerprint: str) -> bool:
        """Whether the store still has the pairs file that another partition was loaded from."""
        unit = partition_name(partition)
        try:
            parsed = self.store.read_stats(parse_stats_name(crawl, partition))
        except StorageError as error:
            _log.warning("cannot give lost pairs back to %s of %s: %s; load it again", unit, crawl, error)
            return False
        if load_fingerprint(parsed, self.rule) != loaded_fingerprint:
            _log.warning("%s of %s was parsed again; load it too", unit, crawl)
            return False
        return True


def _without(keys: Keys, others: Keys) -> Keys:
    """Returns the keys that are not among others; both ascending."""
    return np.setdiff1d(keys, others, assume_unique=True)
