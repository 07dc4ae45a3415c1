"""Replaces the ranges of a partition that an earlier version has loaded by those of its corrected version.

Some ranges at a time, each in one transaction that also gives back the pairs which the new version no longer
contains. What needs files of the store, which may be slow, is read before: partitions that lost pairs to the
old version are read only if it had a row that the new version has not, or, under rule url, only with a worse
caption. A partition that lost pairs after that is found under the locks of the ranges, and read before the
next attempt. There is one correction at a time, so that nothing gives pairs back to the old version.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.schemas import parse_stats_name, partition_name
from laion_etl.database.conflicts import (
    ROW,
    PartitionRef,
    Rows,
    find_existing_rows,
    joined_rows,
    open_partitions,
    remove_pairs,
    resolve,
)
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, Keys
from laion_etl.database.kernels import Longs
from laion_etl.database.key_ranges import key_ranges
from laion_etl.database.load_stats import StatsChanges
from laion_etl.database.loaded import load_fingerprint, loading_fingerprint
from laion_etl.database.locks import HeldLocks
from laion_etl.database.pair_texts import PairTexts
from laion_etl.database.pairs_file import PairsFile
from laion_etl.database.queries import query
from laion_etl.database.range_load import PAIRS_PER_TRANSACTION, LoadWork, in_ranges
from laion_etl.database.range_locks import run_with_ranges
from laion_etl.database.row_writer import copy_pages, copy_pairs, missing_pages
from laion_etl.io.storage import Store

_READ_AT_ONCE = 16  # a partition has some million rows
_GIVEN_UP_AT_ONCE = 1 << 18  # keys, whose texts are held in memory for each partition that gets some
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loser:
    """A version of a partition that has lost pairs to others."""

    ref: PartitionRef
    crawl: str
    loading: str
    version: int
    first_page: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What a partition has of the pairs that the new version gave up."""

    candidates: Candidates
    texts: PairTexts


class Correction:
    """The replacement of the rows of some ranges."""

    def __init__(
        self, work: LoadWork, store: Store, held: HeldLocks, database: Database, timeout_s: float
    ) -> None:
        self._work = work
        self._store = store
        self._held = held
        self._database = database
        self._timeout_s = timeout_s

    def replace(self, numbers: Sequence[int], changed: set[int]) -> None:
        """Replaces these ranges; adds the partitions whose stats may have changed."""
        for (leaf,) in self._fetched("load.leaves", {}):
            self._fetched("load.summarize", {"leaf": leaf})
        old = self._old_rows()
        old_places = self._work.ranges.places(old["key"])
        given_up = _given_up(old, self._work.candidates, self._work.rule)
        places = self._work.ranges.places(given_up)
        for some in _groups(sorted(numbers), np.diff(places), _GIVEN_UP_AT_ONCE):
            keys = np.concatenate([given_up[places[n] : places[n + 1]] for n in some])
            losers: dict[tuple[int, int], _Found | None] = {}
            sizes = np.diff(old_places) + np.diff(self._work.ranges.places(self._work.candidates.keys))
            with ExitStack() as stack:
                for few in _groups(some, sizes, PAIRS_PER_TRANSACTION):
                    old_keys = np.concatenate([old["key"][old_places[n] : old_places[n + 1]] for n in few])
                    while isinstance(done := self._replace(few, old_keys, keys, losers), list):
                        for loser in done:
                            losers[loser.ref.partition_no, loser.version] = self._read(loser, keys, stack)
                    changed |= done

    def _replace(
        self,
        numbers: list[int],
        old_keys: Keys,
        given_up: Keys,
        losers: Mapping[tuple[int, int], _Found | None],
    ) -> set[int] | list[_Loser]:
        """Replaces ranges in one transaction; returns the partitions changed, or those to read before."""
        work, me = self._work, self._work.me

        def replace(connection: Connection) -> set[int] | list[_Loser]:
            work.check(connection)
            candidates_of = _losers(connection, me.partition_no, numbers) if len(given_up) else []
            unread = [one for one in candidates_of if (one.ref.partition_no, one.version) not in losers]
            if unread:
                return unread
            self._remove_old(connection, old_keys)
            candidates, ranges = work.candidates_in(numbers)
            existing = find_existing_rows(connection, candidates, work.rule)
            resolved = resolve(connection, me, candidates, existing, work.rule)
            new = candidates.where(resolved.won)
            if len(new):
                where = (connection, me.partition_no, work.first_page, work.texts)
                copy_pages(*where, missing_pages(*where[:3], work.texts.pages_of(new)))
                copy_pairs(*where, new)
            work.save(connection, numbers, ranges, resolved)
            changes = StatsChanges()
            changes.lose(resolved.owners[resolved.taken], ranges[resolved.taken])
            for loser in candidates_of:
                if found := losers[loser.ref.partition_no, loser.version]:
                    self._give_back(connection, loser, found, numbers, changes)
            return set(changes.save(connection))

        return run_with_ranges(
            self._database, self._held.run, numbers, work.purpose, replace, self._timeout_s
        )

    def _fetched(self, name: str, keys: Mapping[str, object]) -> list[Any]:
        """Returns the rows of a named query, run in its own transaction."""
        return self._held.run(
            lambda connection: connection.execute(query(name), keys, binary=True).fetchall(), self._timeout_s
        )

    def _old_rows(self) -> Rows:
        """Returns all rows of the partition, ascending by key; meanwhile they may only become fewer."""
        rule = self._work.rule
        parts = []
        for first, last in key_ranges(_READ_AT_ONCE):
            keys = {"partition_no": self._work.me.partition_no, "first": first, "last": last}
            for (found,) in self._fetched(f"load.rows_by_{rule}", keys):
                parts.append(np.frombuffer(found or b"", ROW[rule]))
        rows = joined_rows(parts, rule)
        return rows[np.argsort(rows["key"])]

    def _remove_old(self, connection: Connection, old_keys: Keys) -> None:
        """Removes the old rows with these ascending keys; others may have taken some over."""
        if not len(old_keys):
            return
        old = Candidates(old_keys, np.arange(len(old_keys)))
        rows = find_existing_rows(connection, old, DedupeRule.PAIR)
        remove_pairs(connection, old_keys[rows.positions[rows.owners == self._work.me.partition_no]])

    def _read(self, loser: _Loser, given_up: Keys, stack: ExitStack) -> _Found | None:
        """Returns the pairs of a partition with these keys; None: its file has changed or has none."""
        if not self._has_file_of(loser):
            return None
        name = f"pairs/{loser.crawl}/{partition_name(loser.ref.partition)}.parquet"
        pairs = PairsFile(self._store, name, self._work.rule)
        theirs = pairs.candidates()
        found = theirs.where(theirs.among(given_up))
        if not len(found):
            return None
        return _Found(found, stack.enter_context(pairs.texts(found)))

    def _give_back(
        self,
        connection: Connection,
        loser: _Loser,
        found: _Found,
        numbers: Sequence[int],
        changes: StatsChanges,
    ) -> None:
        """Gives a partition the pairs in some ranges that it had lost to the previous version of this one."""
        keys = {"partition_no": loser.ref.partition_no}
        begun: dict[int, int] = dict(connection.execute(query("load.ranges_begun"), keys).fetchall())
        mine = [number for number in numbers if begun.get(number) == loser.version]
        places = self._work.ranges.places(found.candidates.keys)
        candidates, ranges = in_ranges(found.candidates, places, mine) if mine else (found.candidates, places)
        if not mine or not len(candidates):
            return
        if not len(open_partitions(connection, [loser.ref.partition_no])):
            return
        existing = find_existing_rows(connection, candidates, self._work.rule)
        others = existing.where(existing.owners != loser.ref.partition_no)
        resolved = resolve(connection, loser.ref, candidates, others, self._work.rule)
        resolved.won[existing.positions[existing.owners == loser.ref.partition_no]] = False  # it has them
        new = candidates.where(resolved.won)
        if not len(new):
            return
        where = (connection, loser.ref.partition_no, loser.first_page, found.texts)
        copy_pages(*where, missing_pages(*where[:3], found.texts.pages_of(new)))
        copy_pairs(*where, new)
        reason = (
            LoadReason.DUPLICATE_IN_CRAWL
            if loser.ref.crawl_no == self._work.me.crawl_no
            else LoadReason.DUPLICATE_OF_EARLIER_CRAWL
        )
        changes.get(loser.ref.partition_no, ranges[resolved.won], reason)
        changes.lose(resolved.owners[resolved.taken], ranges[resolved.taken])

    def _has_file_of(self, loser: _Loser) -> bool:
        """Whether the store still has the pairs file that another partition was loaded from."""
        unit = partition_name(loser.ref.partition)
        try:
            parsed = self._store.read_stats(parse_stats_name(loser.crawl, loser.ref.partition))
        except (MissingFileError, DamagedFileError) as error:  # in an outage pairs must not be lost
            _log.warning(
                "cannot give lost pairs back to %s of %s: %s; load it again", unit, loser.crawl, error
            )
            return False
        known = (load_fingerprint(parsed, self._work.rule), loading_fingerprint(parsed, self._work.rule))
        if loser.loading not in known:
            _log.warning("%s of %s was parsed again; load it too", unit, loser.crawl)
            return False
        return True


def _losers(connection: Connection, partition_no: int, numbers: Sequence[int]) -> list[_Loser]:
    """Returns the partitions that have lost pairs in some of these ranges, by crawl and number."""
    keys = {"partition_no": partition_no, "ranges": list(numbers)}
    return [
        _Loser(PartitionRef(number, crawl_no, partition), crawl, *version)
        for crawl, crawl_no, partition, number, *version in connection.execute(query("load.losers"), keys)
    ]


def _groups(numbers: Sequence[int], sizes: Longs, at_most: int) -> Iterator[list[int]]:
    """Yields ranges in groups, in order, whose sizes add up to `at_most`, or of one range."""
    group: list[int] = []
    total = 0
    for number in numbers:
        if group and total + sizes[number] > at_most:
            yield group
            group, total = [], 0
        group.append(number)
        total += int(sizes[number])
    if group:
        yield group


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
