"""Progress of a crawl: its partitions and batches in Postgres, and the finished units of each stage in the
store."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from laion_etl.core.one_line import one_line
from laion_etl.core.quantities import quantity
from laion_etl.database.connection import Database
from laion_etl.database.parked import ParkedCause, parked_causes
from laion_etl.dataset.funnel_report import CrawlFunnel
from laion_etl.dataset.missing_batches import MissingBatch

_FAILURES_SHOWN = 5
_FAILURES_NAMED = 100  # in the JSON document; all of them are counted


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """View load_progress."""

    crawl: str
    partitions: int = 0
    planned: int = 0
    pairs_kept: int = 0
    partitions_per_hour: int = 0
    last_loaded_at: object = None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"last_loaded_at": str(self.last_loaded_at or "")}


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """View queue_progress; times in seconds, None if unknown. `leased`, `silent`, `failed` and `workers`: of
    downloads; `done`: downloaded, including those scored since."""

    crawl: str
    batches: int = 0
    ready: int = 0
    leased: int = 0
    silent: int = 0
    done: int = 0
    failed: int = 0
    pairs: int = 0
    pairs_done: int = 0
    pairs_left: int = 0
    images: int = 0
    workers: int = 0
    pairs_per_hour: int = 0
    left_s: float | None = None
    oldest_lease_s: float | None = None
    to_score: int = 0
    scoring: int = 0
    silent_scorers: int = 0
    scored: int = 0
    score_failed: int = 0
    scorers: int = 0
    samples_per_hour: int = 0
    score_left_s: float | None = None
    raw_deleted: int = 0

    @property
    def knows_scores(self) -> bool:
        """Whether score workers have taken batches from the queue; without Postgres only the store knows."""
        return bool(self.scored or self.scoring or self.score_failed)


@dataclass(frozen=True, slots=True)
class Lease:
    """A batch held by a worker. `left_s` below zero: the worker is silent and will lose the batch."""

    batch: int
    attempts: int
    owner: str
    held_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A batch parked with its error."""

    batch: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class StageProgress:
    """Units of one stage: partitions, batches or shards. `of` is None while their number is unknown."""

    stage: str
    unit: str
    done: int
    of: int | None
    running: int = 0
    failed: int = 0
    per_hour: str = ""
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlanWindows:
    """Windows of the round of planning that is open; none are left if `of` is 0."""

    done: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class CrawlStatus:
    """The status of a crawl in progress."""

    crawl: str
    load: LoadProgress
    queue: QueueProgress
    stages: tuple[StageProgress, ...]
    oldest_leases: tuple[Lease, ...] = ()
    failures: tuple[Failure, ...] = field(default=())
    missing: tuple[MissingBatch, ...] = ()
    causes: tuple[ParkedCause, ...] = ()
    plan_windows: PlanWindows = PlanWindows()

    def with_funnel(self, funnel: CrawlFunnel) -> "CrawlStatus":
        """Return the status with the stages' units from this funnel."""
        return replace(self, stages=tuple(stage_progress(funnel, self.load, self.queue)))

    def with_missing(self, missing: Sequence[MissingBatch], count: int | None = None) -> "CrawlStatus":
        """Return the status with batches that could not be scored; `count`: of all, if these are not all.

        Where the queue has them, they are among its failures.
        """
        if self.queue.knows_scores:
            return self
        failed = len(missing) if count is None else count
        stages = (replace(one, failed=failed) if one.stage == "score" else one for one in self.stages)
        return replace(self, stages=tuple(stages), missing=tuple(missing[:_FAILURES_NAMED]))

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        causes = [cause.to_plain() for cause in self.causes]
        return asdict(self) | {"load": self.load.to_plain(), "causes": causes}

    def as_table(self) -> Table:
        """Return a table of the stages' progress, with the oldest leases and the failures below."""
        notes = Text("\n".join(map(one_line, self._notes())))
        table = Table(title=f"Work on {self.crawl}", caption=notes if notes else None)
        table.caption_justify = "left"
        table.add_column("stage")
        for heading in ("done", "of", "running", "failed", "per hour", "left"):
            table.add_column(heading, justify="right")
        for stage in self.stages:
            table.add_row(
                stage.stage,
                f"{stage.done:,}",
                "?" if stage.of is None else f"{stage.of:,} {stage.unit}",
                f"{stage.running:,}" if stage.running else "-",
                f"[red]{stage.failed:,}[/red]" if stage.failed else "-",
                stage.per_hour or "-",
                duration(stage.left_s) if stage.left_s is not None else "-",
            )
        return table

    def _notes(self) -> Iterator[str]:
        if not (self.load.partitions or self.queue.batches or any(one.done for one in self.stages)):
            yield f"nothing of {self.crawl} is done yet; `laion-etl status` lists the crawls in the database"
        if (windows := self.plan_windows).of:
            yield f"plan: {windows.done:,} of {quantity(windows.of, 'window')} of new pairs are done"
        for lease in self.oldest_leases[:1]:
            silent = f", silent for {duration(-lease.left_s)} too long" if lease.left_s < 0 else ""
            yield (
                f"oldest lease: batch {lease.batch}, attempt {lease.attempts}, held for "
                f"{duration(lease.held_s)} by {lease.owner}{silent}"
            )
        for failure in self.failures[:_FAILURES_SHOWN]:
            attempts = quantity(failure.attempts, "attempt")
            yield f"batch {failure.batch} failed after {attempts}: {failure.error}"
        parked = self.queue.failed + self.queue.score_failed
        if parked > _FAILURES_SHOWN:
            yield f"and {parked - _FAILURES_SHOWN:,} more; by cause:"
            for cause in self.causes[:_FAILURES_SHOWN]:
                yield f"  {cause.count:,} x {cause.cause}"
        for one in self.missing[:_FAILURES_SHOWN]:
            yield f"batch {one.batch} is not scored: {one.cause}, {one.error}"
        unscored = sum(stage.failed for stage in self.stages if stage.stage == "score")
        if self.missing and unscored > _FAILURES_SHOWN:
            yield f"and {unscored - _FAILURES_SHOWN:,} more"


def crawl_status(crawl: str, funnel: CrawlFunnel, database: Database) -> CrawlStatus:
    """Return the status of a crawl, even if it is not in Postgres yet."""
    load, queue = _works(database).get(crawl, (LoadProgress(crawl), QueueProgress(crawl)))
    keys = {"crawl": crawl}
    return CrawlStatus(
        crawl,
        load,
        queue,
        tuple(stage_progress(funnel, load, queue)),
        tuple(Lease(*row) for row in database.rows("status.oldest_leases", keys)),
        tuple(
            Failure(*row) for row in database.rows("status.failed_batches", keys | {"rows": _FAILURES_NAMED})
        ),
        causes=parked_causes(crawl, database),
        plan_windows=PlanWindows(*database.rows("status.plan_windows", keys)[0]),
    )


def crawls_to_plain(database: Database) -> list[dict[str, Any]]:
    """Return every crawl in Postgres as plain JSON values."""
    works = _works(database).items()
    return [{"crawl": name, "load": load.to_plain(), "queue": asdict(queue)} for name, (load, queue) in works]


def _works(database: Database) -> dict[str, tuple[LoadProgress, QueueProgress]]:
    loads, queues = _loads(database), _queues(database)
    return {
        crawl: (loads.get(crawl, LoadProgress(crawl)), queues.get(crawl, QueueProgress(crawl)))
        for crawl in sorted(loads | queues)
    }


def all_crawls(database: Database) -> Table:
    """Return a table with a line for each crawl in Postgres."""
    table = Table(title="Crawls in Postgres")
    table.add_column("crawl", no_wrap=True)
    for heading in ("parts", "pairs", "batches", "held", "failed", "pairs/h", "left"):
        table.add_column(heading, justify="right", overflow="fold")
    for crawl, (load, queue) in _works(database).items():
        left = "-" if queue.left_s is None else duration(queue.left_s)
        batches = f"{queue.done:,}/{queue.batches:,}"
        counts = (queue.leased, queue.failed, queue.pairs_per_hour)
        numbers = (f"{count:,}" for count in counts)
        table.add_row(crawl, f"{load.partitions:,}", f"{load.pairs_kept:,}", batches, *numbers, left)
    return table


def duration(seconds: float) -> str:
    """Format a duration: 40 s, 12 min, 3 h 5 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _loads(database: Database) -> dict[str, LoadProgress]:
    return {row[0]: LoadProgress(*row) for row in database.rows("status.loads")}


def _queues(database: Database) -> dict[str, QueueProgress]:
    return {row[0]: QueueProgress(*row) for row in database.rows("status.queues")}


def stage_progress(funnel: CrawlFunnel, load: LoadProgress, queue: QueueProgress) -> Iterator[StageProgress]:
    """Yield the progress of each stage from the store and Postgres."""
    units = {row.stage: row.units for row in funnel.rows}
    yield StageProgress("parse", "partitions", units["parse"], None)
    parsed = max(units["parse"], load.partitions)
    waiting = parsed - load.partitions
    yield StageProgress(
        "load",
        "partitions",
        load.partitions,
        parsed,
        per_hour=quantity(load.partitions_per_hour, "partition") if load.partitions_per_hour else "",
        left_s=3600 * waiting / load.partitions_per_hour if waiting and load.partitions_per_hour else None,
    )
    yield StageProgress("plan", "partitions", load.planned, load.partitions)
    yield StageProgress(
        "download",
        "batches",
        queue.done,
        queue.batches,
        queue.leased,
        queue.failed,
        quantity(queue.pairs_per_hour, "pair") if queue.pairs_per_hour else "",
        queue.left_s if queue.pairs_left else None,
    )
    yield StageProgress(
        "score",
        "shards",
        max(queue.scored, units["score"]),
        queue.done or units["download"],
        queue.scoring,
        queue.score_failed,
        quantity(queue.samples_per_hour, "sample") if queue.samples_per_hour else "",
        queue.score_left_s if queue.to_score or queue.scoring else None,
    )
    yield StageProgress("publish", "dataset", units["publish"], 1)
