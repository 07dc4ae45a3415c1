"""A part of an index: several complete batches of a crawl, built in memory and written at once."""

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from threading import Event

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import InputError, Stopped
from laion_etl.core.ids import batch_name
from laion_etl.core.npy import read_array
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.dataset.subsets import published_rows
from laion_etl.io.storage import Store
from laion_etl.search.hnsw import GraphWriter
from laion_etl.search.index_record import COUNTED, most_frequent
from laion_etl.search.layout import FORMAT, STATS, part_stem
from laion_etl.search.rows import Place, counted, image_places, stored_schema, with_nodes, with_places
from laion_etl.settings import IndexSettings, Stage, shaping


@dataclass(frozen=True, slots=True)
class IndexedBatch:
    """A scored batch and the ids of its published samples."""

    scored: ScoredBatch
    ids: NDArray[np.int64]

    @property
    def fingerprint_inputs(self) -> tuple[object, ...]:
        ids = hashlib.sha256(self.ids.tobytes()).hexdigest()
        return self.scored.number, self.scored.outputs, ids


@dataclass(frozen=True)
class IndexPart:
    """Several batches of a crawl that are indexed together."""

    dataset: str
    crawl: ScoredCrawl
    batches: tuple[IndexedBatch, ...]
    settings: IndexSettings
    store: Store
    stop: Event  # set when another part has failed, or Ctrl-C was pressed

    @cached_property
    def fingerprint(self) -> str:
        batches = [batch.fingerprint_inputs for batch in self.batches]
        return fingerprint("index part", FORMAT, shaping(self.settings, Stage.INDEX), batches)

    @property
    def unit(self) -> str:
        return f"{batch_name(self.batches[0].scored.number)}-{self.fingerprint}"

    @property
    def stem(self) -> str:
        return part_stem(self.dataset, self.crawl.crawl, self.unit)

    def done(self) -> StageStats:
        """Return the stats of the part; write the part first unless it is finished."""
        return self.store.finished(self.stem + STATS, self.fingerprint) or self._write()

    def _write(self) -> StageStats:
        """Write graph and rows, then the stats."""
        graph: GraphWriter | None = None
        counts = {what: Counter[str]() for what in COUNTED}
        with ExitStack() as stack:
            rows_file = stack.enter_context(self.store.create(f"{self.stem}.arrow"))
            rows_writer = stack.enter_context(pa.ipc.new_file(rows_file, stored_schema()))
            for batch in self.batches:
                if self.stop.is_set():
                    raise Stopped("stopped; run `laion-etl search index` again to continue")
                table, vectors = self._read(batch)
                graph = graph or GraphWriter(vectors.shape[1], self.settings)
                nodes = graph.add(vectors)
                rows_writer.write_table(with_nodes(table.combine_chunks(), nodes))
                for what, column in COUNTED.items():
                    counts[what].update(dict(counted(table, column)))
            rows_writer.close()
            graph_file = stack.enter_context(self.store.create(f"{self.stem}.usearch"))
            if graph is None:
                raise ValueError("a part has batches")
            graph.write(graph_file)
        outputs = (graph_file.output, rows_file.output)
        return self.store.write_stats(self.stem + STATS, self._stats(graph, counts, outputs))

    def _read(self, batch: IndexedBatch) -> tuple[pa.Table, NDArray[np.float16]]:
        """Return the published rows of a batch and their embeddings."""
        number = batch.scored.number
        kept = [
            published_rows(rows, self.crawl.crawl)
            for rows in read_batch(self.crawl, batch.scored, self.store)
        ]
        table = pa.concat_tables(kept)
        chosen = np.isin(table["SAMPLE_ID"].to_numpy(), batch.ids)
        name = self.crawl.shard_name(number, "_img_emb.npy")
        vectors = read_vectors(name, self.store)
        if len(vectors) != table.num_rows or int(chosen.sum()) != len(batch.ids):
            raise InputError(
                f"cannot index {self.store.uri(name)}: it has {quantity(len(vectors), 'row')} for "
                f"{table.num_rows} samples, {int(chosen.sum())} of {len(batch.ids)} published ones; publish "
                "the crawl again"
            )
        return with_places(table.filter(pa.array(chosen)), self._places(number)), vectors[chosen]

    def _places(self, number: int) -> dict[str, Place]:
        if not self.settings.pictures:  # words: ok
            return {}
        return image_places(self.crawl.shard_name(number, ".tar"), self.store)

    def _stats(
        self, graph: GraphWriter, counts: dict[str, Counter[str]], outputs: tuple[Output, ...]
    ) -> StageStats:
        kept = sum(len(batch.ids) for batch in self.batches)
        total = sum(batch.scored.kept for batch in self.batches)
        first = self.store.read_stats(self.crawl.shard_name(self.batches[0].scored.number, STATS))
        return StageStats(
            stage="index",
            crawl=self.crawl.crawl,
            unit=self.unit,
            fingerprint=self.fingerprint,
            input=total,
            kept=kept,
            dropped={"not_published": total - kept} if total > kept else {},
            outputs=outputs,
            details={
                "model": str(first.details.get("model", "")),
                "weights_sha256": str(first.details.get("weights_sha256", "")),
                "dim": graph.dim,
                "nodes": graph.nodes,
                "dtype": self.settings.dtype,
                **{what: most_frequent([dict(count)]) for what, count in counts.items()},
            },
        )


def read_vectors(name: str, store: Store) -> NDArray[np.float16]:
    """Read the embeddings of a batch (n, dim). Raises InputError if the file is invalid."""
    with store.open(name) as file:
        try:
            vectors = read_array(file)
        except ValueError as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; score its batch again") from error
    if vectors.dtype != np.float16 or vectors.ndim != 2:
        raise InputError(
            f"cannot read {store.uri(name)}: it has no embeddings in float16; score its batch again"
        )
    return np.ascontiguousarray(vectors)
