"""What only score workers ask of the batch queue: results in all, raw shards, and scoring again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from laion_etl.core.errors import SettingsError
from laion_etl.core.quantities import quantity
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number
from laion_etl.database.queries import query
from laion_etl.database.queue import BatchQueue, Claim, QueueStage, as_claim
from laion_etl.settings import DownloadSettings

_PAGE = 500  # batches of one transaction
_READ_AT_ONCE = 20_000  # rows of a few numbers


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """Whether there are batches neither scored nor parked, and whether a worker holds one at this moment."""

    any: bool
    going_on: bool


@dataclass(frozen=True, slots=True)
class ScoreTotals:
    """Counts of all scored batches of a crawl; `raw_deleted`: how many of their raw shards were deleted."""

    samples: int
    kept: int
    dropped: dict[str, int]
    raw_deleted: int


class ScoreQueue(BatchQueue):
    """The batches of one crawl, for score workers."""

    def totals(self) -> ScoreTotals:
        """Returns what score workers have done so far, from counters."""
        (row,) = self._database.rows("queue.score_totals", self._keys)
        return ScoreTotals(*row)

    def scored(self) -> list[tuple[int, str]]:
        """Returns the batches that are scored, ascending, each with the fingerprint of its scores."""
        found: list[tuple[int, str]] = []
        while True:
            keys = {**self._keys, "after": found[-1][0] if found else -1, "rows": _READ_AT_ONCE}
            page = self._database.rows("queue.scored", keys)
            found += page
            if len(page) < _READ_AT_ONCE:
                return found

    def parked(self) -> list[tuple[int, bool, str]]:
        """Returns the batches that are parked, whether their download failed, and why."""
        return self._database.rows("queue.not_scored", self._keys)

    def delete_raw(self, claims: Sequence[Claim], delete: Callable[[list[int]], object]) -> None:
        """Calls `delete` with the batches that still have the scores of their claims; counts raw shards.

        Until it returns, no worker can take the batches to download them again: it would find the files
        whole, and lose them a moment later.
        """
        keys = {"batches": [one.batch for one in claims], "tokens": [one.token for one in claims]}

        def work(connection: Connection) -> None:
            batches = [batch for (batch,) in connection.execute(query("queue.lock_scored"), keys).fetchall()]
            if batches:
                delete(batches)
                connection.execute(query("queue.note_raw_deleted"), {"batches": batches})

        self._database.run(work)

    def raw_shard_bounds(self) -> tuple[int, int] | None:
        """Returns the first and the last scored batch whose raw shard may still be there, if any."""
        ((first, last),) = self._database.rows("queue.raw_shard_bounds", self._keys)
        return None if first is None else (first, last)

    def with_raw_shard(self, after: int, rows: int) -> list[Claim]:
        """Returns scored batches whose raw shard may still be there, ascending, after `after`."""
        keys = {**self._keys, "after": after, "rows": rows}
        return [as_claim(*row) for row in self._database.rows("queue.with_raw_shard", keys)]

    def scored_otherwise(self, scored_by: str) -> tuple[int, int]:
        """Returns how many batches another model or other settings scored; of how many the tar is gone."""
        (row,) = self._database.rows("queue.scored_otherwise", {**self._keys, "scored_by": scored_by})
        return row[0], row[1]

    def score_again(self, scored_by: str) -> int:
        """Queues batches for scoring again that were scored by another model; returns how many.

        Raises SettingsError, without changing anything, if the images of some are gone.
        """
        keys: dict[str, Any] = {**self._keys, "scored_by": scored_by, "rows": _PAGE}
        others, gone = self.scored_otherwise(scored_by)
        if gone:
            raise SettingsError(
                f"cannot score {quantity(gone, 'batch', 'batches')} again with this model or these settings: "
                "their images were deleted after they were scored (LAION_ETL_KEEP_RAW_SHARDS=false); use the "
                "model and settings that they were scored with, or download them again"
            )
        count = 0
        while others and (
            found := self._database.run(
                lambda connection: connection.execute(query("queue.score_again"), keys).rowcount
            )
        ):
            count += found
        return count

    def work_left(self) -> WorkLeft:
        """Returns whether there may still be work for a score worker."""
        (row,) = self._database.rows("queue.work_left", self._keys)
        return WorkLeft(*row)


def score_queue_of(crawl: str, settings: DownloadSettings, database: Database) -> ScoreQueue:
    """Opens the batches of a crawl to score. Raises DatabaseError if nothing of the crawl is loaded."""
    crawl_no = database.run(lambda connection: crawl_number(connection, crawl))
    return ScoreQueue(database, crawl_no, settings.lease_s, settings.max_attempts, QueueStage.SCORE)
