"""A download worker: claims batches of a crawl under leases until none is left.

It ends when every batch is done or parked. While other workers hold the last batches it waits, because the
batch of a worker that dies becomes claimable again when its lease expires. A batch that one of them has held
for much longer than is usual it downloads, too: a host that is slow for one machine, or a machine that is, no
longer holds up the crawl. The first of the two that writes has the batch, and the other one stops.

Refused: splitting the last batches. The rest of a batch is known only to its worker, and a batch is a shard
with a name, a fingerprint and numbers of samples that follow from the plan.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from laion_etl.core.background import in_background
from laion_etl.core.errors import (
    DatabaseError,
    InputError,
    LaionEtlError,
    OutageError,
    Stopped,
)
from laion_etl.core.outages import Outages
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import LeaseLost, Stop, TimeIsUp
from laion_etl.database.connection import Database, open_database
from laion_etl.database.queue import BatchQueue, Claim, QueueStage, queue_of
from laion_etl.download.batch_downloader import Hooks
from laion_etl.download.earlier_result import Earlier, EmptyResultError, earlier_result
from laion_etl.download.metrics import Metrics
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.stage import BatchFileError, download_batch
from laion_etl.io.outputs import has_outputs, has_shard
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

Progress = Callable[[int, int, int], None]  # batch, links done, links in the batch
_MAX_POLL_S = 5.0
_FIRST_BEAT_S = 5.0  # by then, workers that start together see each other and take their share of each host

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """One downloader of one crawl, with its own connection to the queue.

    An outage costs no attempt: the worker waits with its batch (`outages`), then gives it back and ends.
    """

    crawl: str
    settings: Settings
    store: Store
    queue: BatchQueue
    on_progress: Progress | None = None
    stop: Stop | None = None
    metrics: Metrics | None = None
    hosts: SharedHosts | None = None
    outages: Outages = field(init=False)

    def __post_init__(self) -> None:
        self.outages = Outages(self.settings.download.outage_s, self.stop.check if self.stop else None)

    def run(self) -> list[StageStats]:
        """Processes batches until the queue is empty or a shutdown is requested; returns their stats.

        Raises InputError if batches are parked as failed, naming the first and its cause, and OutageError
        when store, database or resolver do not work for LAION_ETL_DOWNLOAD_OUTAGE_S.
        """
        with self._interrupted_at_no_cost():
            return self._run()

    def _run(self) -> list[StageStats]:
        done: list[StageStats] = []
        try:
            while not self._stopped and (claim := self._next_claim()) is not None:
                if (stats := self._download_or_fail(claim)) is not None:
                    done.append(stats)
            if self._stopped:
                return done
            failed = self.outages.outlast(lambda: self.queue.failed(1))
            parked = self.outages.outlast(self.queue.counts).parked if failed else 0
        except TimeIsUp:
            return done
        if failed:
            batch, cause = failed[0]
            raise InputError(
                f"cannot download {parked} batch(es) of {self.crawl}, first {batch}: {cause}; fix the "
                f"cause, then run `laion-etl db requeue --crawl {self.crawl}` and download again"
            )
        return done

    def run_one(self, batch: int, *, allow_empty: bool = False) -> StageStats:
        """Downloads one given batch, even if it is done or parked. Raises if another worker holds it.

        It does nothing if its shard is whole. If only the tar is gone, because it was deleted after scoring,
        it is downloaded again: that is how its images come back for another model. A shard with samples is
        replaced by one without any only if that is allowed; else it stays, without images that are opted out
        or blocked by now, and EmptyResultError is raised.
        """
        with self._interrupted_at_no_cost():
            return self._run_one(batch, allow_empty=allow_empty)

    def _run_one(self, batch: int, *, allow_empty: bool) -> StageStats:
        claim = self.outages.outlast(lambda: self.queue.claim_one(batch))
        if claim is None:
            raise InputError(
                f"cannot download batch {batch} of {self.crawl}: it does not exist or another worker holds "
                "it; check the number, or wait until its lease expires"
            )
        try:
            found = self.outages.outlast(lambda: earlier_result(self.crawl, batch, self.store))
            stats = self._download(claim, has_outputs, Earlier(found, allow_empty) if found else None)
        except BatchFileError as error:
            self._fail(claim, error)
            raise
        except EmptyResultError as error:
            self._record_left(claim, found, error.left)
            raise
        if stats is None and self._stopped:
            raise Stopped(f"stopped; batch {batch} was returned to the queue")
        if stats is None:
            raise InputError(
                f"cannot finish batch {batch} of {self.crawl}: another worker has it, because the lease "
                "expired or that worker was faster; its result counts"
            )
        return stats

    def _record_left(self, claim: Claim, found: StageStats | None, left: StageStats | None) -> None:
        """Records what is left of an earlier result: the batch is scored again if images were taken out."""
        if left is None:
            self.outages.outlast(lambda: self.queue.release(claim))
        elif left == found:
            self.outages.outlast(lambda: self.queue.put_back(claim))
        else:
            self.outages.outlast(lambda: self.queue.complete(claim, left))

    @property
    def _stopped(self) -> bool:
        return self.stop is not None and self.stop.requested

    def _next_claim(self) -> Claim | None:
        """Returns the next batch, waiting while other workers hold leases; None if nothing is left to do."""
        waiting = False
        while (claim := self.outages.outlast(self.queue.claim)) is None:
            expiry_s = self.outages.outlast(self.queue.next_expiry_s)
            if expiry_s is None or self._stopped:
                return None
            if (claim := self.outages.outlast(self.queue.race)) is not None:
                _log.info("another worker is slow with batch %d: it is downloaded here, too", claim.batch)
                return claim
            if not waiting:
                waiting = True
                _log.warning(
                    "waiting for the last batches, held by other workers; the next lease expires in %.0f s",
                    expiry_s,
                )
            time.sleep(min(max(expiry_s, 0.2), _MAX_POLL_S))
        return claim

    def _download_or_fail(self, claim: Claim) -> StageStats | None:
        """Downloads a batch; only an error of the batch itself costs it an attempt. None: no result."""
        began = time.monotonic()
        try:
            return self._download(claim)
        except BatchFileError as error:
            self._fail(claim, error)
        except OutageError as error:  # of the resolver, or patience is used up
            if self._stopped:
                return None
            self.outages.pause(error, time.monotonic() - began)
        gc.collect()  # the batch, which the error referred to
        return None

    def _fail(self, claim: Claim, error: BatchFileError) -> None:
        self.outages.outlast(lambda: self.queue.fail(claim, str(error)))

    def _download(
        self,
        claim: Claim,
        is_there: Callable[[StageStats, Store], bool] = has_shard,
        earlier: Earlier | None = None,
    ) -> StageStats | None:
        """Returns the stats of the batch; None if another worker took it over, whose result counts.

        Gives the batch back before it raises anything but BatchFileError and EmptyResultError.
        """

        def report(done: int, total: int) -> None:
            if self.on_progress is not None:
                self.on_progress(claim.batch, done, total)

        lost = threading.Event()

        def check() -> None:
            if self.stop is not None:
                self.stop.check()
            if lost.is_set():
                raise LeaseLost

        hooks = Hooks(report, check, self.metrics, self.hosts)
        try:
            with in_background(partial(self._beat, claim, lost)):
                stats = download_batch(
                    self.crawl,
                    claim.batch,
                    self.settings,
                    self.store,
                    hooks,
                    lambda: self.queue.hold(claim),
                    self.outages,
                    claim.file,
                    is_there,
                    earlier,
                )
                recorded = self.outages.outlast(lambda: self.queue.complete(claim, stats))
        except TimeIsUp:
            self._give_back(claim)
            _log.warning("stopped; batch %d was returned to the queue", claim.batch)
            return None
        except LeaseLost:
            _log.warning(
                "another worker has batch %d: the lease expired, or that worker was faster", claim.batch
            )
            return None
        except (BatchFileError, EmptyResultError):
            raise
        except LaionEtlError:
            self._give_back(claim)
            raise
        self.outages.over()
        if self.metrics is not None:
            self.metrics.flush(now=True)
        return stats if recorded else None

    def _give_back(self, claim: Claim) -> None:
        """Returns the batch to the queue at no cost; if the database is down, its lease runs out instead."""
        try:
            self.queue.release(claim)
        except DatabaseError as error:  # whatever it was returned for is what ends the command
            _log.warning("cannot return batch %d, its lease will expire instead: %s", claim.batch, error)

    @contextmanager
    def _interrupted_at_no_cost(self) -> Iterator[None]:
        """Returns what this worker holds when it is interrupted, at whatever moment: also in a claim."""
        # Twice, because another interrupt may come just before it is put off.
        with self._returned_when_interrupted(), self._returned_when_interrupted():
            yield
        if self.hosts is not None:  # after an error its row expires: the database may be the cause
            self.hosts.leave()

    @contextmanager
    def _returned_when_interrupted(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.queue.release_at_the_end()
            raise

    def _beat(self, claim: Claim, lost: threading.Event, stop: threading.Event) -> None:
        """Extends the lease, through a connection of its own; sets `lost` when it is lost."""
        interval_s = self.settings.download.lease_s / 4
        wait_s = min(interval_s, _FIRST_BEAT_S)
        while not stop.wait(wait_s):
            wait_s = interval_s
            try:
                with open_database(self.settings) as database:
                    if not open_queue(self.crawl, self.settings, database).heartbeat(claim):
                        lost.set()
                        return
                    if self.hosts is not None:
                        self.hosts.beat(database)
            except DatabaseError as error:
                _log.warning("cannot extend the lease of batch %d: %s; retrying", claim.batch, error)


def open_queue(crawl: str, settings: Settings, database: Database) -> BatchQueue:
    """Opens the batches of a crawl to download. Raises DatabaseError if nothing of the crawl is loaded."""
    return queue_of(crawl, settings.download, database, QueueStage.DOWNLOAD)
