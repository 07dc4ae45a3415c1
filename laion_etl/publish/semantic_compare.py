"""Finds semantic duplicates: samples of a cluster whose images have embeddings of at least some cosine.

The rule in a cluster is that of image_dedupe.py: from best to worst, a sample is redundant if a better one
that is not redundant is near. Each range writes its samples by cluster (clusters.py); this step reads one
cluster after another, and compares a block of samples with those of the cluster that are kept so far. Copies
of one image, however many, are each compared with the one that is kept, and no list of near pairs exists. In
memory are two blocks of 4,096 embeddings at most; a cluster is in a temporary file (TMPDIR), mapped, and so
are the keys of redundant samples (sorted_keys.py).

A sample is in two clusters and redundant if it is in one of them. The sample near it may be redundant in its
other cluster, for a better one: so of all samples that are connected by near ones at least the best is kept.
Refused: deciding about connected samples together, which needs a list of near pairs.

What some clusters decide is kept in the store (near_checkpoints.py), for a comparison that is killed.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import Ints
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.band_files import BandsFile, Records, SliceSpool, key_numbers
from laion_etl.publish.batch_vectors import BatchVectors, Floats, unit
from laion_etl.publish.clusters import Clusters, learn_clusters, plan_clusters
from laion_etl.publish.near_checkpoints import Compared, ComparedSlices
from laion_etl.publish.prepared import comparison_errors
from laion_etl.publish.ranked_images import best_first
from laion_etl.publish.sorted_keys import SortedKeys
from laion_etl.publish.spools import Spool

STAGE = "publish compare embeddings"
SCHEMA = pa.schema([pa.field("key", pa.int64(), nullable=False)])  # redundant samples, ascending
KEYS = np.dtype([("key", "<i8")])
_BLOCK = 1_024
_KEPT_AT_ONCE = 4_096
_CLUSTERS_PER_CHECKPOINT = 32
_READERS = 16
_ROWS_AT_ONCE = 1 << 18
_SPOOLED_AT_ONCE = 32_768  # samples, 34 MB with 512 dimensions


class ClusterSpool(SliceSpool):
    """Samples by cluster in a temporary file, each as often as it has clusters."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters, clusters.record_type)
        self._waiting: list[Records] = []

    def add_samples(
        self,
        keys: NDArray[np.bytes_],
        similarity: NDArray[np.float32],
        pixels: Ints,
        vectors: BatchVectors,
    ) -> None:
        """Add samples of one batch."""
        if not len(keys):
            return
        labels = vectors.labels_of(keys)
        records = np.empty((labels.shape[1], len(keys)), self._dtype)
        records["key"], records["similarity"] = key_numbers(keys), similarity
        records["pixels"], records["vector"] = pixels, vectors.of(keys)
        records["cluster"] = labels.T
        self._waiting.append(records.ravel())
        if sum(map(len, self._waiting)) >= _SPOOLED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Put into the file what is waiting; before `write_to`."""
        if self._waiting:
            self.add(np.concatenate(self._waiting))
            self._waiting = []


@dataclass(frozen=True, slots=True)
class Comparison:
    """Files of samples by cluster, and the least cosine of duplicates."""

    clusters: Clusters
    files: tuple[Output, ...]
    cosine: float
    store: Store

    def redundant(self, done: ComparedSlices | None = None) -> Iterator[Ints]:
        """Yield the keys of redundant samples, of some clusters at a time; a key may come twice."""
        with ThreadPoolExecutor(_READERS) as readers:
            opened = list(readers.map(self._open, self.files))
            for number, first in enumerate(range(0, self.clusters.slices, _CLUSTERS_PER_CHECKPOINT)):
                numbers = range(first, min(first + _CLUSTERS_PER_CHECKPOINT, self.clusters.slices))
                compare = partial(self._compared, numbers, opened, readers)
                yield (done.once(0, number, compare) if done is not None else compare())[0]["key"]

    def _open(self, output: Output) -> BandsFile:
        return BandsFile.open(output, self.clusters, self.clusters.record_type, self.store)

    def _compared(
        self, numbers: Sequence[int], opened: Sequence[BandsFile], readers: ThreadPoolExecutor
    ) -> Compared:
        found = [self._compared_cluster(number, opened, readers) for number in numbers]
        keys = np.concatenate(found)
        records = np.empty(len(keys), KEYS)
        records["key"] = keys
        return records, records[:0]

    def _compared_cluster(
        self, number: int, opened: Sequence[BandsFile], readers: ThreadPoolExecutor
    ) -> Ints:
        with tempfile.TemporaryFile() as file:
            spool = Spool(file, self.clusters.record_type)
            for start in range(0, len(opened), _READERS):
                for records in readers.map(lambda one: one.read(0, number), opened[start : start + _READERS]):
                    spool.add(records)
            return redundant_keys(spool.read(), self.cosine)


def redundant_keys(samples: Records, cosine: float) -> Ints:
    """Return the keys of samples of a cluster that are near a better one which is not redundant."""
    order = best_first(samples["similarity"], samples["pixels"], samples["key"])
    kept, count = np.empty(len(order), np.int64), 0
    redundant = [np.empty(0, np.int64)]
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        vectors = unit(samples["vector"][rows])
        left = np.arange(len(rows))
        for first in range(0, count, _KEPT_AT_ONCE):
            others = unit(samples["vector"][kept[first : min(first + _KEPT_AT_ONCE, count)]])
            left = left[(vectors[left] @ others.T).max(axis=1, initial=-1) < cosine]
        left = left[_leaders(vectors[left], cosine)]
        kept[count : count + len(left)] = rows[left]
        count += len(left)
        redundant.append(samples["key"][np.delete(rows, left)])
    return np.concatenate(redundant)


def _leaders(vectors: Floats, cosine: float) -> NDArray[np.bool_]:
    """Return which vectors, from best to worst, are not near one before them that is not near one itself."""
    near = np.triu(vectors @ vectors.T >= cosine, 1)
    leaders = np.ones(len(vectors), np.bool_)
    for row in np.flatnonzero(near.any(axis=1)).tolist():
        if leaders[row]:
            leaders[near[row]] = False
    return leaders


def write_redundant(comparison: Comparison, name: str, done: ComparedSlices) -> tuple[Output, int]:
    """Compare all samples and write the keys of redundant ones; returns the file and their number."""
    count = 0
    with tempfile.TemporaryFile() as spooled, comparison.store.create(name) as file:
        keys = SortedKeys(Spool(spooled, np.dtype(np.int64)))
        for found in comparison.redundant(done):
            keys.add(found)
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for some in keys.ascending():
                writer.write_table(pa.table([pa.array(some)], schema=SCHEMA), row_group_size=_ROWS_AT_ONCE)
                count += len(some)
    return file.output, count


def are_redundant(numbers: Ints, output: Output, store: Store) -> NDArray[np.bool_]:
    """Return which keys, as numbers, are those of redundant samples.

    Keys ascend with batches, so of the file only what lies between the least and the greatest is read.
    """
    found = np.zeros(len(numbers), np.bool_)
    if not len(numbers):
        return found
    least, greatest = int(numbers.min()), int(numbers.max())
    with store.open(output.name) as file, comparison_errors(output.name, store):
        keys = BoundedParquet(file)
        groups = [
            group
            for group, known in enumerate(keys.numbers_of_groups("key"))
            if known is None or (known[0] <= greatest and known[1] >= least)
        ]
        for rows in keys.iter_batches(_ROWS_AT_ONCE, ["key"], groups) if groups else ():
            found |= np.isin(numbers, rows.column("key").to_numpy(zero_copy_only=False))
    return found


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """Samples of a crawl in the order of their keys, and what decides between them.

    `lengths`: how many of them follow each other in one batch.
    """

    keys: NDArray[np.bytes_]
    similarity: NDArray[np.float32]
    pixels: Ints
    lengths: tuple[int, ...]


def redundant_at_once(
    samples: SampleOrder, scored: ScoredCrawl, cosine: float, store: Store
) -> NDArray[np.bool_]:
    """Return which samples of a crawl are redundant, without files in the store."""
    planned = [batch.number for batch in scored.batches]
    if scored.planned is not None:
        planned = planned_batches(scored.crawl, store)
    clusters = learn_clusters(plan_clusters(scored.crawl, planned, store), store)
    vectors = BatchVectors(scored, store, clusters.nearest)
    numbers = key_numbers(samples.keys)
    with tempfile.TemporaryDirectory() as folder, ClusterSpool(clusters) as spool:
        start = 0
        for length in samples.lengths:
            rows = slice(start, start + length)
            spool.add_samples(samples.keys[rows], samples.similarity[rows], samples.pixels[rows], vectors)
            start += length
        spool.flush()
        local = LocalStore(Path(folder))
        with local.create("clusters") as file:
            spool.write_to(file)
        redundant = np.zeros(len(numbers), np.bool_)
        for found in Comparison(clusters, (file.output,), cosine, local).redundant():
            redundant |= np.isin(numbers, found)
        return redundant
