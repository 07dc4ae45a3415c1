"""Peer of benchmarks.search: the same made-up vectors in an inverted file of faiss.

faiss is not a dependency: install `faiss-cpu` into an environment of its own (benchmarks/peers.txt) and run
`python -m benchmarks.search_peer --rows 1000000`. Vectors are stored as float16, as in the index.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from rich.console import Console

from benchmarks.search import vectors

_SAMPLES_PER_LIST = 48  # for k-means
_K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--lists", type=int, default=1_024)
    parser.add_argument("--rows-per-part", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    console = Console(width=100, highlight=False)
    faiss.omp_set_num_threads(1)
    queries = next(vectors(given.queries, given.dim, seed=99)).astype(np.float32)
    quantizer = faiss.IndexFlatIP(given.dim)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, given.dim, given.lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    sample = np.concatenate(
        list(vectors(min(given.rows, given.lists * _SAMPLES_PER_LIST), given.dim, seed=1))
    )
    begin = time.process_time()
    index.train(sample.astype(np.float32))
    train_s = time.process_time() - begin
    add_s = 0.0
    best = np.full((given.queries, _K), -2.0, np.float32)
    nearest = np.full((given.queries, _K), -1, np.int64)
    for number, first in enumerate(range(0, given.rows, given.rows_per_part)):
        place = first
        for batch in vectors(min(given.rows_per_part, given.rows - first), given.dim, seed=number + 1):
            floats = batch.astype(np.float32)
            begin = time.process_time()
            index.add(floats)
            add_s += time.process_time() - begin
            cosines = np.concatenate([best, queries @ floats.T], axis=1)
            rows = np.concatenate(
                [nearest, np.broadcast_to(np.arange(place, place + len(batch)), (given.queries, len(batch)))],
                axis=1,
            )
            chosen = np.argpartition(-cosines, _K, axis=1)[:, :_K]
            best, nearest = np.take_along_axis(cosines, chosen, 1), np.take_along_axis(rows, chosen, 1)
            place += len(batch)
            if place % 100_000 == 0:
                console.print(f"{place:,} rows, adding {add_s:.0f} s")
    console.print(f"training {train_s:.0f} s, adding {add_s:.0f} s of the processor")
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        path = Path(folder) / "ivf.faiss"
        faiss.write_index(index, str(path))
        console.print(f"{path.stat().st_size / given.rows:.0f} bytes a row")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"memory while building at most {peak:,.0f} MiB")
    for probes in (1, 4, 8, 16, 32, 64):
        index.nprobe = probes
        begin = time.process_time()
        found = [index.search(query[None], _K)[1][0] for query in queries]
        each = (time.process_time() - begin) / given.queries * 1000
        recall = np.mean([len(set(a) & set(b)) / _K for a, b in zip(found, nearest, strict=True)])
        console.print(f"{probes} lists: {each:.1f} ms of the processor a query, recall@{_K} {recall:.3f}")


if __name__ == "__main__":
    main()
