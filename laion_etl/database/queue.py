"""The batch queue: claims under a lease, with a fencing token so that each batch gets one result."""

import os
import socket
from dataclasses import dataclass

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.database.queries import query
from laion_etl.records import StageStats


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch held by this worker until its lease runs out."""

    batch: int
    token: int


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Batches of a crawl by state."""

    ready: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0


class BatchQueue:
    """The batches of one crawl. `lease_s`: a silent worker loses its batch after this many seconds;
    `max_attempts`: claims of a batch before it is parked as failed."""

    def __init__(self, connection: Connection, crawl_no: int, lease_s: int, max_attempts: int) -> None:
        self._connection = connection
        self._keys = {
            "crawl_no": crawl_no,
            "lease_s": lease_s,
            "max_attempts": max_attempts,
            "owner": f"{socket.gethostname()}:{os.getpid()}",
        }

    def claim(self) -> Claim | None:
        """The lowest open batch, or None when none is claimable now."""
        self._connection.execute(query("queue.park_exhausted"), self._keys)
        return self._claimed("queue.claim", self._keys)

    def claim_one(self, batch: int) -> Claim | None:
        """A certain batch whatever its state (also done or failed), unless somebody holds it."""
        return self._claimed("queue.claim_one", {**self._keys, "batch": batch})

    def heartbeat(self, claim: Claim) -> bool:
        """Extends the lease; False when it was lost."""
        return self._update("queue.heartbeat", claim)

    def complete(self, claim: Claim, stats: StageStats) -> bool:
        """Records the result; False when the lease was lost, the result is then not recorded."""
        return self._update("queue.complete", claim, {"stats": Jsonb(stats.to_plain())})

    def fail(self, claim: Claim, error: str) -> bool:
        """Gives the batch back with its error; parks it as failed when its attempts are used up."""
        return self._update("queue.fail", claim, {"error": error[:2000]})

    def release(self, claim: Claim) -> bool:
        """Gives the batch back untouched: a clean stop costs no attempt."""
        return self._update("queue.release", claim)

    def counts(self) -> QueueCounts:
        rows = self._connection.execute(query("queue.counts"), self._keys).fetchall()
        return QueueCounts(**{state: count for state, count, _ in rows})

    def failed(self) -> list[tuple[int, str]]:
        """Parked batches with their last error."""
        return self._connection.execute(query("queue.failed"), self._keys).fetchall()

    def next_expiry_s(self) -> float | None:
        """Seconds until the next lease runs out; None when nothing is leased."""
        row = self._connection.execute(query("queue.next_expiry"), self._keys).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    def _claimed(self, name: str, keys: dict[str, object]) -> Claim | None:
        row = self._connection.execute(query(name), keys).fetchone()
        return Claim(*row) if row else None

    def _update(self, name: str, claim: Claim, more: dict[str, object] | None = None) -> bool:
        keys = {**self._keys, "batch": claim.batch, "token": claim.token, **(more or {})}
        return self._connection.execute(query(name), keys).rowcount == 1
