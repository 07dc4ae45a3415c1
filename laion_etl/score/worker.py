"""A score worker: claims downloaded batches of a crawl under leases until every batch is scored or parked.

It works next to download workers, and waits while they are at work. Batches are claimed by the thread that
reads shards, so that the next one is read while the last one is computed and written; a few are held at a
time, and one thread extends all their leases. A batch is returned, which costs no attempt, when the worker is
asked to end, and when a service fails: then the worker waits (core/outages.py), claims again and keeps its
model.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

from laion_etl.core.errors import DatabaseError, OutageError
from laion_etl.core.outages import Outages
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop, TimeIsUp
from laion_etl.database.connection import Database
from laion_etl.database.queue import BatchQueue, Claim, QueueStage, queue_of
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.io.storage import Guard, Store
from laion_etl.score.raw_shards import delete_raw, delete_raw_left
from laion_etl.score.stage import Tools, score_each, scored_by_of
from laion_etl.score.steps import Access, LostBatch
from laion_etl.settings import Settings

WAIT_S = 1_800.0  # for download workers, when batches are not downloaded and none is at work
_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 5.0
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
    _queue: BatchQueue = field(init=False)
    _held: dict[int, Claim] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _outages: Outages = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings.download
        self._queue = queue_of(self.crawl, limits, self.database, QueueStage.SCORE)
        self._outages = self._patience()
        # The model stays loaded when work begins anew after an outage.
        self.tools = replace(self.tools, scorer=lru_cache(maxsize=1)(self.tools.scorer))

    def run(self) -> list[StageStats]:
        """Score batches until none is left or a shutdown is requested; return their stats.

        Raises OutageError when a service does not work for LAION_ETL_DOWNLOAD_OUTAGE_S, or nothing is
        downloaded for `wait_s`, SettingsError if another model scored batches whose images are gone;
        otherwise like `score_shards`.
        """
        done: list[StageStats] = []
        if self._outages.outlast(self._queue.counts).scored:
            scored_by = scored_by_of(self.settings, self.tools.scorer(self.settings))
            again = self._outages.outlast(lambda: self._queue.score_again(scored_by))
            if again:
                _log.warning("%d batches that another model or other settings scored are scored again", again)
        while not self._stopped:
            began = time.monotonic()
            try:
                self._work(done)
            except TimeIsUp:
                _log.warning("stopped; what was not finished was returned to the queue")
            except OutageError as error:
                if self._stopped or isinstance(error, _NothingDownloadedError):
                    raise
                self._outages.pause(error, time.monotonic() - began)
                continue
            break
        if not self._stopped and not self.settings.core.keep_raw_shards:
            delete_raw_left(self.crawl, self._queue, self.store)
        return done

    @property
    def _stopped(self) -> bool:
        return self.stop is not None and self.stop.requested

    def _patience(self) -> Outages:
        return Outages(self.settings.download.outage_s, self.stop.check if self.stop else None)

    def _work(self, done: list[StageStats]) -> None:
        """Score what can be claimed. Whatever ends it, no batch stays claimed by this worker."""
        self._ending.clear()
        with ExitStack() as stack:
            claiming, beating = (stack.enter_context(self.database.another()) for _ in range(2))
            stack.enter_context(self._nothing_held_at_the_end())
            stack.enter_context(self._heartbeats(self._queue.through(beating)))
            numbers = self._claimed(self._queue.through(claiming))
            access = Access(self._guard, self.stop.check if self.stop else lambda: None)
            results = score_each(self.crawl, numbers, self.settings, self.store, self.tools, access)
            with closing(results):
                for result in results:
                    self._record(result, done)

    def _record(self, result: StageStats | MissingBatch | LostBatch, done: list[StageStats]) -> None:
        batch = int(result.unit) if isinstance(result, StageStats) else result.batch
        claim = self._held.pop(batch)
        if isinstance(result, MissingBatch):
            error = f"{result.cause}: {result.error}"
            self._outages.outlast(lambda: self._queue.fail(claim, error))
        elif isinstance(result, StageStats) and self._complete(claim, result):
            if not self.settings.core.keep_raw_shards:
                delete_raw(self.crawl, claim, self._queue, self.store)
            done.append(result)
            self._outages.over()
            if self.on_done is not None:
                self.on_done(result)

    def _complete(self, claim: Claim, stats: StageStats) -> bool:
        """Record a result; that of an earlier version with what its fingerprint says it was scored by."""
        if stats.input and "scored_by" not in stats.details:
            scored_by = scored_by_of(self.settings, self.tools.scorer(self.settings))
            stats = replace(stats, details={**stats.details, "scored_by": scored_by})
        return self._outages.outlast(lambda: self._queue.complete(claim, stats))

    def _guard(self, batch: int) -> Guard:
        claim = self._held[batch]
        return lambda: self._outages.outlast(lambda: self._queue.is_held(claim))

    def _claimed(self, queue: BatchQueue) -> Iterator[int]:
        """Yield the numbers of claimed batches; wait while download workers, or other score workers, are at
        work."""
        outages = self._patience()
        idle_since: float | None = None
        # Half a lease without a heartbeat of any worker counts as an outage of the database.
        longest_s = min(_LONGEST_POLL_S, self.settings.download.lease_s / 4)
        poll_s = _FIRST_POLL_S
        while not self._stopped:
            claim = self._claim(queue, outages)
            if claim is not None:
                outages.over()
                idle_since, poll_s = None, _FIRST_POLL_S
                yield claim.batch
                continue
            left = outages.outlast(queue.work_left)
            if not left.any:
                return
            now = time.monotonic()
            if idle_since is None and not left.going_on:
                _log.warning(
                    "no download worker is at work; waiting for one, for at most %.0f s", self.wait_s
                )
            idle_since = None if left.going_on else idle_since or now
            if idle_since is not None and now - idle_since > self.wait_s:
                raise _NothingDownloadedError(
                    f"cannot score all of {self.crawl}: batches are not downloaded, and no download worker "
                    f"has been at work for {self.wait_s:.0f} s; start `laion-etl stage download --crawl "
                    f"{self.crawl}`, then run the same command again to continue"
                )
            if self._ending.wait(poll_s * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                return
            poll_s = min(longest_s, 1.5 * poll_s)

    def _claim(self, queue: BatchQueue, outages: Outages) -> Claim | None:
        """Claim a batch; None also when the work has ended meanwhile, in another thread."""
        while True:
            try:
                with self._lock:
                    claim = None if self._ending.is_set() else queue.claim()
                    if claim is not None:
                        self._held[claim.batch] = claim
                    return claim
            except OutageError as error:
                outages.pause(error)

    @contextmanager
    def _nothing_held_at_the_end(self) -> Iterator[None]:
        """Return held batches to the queue however the block ends; costs no attempt."""
        try:
            yield
        finally:
            with self._lock:
                self._ending.set()
                self._held.clear()
                try:
                    self._queue.release_all()
                except DatabaseError as error:  # raise what ended the block instead
                    _log.warning("cannot return batches, their leases will expire instead: %s", error)

    @contextmanager
    def _heartbeats(self, queue: BatchQueue) -> Iterator[None]:
        """Extend the leases of all batches that are held, from a thread, while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(queue, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, queue: BatchQueue, over: threading.Event) -> None:
        while not over.wait(self.settings.download.lease_s / 4):
            for claim in list(self._held.values()):
                try:
                    queue.heartbeat(claim)
                except DatabaseError as error:
                    _log.warning("cannot extend the lease of batch %d: %s; retrying", claim.batch, error)


class _NothingDownloadedError(OutageError):
    """There are no download workers; the same command continues when they are back."""
