"""Deletes the tar of a shard once it is scored: nine tenths of its images are not in the dataset.

Its parquet, with an outcome for each link, and its stats stay. The queue counts what was deleted, and keeps
the batch until the tar is gone: someone may ask for it to be downloaded again at this moment.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from laion_etl.core.schemas import shard_stem
from laion_etl.database.queue import Claim
from laion_etl.database.score_queue import ScoreQueue
from laion_etl.io.storage import Store

_AT_ONCE = 16  # requests to the store
_PAGE = 64  # tars deleted in one transaction, in some tenths of a second


def delete_raw(crawl: str, claim: Claim, queue: ScoreQueue, store: Store) -> None:
    """Delete the raw shard of a batch that was just recorded as scored, unless it is downloaded anew."""
    queue.delete_raw([claim], lambda batches: [store.delete(_tar(crawl, batch)) for batch in batches])


def delete_raw_left(crawl: str, queue: ScoreQueue, store: Store, stopped: Callable[[], bool]) -> None:
    """Delete the raw shards of all scored batches that still have one: a killed worker leaves it.

    Workers end at the same time: each begins at another batch, so that they share what is left.
    """
    if stopped() or (bounds := queue.raw_shard_bounds()) is None:
        return
    after = random.randint(*bounds) - 1  # noqa: S311 - no secret
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def delete(batches: list[int]) -> None:
            list(pool.map(lambda batch: store.delete(_tar(crawl, batch)), batches))

        for first in (after, -1):
            after = first
            while not stopped() and (page := queue.with_raw_shard(after, _PAGE)):
                queue.delete_raw(page, delete)
                after = page[-1].batch


def _tar(crawl: str, batch: int) -> str:
    return f"{shard_stem(crawl, batch)}.tar"
