"""Clusters of image embeddings, within which semantic duplicates are looked for (SemDeDup, arXiv 2303.09540).

The problem: comparing every embedding with every other costs n * n products, 10^18 numbers for a crawl. The
choice, as in the paper: spherical k-means, and only embeddings of one cluster are compared. The centroids are
learned from some batches, chosen by the hash of their numbers, so that ranges of batches can assign their own
samples without knowing the others. They depend on these batches and on nothing else: neither on how a crawl
is divided into ranges, nor on what is excluded. Refused: faiss, one more compiled package for forty lines of
numpy; and clusters by the number of samples that are left after all exclusions, which no range knows.

Two near embeddings on both sides of a border would not be compared, and where clusters are not distinct these
are half of all. So each sample is put into the two clusters that are nearest: of a million, five in six are
then found (benchmarks/RESULTS.md), at twice the cost. More clusters for each sample cost as their square.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from laion_etl.blocklists.near_hashes import Ints
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.npy import read_array
from laion_etl.core.stage_stats import fingerprint
from laion_etl.dataset.model_text import without_device
from laion_etl.dataset.scored import ScoredBatch
from laion_etl.io.storage import Store
from laion_etl.publish.band_files import Records
from laion_etl.publish.batch_choice import scored_by_hash
from laion_etl.publish.batch_vectors import Floats, Vectors, read_vectors, unit

RULES = 1  # of learning and assigning: another number means other clusters
SAMPLE_BATCHES = 64
SAMPLES_PER_BATCH = 2_048
SAMPLES_PER_CLUSTER = 2_000
SAMPLE_PER_CLUSTER = 16  # at least, of those that centroids are learned from
MOST_CLUSTERS = 4_096
CLUSTERS_OF_A_SAMPLE = 2
_LOOKED_AT = 640  # batches, for some that are scored
_EPOCHS = 6
_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What the clusters of a crawl are made from."""

    crawl: str
    batches: tuple[ScoredBatch, ...]
    clusters: int

    @property
    def fingerprint(self) -> str:
        """Identifies the centroids."""
        return fingerprint(
            "clusters", RULES, self.clusters, [(one.number, one.outputs) for one in self.batches]
        )


def plan_clusters(crawl: str, numbers: Sequence[int], store: Store) -> ClusterPlan:
    """Choose the batches to learn from and the number of clusters; `numbers`: the planned batches."""
    found = scored_by_hash(crawl, numbers, _LOOKED_AT, store)
    batches = tuple(islice((one for one in found if one.kept), SAMPLE_BATCHES))
    kept = sum(one.kept for one in batches)
    learned_from = sum(min(one.kept, SAMPLES_PER_BATCH) for one in batches)
    samples = kept * len(numbers) // max(len(batches), 1)
    wanted = min(samples // SAMPLES_PER_CLUSTER, learned_from // SAMPLE_PER_CLUSTER, MOST_CLUSTERS)
    return ClusterPlan(crawl, batches, max(wanted, 1))


@dataclass(frozen=True, slots=True)
class Clusters:
    """Centroids of length 1, one for each cluster; a division of records that have a `cluster`."""

    centroids: Floats

    @property
    def count(self) -> int:
        return 1

    @property
    def slices(self) -> int:
        return len(self.centroids)

    @property
    def record_type(self) -> np.dtype[np.void]:
        """A sample with what decides between samples, its cluster and its embedding."""
        return np.dtype(
            [
                ("key", "<i8"),
                ("pixels", "<i8"),
                ("similarity", "<f4"),
                ("cluster", "<u4"),
                ("vector", "<f2", (self.centroids.shape[1],)),
            ]
        )

    def slices_of(self, records: Records, band: int) -> Ints:
        """Return the cluster of each record."""
        del band
        found: Ints = records["cluster"].astype(np.int64)
        return found

    def nearest(self, vectors: Floats) -> Ints:
        """Return the numbers of the nearest centroids of each vector, (n, 2), or (n, 1) if there is one.

        Raises InputError for vectors of other dimensions.
        """
        if vectors.shape[1:] != self.centroids.shape[1:]:
            raise InputError(
                f"cannot compare embeddings of {vectors.shape[1]} dimensions with others of "
                f"{self.centroids.shape[1]}: they are of different models; score the crawl by one model"
            )
        found = np.empty((len(vectors), min(CLUSTERS_OF_A_SAMPLE, self.slices)), np.int64)
        for start in range(0, len(vectors), _AT_ONCE):
            part = vectors[start : start + _AT_ONCE]
            cosines = part @ self.centroids.T
            for place in range(found.shape[1]):
                nearest = cosines.argmax(axis=1)
                found[start : start + _AT_ONCE, place] = nearest
                cosines[np.arange(len(part)), nearest] = -np.inf
        return found


def learn_clusters(plan: ClusterPlan, store: Store) -> Clusters:
    """Learn centroids from the batches of a plan.

    Raises InputError like `read_vectors`, and if several models scored these batches.
    """
    models = sorted({without_device(batch.model) for batch in plan.batches})
    if len(models) > 1:
        raise InputError(
            f"cannot compare the embeddings of {plan.crawl}: they are of several models, "
            f"{' and '.join(models)}; score the crawl by one model"
        )
    parts = [_some(read_vectors(plan.crawl, batch, store)[1]) for batch in plan.batches]
    if not parts:
        return Clusters(np.zeros((1, 1), np.float32))
    return Clusters(spherical_k_means(np.concatenate(parts), plan.clusters))


def _some(vectors: Vectors) -> Vectors:
    """Return evenly spaced ones."""
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), SAMPLES_PER_BATCH)).astype(np.int64)
    return vectors[chosen]


def spherical_k_means(vectors: Vectors, clusters: int) -> Floats:
    """Return centroids by mini-batches, each centroid with a learning rate of its own (Sculley 2010).

    The order is drawn from a fixed seed, so that equal vectors give equal centroids.
    """
    order = np.random.default_rng(2303_09540).permutation(len(vectors))
    centroids = unit(vectors[order[:clusters]])
    counts = np.ones(clusters)
    for start in [*range(0, len(order), _AT_ONCE)] * _EPOCHS:
        part = unit(vectors[order[start : start + _AT_ONCE]])
        labels = (part @ centroids.T).argmax(axis=1)
        by_label = np.argsort(labels, kind="stable")
        found, first, sizes = np.unique(labels[by_label], return_index=True, return_counts=True)
        counts[found] += sizes
        moved = np.add.reduceat(part[by_label], first, axis=0) - sizes[:, None] * centroids[found]
        centroids[found] = unit(centroids[found] + moved / counts[found, None])
    return centroids


def write_clusters(name: str, clusters: Clusters, store: Store) -> None:
    """Write centroids to the store."""
    data = io.BytesIO()
    np.save(data, clusters.centroids, allow_pickle=False)
    store.write(name, data.getvalue())


def read_clusters(name: str, crawl: str, store: Store) -> Clusters:
    """Read what `write_clusters` wrote. Raises InputError."""
    try:
        return Clusters(read_array(io.BytesIO(store.read(name))))
    except (MissingFileError, ValueError) as error:
        raise InputError(
            f"cannot read {store.uri(name)}: {error}; run `laion-etl stage publish --crawl {crawl} "
            "--prepare` again"
        ) from error
