"""The record of a crawl that score workers have finished, for readers that have the store but not Postgres.

It is that of a single group (dataset/score_progress.py): publish takes the causes of missing batches from it.
Each worker writes it when it ends. It is derived from the queue alone, so they all write the same bytes.
"""

from laion_etl.database.score_queue import ScoreQueue
from laion_etl.dataset.missing_batches import Fault, MissingBatch
from laion_etl.dataset.score_progress import write_record
from laion_etl.io.storage import Store


def write_queue_record(crawl: str, queue: ScoreQueue, store: Store) -> list[MissingBatch]:
    """Write what is scored and what is missing; return what is missing, by number."""
    missing = [_missing(*row) for row in queue.parked()]
    write_record(crawl, queue.scored(), queue.totals(), missing, store)
    return missing


def _missing(batch: int, in_download: bool, error: str) -> MissingBatch:
    if in_download:
        return MissingBatch(batch, Fault.NOT_DOWNLOADED, error)
    cause, _, rest = error.partition(": ")
    if cause in {fault.value for fault in Fault}:
        return MissingBatch(batch, Fault(cause), rest)
    return MissingBatch(batch, Fault.DAMAGED, error)  # such as "its worker stopped sending heartbeats"
