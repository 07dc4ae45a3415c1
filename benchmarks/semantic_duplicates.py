"""Semantic duplicates of a crawl in ranges: seconds, memory, and how many planted duplicates are found.

    python -m benchmarks.semantic_duplicates FOLDER 100000 1000000

Embeddings have 512 dimensions, as those of ViT-B/32. Half of each is a common direction, and the variance of
the rest falls with the number of the dimension, as that of images does; they form no groups, so that borders
of clusters run between near ones everywhere. One in ten samples is planted as a copy of another one, changed
in the directions in which images differ, to a cosine from 0.95 to 1; the limit is 0.95. FOLDER gets the files
of four ranges.
Each case runs in a process of its own, whose largest memory is printed.
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.ids import sample_key
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl
from laion_etl.io.storage import LocalStore
from laion_etl.publish import batch_vectors
from laion_etl.publish.batch_vectors import BatchVectors, unit
from laion_etl.publish.clusters import MOST_CLUSTERS, SAMPLES_PER_CLUSTER, Clusters, spherical_k_means
from laion_etl.publish.near_checkpoints import ComparedSlices
from laion_etl.publish.semantic_compare import KEYS, ClusterSpool, Comparison, write_redundant

_DIM = 512
_RANGES = 4
_COSINE = 0.95
_PER_BATCH = 5_000
_LEARNED_FROM = 131_072  # 64 batches of 2,048 at most
_PLANTED = 10  # one in so many


def main() -> None:
    """Print a row for each number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("samples", type=int, nargs="+", help=f"multiples of {_PER_BATCH:,}")
    given = parser.parse_args()
    if odd := [count for count in given.samples if count % _PER_BATCH]:
        parser.error(f"expected multiples of {_PER_BATCH:,}, found {odd[0]:,}")
    given.folder.mkdir(parents=True, exist_ok=True)
    print(
        "| samples | clusters | learn, s | assign and write, s | compare, s | CPU s in all | MiB "
        "| planted found | of cosine 0.99 and more | others left out |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in given.samples:
        for step in (_write_embeddings, _measure):  # what writes them is not measured
            process = multiprocessing.get_context("spawn").Process(target=step, args=(given.folder, count))
            process.start()
            process.join()


def _measure(folder: Path, count: int) -> None:
    store = LocalStore(folder / str(count))
    path = folder / f"{count}.embeddings"
    batches = [ScoredBatch(number, _PER_BATCH, (), "m") for number in range(count // _PER_BATCH)]
    batch_vectors.read_vectors = lambda _, batch, __: _batch(path, batch.number)  # type: ignore[assignment]  # of made files
    before, started, cpu = _memory(), time.perf_counter(), time.process_time()
    learned_from = [_batch(path, batch.number)[1] for batch in batches[:: max(1, count // _LEARNED_FROM)]]
    wanted = min(count // SAMPLES_PER_CLUSTER, MOST_CLUSTERS)
    clusters = Clusters(spherical_k_means(np.concatenate(learned_from)[:_LEARNED_FROM], wanted))
    learned = time.perf_counter()
    files = tuple(
        _write_range(batches[number::_RANGES], number, clusters, store) for number in range(_RANGES)
    )
    assigned = time.perf_counter()
    done = ComparedSlices("semantic", "made-up", store, KEYS)
    done.delete()  # those of an earlier run
    output, _ = write_redundant(Comparison(clusters, files, _COSINE, store), "semantic.parquet", done)
    ended = time.perf_counter()
    planted = np.load(folder / f"{count}-planted.npy")
    found, nearest, others = _found(output, planted, store)
    print(
        f"| {count:,} | {clusters.slices:,} | {learned - started:.0f} | {assigned - learned:.0f} "
        f"| {ended - assigned:.0f} | {time.process_time() - cpu:.0f} | {(_memory() - before) >> 10:,} "
        f"| {found:.1%} of {len(planted):,} | {nearest:.1%} | {others:,} |",
        flush=True,
    )


def _write_embeddings(folder: Path, count: int) -> None:
    """Write embeddings, and which are planted with what cosine; an original is better than its copies."""
    rng = np.random.default_rng(7)
    common = unit(rng.normal(size=(1, _DIM)).astype(np.float32))
    file = np.memmap(folder / f"{count}.embeddings", np.float16, "w+", shape=(count, _DIM))
    for start in range(0, count, _PER_BATCH):
        file[start : start + _PER_BATCH] = unit(common + unit(_drawn(rng, _PER_BATCH)))
    planted = np.sort(rng.choice(np.arange(count // 2, count), count // _PLANTED, replace=False))
    originals = rng.integers(0, count // 2, len(planted))
    cosines = rng.uniform(_COSINE + 0.002, 1, (len(planted), 1))
    for start in range(0, len(planted), _PER_BATCH):
        rows = planted[start : start + _PER_BATCH]
        near = cosines[start : start + _PER_BATCH]
        original = unit(file[originals[start : start + _PER_BATCH]])
        other = _drawn(rng, len(rows))
        other -= np.einsum("ij,ij->i", other, original)[:, None] * original
        file[rows] = near * original + np.sqrt(1 - near**2) * unit(other)
    file.flush()
    np.save(folder / f"{count}-planted.npy", np.column_stack([planted, cosines[:, 0]]))


def _drawn(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    spread = np.arange(1, _DIM + 1, dtype=np.float32) ** -0.5
    return rng.standard_normal((count, _DIM), np.float32) * spread


def _batch(path: Path, number: int) -> tuple[NDArray[np.bytes_], NDArray[np.float16]]:
    values = _PER_BATCH * _DIM
    found = np.fromfile(path, np.float16, values, offset=2 * values * number)
    return _keys(number), found.reshape(_PER_BATCH, _DIM)


def _keys(batch: int) -> NDArray[np.bytes_]:
    return np.asarray([sample_key(batch, index) for index in range(_PER_BATCH)], "S")


def _write_range(batches: list[ScoredBatch], number: int, clusters: Clusters, store: LocalStore) -> Output:
    scored = ScoredCrawl("crawl", tuple(batches), None, (), ())
    vectors = BatchVectors(scored, store, clusters.nearest)
    with ClusterSpool(clusters) as spool:
        for batch in batches:
            first = batch.number * _PER_BATCH
            similarity = -np.arange(first, first + _PER_BATCH, dtype=np.float32)
            spool.add_samples(_keys(batch.number), similarity, np.zeros(_PER_BATCH, np.int64), vectors)
        spool.flush()
        with store.create(f"clusters-{number}.bands") as file:
            spool.write_to(file)
    return file.output


def _found(output: Output, planted: NDArray[np.float64], store: LocalStore) -> tuple[float, float, int]:
    """Return the share of planted duplicates found, of all and of the nearest, and how many others."""
    import pyarrow.parquet as pq

    keys = pq.read_table(store.open(output.name))["key"].to_numpy() // 32 // 1_000  # 14 digits of 17
    rows = keys // 100_000 * _PER_BATCH + keys % 100_000
    found = np.isin(planted[:, 0].astype(np.int64), rows)
    return float(found.mean()), float(found[planted[:, 1] >= 0.99].mean()), len(rows) - int(found.sum())


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
