"""Cuts the pairs of one window into batches and writes their files.

The pairs are read in many short transactions (window_pairs.py): because their partitions are frozen, the
result is the same as in one snapshot. Nothing here depends on other windows or on who plans them: a window
that is cut again after a kill has the same batches, numbers and bytes.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.removal_requests import Matcher, blanked
from laion_etl.core.errors import MissingFileError
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import batch_file_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import Output
from laion_etl.database.binary_copy import Texts, host_hashes
from laion_etl.database.servers import RangeServers
from laion_etl.dataset.removals_meanwhile import Removals
from laion_etl.io.planned import PlannedBatch
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import BatchNumbers, Slot, contents_digest
from laion_etl.plan.batching import BatchLimits, assign_batches, assign_batches_by_language
from laion_etl.plan.rounds import Round, Window
from laion_etl.plan.taken_numbers import TakenNumbers
from laion_etl.plan.window_pairs import read_pairs
from laion_etl.settings import PlanSettings

_log = logging.getLogger(__name__)
_WRITERS = 8  # to S3, writing a batch file is mostly waiting


@dataclass(frozen=True, slots=True)
class WindowBatches:
    """The batches of windows of a round."""

    of: Round
    partitions: Sequence[int]
    numbers: BatchNumbers
    settings: PlanSettings
    store: Store
    servers: RangeServers
    timeout_s: float

    def write(self, window: Window) -> list[PlannedBatch]:
        """Write `batches/<crawl>/<batch>.parquet` for each batch of a window.

        Rows of BATCH_SCHEMA, at most `batch_size`. Raises InputError if the slot has too few numbers for
        that, and WindowDoneError if another planner has recorded the window meanwhile. What removal requests
        name is left out of the texts, also if one comes while they are written: a removal finds the files
        that are there when it begins, and what it records before they are is seen here.
        """
        pairs = read_pairs(window.keys, self.partitions, self.servers, self.timeout_s)
        chosen = [pa.array(rows) for rows in self._assigned(pairs, window.slot)]
        ids = pairs.select(["pair_id"])
        digests = [contents_digest(ids.take(rows)) for rows in chosen]
        taken = TakenNumbers(self.servers.first, self.of, window)
        given = self.numbers.give(digests, window.slot, self.of.first_number, taken)
        removals = Removals(self.store, pdq_distance=0)  # pairs have no images yet
        used: Matcher | None = None
        files: list[Output] = []
        while (matcher := removals.matcher()) is not used:
            files, used = self._files(given, chosen, blanked(pairs, matcher) if matcher else pairs), matcher
        return [
            PlannedBatch(number, len(rows), file)
            for number, rows, file in zip(given, chosen, files, strict=True)
        ]

    def _files(self, given: Sequence[int], chosen: Sequence[pa.Array], pairs: pa.Table) -> list[Output]:
        """Write the files of batches whose rows are chosen from some pairs."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            return list(pool.map(lambda batch, rows: self._written(batch, pairs.take(rows)), given, chosen))

    def _assigned(self, pairs: pa.Table, slot: Slot) -> list[Any]:
        if not pairs.num_rows:
            return []
        limits = BatchLimits(self.settings.batch_size, self.settings.max_pairs_per_host, len(slot))
        hosts = host_hashes(Texts.from_column(pairs.column("url").chunk(0)))
        if self.settings.per_language:
            languages = pairs.column("language").to_numpy(zero_copy_only=False)
            assigned = assign_batches_by_language(hosts, languages, limits)
        else:
            assigned = assign_batches(hosts, limits)
        most = max(int(np.unique(hosts[rows], return_counts=True)[1].max()) for rows in assigned)
        if most > limits.per_host:
            _log.warning(
                "a window of %s has many pairs of one host, and %s for its batches: a batch has up to %s of "
                "the host, more than LAION_ETL_PLAN_MAX_PAIRS_PER_HOST (%s), and takes longer to download",
                self.of.crawl, quantity(len(slot), "number"), f"{most:,}", f"{limits.per_host:,}",
            )  # fmt: skip
        return list(assigned)

    def _written(self, batch: int, pairs: pa.Table) -> Output:
        name = batch_file_name(self.of.crawl, batch)
        data = pa.BufferOutputStream()
        pq.write_table(pairs, data, compression="zstd")
        content = data.getvalue()
        self._drop_shards(batch, Output.from_bytes(name, content))
        with self.store.create(name) as file:
            file.write(content)
        return file.output

    def _drop_shards(self, batch: int, file: Output) -> None:
        """Delete the stats of shards that a forgotten plan left under the number of a batch.

        A batch has the number of an earlier one if its pairs are the same; it may still differ in their
        languages or pages, or the record of numbers was lost. Shards of an identical batch stay: a crawl that
        is forgotten and loaded again unchanged is not downloaded again. The file of the earlier batch says
        what they were made from, so they go before it is replaced.
        """
        stems = (scored_stem(self.of.crawl, batch), shard_stem(self.of.crawl, batch))
        left = [name for stem in stems if self.store.exists(name := f"{stem}_stats.json")]
        if left and self._stored(file.name) != file:
            for name in left:
                self.store.delete(name)

    def _stored(self, name: str) -> Output | None:
        try:
            return Output.from_bytes(name, self.store.read(name))
        except MissingFileError:
            return None
