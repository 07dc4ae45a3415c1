"""Deletes the tar of a shard once it is scored: nine tenths of its images are not in the dataset.

Its parquet, with an outcome for each link, and its stats stay. The queue counts what was deleted.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from laion_etl.core.schemas import shard_stem
from laion_etl.database.queue import BatchQueue, Claim
from laion_etl.io.storage import Store

_AT_ONCE = 16  # requests to the store
# Tars between two looks at the queue: a batch that is downloaded anew meanwhile takes longer than they do.
_PAGE = 64


def delete_raw(crawl: str, claim: Claim, queue: BatchQueue, store: Store) -> None:
    """Delete the raw shard of a batch that was just recorded as scored, unless it is downloaded anew."""
    if queue.is_scored(claim):
        store.delete(_tar(crawl, claim))
        queue.note_raw_deleted([claim])


def delete_raw_left(crawl: str, queue: BatchQueue, store: Store, stopped: Callable[[], bool]) -> None:
    """Delete the raw shards of all scored batches that still have one: a killed worker leaves it.

    Workers end at the same time: each begins at another batch, so that they share what is left.
    """
    if stopped() or (bounds := queue.raw_shard_bounds()) is None:
        return
    after = random.randint(*bounds) - 1  # noqa: S311 - no secret
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for first in (after, -1):
            after = first
            while not stopped() and (page := queue.with_raw_shard(after, _PAGE)):
                list(pool.map(lambda claim: store.delete(_tar(crawl, claim)), page))
                queue.note_raw_deleted(page)
                after = page[-1].batch


def _tar(crawl: str, claim: Claim) -> str:
    return f"{shard_stem(crawl, claim.batch)}.tar"
