"""The document behind a crawl's page, from the store and Postgres, even if one of them is unavailable."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from laion_etl.core.errors import LaionEtlError
from laion_etl.core.funnel import sentence_of
from laion_etl.core.stage_stats import StageStats
from laion_etl.dashboard.data_sources import Sources
from laion_etl.dashboard.errors import Problem, problem
from laion_etl.dashboard.failures import Trouble, TroubleCache, causes, failed_partitions, parked_batch
from laion_etl.dashboard.grids import batch_grid, batch_grid_of_store, finished_numbers, partition_grid, runs
from laion_etl.dashboard.published import PublishedDatasets
from laion_etl.dashboard.stats_cache import StatsCache
from laion_etl.database.connection import Database
from laion_etl.dataset.funnel_report import STAGES, CrawlFunnel, funnel_from_stats
from laion_etl.report.crawl_status import (
    CrawlStatus,
    LoadProgress,
    QueueProgress,
    crawl_status,
    stage_progress,
)
from laion_etl.settings import Settings

_MAX_SHOWN = 50
_NO_PRICES: dict[str, float] = {}
ResultT = TypeVar("ResultT")
Stats = dict[str, list[StageStats]]


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a crawl in Postgres."""

    status: CrawlStatus
    partitions: list[tuple[int, bool, bool]]
    batches: list[tuple[int, str, bool, float | None]]
    parked: list[Trouble]


@dataclass(slots=True)
class CrawlPage:
    """Builds the document repeatedly, in one thread; other threads may read `stats`."""

    crawl: str
    sources: Sources
    published: PublishedDatasets
    stats: StatsCache = field(init=False)
    _unresolved: TroubleCache = field(init=False)

    def __post_init__(self) -> None:
        self.stats, self._unresolved = StatsCache(self.crawl), TroubleCache(self.crawl)

    def document(self) -> dict[str, Any]:
        """Return plain JSON values; unavailable sources are listed in `problems`, the rest is complete."""
        problems: list[Problem] = []
        nothing: Stats = {stage: [] for stage in STAGES}
        stats = _tried("store", lambda: self.stats.stats(self.sources.store()), nothing, problems)
        stats["publish"] = _tried("store", self._published_stats, [], problems)
        troubles: list[Trouble] = _tried(
            "store", lambda: self._unresolved.troubles(self.sources.store()), [], problems
        )
        funnel = funnel_from_stats(self.crawl, stats)
        queue = _tried("database", lambda: self._queue(funnel), None, problems)
        for message in self.stats.broken[:3]:
            problems.append({"what": "stats", "message": message})
        rows = queue.batches if queue else []
        failed = failed_partitions(troubles)
        batches = batch_grid(rows, stats["score"]) if queue else batch_grid_of_store(stats)
        status = queue.status if queue else _status_of_store(self.crawl, funnel, len(batches.states))
        return {
            "crawl": self.crawl,
            "problems": problems,
            "status": _as_shown(status, failed, stats),
            "funnel": funnel.to_plain() | {"meanings": _meanings(funnel)},
            "partitions": partition_grid(stats, queue.partitions if queue else None, failed).to_plain(),
            "batches": batches.to_plain(),
            "failed": _numbers_by_stage(failed),
            "causes": causes([*troubles, *(queue.parked if queue else [])]),
            "troubles": [asdict(trouble) for trouble in troubles[:_MAX_SHOWN]],
            "prices": _tried("settings", lambda: _prices(self.sources.load()), _NO_PRICES, problems),
            "download_hours": round(sum(row[3] or 0.0 for row in rows) / 3_600, 3),
            "scored": bool(stats["score"]),
        }

    def _published_stats(self) -> list[StageStats]:
        return self.published.stats(self.crawl, self.sources.store())

    def _queue(self, funnel: CrawlFunnel) -> QueueState:
        with self.sources.database() as database:
            return _look(self.crawl, funnel, database)


def _look(crawl: str, funnel: CrawlFunnel, database: Database) -> QueueState:
    keys = {"crawl": crawl}
    return QueueState(
        crawl_status(crawl, funnel, database),
        database.rows("dashboard.partitions", keys),
        database.rows("dashboard.batches", keys),
        [parked_batch(*row) for row in database.rows("dashboard.parked", keys)],
    )


def _tried(what: str, look: Callable[[], ResultT], otherwise: ResultT, problems: list[Problem]) -> ResultT:
    """Return the result of `look`, or `otherwise` if the source is unavailable, which is listed once."""
    try:
        return look()
    except LaionEtlError as error:
        if (found := problem(what, error)) not in problems:
            problems.append(found)
        return otherwise


def _prices(settings: Settings) -> dict[str, float]:
    """Return the price of a pod hour by stage; empty if none is configured."""
    pods = settings.kubernetes
    prices = {"score": pods.gpu_price_hour if pods.gpus else pods.price_hour, "other": pods.price_hour}
    return prices if any(prices.values()) else {}


def _status_of_store(crawl: str, funnel: CrawlFunnel, batches: int) -> CrawlStatus:
    """Derive the queue's status from the store, without workers and rates."""
    loaded, planned, fetched = (funnel.row(stage) for stage in ("load", "plan", "download"))
    load = LoadProgress(crawl, partitions=loaded.units, pairs_kept=loaded.kept)
    queue = QueueProgress(
        crawl,
        batches=batches,
        done=fetched.units,
        pairs=planned.kept,
        pairs_done=fetched.input,
        images=fetched.kept,
    )
    return CrawlStatus(crawl, load, queue, tuple(stage_progress(funnel, load, queue)))


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


def _as_shown(status: CrawlStatus, failed: set[tuple[str, int]], stats: Stats) -> dict[str, Any]:
    """Count failed partitions as not done, even if an earlier run finished them, and cut the list of parked
    batches."""
    stages = []
    for stage in status.stages:
        numbers = {number for where, number in failed if where == stage.stage}
        again = len(numbers & finished_numbers(stats[stage.stage]))
        stages.append(replace(stage, done=max(0, stage.done - again), failed=stage.failed + len(numbers)))
    shown = replace(status, stages=tuple(stages), failures=status.failures[:_MAX_SHOWN])
    return shown.to_plain()
