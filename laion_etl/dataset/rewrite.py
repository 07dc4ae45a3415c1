"""Rewrites files of the store without the rows that removal requests match.

Of a shard the tar and embeddings are rewritten first, then the stats, the parquet last: while the parquet
still has a row to remove, the shard is unfinished, and a call after a kill repeats the work. Each file is
replaced in one atomic write, and its new content depends only on its old content and the requests.
"""

import io
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from laion_etl.blocklists.removal_requests import REASON, Matcher, blanked
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.npy import read_array
from laion_etl.core.parquet_bounds import LARGE_TABLE_BYTES, BoundedParquet
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import BATCH_FILES, PAIR_FILES, SCORED_FILES, SHARD_FILES
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.outputs import rewritten
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, copy_without

_ROWS_AT_ONCE = 1 << 16  # what a lookup makes of rows is larger than the rows
_FILES = {"pairs": PAIR_FILES, "batches": BATCH_FILES, "shards": SHARD_FILES, "scored": SCORED_FILES}


def read_table(name: str, store: Store, columns: list[str] | None = None) -> pa.Table:
    """Read a file of pairs, batches or shards, of `columns` those that it has.

    Raises InputError if it cannot be read, or a newer laion-etl wrote it.
    """
    kind = name.partition("/")[0]
    # Of a small file one request reads all; one of pairs is on disk while it is read.
    with store.open(name) if kind == "pairs" else io.BytesIO(store.read(name)) as file:
        try:
            parquet = BoundedParquet(file)
            _FILES[kind].check_number(parquet.schema_arrow, store.uri(name))
            has = parquet.schema_arrow.names
            chosen = [one for one in columns if one in has] if columns else None
            if kind == "pairs":  # a partition may have millions
                return parquet.read(chosen, most_bytes=LARGE_TABLE_BYTES)
            return parquet.read(chosen, MAX_BATCH_PAIRS)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; run its stage again") from error


def rewrite_rows(
    name: str,
    store: Store,
    matcher: Matcher,
    on_found: Callable[[dict[str, str], pa.Table], None] | None = None,
) -> None:
    """Rewrite a file of pairs without the rows; its stats stay but for the file's new size and SHA-256.

    So it is not loaded again. They are written first: of a file that is not theirs nothing is loaded.

    `on_found` is called before that with the ids of its pairs, the rule that matches each, and their rows.
    """
    table = read_table(name, store)
    found: dict[str, str] = {}
    masks = []
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        of_slice, matched = matcher.match_pairs(table.slice(start, _ROWS_AT_ONCE))
        found = of_slice | found
        masks.append(matched)
    if found:
        matched = np.concatenate(masks)
        if on_found is not None:
            on_found(found, table.filter(pa.array(matched)))
        _write_pairs(name, table.filter(pa.array(~matched)), store)


def blank_rows(name: str, store: Store, matcher: Matcher) -> None:
    """Blank the rows of a batch: the other rows keep their places, which are their keys."""
    table = read_table(name, store)
    without = blanked(table, matcher)
    if without != table:
        _write_parquet(name, without, store)


def rewrite_shard(stem: str, store: Store, matcher: Matcher) -> None:
    """Rewrite a shard of `shards/` without the samples; its stats count them as removed by request."""
    _rewrite(_Shard(stem, store), matcher, _download_stats)


def rewrite_scored(stem: str, store: Store, matcher: Matcher) -> None:
    """Rewrite a scored shard without the samples; its stats count the remaining ones."""
    _rewrite(_Shard(stem, store), matcher, _score_stats)


@dataclass(frozen=True, slots=True)
class _Shard:
    stem: str
    store: Store

    def file(self, ending: str) -> str:
        return self.stem + ending


def _rewrite(shard: _Shard, matcher: Matcher, counted: Callable[[StageStats, pa.Table], StageStats]) -> None:
    table = read_table(shard.file(".parquet"), shard.store)
    gone = matcher.finds(table)
    if not gone.any():
        return
    left = table.filter(pa.array(~gone))
    keys = set(table.filter(pa.array(gone))["key"].to_pylist())
    tar = _without_members(shard, keys)
    outputs = [tar] if tar is not None else []
    for ending in ("_img_emb.npy", "_text_emb.npy"):
        with suppress(MissingFileError):
            outputs.append(_without_embeddings(shard, ending, table, gone))
    sink = io.BytesIO()
    pq.write_table(left, sink, compression="zstd")
    data = sink.getvalue()
    parquet = Output.from_bytes(shard.file(".parquet"), data)
    stats_name = shard.file("_stats.json")
    with suppress(MissingFileError):
        stats = shard.store.read_stats(stats_name)
        renewed = {output.name: output for output in (*outputs, parquet)}
        kept = tuple(renewed.get(output.name, output) for output in stats.outputs)
        shard.store.write_stats(stats_name, replace(counted(stats, left), outputs=kept))
    shard.store.write(parquet.name, data)


class _DeletedError(Exception):
    """The tar was deleted while it was rewritten: its shard is scored by now."""


def _without_members(shard: _Shard, keys: set[str]) -> Output | None:
    """Return the new tar; None if there is no tar, or a score worker deletes it meanwhile."""
    name, store = shard.file(".tar"), shard.store

    def still_there() -> None:
        if not store.exists(name):
            raise _DeletedError

    if not store.exists(name):
        return None
    try:
        # Without the guard it would come back, and stay: the queue has noted that it is deleted.
        with store.open(name) as source, store.create(name, still_there) as target:
            try:
                copy_without(source, target, keys)
            except TarError as error:
                raise InputError(
                    f"cannot read {store.uri(name)}: {error}; download and score the shard again"
                ) from error
    except _DeletedError:
        return None
    except MissingFileError:
        if store.exists(name):
            raise
        return None
    return target.output


def _without_embeddings(shard: _Shard, ending: str, table: pa.Table, gone: npt.NDArray[np.bool_]) -> Output:
    """Row i belongs to the i-th kept sample; a file already rewritten has one row per remaining sample.

    Raises MissingFileError where there are no embeddings.
    """
    name = shard.file(ending)
    data = io.BytesIO(shard.store.read(name))
    kept = pc.is_null(table["reason"]).to_numpy()
    try:
        matrix = read_array(data)
    except ValueError as error:
        raise InputError(f"cannot read {shard.store.uri(name)}: {error}; score the shard again") from error
    left = int(np.count_nonzero(kept & ~gone))
    if matrix.ndim != 2:
        raise InputError(f"cannot read {shard.store.uri(name)}: it is not a matrix; score the shard again")
    if len(matrix) == int(np.count_nonzero(kept)):
        matrix = matrix[~gone[kept]]
    elif len(matrix) != left:
        raise InputError(
            f"cannot rewrite {shard.store.uri(name)}: it has {quantity(len(matrix), 'row')}, not {left}; "
            "score the shard again"
        )
    with shard.store.create(name) as target:
        np.save(target, matrix, allow_pickle=False)
    return target.output


def _download_stats(stats: StageStats, left: pa.Table) -> StageStats:
    counts = Counter(left["status"].to_pylist())
    kept = counts.pop(DownloadStatus.SUCCESS.value, 0)
    return replace(stats, kept=kept, dropped=_ordered(counts, stats.input - left.num_rows))


def _score_stats(stats: StageStats, left: pa.Table) -> StageStats:
    counts = Counter(left["reason"].to_pylist())
    kept = counts.pop(None, 0)
    return replace(stats, input=left.num_rows, kept=kept, dropped=_ordered(counts, 0))


def _ordered(counts: Counter[str], removed: int) -> dict[str, int]:
    if removed:
        counts[REASON] = removed
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _write_pairs(name: str, table: pa.Table, store: Store) -> None:
    stats_name = f"{name.removesuffix('.parquet')}.json"
    with store.create(name) as file:
        pq.write_table(table, file, compression="zstd")
        with suppress(MissingFileError):  # those of a partition that is being parsed are not there
            store.write_stats(stats_name, rewritten(store.read_stats(stats_name), file.output))


def _write_parquet(name: str, table: pa.Table, store: Store) -> None:
    with store.create(name) as file:
        pq.write_table(table, file, compression="zstd")
