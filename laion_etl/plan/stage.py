"""Plan stage: cuts the new pairs of a crawl into batches, the work queue of the downloaders.

A round begins by freezing the partitions that are not planned yet and dividing the key space into windows
(rounds.py). Then any number of planners cut windows side by side (window_batches.py), each recorded as soon
as its files are written: downloads can begin. A killed planner leaves windows that are done, one that is done
again with the same result, and the others. Who records the last window writes the plan's record (record.py).

The crawl's lock is held only to begin and to write that record. Windows need none: two planners of the same
window write the same bytes under the same numbers, and one of them records it.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from laion_etl.core.errors import DatabaseError
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number
from laion_etl.database.load_stats import outdated_in_store, stats_to_store
from laion_etl.database.locks import PLANNERS, HeldLocks, planner_of, run_locked
from laion_etl.database.rollups import roll_up
from laion_etl.database.servers import RangeServers, range_servers
from laion_etl.io.planned import window_file_name, write_window
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import BatchNumbers
from laion_etl.plan.record import adopt_earlier_plan, write_record
from laion_etl.plan.rounds import Round, Window, begin_round, is_done, open_round, record_window
from laion_etl.plan.taken_numbers import TakenNumbers, WindowDoneError
from laion_etl.plan.window_batches import WindowBatches
from laion_etl.settings import Settings

ResultT = TypeVar("ResultT")
UNPLANNED = "unplanned"  # key in the details of the stats of a range
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that has begun: what is planned so far, and the ranges I/N of windows that are left."""

    stats: StageStats
    ranges: tuple[str, ...] = ()
    batches: int = 0  # that its windows will have, at least


def plan_batches(crawl: str, settings: Settings, store: Store, database: Database) -> StageStats:
    """Cut the pairs that are loaded and not yet planned; returns the stats of all batches of the crawl.

    Writes `batches/<crawl>/<batch>.parquet` (BATCH_SCHEMA, at most `batch_size` rows), `plan/<crawl>/` and
    `batches/<crawl>/_stats.json`, whose details have the batch numbers. Partitions loaded later get further
    batches.
    """
    with range_servers(database) as servers:
        return _Plan.of(crawl, settings, store, servers).whole()


def prepare_plan(crawl: str, settings: Settings, store: Store, database: Database) -> Prepared:
    """Begin a plan, or go on with it; a plan of one range is made at once.

    There are as many ranges as windows, but at most LAION_ETL_AIRFLOW_PLAN_RANGES.
    """
    with range_servers(database) as servers:
        plan = _Plan.of(crawl, settings, store, servers)
        plan.begin()
        begun = plan.round()
        count = min(len(begun.windows), settings.airflow.plan_ranges) if begun else 0
        if begun is None or count == 1:
            return Prepared(plan.whole())
    left = [
        f"{index}/{count}"
        for index in range(1, count + 1)
        if not all(window.is_done for window in begun.share(index, count))
    ]
    recorded = store.read_stats(plan_stats_name(crawl))  # when the round began
    return Prepared(recorded, tuple(left), -(-begun.pairs // settings.plan.batch_size))


def plan_range(
    crawl: str, index: int, of: int, settings: Settings, store: Store, database: Database
) -> StageStats:
    """Cut the windows of range `index` of `of`, counted from 1, of a plan that has begun.

    Returns their stats; the fingerprint is that of the plan, empty as long as it is not complete. Then
    `details` has the number of partitions that are not in the plan because they were loaded after it had
    begun: they need another plan. Other ranges may be cut at the same time. Does nothing if the plan is
    complete. Raises DatabaseError if it has never begun.
    """
    with range_servers(database) as servers:
        plan = _Plan.of(crawl, settings, store, servers)
        if not plan.has_begun():
            raise DatabaseError(
                f"cannot plan a range of {crawl}: its plan has not begun; run "
                f"`laion-etl stage plan --crawl {crawl} --prepare` first"
            )
        pairs = 0
        if (begun := plan.round()) is not None:
            share = begun.share(index, of)
            pairs = sum(window.pairs for window in share) + plan.cut(begun, share)
        # The planner of the last window may have been killed before it had written the record.
        fingerprint, later = ("", 0) if plan.round() else (plan.finish().fingerprint, plan.unplanned())
    if later:
        _log.warning(
            "%s of %s loaded after this plan began; run `laion-etl stage plan --crawl %s` "
            "again", quantity(later, "partition"), crawl, crawl,
        )  # fmt: skip
    return StageStats("plan", crawl, f"{index}/{of}", fingerprint, pairs, pairs, details={UNPLANNED: later})


@dataclass(frozen=True, slots=True)
class _Plan:
    """The plan of a crawl."""

    crawl: str
    crawl_no: int
    settings: Settings
    store: Store
    servers: RangeServers

    @classmethod
    def of(cls, crawl: str, settings: Settings, store: Store, servers: RangeServers) -> "_Plan":
        """Return the plan of a crawl. Raises DatabaseError for one that is not loaded."""
        crawl_no = servers.first.run(partial(crawl_number, crawl=crawl))
        return cls(crawl, crawl_no, settings, store, servers)

    @property
    def database(self) -> Database:
        """The first server, which has rounds, windows and batches."""
        return self.servers.first

    def whole(self) -> StageStats:
        """Cut everything that is loaded and not yet planned; returns the stats of all batches."""
        self.begin()
        while (begun := self.round()) is not None:
            self.cut(begun, begun.windows)
            if self.unplanned():  # partitions that were loaded after an interrupted round had begun
                self.begin()
        return self.finish()

    def begin(self) -> None:
        """Begin a round unless one is open."""
        self.store.begin(plan_stats_name(self.crawl))

        def begin(held: HeldLocks) -> None:
            adopt_earlier_plan(self.crawl, self.crawl_no, held, self.store, self.database)
            if self.round() is None:
                numbers = self._numbers()
                begin_round(self.crawl, self.crawl_no, held, numbers, self.settings.plan, self.servers)
            if (begun := self.round()) is not None and len(begun.windows) > 1:
                self._numbers().reserve(begun.windows[-1].slot.last)
                self._write_record(held)

        self._locked(begin)

    def has_begun(self) -> bool:
        """Whether there was ever a round."""
        return self.database.rows("plan.last_round", {"crawl_no": self.crawl_no})[0][0] is not None

    def unplanned(self) -> int:
        """Return the number of partitions that are loaded and not planned."""
        return int(self.database.rows("plan.unplanned", {"crawl_no": self.crawl_no})[0][0])

    def round(self) -> Round | None:
        """Return the round that is open."""
        return open_round(self.crawl, self.crawl_no, self.database)

    def cut(self, begun: Round, windows: Sequence[Window]) -> int:
        """Cut those windows that are not done; returns the number of their pairs."""
        partitions = [
            number for (number,) in self.database.rows("plan.round_partitions", {"crawl_no": self.crawl_no})
        ]
        cutter = WindowBatches(
            begun,
            partitions,
            self._numbers(),
            self.settings.plan,
            self.store,
            self.servers,
            self.settings.database.bulk_timeout_s,
        )
        pairs = 0
        for window in windows:
            if window.is_done or is_done(begun, window, self.database):
                continue
            with suppress(WindowDoneError):
                pairs += self._cut_window(cutter, window)
        return pairs

    def _cut_window(self, cutter: WindowBatches, window: Window) -> int:
        begun, batches = cutter.of, cutter.write(window)
        name = window_file_name(self.crawl, begun.fingerprint, window.number)
        file = write_window(name, self.crawl, batches, self.store)
        record_window(begun, window, batches, file, self.database)
        roll_up(self.database)
        return sum(batch.pairs for batch in batches)

    def finish(self) -> StageStats:
        """Write the plan's record; returns its stats."""
        planned = self.database.rows("plan.planned_partitions", {"crawl_no": self.crawl_no})
        # A loader may have been killed between taking pairs over and writing the stats of their losers.
        for partition_no in outdated_in_store(self.crawl, planned, self.store):
            stats_to_store(partition_no, self.store, self.database)
        return self._locked(self._write_record)

    def _write_record(self, held: HeldLocks) -> StageStats:
        return write_record(self.crawl, self.crawl_no, held, self.store, self.database)

    def _locked(self, work: Callable[[HeldLocks], ResultT]) -> ResultT:
        """Run work under the lock of the crawl's planner, if the crawl is still the same one."""

        def checked(held: HeldLocks) -> ResultT:
            if held.run(partial(crawl_number, crawl=self.crawl)) != self.crawl_no:
                raise DatabaseError(
                    f"cannot plan {self.crawl}: it was forgotten and loaded again meanwhile; run it again"
                )
            return work(held)

        locks = [PLANNERS, planner_of(self.crawl_no)]
        return run_locked(self.database, locks, f"plan of {self.crawl}", checked)

    def _numbers(self) -> BatchNumbers:
        return BatchNumbers(self.crawl, self.store, TakenNumbers(self.database))
