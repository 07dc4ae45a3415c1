"""Why batches of a crawl are parked: the most frequent causes, counted by Postgres, whatever their number."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from laion_etl.database.connection import Database

_CAUSES = 40
_BATCHES = 12


@dataclass(frozen=True, slots=True)
class ParkedCause:
    """Parked batches whose errors differ only in numbers. `reason`: the error of the latest one; `batches`
    and `times` are the latest ones and when they were parked."""

    cause: str
    count: int
    last_at: datetime
    reason: str
    batches: tuple[int, ...] = ()
    times: tuple[datetime, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        counted = {"cause": self.cause, "count": self.count, "last_at": self.last_at.isoformat()}
        return counted | {"reason": self.reason, "batches": list(self.batches)}


def parked_causes(crawl: str, database: Database) -> tuple[ParkedCause, ...]:
    """Return up to 40 causes, the most frequent first. Raises DatabaseError."""
    keys = {"crawl": crawl, "rows": _CAUSES, "units": _BATCHES}
    return tuple(
        ParkedCause(cause, count, last_at, reason, tuple(batches or ()), tuple(times or ()))
        for cause, count, last_at, reason, batches, times in database.rows("status.causes", keys)
    )
