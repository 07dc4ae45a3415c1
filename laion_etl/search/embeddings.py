"""Writes the embeddings of a published version for others' tools, in the layout of clip-retrieval.

`img_emb/img_emb_NNNNN.npy`, `text_emb/text_emb_NNNNN.npy` and `metadata/metadata_NNNNN.parquet` have the same
number of rows, and row i of one belongs to row i of the others. In the scored shards that is not so: their
parquet files also have rows of rejected samples, and both kinds of embeddings are next to each other.
autofaiss and embedding-reader take all `.npy` files below a folder, and pair those of two folders by order.

`_stats.json` is written last: without it the export is not complete. `_export/begun.json` names the version
before anything is written, `_export/NNNNN_stats.json` follows the three files of a number; an export that was
killed goes on after the last of them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.scored import ScoredCrawl, read_batch, scored_among
from laion_etl.dataset.subsets import published_rows
from laion_etl.io.outputs import has_outputs
from laion_etl.io.storage import Store
from laion_etl.search.index_part import read_vectors
from laion_etl.search.published_rows import PublishedBatch, PublishedVersion, batches_of

FORMAT = 1
STATS = "_stats.json"
_RECORDS = "_export"
_BEGUN = f"{_RECORDS}/begun.json"
_ROWS_PER_FILE = 100_000  # of 512 numbers: 100 MB
_BATCHES_AT_ONCE = 64  # whose stats are read concurrently
_KINDS = ("img_emb", "text_emb")
_RENAMED = {"url": "URL", "caption": "TEXT"}  # as clip-retrieval names what it shows

Vectors = NDArray[np.float16]
Report = Callable[[int, int], None]


def export_embeddings(
    published: PublishedVersion, store: Store, target: Store, report: Report = lambda *_: None
) -> StageStats:
    """Write the embeddings of a version and its rows, what is not there yet; returns the stats of all.

    Raises InputError if the target has such files of something else, or if scored shards are gone or are not
    those that were published.
    """
    wanted = fingerprint("embeddings", FORMAT, published.release, published.fingerprint, _ROWS_PER_FILE)
    _begin(published, wanted, target)
    done = target.finished(STATS, wanted)
    parts: list[StageStats] = []
    for number, batches in enumerate(_files(published, store)):
        name = f"{_RECORDS}/{number:05d}{STATS}"
        part = target.finished(name, wanted)
        if part is None or not has_outputs(part, target):
            part, done = _write(name, wanted, batches, published, store, target), None
        parts.append(part)
        report(sum(one.kept for one in parts), published.rows)
    return done or target.write_stats(STATS, _stats(published, wanted, parts))


def _begin(published: PublishedVersion, wanted: str, target: Store) -> None:
    """Record what is written; raises InputError if the target has such files that are not part of it."""
    begun = target.read_with_etag(_BEGUN)
    if begun is not None and _made_from(begun[0]) == wanted:
        return
    folders = [*_KINDS, "metadata", _RECORDS]
    if found := next((name for folder in folders for name in target.list(folder)), ""):
        raise InputError(
            f"cannot write embeddings of {published.release.folder} to {target.uri()}: it has {found}, which "
            "is not part of them, and readers would take it for one; empty the folder, or name another"
        )
    document = {"format": FORMAT, "unit": _unit(published), "fingerprint": wanted}
    target.write(_BEGUN, json.dumps(document).encode() + b"\n")


def _made_from(data: bytes) -> str:
    try:
        return str(parse_json(data)["fingerprint"])
    except NOT_AS_EXPECTED:
        return ""


def _unit(published: PublishedVersion) -> str:
    return f"{published.release.name}/{published.release.version}"


def _files(published: PublishedVersion, store: Store) -> Iterator[list[PublishedBatch]]:
    """Yield the batches of each file."""
    waiting: list[PublishedBatch] = []
    for one in published.ranges:
        for batch in batches_of(one, store):
            waiting.append(batch)
            if sum(len(found.ids) for found in waiting) >= _ROWS_PER_FILE:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _batches(
    batches: Sequence[PublishedBatch], store: Store
) -> Iterator[tuple[pa.Table, dict[str, Vectors]]]:
    for _, of_crawl in groupby(batches, key=lambda batch: batch.crawl):
        while some := list(islice(of_crawl, _BATCHES_AT_ONCE)):
            yield from _read(some, store)


def _read(batches: Sequence[PublishedBatch], store: Store) -> Iterator[tuple[pa.Table, dict[str, Vectors]]]:
    """Yield the published rows of each batch of a crawl, and their embeddings."""
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
                f"{quantity(len(batch.ids) - int(chosen.sum()), 'published sample')}; publish the crawl again"
            )
        yield table.filter(pa.array(chosen)), {kind: matrix[chosen] for kind, matrix in vectors.items()}


def _vectors(scored: ScoredCrawl, batch: int, kind: str, rows: int, store: Store) -> Vectors:
    name = scored.shard_name(batch, f"_{kind}.npy")
    vectors = read_vectors(name, store)
    if len(vectors) != rows:
        raise InputError(
            f"cannot read {store.uri(name)}: it has {quantity(len(vectors), 'embedding')} of "
            f"{quantity(rows, 'sample')}; score the batch again"
        )
    return vectors


def _write(
    name: str,
    wanted: str,
    batches: Sequence[PublishedBatch],
    published: PublishedVersion,
    store: Store,
    target: Store,
) -> StageStats:
    """Write the files of a number and their record."""
    number = name.removeprefix(f"{_RECORDS}/").removesuffix(STATS)
    parts = list(_batches(batches, store))
    table = pa.concat_tables([rows for rows, _ in parts])
    outputs = []
    for kind in _KINDS:
        with target.create(f"{kind}/{kind}_{number}.npy") as file:
            np.save(file, np.concatenate([vectors[kind] for _, vectors in parts]), allow_pickle=False)
        outputs.append(file.output)
    for column, source in _RENAMED.items():
        table = table.rename_columns([column if old == source else old for old in table.column_names])
    with target.create(f"metadata/metadata_{number}.parquet") as file:
        pq.write_table(table, file, compression="zstd")
    outputs.append(file.output)
    made = StageStats(
        "embeddings", "", f"{_unit(published)}/{number}", wanted, table.num_rows, table.num_rows, {}
    )
    return target.write_stats(name, replace(made, outputs=tuple(outputs)))


def _stats(published: PublishedVersion, wanted: str, parts: Sequence[StageStats]) -> StageStats:
    rows = sum(part.kept for part in parts)
    outputs = tuple(output for part in parts for output in part.outputs)
    return StageStats("embeddings", "", _unit(published), wanted, rows, rows, {}, outputs)
