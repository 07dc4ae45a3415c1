"""What the store has of a crawl, for the comparison with Postgres (reconcile.py).

Each folder is listed once, page by page. Only the numbers of batches are kept, not the names of their files:
a crawl of 300,000 batches has four million files.

Scores that a worker was about to replace have placeholder stats, which name no files. So only stats as small
as those are read, and not one file for each scored batch.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from laion_etl.core.errors import DamagedFileError, MissingFileError, NewerFormatError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import partition_name, scored_stem
from laion_etl.core.stage_stats import UNFINISHED, StageStats
from laion_etl.io.storage import Store

READERS = 8
_RECORD = {".parquet", "_stats.json"}  # of a shard, in addition to its tar
_BATCH_FILE = re.compile(r"(\d+)(\D.*)\Z")
_PARTITION = re.compile(r"part-(\d+)\.json\Z")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StoredCrawl:
    """Numbers of partitions and batches by what the store has of them."""

    parsed: dict[int, StageStats]  # partitions whose pairs are whole, with their stats
    loaded: set[int]  # partitions with stats of a load
    batches: set[int]  # with the file of their pairs
    shards: set[int]  # with all files of their shard; of those that are scored the tar may have been deleted
    scored: set[int]  # with scores that are whole

    @property
    def is_empty(self) -> bool:
        return not (self.parsed or self.loaded or self.batches or self.shards or self.scored)


def read_stored(crawl: str, store: Store) -> StoredCrawl:
    """List what the store has of a crawl, and read the stats of its parsed partitions."""
    with ThreadPoolExecutor(3) as pool:
        batches = pool.submit(_numbers, f"batches/{crawl}", store, {".parquet"})
        shards = pool.submit(_numbers, f"shards/{crawl}", store, _RECORD | {".tar"}, _RECORD)
        scored = pool.submit(_scored, crawl, store)
        parsed, loaded = _parsed(crawl, store), set(_partitions(store.list(f"load/{crawl}")))
        (planned,), (whole, recorded), scores = batches.result(), shards.result(), scored.result()
        return StoredCrawl(parsed, loaded, planned, whole | recorded & scores, scores)


def readable_stats(name: str, store: Store) -> StageStats | None:
    """Return stats; None where they are damaged, or were deleted since they were listed."""
    try:
        return store.read_stats(name)
    except (DamagedFileError, NewerFormatError, MissingFileError) as error:
        _log.warning("%s", error)
        return None


def _scored(crawl: str, store: Store) -> set[int]:
    """Return the batches that have stats of their scores, other than placeholders."""
    found: set[int] = set()
    small: list[int] = []
    placeholder = len(StageStats.unfinished("score", crawl, batch_name(0)).to_json())
    for file in store.files(f"scored/{crawl}"):
        match = _BATCH_FILE.match(file.name.rpartition("/")[2])
        if match and match[2] == "_stats.json":
            batch = int(match[1])
            found.add(batch)
            if file.bytes < 2 * placeholder:
                small.append(batch)
    with ThreadPoolExecutor(READERS) as pool:
        names = [f"{scored_stem(crawl, batch)}_stats.json" for batch in small]
        read = zip(small, pool.map(partial(readable_stats, store=store), names), strict=True)
        return found - {batch for batch, stats in read if stats is None or stats.fingerprint == UNFINISHED}


def _numbers(folder: str, store: Store, *endings: set[str]) -> list[set[int]]:
    """Return, for each set of endings, the batches that have a file with each of them.

    Names ascend, so the files of a batch follow one another.
    """
    found = (_BATCH_FILE.match(file.name.rpartition("/")[2]) for file in store.files(folder))
    matches = (match for match in found if match)
    numbers: list[set[int]] = [set() for _ in endings]
    for digits, files in groupby(matches, lambda match: match[1]):
        there = {match[2] for match in files}
        for needed, batches in zip(endings, numbers, strict=True):
            if needed <= there:
                batches.add(int(digits))
    return numbers


def _parsed(crawl: str, store: Store) -> dict[int, StageStats]:
    """Return the stats of the partitions whose files are all there."""
    folder = f"pairs/{crawl}"
    files = set(store.list(folder))
    numbers = list(_partitions(files))
    names = [f"{folder}/{partition_name(number)}.json" for number in numbers]
    with ThreadPoolExecutor(READERS) as pool:
        read = zip(numbers, pool.map(partial(readable_stats, store=store), names), strict=True)
        return {
            number: replace(stats, details={})
            for number, stats in read
            if stats is not None and {file.name for file in stats.outputs} <= files
        }


def _partitions(names: Iterable[str]) -> Iterator[int]:
    matches = (_PARTITION.match(name.rpartition("/")[2]) for name in names)
    return (int(match[1]) for match in matches if match)
