"""Deletes the tar of a shard once it is scored: nine tenths of its images are not in the dataset.

Its parquet, with an outcome for each link, and its stats stay. The queue counts what was deleted.
"""

from laion_etl.core.schemas import shard_stem
from laion_etl.database.queue import BatchQueue, Claim
from laion_etl.io.storage import Store


def delete_raw(crawl: str, claim: Claim, queue: BatchQueue, store: Store) -> None:
    """Delete the raw shard of a batch that was just recorded as scored, unless it is downloaded anew."""
    if queue.is_scored(claim):
        store.delete(f"{shard_stem(crawl, claim.batch)}.tar")
        queue.note_raw_deleted(claim)


def delete_raw_left(crawl: str, queue: BatchQueue, store: Store) -> None:
    """Delete the raw shards of all scored batches that still have one: a killed worker leaves it."""
    for claim in queue.with_raw_shard():
        delete_raw(crawl, claim, queue, store)
