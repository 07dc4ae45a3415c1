"""Scored batches of a crawl that stand for all of it, chosen by the hashes of their numbers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from laion_etl.dataset.scored import ScoredBatch, read_batch_stats
from laion_etl.io.storage import Store
from laion_etl.report.contact_sheets import by_hash

_READERS = 8
_AT_ONCE = 12


def scored_by_hash(crawl: str, planned: Sequence[int], most: int, store: Store) -> Iterator[ScoredBatch]:
    """Yield the scored ones of the first batches by hash, `most` of them; a dozen are read ahead."""
    numbers = islice(by_hash(planned), most)
    while chunk := list(islice(numbers, _AT_ONCE)):
        yield from read_scored(crawl, chunk, store)


def read_scored(crawl: str, numbers: Sequence[int], store: Store) -> list[ScoredBatch]:
    """Return those of some batches that are scored, in their order."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(partial(read_batch_stats, crawl, store=store), numbers)
        return [batch for batch in found if batch is not None]
