"""The batch queue: claims under a lease, with a fencing token so that each batch gets one result.

Download and score workers share it: a batch is ready, downloading, downloaded, scoring and at last scored, or
parked with its cause (sql/012_fleet.sql). `BatchQueue` is the queue of one of the two stages; what only score
workers ask of it is in score_queue.py. The last batches are raced (sql/015_races.sql).
"""

import logging
import os
import secrets
import socket
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Self

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.core.stopping import LeaseLost
from laion_etl.database.connection import Database
from laion_etl.database.interrupts import uninterrupted
from laion_etl.database.load import crawl_number
from laion_etl.database.queries import query
from laion_etl.settings import DownloadSettings

_ROLLED_UP_EVERY = 32  # results; until then their counts are rows of batch_change, which readers add up
# A batch is raced when its worker has held it this many times as long as the median of the latest ones took,
# and this many seconds: a race costs a whole download, and a batch that is nearly done gains nothing by it.
_RACE_TIMES_USUAL, _RACE_LEAST_S = 2.0, 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Former:
    """What a batch was before it was claimed: its state, the attempts that this counts, and since when."""

    state: str
    attempts: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch held by this worker until its lease runs out; `file`: that of its pairs.

    `former`: only of a batch that was asked for by its number.
    """

    batch: int
    token: int
    file: Output
    former: Former | None = None


class QueueStage(Enum):
    """The stages that claim batches, each with the states of a batch before, in and after it."""

    DOWNLOAD = ("ready", "downloading", "downloaded", "queue.complete")
    SCORE = ("downloaded", "scoring", "scored", "queue.complete_score")

    def __init__(self, waiting: str, held: str, finished: str, complete: str) -> None:
        self.states = {"waiting": waiting, "held": held, "finished": finished}
        self.complete = complete  # the query that records a result


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Batches of a crawl by state."""

    ready: int = 0
    downloading: int = 0
    downloaded: int = 0
    scoring: int = 0
    scored: int = 0
    parked: int = 0

    @property
    def shards(self) -> int:
        """Downloaded batches, including those scored since, but not those parked by scoring."""
        return self.downloaded + self.scoring + self.scored


class BatchQueue:
    """The batches of one crawl. `lease_s`: a silent worker loses its batch after this many seconds;
    `max_attempts`: claims of a batch in one stage before it is parked.

    Every change survives a lost connection: repeated, it finds what its first attempt may have done. A lease
    that ends while no worker reaches the database is not the batch's fault (sql/011_outages.sql).
    """

    def __init__(
        self,
        database: Database,
        crawl_no: int,
        lease_s: int,
        max_attempts: int,
        stage: QueueStage = QueueStage.DOWNLOAD,
    ) -> None:
        self._database = database
        self._stage = stage
        self._held: set[tuple[int, int]] = set()  # batch and token; shared with the queues of `through`
        self._latest: Claim | None = None  # known before its transaction is committed
        self._is_claiming = False  # also after one that failed: it may have been committed
        self._keys = {
            "crawl_no": crawl_no,
            "lease_s": lease_s,
            "max_attempts": max_attempts,
            "owner": f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            "times_usual": _RACE_TIMES_USUAL,
            "least_s": _RACE_LEAST_S,
            **stage.states,
        }

    def through(self, database: Database) -> Self:
        """Return the queue of the same worker through another connection, for another thread."""
        other = copy(self)
        other._database = database
        return other

    def claim(self) -> Claim | None:
        """Claims a batch whose lease ran out, else the lowest open one; None when there is none now."""
        return self._claimed("queue.claim", self._keys)

    def claim_one(self, batch: int) -> Claim | None:
        """Claims a given batch, in any state, to download it; None when another worker holds it."""
        return self._claimed("queue.claim_one", {**self._keys, "batch": batch})

    def race(self) -> Claim | None:
        """Claims a batch that another worker has held for much longer than is usual; None when there is none.

        Both then work on it, and the first one that is about to write takes it (sql/015_races.sql). Only for
        a worker that `claim` has nothing for.
        """
        return self._claimed("queue.race", self._keys)

    def heartbeat(self, claim: Claim) -> bool:
        """Extends the lease; False when it was lost."""
        return self._extended(claim, "queue.heartbeat", "queue.race_heartbeat")

    def hold(self, claim: Claim) -> None:
        """Extends the lease, and ends a race for the batch; the guard of files that only the owner may write.

        Raises LeaseLost.
        """
        if not self._extended(claim, "queue.hold"):
            raise LeaseLost

    def complete(self, claim: Claim, stats: StageStats) -> bool:
        """Records the result; False when the lease was lost and the result was not recorded."""
        keys = {**self._of(claim), "stats": Jsonb(stats.to_plain())}

        def work(connection: Connection) -> bool:
            if connection.execute(query(self._stage.complete), keys).rowcount == 1:
                if claim.batch % _ROLLED_UP_EVERY == 0:
                    connection.execute(query("queue.roll_up"))
                return True
            return connection.execute(query("queue.is_completed"), keys).fetchone() is not None

        recorded = self._database.run(work)
        self._let_go(claim)
        return recorded

    def fail(self, claim: Claim, error: str) -> bool:
        """Returns the batch to the queue with its error; parks it when its attempts are used up.

        False when another worker has the batch, or gets it since it raced: then the error does not count.
        """
        return self._ended("queue.fail", claim, {"error": error[:2000]})

    def release(self, claim: Claim) -> bool:
        """Returns the batch to the queue untouched: a clean stop costs no attempt."""
        return self._ended("queue.release", claim)

    def put_back(self, claim: Claim) -> bool:
        """Returns a batch that was asked for by its number to the state that it had: its result stays.

        False when another worker has the batch, or gets it since it raced.
        """
        if claim.former is None:
            return self.release(claim)
        was = claim.former
        return self._ended(
            "queue.put_back", claim, {"state": was.state, "attempts": was.attempts, "since": was.since}
        )

    def release_all(self) -> None:
        """Returns all batches that this worker holds, also one whose claim it was interrupted in."""
        self._held.clear()
        keys = {**self._keys, "batch": None, "token": None}

        def work(connection: Connection) -> None:
            connection.execute(query("queue.release"), keys)
            connection.execute(query("queue.leave_race"), keys)

        self._database.run(work)

    def release_at_the_end(self) -> None:
        """Returns all batches, also while interrupts come; if the database is down, their leases run out.

        That is only a warning: whatever ends the work is what ends the command.
        """
        with uninterrupted():
            try:
                self.release_all()
            except DatabaseError as error:
                _log.warning("cannot return batches, their leases will expire instead: %s", error)

    def counts(self) -> QueueCounts:
        """Returns how many batches are in which state, at a cost that does not depend on their number."""
        (row,) = self._database.rows("queue.counts", self._keys)
        return QueueCounts(*row)

    def failed(self, rows: int = 100) -> list[tuple[int, str]]:
        """Returns the first batches that are parked in this stage, with their last error."""
        return self._database.rows("queue.failed", {**self._keys, "rows": rows})

    def next_expiry_s(self) -> float | None:
        """Returns the seconds until the next lease of the stage runs out; None when there is none."""
        ((expiry_s,),) = self._database.rows("queue.next_expiry", self._keys)
        return None if expiry_s is None else float(expiry_s)

    def _extended(self, claim: Claim, *names: str) -> bool:
        """Runs statements until one finds the claim; forgets the claim if none does."""
        keys = self._of(claim)

        def work(connection: Connection) -> bool:
            connection.execute(query("queue.note_contact"), keys)
            return any(connection.execute(query(name), keys).rowcount == 1 for name in names)

        if self._database.run(work):
            return True
        self._let_go(claim)
        return False

    def _let_go(self, claim: Claim) -> None:
        """Forgets a claim once the database has: before that a repeated claim would take it for a new one."""
        self._held.discard((claim.batch, claim.token))

    def _claimed(self, name: str, keys: dict[str, object]) -> Claim | None:
        def work(connection: Connection) -> Claim | None:
            repeated, self._is_claiming = self._is_claiming, True
            if repeated:
                known = list(self._held)
                seen = {"batches": [one for one, _ in known], "tokens": [token for _, token in known]}
                unseen = connection.execute(query("queue.claimed_unseen"), {**keys, **seen}).fetchone()
                if unseen:
                    return self._with_former(as_claim(*unseen))
            connection.execute(query("queue.note_contact"), keys)
            connection.execute(query("queue.park_exhausted"), keys)
            row = connection.execute(query(name), keys).fetchone()
            self._latest = as_claim(*row) if row else None
            return self._latest

        claim = self._database.run(work)
        self._is_claiming = False
        if claim is not None:
            self._held.add((claim.batch, claim.token))
        return claim

    def _with_former(self, claim: Claim) -> Claim:
        latest = self._latest
        is_same = latest is not None and (latest.batch, latest.token) == (claim.batch, claim.token)
        return replace(claim, former=latest.former) if latest is not None and is_same else claim

    def _of(self, claim: Claim) -> dict[str, object]:
        return {**self._keys, "batch": claim.batch, "token": claim.token}

    def _ended(self, name: str, claim: Claim, more: dict[str, object] | None = None) -> bool:
        keys = {**self._of(claim), **(more or {})}

        def work(connection: Connection) -> bool:
            if connection.execute(query(name), keys).rowcount == 1:
                return True
            connection.execute(query("queue.release"), keys)  # a failure in a race: to the other worker
            connection.execute(query("queue.leave_race"), keys)
            return False

        ended = self._database.run(work)
        self._let_go(claim)
        return ended


def queue_of(crawl: str, settings: DownloadSettings, database: Database, stage: QueueStage) -> BatchQueue:
    """Opens the queue of a crawl for a stage. Raises DatabaseError if nothing of the crawl is loaded."""
    crawl_no = database.run(lambda connection: crawl_number(connection, crawl))
    return BatchQueue(database, crawl_no, settings.lease_s, settings.max_attempts, stage)


def as_claim(batch: int, token: int, file: dict[str, Any], *former: Any) -> Claim:
    """Returns a row of the queue as a claim; `former`: what the batch was before, if the row has it."""
    return Claim(batch, token, Output(**file), Former(*former) if former else None)
