"""The result of a batch that is downloaded again: what becomes of it if nothing can be fetched now.

The shard stays then, because most often the network is the cause, without the images that are opted out or
blocked by now. Of a shard that is not whole it cannot be told which images are which: it is deleted.
"""

import io
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.funnel import OPT_OUTS, DownloadStatus
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.outages import Outages
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import shard_stats_name, shard_stem
from laion_etl.core.stage_stats import UNFINISHED, Output, StageStats
from laion_etl.io.outputs import has_outputs
from laion_etl.io.storage import Guard, Store
from laion_etl.io.tarshard import copy_without

_log = logging.getLogger(__name__)

# Drop reasons of images that must not be kept.
UNWANTED = frozenset({*OPT_OUTS, DownloadStatus.BLOCKED_HASH})
_OF_AN_IMAGE = (
    "width",
    "height",
    "original_width",
    "original_height",
    "bytes",
    "sha256",
    "md5",
    "phash",
    "pdq",
    "pdq_quality",
)


class EmptyResultError(InputError):
    """Nothing of a batch could be fetched whose shard has samples.

    `left`: the stats of that shard, without the images that had to go; None if it had to be deleted.
    """

    def __init__(self, message: str, left: StageStats | None) -> None:
        super().__init__(message)
        self.left = left


@dataclass(frozen=True, slots=True)
class Earlier:
    """The result of a batch that is asked for again. `may_be_emptied`: one without samples replaces it."""

    stats: StageStats
    may_be_emptied: bool

    def warn(self) -> None:
        """Log that the batch is downloaded again, before anything is fetched."""
        _log.warning(
            "batch %s of %s has a shard with %s, made with other settings or rules or no longer whole: it is "
            "downloaded again, which replaces it",
            self.stats.unit,
            self.stats.crawl,
            quantity(self.stats.kept, "sample"),
        )

    def stays(self, kept: int, dropped: Mapping[str, int]) -> bool:
        """Whether a result without samples would replace one with some.

        Not if all links were opted out, blocked or removed meanwhile: these images must go.
        """
        unwanted = sum(dropped.get(reason.value, 0) for reason in UNWANTED)
        return not kept and not self.may_be_emptied and unwanted != sum(dropped.values())

    def keep_rest(
        self,
        unwanted: Mapping[str, DownloadStatus],
        dropped: Mapping[str, int],
        store: Store,
        guard: Guard | None,
        outages: Outages,
    ) -> None:
        """Take the images behind unwanted URLs out of the shard.

        Raises EmptyResultError unless nothing is left of it, so that the new result can replace it.
        """
        left = _without(self.stats, unwanted, store, guard, outages) if unwanted else self.stats
        if left is not None and not left.kept:
            return
        reason = max(dropped, key=lambda one: dropped[one])
        cause = f"no link could be fetched now, most often because of {reason}"
        batch = f"cannot replace the shard of batch {self.stats.unit} of {self.stats.crawl}"
        if left is None:
            raise EmptyResultError(
                f"{batch}: {cause}; it was not whole and had images that are opted out or blocked now, so it "
                "was deleted: download the batch again later",
                None,
            )
        gone = self.stats.kept - left.kept
        without = f", without {gone} opted out or blocked since" if gone else ""
        raise EmptyResultError(
            f"{batch}: it has {quantity(left.kept, 'sample')}{without}, and {cause}; try again later, or "
            "replace it with --allow-empty",
            left,
        )


def earlier_result(crawl: str, batch: int, store: Store) -> StageStats | None:
    """Return the stats of a batch that was downloaded before, if its shard had samples."""
    try:
        stats = store.read_stats(shard_stats_name(crawl, batch))
    except (MissingFileError, DamagedFileError):
        return None
    return stats if stats.kept and stats.fingerprint != UNFINISHED else None


def _without(
    shard: StageStats,
    unwanted: Mapping[str, DownloadStatus],
    store: Store,
    guard: Guard | None,
    outages: Outages,
) -> StageStats | None:
    """Take the samples of some URLs out of a shard.

    Returns its stats, with the fingerprint of its own settings; None if it was not whole, and is deleted.
    """
    stem, batch = shard_stem(shard.crawl, int(shard.unit)), int(shard.unit)
    table = outages.outlast(lambda: _rows(shard, f"{stem}.parquet", store))
    rows = table.to_pylist() if table is not None else []
    gone = [row for row in rows if row["status"] == DownloadStatus.SUCCESS.value and row["url"] in unwanted]
    if table is not None and not gone:
        return shard
    if table is None or not outages.outlast(lambda: has_outputs(shard, store)):
        outages.outlast(lambda: _delete(stem, store, guard))
        return None
    for row in gone:
        row.update(dict.fromkeys((name for name in _OF_AN_IMAGE if name in row), None))
        row["status"] = unwanted[row["url"]].value
    keys = {row["key"] for row in gone}
    outputs = outages.outlast(
        lambda: (
            _rewrite_tar(f"{stem}.tar", keys, store, guard),
            _write_rows(f"{stem}.parquet", rows, table.schema, store, guard),
        )
    )
    dropped = Counter(shard.dropped) + Counter(row["status"] for row in gone)
    left = replace(shard, kept=shard.kept - len(gone), dropped=dict(dropped.most_common()), outputs=outputs)
    return outages.outlast(lambda: store.write_stats(shard_stats_name(shard.crawl, batch), left, guard))


def _rows(shard: StageStats, name: str, store: Store) -> pa.Table | None:
    """Return the parquet of a shard; None if it is not the one that the stats describe."""
    try:
        data = store.read(name)
    except MissingFileError:
        return None
    if Output.from_bytes(name, data) not in shard.outputs:
        return None
    try:
        return BoundedParquet(io.BytesIO(data)).read(most_rows=MAX_BATCH_PAIRS)
    except (pa.ArrowException, OSError):  # pyarrow raises both for damaged files
        return None


def _rewrite_tar(name: str, gone: set[str], store: Store, guard: Guard | None) -> Output:
    with store.open(name) as source, store.create(name, guard) as target:
        copy_without(source, target, gone)
    return target.output


def _write_rows(
    name: str, rows: list[dict[str, Any]], schema: pa.Schema, store: Store, guard: Guard | None
) -> Output:
    with store.create(name, guard) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
    return file.output


def _delete(stem: str, store: Store, guard: Guard | None) -> None:
    """Delete a shard, the stats first: without them no reader takes the rest for one."""
    for ending in ("_stats.json", ".tar", ".parquet"):
        if guard is not None:
            guard()
        store.delete(stem + ending)
