"""A score worker: claims downloaded batches of a crawl under leases until every batch is scored or parked.

It works next to download workers, and waits while they are at work (claims.py). A batch is returned at no
cost when the worker is asked to end, and when a service fails: then the worker waits (core/outages.py),
claims again and keeps its model.

When no batch is left that it could claim, it races a worker that is much slower than usual (queue.py): the
one that writes first has the batch.

Batches that another model, or other settings, have scored stay as they are: otherwise two kinds of workers on
one queue, such as some with a GPU and some without, would undo each other's work forever.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache

from laion_etl.core.errors import OutageError
from laion_etl.core.outages import Outages
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import LeaseLost, Stop, TimeIsUp
from laion_etl.database.connection import Database
from laion_etl.database.queue import Claim
from laion_etl.database.score_queue import ScoreQueue, score_queue_of
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.io.storage import Guard, Store
from laion_etl.score.claims import Claims
from laion_etl.score.raw_shards import delete_raw, delete_raw_left
from laion_etl.score.stage import Tools, score_each, scored_by_of, warn_of_missing
from laion_etl.score.steps import Access, Result
from laion_etl.settings import Settings

WAIT_S = 1_800.0  # for download workers, when batches are not downloaded and none is at work
_OWN_TOOLS = Tools()
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ScoreWorker:
    """One score worker of one crawl. `wait_s`: how long it waits when no batch can be claimed and no worker
    holds one."""

    crawl: str
    settings: Settings
    store: Store
    database: Database
    on_done: Callable[[StageStats], None] | None = None
    stop: Stop | None = None
    tools: Tools = _OWN_TOOLS
    wait_s: float = WAIT_S
    _queue: ScoreQueue = field(init=False)
    _outages: Outages = field(init=False)
    _since: float = field(init=False, default=0.0)  # when it began, or last recorded a result

    def __post_init__(self) -> None:
        limits = self.settings.download
        self._queue = score_queue_of(self.crawl, limits, self.database)
        self._outages = Outages(limits.outage_s, self.stop.check if self.stop else None)
        # The model stays loaded when work begins anew after an outage.
        self.tools = replace(self.tools, scorer=lru_cache(maxsize=1)(self.tools.scorer))

    def score_again(self) -> int:
        """Return to the queue what another model or other settings have scored; return how many batches.

        Raises SettingsError, and changes nothing, if the images of some are gone.
        """
        if not self._outages.outlast(self._queue.counts).scored:
            return 0
        scored_by = self._scored_by()
        again = self._outages.outlast(lambda: self._queue.score_again(scored_by))
        if again:
            _log.warning("%d batches that another model or other settings scored are scored again", again)
        return again

    def warn_of_others(self) -> None:
        """Log that scores of several models will meet in this crawl, if they do."""
        if not self._outages.outlast(self._queue.counts).scored:
            return
        scored_by = self._scored_by()
        others, _ = self._outages.outlast(lambda: self._queue.scored_otherwise(scored_by))
        if others:
            _log.warning(
                "another model, kind of device or other settings have scored %d batches of %s, which stay as "
                "they are; `laion-etl stage score --crawl %s --again` scores them again",
                others,
                self.crawl,
                self.crawl,
            )

    def run(self) -> list[StageStats]:
        """Score batches until none is left or a shutdown is requested; return their stats.

        Raises OutageError when a service does not work for LAION_ETL_DOWNLOAD_OUTAGE_S,
        NothingDownloadedError when no download worker is at work for `wait_s`; otherwise like `score_shards`.
        """
        done: list[StageStats] = []
        while not self._stopped:
            self._since = time.monotonic()
            try:
                self._work(done)
            except TimeIsUp:
                _log.warning("stopped; what was not finished was returned to the queue")
            except OutageError as error:
                if self._stopped:
                    raise
                self._outages.pause(error, time.monotonic() - self._since)
                continue
            break
        if not self.settings.core.keep_raw_shards:
            delete_raw_left(self.crawl, self._queue, self.store, lambda: self._stopped)
        return done

    @property
    def _stopped(self) -> bool:
        return self.stop is not None and self.stop.requested

    def _scored_by(self) -> str:
        return scored_by_of(self.settings, self.tools.scorer(self.settings))

    def _work(self, done: list[StageStats]) -> None:
        """Score what can be claimed. Whatever ends it, no batch stays claimed by this worker."""
        claims = Claims(self.crawl, self._queue, self.settings.download, self.stop, self.wait_s)
        with claims.units(self.database) as units:
            check = self.stop.check if self.stop else lambda: None
            access = Access(self._guard, check, self._lease)
            results = score_each(self.crawl, units, self.settings, self.store, self.tools, access)
            with closing(results):
                for unit, result in results:
                    if unit.claim is not None:
                        self._record(unit.claim, result, done)
                        claims.let_go(unit.claim)

    def _record(self, claim: Claim, result: Result, done: list[StageStats]) -> None:
        if isinstance(result, MissingBatch):
            error = f"{result.cause}: {result.error}"
            if self._outages.outlast(lambda: self._queue.fail(claim, error)):
                warn_of_missing(self.crawl, result)
        elif isinstance(result, StageStats) and self._complete(claim, result):
            done.append(result)
            self._outages.over()
            self._since = time.monotonic()
            if self.on_done is not None:
                self.on_done(result)
            if not self.settings.core.keep_raw_shards:
                self._outages.outlast(lambda: delete_raw(self.crawl, claim, self._queue, self.store))

    def _complete(self, claim: Claim, stats: StageStats) -> bool:
        """Record a result; that of an earlier version with what its fingerprint says it was scored by."""
        if stats.input and "scored_by" not in stats.details:
            stats = replace(stats, details={**stats.details, "scored_by": self._scored_by()})
        return self._outages.outlast(lambda: self._queue.complete(claim, stats))

    def _guard(self, claim: Claim) -> Guard:
        return lambda: self._outages.outlast(lambda: self._queue.hold(claim))

    def _lease(self, claim: Claim) -> Guard:
        def extend() -> None:
            if not self._outages.outlast(lambda: self._queue.heartbeat(claim)):
                raise LeaseLost

        return extend
