"""Cuts the pairs of one window into batches and writes their files.

The pairs are read range by range of the key, in short transactions on the servers that have them: because
their partitions are frozen, the result is the same as in one snapshot. Nothing here depends on other windows
or on who plans them: a window that is cut again after a kill has the same batches, numbers and bytes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection, sql

from laion_etl.core.errors import MissingFileError
from laion_etl.core.schemas import BATCH_SCHEMA, batch_file_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import Output
from laion_etl.database.binary_copy import Texts, copy_out, host_hashes, read_rows
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.queries import query
from laion_etl.database.servers import RangeServers
from laion_etl.io.planned import PlannedBatch
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import BatchNumbers, contents_digest
from laion_etl.plan.batching import assign_batches, assign_batches_by_language
from laion_etl.plan.rounds import Round, Window
from laion_etl.plan.taken_numbers import TakenNumbers
from laion_etl.settings import PlanSettings

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

        Rows of BATCH_SCHEMA, at most `batch_size`. Raises InputError if the slot has too few numbers, and
        WindowDoneError if another planner has recorded the window meanwhile.
        """
        pairs = self._pairs(window.keys)
        chosen = [pa.array(rows) for rows in self._assigned(pairs)]
        ids = pairs.select(["pair_id"])
        digests = [contents_digest(ids.take(rows)) for rows in chosen]
        taken = TakenNumbers(self.servers.first, self.of, window)
        given = self.numbers.give(digests, window.slot, self.of.first_number, taken)
        with ThreadPoolExecutor(_WRITERS) as pool:
            files = list(pool.map(lambda batch, rows: self._written(batch, pairs.take(rows)), given, chosen))
        return [
            PlannedBatch(number, len(rows), file)
            for number, rows, file in zip(given, chosen, files, strict=True)
        ]

    def _pairs(self, keys: tuple[UUID, UUID]) -> pa.Table:
        """Return rows of BATCH_SCHEMA, ascending by key."""
        blocks = [read_rows(block, BATCH_SCHEMA) for block in self._blocks(keys)]
        return pa.concat_tables([BATCH_SCHEMA.empty_table(), *blocks]).combine_chunks()

    def _blocks(self, keys: tuple[UUID, UUID]) -> Iterator[bytes]:
        """Yield rows in the format of COPY, ascending by key, while no transaction is open."""
        rule = self.servers.first.rows("load.rule")
        for server, first, last in self.servers.slices(keys):
            statement = sql.SQL(query("plan.copy_new_pairs")).format(
                by_url=sql.Literal(rule == [(DedupeRule.URL,)]),
                first=sql.Literal(first),
                last=sql.Literal(last),
                partitions=sql.Literal(list(self.partitions)),
            )
            yield server.run(partial(_read, statement=statement), self.timeout_s)

    def _assigned(self, pairs: pa.Table) -> list[Any]:
        limits = (self.settings.batch_size, self.settings.max_pairs_per_host)
        if not pairs.num_rows:
            return []
        hosts = host_hashes(Texts.from_column(pairs.column("url").chunk(0)))
        if self.settings.per_language:
            languages = pairs.column("language").to_numpy(zero_copy_only=False)
            return list(assign_batches_by_language(hosts, languages, *limits))
        return list(assign_batches(hosts, *limits))

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


def _read(connection: Connection, statement: sql.Composed) -> bytes:
    connection.execute(query("plan.index_scans"))
    return b"".join(copy_out(connection, statement))
