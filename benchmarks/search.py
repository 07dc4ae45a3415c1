"""The index: build time, size, speed and recall, compared with an exhaustive search.

Made-up embeddings in clusters (float16, L2-normalised). `python -m benchmarks.search --rows 1000000` prints
the tables for benchmarks/RESULTS.md; rows are cut into parts as the index stage cuts them, and
LAION_ETL_INDEX_JOBS parts are built side by side.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.versions import Release
from laion_etl.search.filters import Filters
from laion_etl.search.hnsw import Graph, GraphWriter
from laion_etl.search.query import OpenPart, SearchIndex
from laion_etl.search.rows import open_rows, row_files
from laion_etl.settings import IndexSettings, PublishSettings

Halves = NDArray[np.float16]
Floats = NDArray[np.float32]

_CLUSTERS = 2_000
_SPREAD = 1.0  # of a cluster, relative to the distance between the centres
_CHUNK = 10_000  # rows of a batch
_K = 10
_SHOWN_EVERY = 50_000
_LANGUAGES = np.array(["en"] * 50 + ["nolang"] * 25 + ["de"] * 10 + ["fr"] * 14 + ["is"])


@dataclass(frozen=True)
class Made:
    """An index, its build cost, and the vectors for comparison."""

    index: SearchIndex
    build_s: float
    bytes_each: float
    rows_bytes_each: float


def vectors(rows: int, dim: int, seed: int) -> Iterator[Halves]:
    """Batches of made-up embeddings."""
    centres = np.random.default_rng(0).standard_normal((_CLUSTERS, dim), np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - start)
        noise = rng.standard_normal((count, dim), np.float32)
        made = centres[rng.integers(0, _CLUSTERS, count)] + _SPREAD * noise
        yield (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def build(folder: Path, rows: int, dim: int, settings: IndexSettings) -> Made:
    """Writes and opens an index; seconds are CPU time, without making the vectors."""
    starts = enumerate(range(0, rows, settings.rows_per_part))
    with ThreadPoolExecutor(settings.jobs) as pool:  # as the index stage does
        built = list(
            pool.map(lambda one: build_part(folder, *one, dim=dim, rows=rows, settings=settings), starts)
        )
    parts = [part for part, _, _, _ in built]
    seconds = sum(seconds for _, seconds, _, _ in built)
    bytes_graph = sum(graph for _, _, graph, _ in built)
    bytes_rows = sum(table for _, _, _, table in built)
    stats = StageStats("index", "", "made/up", "", rows, rows)
    index = SearchIndex(Release("made", "up"), stats, tuple(parts))
    return Made(index, seconds, bytes_graph / rows, bytes_rows / rows)


def build_part(
    folder: Path, number: int, start: int, *, dim: int, rows: int, settings: IndexSettings
) -> tuple[OpenPart, float, int, int]:
    """Writes and opens a part; returns it, CPU seconds, and the bytes of graph and rows."""
    count, seconds = min(settings.rows_per_part, rows - start), 0.0
    writer, nodes = GraphWriter(dim, settings), []
    for batch in vectors(count, dim, seed=number + 1):
        begin = time.thread_time()
        nodes.append(writer.add(batch))
        seconds += time.thread_time() - begin
        if writer.nodes % _SHOWN_EVERY == 0:
            print(f"part {number}: {writer.nodes:,} vectors, {seconds:.0f} s of the processor", flush=True)
    graph, table = folder / f"{number}.usearch", folder / f"{number}.arrow"
    begin = time.thread_time()
    with graph.open("wb") as file:
        writer.write(file)
    seconds += time.thread_time() - begin
    write_rows(table, start, count)
    opened = Graph.open(graph, dim, writer.nodes, settings, settings.dtype)
    shown, _ = open_rows(table, count, writer.nodes)
    part = OpenPart("made", opened, shown, np.concatenate(nodes), settings.exact_rows, PublishSettings())
    return part, seconds, graph.stat().st_size, table.stat().st_size


def write_rows(path: Path, first: int, count: int) -> None:
    """Rows as long as real ones: 70 characters of caption, 90 of address."""
    rng = np.random.default_rng(first)
    with path.open("wb") as file, pa.ipc.new_file(file, row_files().schema) as writer:
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            ids = np.arange(first + start, first + start + size)
            columns: dict[str, object] = {name: [None] * size for name in row_files().schema.names}
            columns |= {
                "SAMPLE_ID": ids,
                "URL": [f"https://images.example.com/{i:>060}" for i in ids],
                "TEXT": [f"{i:>070}" for i in ids],
                "NSFW": np.where(rng.random(size) < 0.03, "NSFW", "UNLIKELY"),
                "LANGUAGE": rng.choice(_LANGUAGES, size),
                "LICENSE": ["?"] * size,
                "similarity": (0.28 + rng.exponential(0.03, size)).astype(np.float32),
                **{name: np.zeros(size, np.int32) for name in ("WIDTH", "HEIGHT")},
                **{name: ["example.com"] * size for name in ("key", "crawl", "page_url", "domain")},
                "hash": ids,
            }
            writer.write_table(pa.table(columns, schema=row_files().schema))


def brute_force(index: SearchIndex, queries: Floats, filters: Filters) -> list[set[int]]:
    """The nearest rows of each query by comparing it with every vector that passes, all queries at once."""
    found = []
    for part in index.parts:
        passed = np.flatnonzero(filters.mask(part.rows, part.publish))
        ids = part.rows["SAMPLE_ID"].to_numpy()
        for start in range(0, len(passed), 50_000):
            rows = passed[start : start + 50_000]
            cosines = part.graph.floats(part.nodes[rows]) @ queries.T
            best = np.argpartition(-cosines, _K, axis=0)[:_K]
            found.append((ids[rows[best]], np.take_along_axis(cosines, best, axis=0)))
    ids, cosines = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(-cosines, axis=0)[:_K]
    return [set(column.tolist()) for column in np.take_along_axis(ids, order, axis=0).T]


def latencies(search: Callable[[Floats], object], queries: Floats) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds."""
    times = []
    for query in queries:
        begin = time.perf_counter()
        search(query)
        times.append((time.perf_counter() - begin) * 1000)
    return float(np.median(times)), float(np.percentile(times, 95))


def compare_all(index: SearchIndex, query: Floats) -> None:
    """The cost of a search without a graph."""
    for part in index.parts:
        part.graph.nearest_exact(query, _K, None)


FILTERS = {
    "safe only (97%)": Filters(),
    "no filter": Filters(unsafe=True),
    "safe, German (10%)": Filters(languages=("de",)),
    "safe, Icelandic (1%)": Filters(languages=("is",)),
}


def show(made: Made, queries: Floats, console: Console) -> None:
    table = Table("search", "median ms", "p95 ms", f"recall@{_K}")
    for name, filters in FILTERS.items():
        made.index.search(queries[0], _K, filters)  # the filter's rows are found once
        found = [{hit.sample_id for hit in made.index.search(query, _K, filters)} for query in queries]
        true = brute_force(made.index, queries, filters)
        recall = np.mean([len(one & other) / _K for one, other in zip(found, true, strict=True)])
        middle, late = latencies(partial(made.index.search, count=_K, filters=filters), queries)
        table.add_row(name, f"{middle:.1f}", f"{late:.1f}", f"{recall:.3f}")
    middle, late = latencies(lambda query: compare_all(made.index, query), queries[:10])
    table.add_row("every vector compared, no filter", f"{middle:.1f}", f"{late:.1f}", "1.000")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rows-per-part", type=int, default=IndexSettings().rows_per_part)
    parser.add_argument("--dtype", default="f16")
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    settings = IndexSettings(dtype=given.dtype, rows_per_part=given.rows_per_part)
    console = Console(width=100)
    near = next(vectors(given.queries, given.dim, seed=99)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        made = build(Path(folder), given.rows, given.dim, settings)
        speed, parts = given.rows / made.build_s, len(made.index.parts)
        console.print(f"{given.rows:,} x {given.dim} {given.dtype} in {parts} parts", highlight=False)
        console.print(f"build {made.build_s:.0f} s of the processor, {speed:,.0f} rows/s", highlight=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        console.print(f"memory while building at most {peak:,.0f} MiB", highlight=False)
        vector = given.dim * np.dtype({"f16": "f2", "i8": "i1"}[given.dtype]).itemsize
        console.print(
            f"{made.bytes_each:.0f} bytes a row (vector {vector}), and {made.rows_bytes_each:.0f} to show it",
            highlight=False,
        )
        show(made, near / np.linalg.norm(near, axis=1, keepdims=True), console)
        hours, size = 1e8 / speed / 3600, made.bytes_each / 10
        console.print(f"100 million rows, linear: {hours:.0f} core hours, {size:.0f} GB", highlight=False)


if __name__ == "__main__":
    main()
