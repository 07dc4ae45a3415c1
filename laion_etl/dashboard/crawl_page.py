"""The document behind a crawl's page, from the store and Postgres, even if one of them is unavailable.

Its size and the work for it do not depend on the number of batches: beyond a thousand of them a cell is a
thousand, and the cells of one thousand are a document of their own.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from laion_etl.core.errors import LaionEtlError
from laion_etl.core.funnel import sentence_of
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dashboard.errors import Problem, problem
from laion_etl.dashboard.failures import Trouble, TroubleCache, causes, failed_partitions
from laion_etl.dashboard.grids import BatchRow, Grid, ThousandCell, batch_grid, partition_grid, runs
from laion_etl.database.connection import Database
from laion_etl.dataset.funnel_report import CrawlFunnel
from laion_etl.dataset.published import PublishedDatasets
from laion_etl.dataset.score_progress import ScoreProgress, read_score_progress
from laion_etl.io.usage_records import UsageReader
from laion_etl.report.bill import make_bill
from laion_etl.report.crawl_progress import DatabaseCounters, ProgressReader, StoreCounters, progress_funnel
from laion_etl.report.crawl_status import (
    CrawlStatus,
    LoadProgress,
    QueueProgress,
    crawl_status,
    stage_progress,
)

BATCHES_AS_CELLS = 1_024  # one after the other; of more, a cell is a thousand
_MAX_SHOWN = 50
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _InDatabase:
    """The state of a crawl in Postgres. Either `batches` or `thousands` is empty, by the number of
    batches."""

    counters: DatabaseCounters
    status: CrawlStatus
    batches: list[BatchRow]
    thousands: list[ThousandCell]


@dataclass(slots=True)
class CrawlPage:
    """Builds the document repeatedly, in one thread; other threads may read `progress`."""

    crawl: str
    sources: Sources
    published: PublishedDatasets
    _reader: ProgressReader = field(init=False)
    _unresolved: TroubleCache = field(init=False)
    _usage: UsageReader = field(init=False)
    _score: ScoreProgress | None = None

    def __post_init__(self) -> None:
        self._reader = ProgressReader(self.crawl, self.published)
        self._unresolved = TroubleCache(self.crawl)
        self._usage = UsageReader(self.crawl)

    @property
    def progress(self) -> dict[str, int]:
        """How many files of how many have been read for the document that is being built."""
        return {"read": self._reader.parse.read, "of": self._reader.parse.of}

    def document(self) -> dict[str, Any]:
        """Return plain JSON values; unavailable sources are listed in `problems`, the rest is complete."""
        problems: list[Problem] = []
        found = _tried("database", self._in_database, None, problems)
        counters = found.counters if found else None
        stored = _tried("store", lambda: self._reader.store(self.sources.store(), counters), None, problems)
        troubles: list[Trouble] = _tried(
            "store", lambda: self._unresolved.troubles(self.sources.store()), [], problems
        )
        for message in (stored.problems if stored else ())[:3]:
            problems.append({"what": "stats", "message": message})
        funnel = progress_funnel(self.crawl, counters, stored)
        score = self._score = stored.score if stored else ScoreProgress()
        status = found.status.with_funnel(funnel) if found else _status_of_store(self.crawl, funnel)
        status = status.with_missing(score.missing, score.missing_count)
        failed = failed_partitions(troubles)
        return {
            "crawl": self.crawl,
            "problems": problems,
            "status": _as_shown(status, failed, counters, stored),
            "funnel": funnel.to_plain() | {"meanings": _meanings(funnel)},
            "partitions": _partitions(counters, stored, failed).to_plain(),
            "batches": batch_grid(found.batches if found else (), score).to_plain(),
            "thousands": [cell.to_plain(score) for cell in (found.thousands if found else ())],
            "failed": _numbers_by_stage(failed),
            "causes": causes(troubles, status.causes),
            "troubles": [asdict(trouble) for trouble in troubles[:_MAX_SHOWN]],
            "bill": _tried("store", self._bill, None, problems),
            "download_hours": round(counters.downloads.held_ms / 3_600_000, 3) if counters else 0.0,
            "scored": score.units > 0 or status.queue.scored > 0,
        }

    def thousand(self, thousand: int) -> dict[str, Any]:
        """Return the grid of the batches with the numbers from 1,000 * `thousand` on. Raises
        LaionEtlError."""
        keys = {"crawl": self.crawl, "first": thousand, "last": thousand}
        with self.sources.database() as database:
            rows = database.rows("dashboard.batches", keys)
        score = self._score or read_score_progress(self.crawl, self.sources.store())
        return batch_grid(rows, score).to_plain()

    def _bill(self) -> dict[str, Any]:
        records = self._usage.records(self.sources.store())
        return make_bill(self.crawl, records, self.sources.load()).to_plain()

    def _in_database(self) -> _InDatabase:
        with self.sources.database() as database:
            return _look(self.crawl, self._reader, database)


def _look(crawl: str, reader: ProgressReader, database: Database) -> _InDatabase:
    keys = {"crawl": crawl}
    counters = reader.database(database)
    few = counters.downloads.batches <= BATCHES_AS_CELLS
    return _InDatabase(
        counters,
        crawl_status(crawl, progress_funnel(crawl, counters, None), database),
        database.rows("dashboard.batches", keys | {"first": 0, "last": 10**9}) if few else [],
        [] if few else [ThousandCell(*row) for row in database.rows("status.thousands", keys)],
    )


def _tried(what: str, look: Callable[[], ResultT], otherwise: ResultT, problems: list[Problem]) -> ResultT:
    """Return the result of `look`, or `otherwise` if the source is unavailable, which is listed once."""
    try:
        return look()
    except LaionEtlError as error:
        if (found := problem(what, error)) not in problems:
            problems.append(found)
        return otherwise


def _status_of_store(crawl: str, funnel: CrawlFunnel) -> CrawlStatus:
    """Return what the store knows of the status: nothing of batches."""
    loaded = funnel.row("load")
    load = LoadProgress(crawl, partitions=loaded.units, pairs_kept=loaded.kept)
    queue = QueueProgress(crawl)
    return CrawlStatus(crawl, load, queue, tuple(stage_progress(funnel, load, queue)))


def _partitions(
    counters: DatabaseCounters | None, stored: StoreCounters | None, failed: set[tuple[str, int]]
) -> Grid:
    rows = None if counters is None else [(p.number, p.loading, p.planned) for p in counters.partitions]
    parsed, loaded = (stored.parsed, stored.load_stats) if stored else ((), ())
    return partition_grid(parsed, loaded, rows, failed)


def _meanings(funnel: CrawlFunnel) -> dict[str, dict[str, str]]:
    """Return the meaning of each stage's drop reasons."""
    return {
        row.stage: {reason: sentence_of(row.stage, reason) for reason in row.dropped}
        for row in (funnel.records, *funnel.rows)
    }


def _numbers_by_stage(failed: set[tuple[str, int]]) -> dict[str, list[tuple[int, int]]]:
    """Return the failed partitions of each stage, as runs of numbers."""
    stages = sorted({stage for stage, _ in failed})
    return {stage: runs(sorted(n for where, n in failed if where == stage)) for stage in stages}


def _as_shown(
    status: CrawlStatus,
    failed: set[tuple[str, int]],
    counters: DatabaseCounters | None,
    stored: StoreCounters | None,
) -> dict[str, Any]:
    """Count failed partitions as not done, even if an earlier run finished them, and cut the list of parked
    batches."""
    parsed = set(stored.parsed if stored else ())
    loaded = {one.number for one in counters.partitions if not one.loading} if counters else set()
    loaded |= set(stored.load_stats if stored else ())
    stages = []
    for stage in status.stages:
        numbers = {number for where, number in failed if where == stage.stage}
        done = {"parse": parsed, "load": loaded}.get(stage.stage, set())
        again = len(numbers & done)
        stages.append(replace(stage, done=max(0, stage.done - again), failed=stage.failed + len(numbers)))
    shown = replace(status, stages=tuple(stages), failures=status.failures[:_MAX_SHOWN])
    return shown.to_plain()
