"""What a published version holds, as far as the index needs it: which samples of which scored batches.

The one place of this package that knows how a version is laid out.
"""

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.errors import InputError, MissingInputError
from laion_etl.publish import manifest
from laion_etl.publish.release import Release
from laion_etl.records import SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG, StageStats
from laion_etl.storage import Store

_STATS = "_stats.json"  # written last: a version that has it is whole
_ROWS_PER_READ = 1 << 17
_KEY_INDEX_DIGITS = 100_000
_WHOLE = frozenset({SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG})  # they share no row and hold all

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """The published samples of one scored batch: their ids (keys as numbers), ascending."""

    crawl: str
    number: int
    ids: Ids


def versions(name: str, store: Store) -> list[str]:
    """The published versions of a dataset, by name, ascending."""
    found = (entry.split("/") for entry in store.list(f"dataset/{name}"))
    return sorted(parts[2] for parts in found if len(parts) == 4 and parts[3] == _STATS)


def last_version(name: str, store: Store) -> str:
    """The last of them; raises MissingInputError when nothing is published."""
    found = versions(name, store)
    if not found:
        raise MissingInputError(
            f"no version in {store.uri(f'dataset/{name}')}; run `laion-etl publish` first"
        )
    return found[-1]


def published_stats(release: Release, store: Store) -> StageStats:
    """The stats of a finished version: its rows, and a fingerprint that changes with them.

    Raises MissingInputError when it is not published, or not wholly.
    """
    if not store.exists(release.file(_STATS)):
        raise MissingInputError(f"{store.uri(release.folder)} is no finished version; publish it first")
    return store.read_stats(release.file(_STATS))


def published_batches(release: Release, store: Store) -> Iterator[PublishedBatch]:
    """The batches of a version by crawl and number; a few hundred thousand ids in memory at a time."""
    streams = [_ids_of_files(files, store) for files in _files(release, store).values()]
    merged = heapq.merge(*streams, key=lambda run: (run.crawl, run.number))
    for (crawl, number), runs in groupby(merged, key=lambda run: (run.crawl, run.number)):
        yield PublishedBatch(crawl, number, np.sort(np.concatenate([run.ids for run in runs])))


def _files(release: Release, store: Store) -> dict[str, list[str]]:
    """The data files of each subset that together hold every row once, in the order of their rows."""
    try:
        listed = json.loads(store.read(release.file(manifest.NAME)))["files"]
        wanted = [entry for entry in listed if entry["subset"] in _WHOLE and entry["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        uri = store.uri(release.file(manifest.NAME))
        raise InputError(f"{uri} is no manifest ({error!r}); publish the version again") from error
    by_subset: dict[str, list[str]] = {}
    for entry in wanted:
        by_subset.setdefault(entry["subset"], []).append(release.file(entry["name"]))
    return {
        subset: sorted(names, key=lambda name: _first(name, store)) for subset, names in by_subset.items()
    }


def _first(name: str, store: Store) -> tuple[str, str]:
    """Crawl and key of the first row of a file."""
    with store.open(name) as file:
        row = next(pq.ParquetFile(file).iter_batches(1, columns=["crawl", "key"])).to_pylist()[0]
    return row["crawl"], row["key"]


def _ids_of_files(names: list[str], store: Store) -> Iterator[PublishedBatch]:
    """Runs of ids of the same batch; raises InputError unless crawls and batches ascend."""
    last = ("", -1)
    for name in names:
        for run in _ids(name, store):
            if (run.crawl, run.number) < last:
                raise InputError(f"{store.uri(name)} has keys out of order; publish the version again")
            last = (run.crawl, run.number)
            yield run


def _ids(name: str, store: Store) -> Iterator[PublishedBatch]:
    with store.open(name) as file:
        try:
            for rows in pq.ParquetFile(file).iter_batches(_ROWS_PER_READ, columns=["crawl", "key"]):
                crawls = rows.column("crawl").to_numpy(zero_copy_only=False)
                ids = rows.column("key").cast(pa.int64()).to_numpy()
                batches = ids // _KEY_INDEX_DIGITS
                new = (batches[1:] != batches[:-1]) | (crawls[1:] != crawls[:-1])
                starts = np.append(0, np.flatnonzero(new) + 1)
                for start, run in zip(starts, np.split(ids, starts[1:]), strict=True):
                    yield PublishedBatch(str(crawls[start]), int(batches[start]), run)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{store.uri(name)} can't be read ({error}); publish it again") from error
