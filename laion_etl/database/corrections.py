"""Replaces a loaded partition by its corrected version, and gives pairs back that it no longer contains.

The replacement is one transaction, so that the old version is there until the new one is whole. What needs
files of the store, which may be slow, is read before it: the caller holds the lock of table pair, so
nothing changes meanwhile. Partitions that lost pairs to the old version are read only if it had a row that
the new version has not, or, under rule url, only with a worse caption.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection

from laion_etl.core.errors import DamagedFileError, DatabaseError, MissingFileError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.schemas import parse_stats_name, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.conflicts import (
    ROW,
    PartitionRef,
    Resolution,
    Rows,
    find_existing_rows,
    insert,
    joined_rows,
    planner_at_work,
    resolve,
)
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, Keys, PairsFile
from laion_etl.database.key_ranges import key_ranges
from laion_etl.database.load_stats import adjust, moved, note_taken
from laion_etl.database.loaded import load_fingerprint
from laion_etl.database.locks import HeldLocks
from laion_etl.database.queries import query
from laion_etl.io.storage import Store

_RANGES = 16  # a partition has some million rows
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loser:
    """A partition that lost pairs to the old version; `found`: those of its pairs."""

    ref: PartitionRef
    pairs: PairsFile
    found: Candidates


@dataclass(frozen=True, slots=True)
class Correction:
    """The replacement of a partition's rows by those of its pairs file."""

    crawl: str
    me: PartitionRef
    rule: DedupeRule
    store: Store
    held: HeldLocks
    timeout_s: float

    def replace(
        self,
        pairs: PairsFile,
        candidates: Candidates,
        save: Callable[[Connection, PartitionRef, Candidates, Resolution], None],
    ) -> list[int]:
        """Replaces the rows; returns the partitions whose stats may have changed. `save` records the load.

        Raises DatabaseError when its pairs are in batches.
        """
        self.held.run(self._check_open)
        for (leaf,) in self._fetched("load.leaves", {}):
            self._fetched("load.summarize", {"leaf": leaf})
        losers = self._losers(_given_up(self._old_rows(), candidates, self.rule))

        def work(connection: Connection) -> list[int]:
            self._check_open(connection)
            keys = {"partition_no": self.me.partition_no}
            connection.execute(query("load.unload_pairs"), keys)
            connection.execute(query("load.unload_pages"), keys)
            existing = find_existing_rows(connection, candidates, self.rule)
            resolved = resolve(connection, self.me, candidates, existing, self.rule)
            insert(connection, self.me.partition_no, pairs, candidates.where(resolved.won))
            save(connection, self.me, candidates, resolved)
            changed = [self.me.partition_no, *note_taken(connection, resolved)]
            for loser in losers:
                changed += self._give_back(connection, loser)
            return changed

        return self.held.run(work, self.timeout_s)

    def _check_open(self, connection: Connection) -> None:
        keys = {"partition_no": self.me.partition_no}
        row = connection.execute(query("load.partition_for_update"), keys).fetchone()
        if row and (row[0] or (row[1] and planner_at_work(connection, self.me.crawl_no))):
            raise DatabaseError(
                f"cannot load partition {self.me.partition} of {self.crawl} again: its pairs, or the rules "
                "of loading, have changed since they were cut into batches; to rebuild the crawl run "
                f"`laion-etl db forget --crawl {self.crawl}` first"
            )

    def _fetched(self, name: str, keys: Mapping[str, object]) -> list[Any]:
        """Returns the rows of a named query, run in its own transaction."""
        return self.held.run(
            lambda connection: connection.execute(query(name), keys, binary=True).fetchall(), self.timeout_s
        )

    def _old_rows(self) -> Rows:
        parts = []
        for first, last in key_ranges(_RANGES):
            keys = {"partition_no": self.me.partition_no, "first": first, "last": last}
            for (found,) in self._fetched(f"load.rows_by_{self.rule}", keys):
                parts.append(np.frombuffer(found or b"", ROW[self.rule]))
        rows = joined_rows(parts, self.rule)
        return rows[np.argsort(rows["key"])]

    def _losers(self, given_up: Keys) -> list[_Loser]:
        """Returns the partitions that have pairs with these keys."""
        if not len(given_up):
            return []
        keys = {"partition_no": self.me.partition_no}
        losers = []
        for crawl, crawl_no, partition, partition_no, fingerprint in self._fetched("load.losers", keys):
            if not self._has_file_of(crawl, partition, fingerprint):
                continue
            pairs = PairsFile(self.store, f"pairs/{crawl}/{partition_name(partition)}.parquet", self.rule)
            theirs = pairs.candidates()
            found = theirs.where(theirs.among(given_up))
            if len(found):
                losers.append(_Loser(PartitionRef(partition_no, crawl_no, partition), pairs, found))
        return losers

    def _give_back(self, connection: Connection, loser: _Loser) -> list[int]:
        """Gives a partition the pairs that it had lost to the previous version of this one."""
        keys = {"partition_no": loser.ref.partition_no}
        row = connection.execute(query("load.partition_for_update"), keys).fetchone()
        if row is None or row[0] or (row[1] and planner_at_work(connection, loser.ref.crawl_no)):
            return []
        existing = find_existing_rows(connection, loser.found, self.rule)
        resolved = resolve(connection, loser.ref, loser.found, existing, self.rule)
        won = int(resolved.won.sum())
        if not won:
            return []
        insert(connection, loser.ref.partition_no, loser.pairs, loser.found.where(resolved.won))
        reason = (
            LoadReason.DUPLICATE_IN_CRAWL
            if loser.ref.crawl_no == self.me.crawl_no
            else LoadReason.DUPLICATE_OF_EARLIER_CRAWL
        )
        row = connection.execute(query("load.stats_of"), keys).fetchone()
        if row is not None:
            stats = moved(StageStats.from_plain(row[2]), won, reason)
            adjust(connection, loser.ref.partition_no, stats)
        return [loser.ref.partition_no, *note_taken(connection, resolved)]

    def _has_file_of(self, crawl: str, partition: int, loaded_fingerprint: str) -> bool:
        """Whether the store still has the pairs file that another partition was loaded from."""
        unit = partition_name(partition)
        try:
            parsed = self.store.read_stats(parse_stats_name(crawl, partition))
        except (MissingFileError, DamagedFileError) as error:  # in an outage pairs must not be lost
            _log.warning("cannot give lost pairs back to %s of %s: %s; load it again", unit, crawl, error)
            return False
        if load_fingerprint(parsed, self.rule) != loaded_fingerprint:
            _log.warning("%s of %s was parsed again; load it too", unit, crawl)
            return False
        return True


def _given_up(old: Rows, new: Candidates, rule: DedupeRule) -> Keys:
    """Returns the keys of old rows, ascending, that the new version has not, or only with a worse caption."""
    keys: Keys = old["key"]
    gone = ~np.isin(keys, new.keys)
    if rule is DedupeRule.PAIR or not len(new):
        return keys[gone]
    places = np.minimum(np.searchsorted(new.keys, keys), len(new) - 1)
    ranks, hashes = new.ranks[places], new.hashes[places]
    worse = (ranks < old["rank"]) | ((ranks == old["rank"]) & (hashes > old["hash"]))
    given_up: Keys = keys[gone | worse]
    return given_up
