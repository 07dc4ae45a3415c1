"""Joins the published samples of consecutive scored shards into tars of many samples.

Scored shards of a kept tenth are small: 600 samples and 15 MB of 10,000 pairs, and a training that opens
300,000 files waits for the store. Joined are the samples whose rows are published, so a sample that is
excluded, a duplicate or removed is in no tar. Members are copied as they are; each tar has a parquet file
with its rows, and the embeddings, row by row in the same order. Tars are cut at a fixed number of samples,
so their bytes do not depend on how rows arrive; in memory are the rows of a batch and of a row group.

A shard that is damaged costs its own samples: they are left out of the tars as a whole, counted and named.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from types import TracebackType
from typing import IO, cast

import numpy as np
import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.joined_samples import PARQUET, TAR, Joined, damaged_batches, stem_of
from laion_etl.dataset.new_files import NewFiles
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl
from laion_etl.dataset.subsets import DataFile
from laion_etl.io.storage import Guard, NewFile, Store
from laion_etl.io.tarshard import finish, write_members
from laion_etl.publish.scored_samples import SamplesAhead, ScoredSamples, open_samples

_VECTORS_IN_MEMORY_BYTES = 32_000_000
_log = logging.getLogger(__name__)


class SampleFiles(AbstractContextManager["SampleFiles"]):
    """Writes the samples of one dataset; when the block raises, the tar being written does not appear.

    `folder`: that of the version. `files` has what is finished, `joined` the counts.
    """

    def __init__(
        self,
        folder: str,
        crawl: str,
        samples_per_tar: int,
        store: Store,
        range_number: int | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._folder = folder
        self._crawl = crawl
        self._samples_per_tar = samples_per_tar
        self._store = store
        self._range_number = range_number
        self._guard = guard
        self._tar: _JoinedTar | None = None
        self._tars = 0
        self._waiting: list[pa.Table] = []
        self.files: list[DataFile] = []
        self.joined = Joined()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tar is None:
            return
        if error is not None:
            self._tar.new.__exit__(kind, error, traceback)
        else:
            self._end(self._tar)

    @property
    def waiting(self) -> int:
        """The number of rows whose samples are not joined yet."""
        return sum(table.num_rows for table in self._waiting)

    def add(self, table: pa.Table) -> None:
        """Add published rows of a batch; their samples are joined when all rows of the batch are there."""
        if table.num_rows:
            self._waiting.append(table)

    def join(self, batch: int, samples: ScoredSamples) -> None:
        """Copy the samples of the waiting rows, which are of this batch."""
        table = pa.concat_tables(self._waiting)
        keys = table["key"].to_pylist()
        if missing := [key for key in keys if key not in samples.places]:
            self.leave_out(
                batch,
                f"the tar of its scored shard lacks {quantity(len(missing), 'sample')}, first {missing[0]}",
            )
            return
        self._waiting = []
        place = {key: row for row, key in enumerate(samples.places)}
        if self._tar is not None and self._tar.dims != samples.dims:
            self._end(self._tar)
        start = 0
        while start < len(keys):
            tar = self._tar or self._begin(samples.dims, table.schema)
            end = min(len(keys), start + self._samples_per_tar - tar.samples)
            for key in keys[start:end]:
                tar.add(key, place[key], samples)
            tar.add_rows(table.slice(start, end - start))
            start = end
            if tar.samples == self._samples_per_tar:
                self._end(tar)

    def leave_out(self, batch: int, error: str) -> None:
        """Leave the samples of the waiting rows out, which are of this batch."""
        _log.warning(
            "batch %d of %s is published without its %d samples in %s: %s",
            batch, self._crawl, self.waiting, self._folder, error,
        )  # fmt: skip
        self.joined.leave_out(batch, self.waiting, error)
        self._waiting = []

    def _begin(self, dims: Mapping[str, int], schema: pa.Schema) -> "_JoinedTar":
        stem = stem_of(self._folder, self._crawl, self._tars, self._range_number)
        new = NewFiles((stem + ending for ending in (TAR, PARQUET, *dims)), self._store, self._guard)
        self._tar = _JoinedTar(stem, dims, schema, new)
        self._tars += 1
        return self._tar

    def _end(self, tar: "_JoinedTar") -> None:
        self._tar = None
        with tar.new:
            tar.finish()
        self.joined.samples += tar.samples
        for ending, file in tar.files.items():
            output, rows = file.output, tar.samples if ending == PARQUET else None
            self.files.append(DataFile(output.name, "", rows, output.bytes, output.sha256, self._crawl))


def join_batch(batch: ScoredBatch, writers: Sequence[SampleFiles], shards: SamplesAhead) -> None:
    """Join the samples of a batch whose rows have been added, reading its shard once for all datasets."""
    waiting = [one for one in writers if one.waiting]
    if not waiting:
        shards.forget(batch.number)
        return
    with ExitStack() as stack:
        try:
            samples = stack.enter_context(shards.samples(batch.number))
        except InputError as error:
            for one in waiting:
                one.leave_out(batch.number, str(error))
                one.joined.damaged.append(batch.number)
            return
        for one in waiting:
            one.join(batch.number, samples)


def has_restored(stats: StageStats, scored: ScoredCrawl, store: Store) -> bool:
    """Whether a shard whose samples were left out, because it was damaged, can be read now.

    `stats`: of a range or of a version. Its bytes are those of its stats again, so no fingerprint shows it.
    """
    damaged = set(damaged_batches(stats.details.get("samples", {})))
    return any(_is_readable(scored, batch, store) for batch in scored.batches if batch.number in damaged)


def _is_readable(scored: ScoredCrawl, batch: ScoredBatch, store: Store) -> bool:
    try:
        with closing(open_samples(scored.shard_name(batch.number, ""), batch, store)):
            return True
    except InputError:
        return False


class _JoinedTar:
    """A tar that is being written, with its rows and embeddings."""

    def __init__(self, stem: str, dims: Mapping[str, int], schema: pa.Schema, new: NewFiles) -> None:
        self.new = new
        self.dims = dims
        self.samples = 0
        self.files: dict[str, NewFile] = {ending: new[stem + ending] for ending in (TAR, PARQUET, *dims)}
        self._rows = new.row_groups(stem + PARQUET, schema)
        self._vectors = {ending: new.spooled(_VECTORS_IN_MEMORY_BYTES) for ending in dims}

    def add(self, key: str, place: int, samples: ScoredSamples) -> None:
        """Copy the members of a sample, and its row of each matrix of embeddings."""
        write_members(self.files[TAR], samples.members(key))
        for ending, matrix in samples.vectors.items():
            self._vectors[ending].write(matrix[place].astype("<f2", copy=False).tobytes())
        self.samples += 1

    def add_rows(self, table: pa.Table) -> None:
        """Add the rows of the samples that were added."""
        self._rows.add(table)

    def finish(self) -> None:
        """Write the end of each file."""
        finish(self.files[TAR])
        self._rows.finish()
        for ending, dim in self.dims.items():
            header = {"descr": "<f2", "fortran_order": False, "shape": (self.samples, dim)}
            file, vectors = cast("IO[bytes]", self.files[ending]), self._vectors[ending]
            np.lib.format.write_array_header_1_0(file, header)
            vectors.seek(0)
            shutil.copyfileobj(vectors, file)
