"""The batches that a score worker holds, from when it begins to work until that ends, by whatever.

Batches are claimed by the thread that reads shards, so that the next one is read while the last one is
computed and written; a few are held at a time, and one thread extends all their leases.

After an outage the worker goes on with new claims, and the former thread may still be waiting for the
service. All that it asks of the queue it asks under a lock, and only while its own claims have not ended: it
can neither claim a batch that no one would score, nor use a connection that is closed.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from laion_etl.core.background import in_background
from laion_etl.core.errors import DatabaseError, InputError
from laion_etl.core.outages import Outages
from laion_etl.core.stopping import Stop
from laion_etl.database.connection import Database
from laion_etl.database.interrupts import uninterrupted
from laion_etl.database.queue import Claim
from laion_etl.database.score_queue import ScoreQueue
from laion_etl.score.steps import Unit
from laion_etl.settings import DownloadSettings

_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 5.0
ResultT = TypeVar("ResultT")
_log = logging.getLogger(__name__)


class NothingDownloadedError(InputError):
    """Download workers are missing. Starting the command again does not bring them: its exit code is not that
    of an outage, so a scheduler starts it again as often as after any other failure."""


class _EndedError(Exception):
    """The work that the claims are for has ended, in another thread."""


@dataclass(slots=True)
class Claims:
    """The claims of one stretch of work. `queue`: of the thread that scores; `wait_s`: how long to wait where
    no batch can be claimed and no worker is on one."""

    crawl: str
    queue: ScoreQueue
    limits: DownloadSettings
    stop: Stop | None
    wait_s: float
    _held: set[Claim] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def units(self, database: Database) -> Iterator[Iterator[Unit]]:
        """Yield what is claimed, for another thread; at the end of the block return what is still held."""
        with (
            database.another() as claiming,
            database.another() as beating,
            self._returned_at_the_end(),
            in_background(partial(self._beat, self.queue.through(beating))),
        ):
            yield self._claimed(self.queue.through(claiming))

    def let_go(self, claim: Claim) -> None:
        """Forget a batch that is recorded, or lost."""
        self._held.discard(claim)

    def _claimed(self, queue: ScoreQueue) -> Iterator[Unit]:
        with suppress(_EndedError):
            yield from self._until_all_are_scored(queue)

    def _until_all_are_scored(self, queue: ScoreQueue) -> Iterator[Unit]:
        """Yield claimed batches; wait while download workers, or other score workers, are at work."""
        outages = Outages(self.limits.outage_s, self._check)
        idle_since: float | None = None
        # Half a lease without a word of any worker is taken for an outage of the database.
        longest_s = min(_LONGEST_POLL_S, self.limits.lease_s / 4)
        poll_s = _FIRST_POLL_S
        while not (self.stop is not None and self.stop.requested):
            claim = outages.outlast(lambda: self._ask(lambda: self._claim(queue)))
            if claim is not None:
                outages.over()
                idle_since, poll_s = None, _FIRST_POLL_S
                yield Unit(claim.batch, claim)
                continue
            left = outages.outlast(lambda: self._ask(queue.work_left))
            if not left.any:
                return
            now = time.monotonic()
            if idle_since is None and not left.going_on:
                _log.warning(
                    "no download worker is at work; waiting for one, for at most %.0f s", self.wait_s
                )
            idle_since = None if left.going_on else idle_since or now
            if idle_since is not None and now - idle_since > self.wait_s:
                raise self._nothing_downloaded()
            self._ended.wait(poll_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            poll_s = min(longest_s, 1.5 * poll_s)

    def _ask(self, question: Callable[[], ResultT]) -> ResultT:
        with self._lock:
            self._check()
            return question()

    def _claim(self, queue: ScoreQueue) -> Claim | None:
        claim = queue.claim() or queue.race()
        if claim is not None:
            self._held.add(claim)
        return claim

    def _check(self) -> None:
        if self._ended.is_set():
            raise _EndedError
        if self.stop is not None:
            self.stop.check()

    def _nothing_downloaded(self) -> NothingDownloadedError:
        return NothingDownloadedError(
            f"cannot score all of {self.crawl}: batches are not downloaded, and no download worker has been "
            f"at work for {self.wait_s:.0f} s; start `laion-etl stage download --crawl {self.crawl}`, "
            "then run the same command again to continue"
        )

    @contextmanager
    def _returned_at_the_end(self) -> Iterator[None]:
        """Return to the queue what is held when the block ends; costs no attempt."""
        try:
            yield
        finally:
            self._ended.set()
            with uninterrupted(), self._lock:  # a claim that was under way is returned as well
                self._held.clear()
                self.queue.release_at_the_end()

    def _beat(self, queue: ScoreQueue, over: threading.Event) -> None:
        """Extend the leases of all batches that are held."""
        while not over.wait(self.limits.lease_s / 4):
            for claim in list(self._held):
                try:
                    queue.heartbeat(claim)
                except DatabaseError as error:
                    _log.warning("cannot extend the lease of batch %d: %s; retrying", claim.batch, error)
