"""Rewrites shards and scored shards without the samples that removal requests match.

Tar and embeddings are rewritten first, then the stats, the parquet last: while the parquet still has a row to
remove, the shard is unfinished, and a call after a kill repeats the work. Each file is only replaced while it
is still the one that was read (see rewrite.py).

Embeddings have no keys, so it must be known which samples are still among their rows, also if another removal
was killed, or is at work. So the first thing that is written are the keys of the samples that go, into the
stats (`details.removing`), group by group in the order in which removals began. A removal takes out all
groups. Each one adds to those before: the number of rows says how many were taken out.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from laion_etl.blocklists.column_masks import Mask
from laion_etl.blocklists.removal_requests import REASON, Matcher
from laion_etl.core.errors import ChangedError, InputError, MissingFileError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.npy import read_array
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.rewrite import read_table, until_unchanged
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, copy_without

_REMOVING = "removing"

Counted = Callable[[StageStats, pa.Table], StageStats]


def rewrite_shard(stem: str, store: Store, matcher: Matcher) -> None:
    """Rewrite a shard of `shards/` without the samples; its stats count them as removed by request."""
    _rewrite(stem, store, matcher, _download_stats)


def rewrite_scored(stem: str, store: Store, matcher: Matcher) -> None:
    """Rewrite a scored shard without the samples; its stats count the remaining ones."""
    _rewrite(stem, store, matcher, _score_stats)


def _rewrite(stem: str, store: Store, matcher: Matcher, counted: Counted) -> None:
    def rewrite() -> None:
        if (shard := _opened(stem, store, matcher)) is not None:
            shard.rewrite(counted)

    until_unchanged(f"{stem}.parquet", store, rewrite)


def _opened(stem: str, store: Store, matcher: Matcher) -> "_Shard | None":
    """Return a shard of which samples have to go, after their keys are written down; None if none has to."""
    name, stats_name = f"{stem}.parquet", f"{stem}_stats.json"
    status = store.status(name)
    table = read_table(name, store)
    gone = matcher.finds(table)
    if not gone.any():
        return None
    own = table.filter(pa.array(gone))["key"].to_pylist()
    if (found := store.read_stats_with_etag(stats_name)) is None:  # it will be made anew
        return _Shard(stem, store, table, status, (frozenset(own),), None)
    stats, etag = found
    groups = _groups(stats, own, table)
    marked = replace(stats, details={**stats.details, _REMOVING: [sorted(group) for group in groups]})
    if marked != stats:
        store.swap(stats_name, marked.to_json(), etag)
        found = store.read_stats_with_etag(stats_name)
        if found is None or found[0] != marked:
            raise ChangedError(f"cannot rewrite {store.uri(name)}: another process does it; retry")
    return _Shard(stem, store, table, status, groups, found)


def _groups(stats: StageStats, own: Sequence[str], table: pa.Table) -> tuple[frozenset[str], ...]:
    """Return the keys that go: those of removals that have not ended, and what these have not named."""
    there = frozenset(table["key"].to_pylist())
    named = stats.details.get(_REMOVING, ())
    groups = [group for keys in named if (group := there & frozenset(map(str, keys)))]
    if others := frozenset(own).difference(*groups):
        groups.append(others)
    return tuple(groups)


class _DeletedError(Exception):
    """The tar was deleted while it was rewritten: its shard is scored by now."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard as it was read, the keys of the samples that go, and its stats with their ETag."""

    stem: str
    store: Store
    table: pa.Table
    status: str | None
    groups: tuple[frozenset[str], ...]
    found: tuple[StageStats, str] | None

    def file(self, ending: str) -> str:
        return self.stem + ending

    def rewrite(self, counted: Counted) -> None:
        outputs = [tar] if (tar := self._tar()) is not None else []
        for ending in ("_img_emb.npy", "_text_emb.npy"):
            with suppress(MissingFileError):
                outputs.append(self._embeddings(ending))
        left = self.table.filter(pa.array(~self._gone(len(self.groups))))
        sink = io.BytesIO()
        pq.write_table(left, sink, compression="zstd")
        parquet = Output.from_bytes(self.file(".parquet"), sink.getvalue())
        if self.found is not None:
            stats, etag = self.found
            renewed = {output.name: output for output in (*outputs, parquet)}
            kept = tuple(renewed.get(output.name, output) for output in stats.outputs)
            stats = replace(counted(stats, left), outputs=kept)
            self.store.swap(self.file("_stats.json"), stats.to_json(), etag)
        with self.store.replace(parquet.name, self.status) as target:
            target.write(sink.getvalue())

    def _gone(self, groups: int) -> Mask:
        """Return a mask of the rows that the first groups name."""
        keys: frozenset[str] = frozenset().union(*self.groups[:groups])
        return np.fromiter((key in keys for key in self.table["key"].to_pylist()), np.bool_)

    def _tar(self) -> Output | None:
        """Return the new tar; None if there is no tar, or a score worker deletes it meanwhile."""
        name, store = self.file(".tar"), self.store
        status = store.status(name)
        if status is None:
            return None
        keys: frozenset[str] = frozenset().union(*self.groups)

        def still_there() -> None:
            # Without it the tar would come back, and stay: the queue has noted that it is deleted.
            if (found := store.status(name)) is None:
                raise _DeletedError
            if found != status:
                raise ChangedError(f"cannot rewrite {store.uri(name)}: another process does it; retry")

        try:
            with store.open(name) as source, store.create(name, still_there) as target:
                try:
                    copy_without(source, target, keys)
                except TarError as error:
                    still_there()  # else parts of two tars may have been read
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

    def _embeddings(self, ending: str) -> Output:
        """Rewrite embeddings, of which row i belongs to the i-th kept sample that was not taken out yet.

        Raises MissingFileError where there are no embeddings.
        """
        name = self.file(ending)
        status = self.store.status(name)
        data = io.BytesIO(self.store.read(name))
        kept = pc.is_null(self.table["reason"]).to_numpy()
        try:
            matrix = read_array(data)
        except ValueError as error:
            raise self._unusable(name, f"cannot read {self.store.uri(name)}: {error}") from error
        if matrix.ndim != 2:
            raise self._unusable(name, f"cannot read {self.store.uri(name)}: it is not a matrix")
        gone = self._gone(len(self.groups))
        for taken_out in range(len(self.groups) + 1):
            rows = kept & ~self._gone(taken_out)
            if np.count_nonzero(rows) == len(matrix):
                with self.store.replace(name, status) as target:
                    np.save(target, matrix[~gone[rows]], allow_pickle=False)
                return target.output
        left = np.count_nonzero(kept & ~gone)
        raise self._unusable(
            name,
            f"cannot rewrite {self.store.uri(name)}: it has {quantity(len(matrix), 'row')}, not {left}",
        )

    def _unusable(self, name: str, message: str) -> InputError | ChangedError:
        """Return the error of a file that does not fit, which it may not because of another removal."""
        found = self.store.read_stats_with_etag(self.file("_stats.json"))
        if (found and found[1]) != (self.found and self.found[1]):
            return ChangedError(f"cannot rewrite {self.store.uri(name)}: another process does it; retry")
        return InputError(f"{message}; score the shard again")


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
