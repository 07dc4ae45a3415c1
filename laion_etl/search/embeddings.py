"""Writes the embeddings of a published version for others' tools, in the layout of clip-retrieval.

`img_emb/img_emb_NNNNN.npy`, `text_emb/text_emb_NNNNN.npy` and `metadata/metadata_NNNNN.parquet` have the same
number of rows, and row i of one belongs to row i of the others. In the scored shards that is not so: their
parquet files also have rows of rejected samples, and both kinds of embeddings are next to each other.
autofaiss and embedding-reader take all `.npy` files below a folder, and pair those of two folders by order.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.dataset.scored import ScoredCrawl, read_batch, scored_among
from laion_etl.dataset.subsets import published_rows
from laion_etl.io.storage import Store
from laion_etl.search.index_part import read_vectors
from laion_etl.search.published_rows import PublishedBatch, PublishedVersion, batches_of

_ROWS_PER_FILE = 100_000  # of 512 numbers: 100 MB
_BATCHES_AT_ONCE = 64  # whose stats are read concurrently
_KINDS = ("img_emb", "text_emb")
_RENAMED = {"url": "URL", "caption": "TEXT"}  # as clip-retrieval names what it shows

Vectors = NDArray[np.float16]
Report = Callable[[int, int], None]


def export_embeddings(
    published: PublishedVersion, store: Store, target: Store, report: Report = lambda *_: None
) -> int:
    """Write the embeddings of a version and its rows; returns the number of rows.

    Raises InputError if the target has such files already, or if scored shards are gone or are not those that
    were published.
    """
    folders = [*_KINDS, "metadata"]
    if found := next((name for folder in folders for name in target.list(folder)), ""):
        raise InputError(
            f"cannot write embeddings to {target.uri()}: it has {found}, which readers would take for one of "
            "them; empty the folder, or name another"
        )
    rows, number = 0, 0
    waiting: list[tuple[pa.Table, dict[str, Vectors]]] = []
    for one in _batches(published, store):
        waiting.append(one)
        if sum(table.num_rows for table, _ in waiting) >= _ROWS_PER_FILE:
            rows += _write(waiting, number, target)
            waiting, number = [], number + 1
            report(rows, published.rows)
    if waiting:
        rows += _write(waiting, number, target)
    return rows


def _batches(published: PublishedVersion, store: Store) -> Iterator[tuple[pa.Table, dict[str, Vectors]]]:
    for one in published.ranges:
        some: list[PublishedBatch] = []
        for batch in batches_of(one, store):
            some.append(batch)
            if len(some) == _BATCHES_AT_ONCE:
                yield from _read(some, store)
                some = []
        yield from _read(some, store)


def _read(batches: Sequence[PublishedBatch], store: Store) -> Iterator[tuple[pa.Table, dict[str, Vectors]]]:
    """Yield the published rows of each batch, and their embeddings."""
    if not batches:
        return
    crawl = batches[0].crawl
    scored = scored_among(crawl, [batch.number for batch in batches], store)
    if scored.missing:
        raise InputError(
            f"cannot read the embeddings of batch {scored.missing[0]} of {crawl}: its scored shard is gone; "
            "restore it, or score the batch and publish the crawl again"
        )
    for batch, found in zip(batches, scored.batches, strict=True):
        tables = [published_rows(rows, crawl) for rows in read_batch(scored, found, store)]
        table = pa.concat_tables(tables)
        chosen = np.isin(table["SAMPLE_ID"].to_numpy(), batch.ids)
        vectors = {kind: _vectors(scored, batch.number, kind, table.num_rows, store) for kind in _KINDS}
        if int(chosen.sum()) != len(batch.ids):
            raise InputError(
                f"cannot read the embeddings of batch {batch.number} of {crawl}: its scored shard lacks "
                f"{len(batch.ids) - int(chosen.sum()):,} published samples; publish the crawl again"
            )
        yield table.filter(pa.array(chosen)), {kind: matrix[chosen] for kind, matrix in vectors.items()}


def _vectors(scored: ScoredCrawl, batch: int, kind: str, rows: int, store: Store) -> Vectors:
    name = scored.shard_name(batch, f"_{kind}.npy")
    vectors = read_vectors(name, store)
    if len(vectors) != rows:
        raise InputError(
            f"cannot read {store.uri(name)}: it has {len(vectors):,} embeddings of {rows:,} samples; "
            "score the batch again"
        )
    return vectors


def _write(parts: Sequence[tuple[pa.Table, dict[str, Vectors]]], number: int, target: Store) -> int:
    table = pa.concat_tables([rows for rows, _ in parts])
    for kind in _KINDS:
        with target.create(f"{kind}/{kind}_{number:05d}.npy") as file:
            np.save(file, np.concatenate([vectors[kind] for _, vectors in parts]), allow_pickle=False)
    for name, source in _RENAMED.items():
        table = table.rename_columns([name if column == source else column for column in table.column_names])
    with target.create(f"metadata/metadata_{number:05d}.parquet") as file:
        pq.write_table(table, file, compression="zstd")
    return int(table.num_rows)
