"""Loads a partition range by range, over several connections, beside loaders of other partitions.

Each connection takes the first free ranges in an order of its own, so that loaders meet rarely, and writes
them in one transaction: it looks their keys up and writes the rows at once, while that part of the index is
still in the caches. A killed load goes on with the ranges that are left.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.conflicts import PartitionRef, Resolution, find_existing_rows, resolve
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, Mask
from laion_etl.database.kernels import Ints, Longs
from laion_etl.database.key_ranges import KeyRanges
from laion_etl.database.load_stats import StatsChanges
from laion_etl.database.pair_texts import PairTexts
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.database.range_locks import range_holders, take_ranges
from laion_etl.database.row_writer import PageWriter, copy_pairs

# So few that the part of the index that holds them fits into a processor's cache, and that others wait for a
# range only for a moment.
PAIRS_PER_TRANSACTION = 32_768
_MOSTLY_NEW = 0.8  # so much of the pairs of some ranges
_GOLDEN_RATIO = 0.618034  # multiples of it are spread evenly, however many there are


@dataclass(frozen=True, slots=True)
class LoadWork:
    """A version of a partition that is being loaded, and its pairs."""

    crawl: str
    me: PartitionRef
    version: int
    first_page: int
    rule: DedupeRule
    ranges: KeyRanges
    candidates: Candidates
    texts: PairTexts

    @property
    def purpose(self) -> str:
        """What it is, for those that wait for it."""
        return f"load of partition {self.me.partition} of {self.crawl}"

    def check(self, connection: Connection) -> None:
        """Raises DatabaseError if something else has begun with the partition."""
        keys = {"partition_no": self.me.partition_no}
        if connection.execute(query("load.version_at_work"), keys).fetchone() != (self.version,):
            raise DatabaseError(
                f"cannot go on with the {self.purpose}: another version of it is being loaded, or the crawl "
                "is being forgotten; run it again"
            )

    def begun(self, connection: Connection) -> dict[int, int]:
        """Returns the ranges that some version has loaded, and which version."""
        keys = {"partition_no": self.me.partition_no}
        rows: list[tuple[int, int]] = connection.execute(query("load.ranges_begun"), keys).fetchall()
        return dict(rows)

    def candidates_in(self, numbers: Sequence[int]) -> tuple[Candidates, Longs]:
        """Returns the candidates in some ascending ranges, and the range of each."""
        return in_ranges(self.candidates, self.ranges.places(self.candidates.keys), numbers)

    def save(
        self, connection: Connection, numbers: Sequence[int], ranges: Longs, resolved: Resolution
    ) -> None:
        """Records ranges as loaded."""

        def counts(mask: Mask) -> list[int]:
            found = np.bincount(ranges[mask], minlength=self.ranges.count)
            return [int(found[number]) for number in numbers]

        keys = {
            "partition_no": self.me.partition_no,
            "version": self.version,
            "ranges": list(numbers),
            "kept": counts(resolved.won),
            "in_crawl": counts(resolved.lost_in_crawl),
            "earlier": counts(resolved.lost_earlier),
        }
        connection.execute(query("load.save_ranges"), keys)


def in_ranges(candidates: Candidates, places: Longs, numbers: Sequence[int]) -> tuple[Candidates, Longs]:
    """Returns the candidates in some ascending ranges, and the range of each; `places` as of KeyRanges."""
    parts = [candidates.where(slice(places[number], places[number + 1])) for number in numbers]
    return Candidates.joined(parts), np.repeat(numbers, [len(part) for part in parts])


@dataclass(slots=True)
class RangeLoad:
    """The load of ranges of one server that no version of the partition has loaded yet.

    `failed`: set when another part of the load has failed; this one then ends, too.
    """

    work: LoadWork
    pages: PageWriter
    timeout_s: float
    remaining: set[int]
    failed: threading.Event = field(default_factory=threading.Event)
    _claimed: dict[int, list[int]] = field(default_factory=dict)
    _changed: set[int] = field(default_factory=set)

    def run(self, database: Database, connections: int) -> set[int]:
        """Loads the remaining ranges; returns the partitions whose stats have changed."""
        workers = min(max(1, connections), -(-len(self.remaining) // self._at_once))
        with ExitStack() as stack:
            others = [stack.enter_context(database.another()) for _ in range(workers - 1)]
            pool = stack.enter_context(ThreadPoolExecutor(workers))
            done = [pool.submit(self._work, worker, own) for worker, own in enumerate([database, *others])]
            for future in done:
                future.result()
        return self._changed

    @property
    def _at_once(self) -> int:
        """How many ranges are written in one transaction."""
        ranges = self.work.ranges.count
        return max(1, PAIRS_PER_TRANSACTION * ranges // max(1, len(self.work.candidates)))

    def _work(self, worker: int, database: Database) -> None:
        """Loads ranges until none is left that another connection does not load."""
        offset = (self.work.me.partition_no * _GOLDEN_RATIO + worker * _GOLDEN_RATIO**2) % 1
        start = int(offset * self.work.ranges.count)
        try:
            while poll(
                lambda: self._step(worker, start, database),
                lambda: range_holders(database),
                self.work.purpose,
            ):
                pass
        except BaseException:
            self.failed.set()
            raise

    def _step(self, worker: int, start: int, database: Database) -> list[int] | None:
        """Loads some ranges and returns them; None: others have all of them now. []: there are none left."""
        if not (wanted := self._wanted(worker, start)):
            return []

        def load(connection: Connection) -> list[int] | None:
            self._claimed[worker] = []
            connection.execute(query("load.lazy_commit"))
            taken = take_ranges(connection, wanted, self._at_once, self.work.purpose)
            self._claimed[worker] = taken
            return self._load(connection, sorted(taken)) if taken else None

        taken = database.run(load, self.timeout_s)
        self.remaining.difference_update(taken or [])
        self._claimed[worker] = []
        return taken

    def _wanted(self, worker: int, start: int) -> list[int]:
        if self.failed.is_set():
            return []
        claimed = {
            number for other, mine in list(self._claimed.items()) if other != worker for number in mine
        }
        numbers = sorted(self.remaining.copy() - claimed)
        return [n for n in numbers if n >= start] + [n for n in numbers if n < start]

    def _load(self, connection: Connection, taken: list[int]) -> list[int]:
        """Loads ranges whose locks the transaction holds."""
        work, me = self.work, self.work.me
        work.check(connection)
        begun = work.begun(connection)  # by another loader of the same partition
        numbers = [number for number in taken if number not in begun]
        if not numbers:
            return taken
        candidates, ranges = work.candidates_in(numbers)
        existing = find_existing_rows(connection, candidates, work.rule)
        resolved = resolve(connection, me, candidates, existing, work.rule)
        new = candidates.where(resolved.won)
        if len(new):
            self._write_pages(candidates, new)
            copy_pairs(connection, me.partition_no, work.first_page, work.texts, new)
        work.save(connection, numbers, ranges, resolved)
        changes = StatsChanges()
        changes.lose(resolved.owners[resolved.taken], ranges[resolved.taken])
        self._changed.update(changes.save(connection))
        return taken

    def _write_pages(self, candidates: Candidates, new: Candidates) -> None:
        """Writes the pages of the new ones of some candidates; ahead of others, if most of them are new."""
        texts = self.work.texts
        pages = texts.pages_of(new)
        if len(new) > _MOSTLY_NEW * len(candidates):
            self.pages.write_ahead(texts, pages, self._remaining_pages)
        else:
            self.pages.write(texts, pages)

    def _remaining_pages(self) -> Ints:
        """Returns the pages of all pairs that are not loaded yet."""
        candidates, _ = self.work.candidates_in(sorted(self.remaining.copy()))
        return self.work.texts.pages_of(candidates)
