"""The samples of a published version by scored batch, as the index needs them.

The only module of this package that knows the layout of a version.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import batch_of
from laion_etl.core.stage_stats import fingerprint
from laion_etl.dataset.file_ranges import FileRange, file_ranges
from laion_etl.dataset.manifest import Manifest, read_manifest
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.dataset.versions import Release, read_versions
from laion_etl.io.storage import Store

_ROWS_PER_READ = 1 << 17

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """The published samples of one scored batch: their ids (keys as numbers), ascending."""

    crawl: str
    number: int
    ids: Ids


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A visible version."""

    manifest: Manifest

    @property
    def release(self) -> Release:
        return self.manifest.release

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.manifest.parts)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the version's rows, independent of its card and report."""
        parts = self.manifest.parts
        return fingerprint([(part.crawl, part.version, part.fingerprint, part.removals) for part in parts])

    @property
    def ranges(self) -> tuple[FileRange, ...]:
        """The ranges of batches that the files were published in, by crawl and number."""
        return file_ranges(self.manifest)

    def batches(self, store: Store) -> Iterator[PublishedBatch]:
        """Yield the batches by crawl and number, with a few hundred thousand ids in memory at a time."""
        for one in self.ranges:
            yield from batches_of(one, store)


def batches_of(one: FileRange, store: Store) -> Iterator[PublishedBatch]:
    """Yield the batches of a range: merges the language subsets, which together hold every row once."""
    files = ([file.name for file in one.data_files(subset)] for subset in LANGUAGE_SUBSETS)
    merged = heapq.merge(*(_runs(names, store) for names in files), key=_number)
    for number, runs in groupby(merged, key=_number):
        yield PublishedBatch(one.crawl, number, np.sort(np.concatenate(list(runs))))


def find_published(dataset: str, version: str, store: Store) -> PublishedVersion:
    """Find a version by name, '' for the current one. Raises InputError if it does not exist."""
    found = read_versions(dataset, store).find(version)
    return PublishedVersion(read_manifest(dataset, found, store))


def _number(ids: Ids) -> int:
    return batch_of(int(ids[0]))


def _runs(names: Sequence[str], store: Store) -> Iterator[Ids]:
    """Yield runs of ids of one batch each. Raises InputError unless batches ascend."""
    last = -1
    for name in names:
        for run in _ids(name, store):
            if _number(run) < last:
                raise InputError(
                    f"cannot read {store.uri(name)}: keys are out of order; publish its crawl again"
                )
            last = _number(run)
            yield run


def _ids(name: str, store: Store) -> Iterator[Ids]:
    with store.open(name) as file:
        try:
            for rows in BoundedParquet(file).iter_batches(_ROWS_PER_READ, ["key"]):
                ids = rows.column("key").cast(pa.int64()).to_numpy()
                batches = batch_of(ids)
                yield from np.split(ids, np.flatnonzero(batches[1:] != batches[:-1]) + 1)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; publish it again") from error
