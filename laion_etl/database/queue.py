"""The batch queue: claims under a lease, with a fencing token so that each batch gets one result."""

import os
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.connection import Database
from laion_etl.database.queries import query

_ROLLED_UP_EVERY = 32  # results; until then their counts are rows of batch_change, which readers add up


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch held by this worker until its lease runs out; `file`: that of its pairs."""

    batch: int
    token: int
    file: Output


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Batches of a crawl by state."""

    ready: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0


class BatchQueue:
    """The batches of one crawl. `lease_s`: a silent worker loses its batch after this many seconds;
    `max_attempts`: claims of a batch before it is parked as failed.

    Every change survives a lost connection: repeated, it finds what its first attempt may have done. A lease
    that ends while no worker reaches the database is not the batch's fault (sql/011_outages.sql).
    """

    def __init__(self, database: Database, crawl_no: int, lease_s: int, max_attempts: int) -> None:
        self._database = database
        self._held: set[int] = set()
        self._is_claiming = False  # also after one that failed: it may have been committed
        self._keys = {
            "crawl_no": crawl_no,
            "lease_s": lease_s,
            "max_attempts": max_attempts,
            "owner": f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        }

    def claim(self) -> Claim | None:
        """Claims a batch whose lease ran out, else the lowest open one; None when there is none now."""
        return self._claimed("queue.claim", self._keys)

    def claim_one(self, batch: int) -> Claim | None:
        """Claims a certain batch in any state (also done or failed); None when another worker holds it."""
        return self._claimed("queue.claim_one", {**self._keys, "batch": batch})

    def heartbeat(self, claim: Claim) -> bool:
        """Extends the lease; False when it was lost."""
        keys = {**self._keys, "batch": claim.batch, "token": claim.token}

        def work(connection: Connection) -> bool:
            connection.execute(query("queue.note_contact"), keys)
            return connection.execute(query("queue.heartbeat"), keys).rowcount == 1

        return self._database.run(work)

    def complete(self, claim: Claim, stats: StageStats) -> bool:
        """Records the result; False when the lease was lost and the result was not recorded."""
        keys = {**self._keys, "batch": claim.batch, "token": claim.token, "stats": Jsonb(stats.to_plain())}

        def work(connection: Connection) -> bool:
            if connection.execute(query("queue.complete"), keys).rowcount == 1:
                if claim.batch % _ROLLED_UP_EVERY == 0:
                    connection.execute(query("queue.roll_up"))
                return True
            return connection.execute(query("queue.is_completed"), keys).fetchone() is not None

        self._held.discard(claim.batch)
        return self._database.run(work)

    def fail(self, claim: Claim, error: str) -> bool:
        """Returns the batch to the queue with its error; parks it as failed when its attempts are used up."""
        self._held.discard(claim.batch)
        return self._update("queue.fail", claim, {"error": error[:2000]})

    def release(self, claim: Claim) -> bool:
        """Returns the batch to the queue untouched: a clean stop costs no attempt."""
        self._held.discard(claim.batch)
        return self._update("queue.release", claim)

    def release_all(self) -> None:
        """Returns all batches that this worker holds, also one whose claim it was interrupted in."""
        self._held.clear()
        self._database.run(lambda connection: connection.execute(query("queue.release_all"), self._keys))

    def counts(self) -> QueueCounts:
        """Returns how many batches are in which state, at a cost that does not depend on their number."""
        (row,) = self._database.rows("queue.counts", self._keys)
        return QueueCounts(*row)

    def failed(self, rows: int = 100) -> list[tuple[int, str]]:
        """Returns the first parked batches with their last error."""
        return self._database.rows("queue.failed", {**self._keys, "rows": rows})

    def next_expiry_s(self) -> float | None:
        """Returns the seconds until the next lease runs out; None when nothing is leased."""
        ((expiry_s,),) = self._database.rows("queue.next_expiry", self._keys)
        return None if expiry_s is None else float(expiry_s)

    def _claimed(self, name: str, keys: dict[str, object]) -> Claim | None:
        def work(connection: Connection) -> Claim | None:
            repeated, self._is_claiming = self._is_claiming, True
            if repeated:
                unseen = connection.execute(
                    query("queue.claimed_unseen"), {**keys, "held": sorted(self._held)}
                ).fetchone()
                if unseen:
                    return _claim(*unseen)
            connection.execute(query("queue.note_contact"), keys)
            connection.execute(query("queue.park_exhausted"), keys)
            row = connection.execute(query(name), keys).fetchone()
            return _claim(*row) if row else None

        claim = self._database.run(work)
        self._is_claiming = False
        if claim is not None:
            self._held.add(claim.batch)
        return claim

    def _update(self, name: str, claim: Claim, more: dict[str, object] | None = None) -> bool:
        keys = {**self._keys, "batch": claim.batch, "token": claim.token, **(more or {})}
        return self._database.run(lambda connection: connection.execute(query(name), keys).rowcount == 1)


def _claim(batch: int, token: int, file: dict[str, Any]) -> Claim:
    return Claim(batch, token, Output(**file))
