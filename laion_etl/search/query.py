"""Searches an index: the images nearest to a vector among those that pass the filters."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import InputError, MissingInputError, SettingsError
from laion_etl.core.formats import check_format
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.versions import Release
from laion_etl.io.storage import Store
from laion_etl.search.filters import Filters, Mask
from laion_etl.search.hnsw import Floats, Graph, Rows, ordered
from laion_etl.search.index_record import nodes_of
from laion_etl.search.integrity import checked_copy
from laion_etl.search.layout import FORMAT, STATS, index_stats, part_stem
from laion_etl.search.published_rows import PublishedVersion
from laion_etl.search.rows import open_rows
from laion_etl.settings import PublishSettings, Settings

MAX_RESULTS = 1_000
_ROOM = 1.3  # times the candidates needed if filters were independent of similarity
_MORE = 4
_MASKS = 16  # masks of recent filters kept per part: a bit less than a megabyte for 500,000 rows


@dataclass(frozen=True, slots=True)
class Hit:
    """A row found, with the cosine of its image and the query, if there was one."""

    score: float | None
    row: Mapping[str, Any]

    @property
    def sample_id(self) -> int:
        return int(self.row["SAMPLE_ID"])


@dataclass(frozen=True, slots=True)
class Passed:
    """Which rows pass a filter, and which nodes have such a row."""

    rows: Mask
    nodes: Mask


@dataclass(frozen=True)
class OpenPart:
    """An open part of an index; `nodes` has the node of each row."""

    crawl: str
    graph: Graph
    rows: pa.Table
    nodes: Rows
    exact_rows: int
    publish: PublishSettings
    _passed: dict[Filters, Passed] = field(default_factory=dict)

    def nearest(self, vector: Floats, count: int, filters: Filters) -> tuple[Rows, Floats]:
        """Return the nearest rows that pass, nearest first, equally near ones by their number.

        Fewer than `count` only if no more pass.
        """
        passed = self.passed(filters)
        total, allowed = len(passed.nodes), int(passed.nodes.sum())
        if allowed <= self.exact_rows or total <= self.exact_rows:
            return self._nearest_exact(vector, count, passed)
        wanted = min(count, int(passed.rows.sum()))
        asked = min(count, allowed)
        asked = int(asked * total / allowed * _ROOM) if allowed < total else asked
        while asked <= max(count, self.exact_rows):
            nodes, cosines = self.graph.nearest(vector, asked)
            rows, found = self._rows_of(nodes, cosines, passed)
            if len(rows) >= wanted:
                return rows[:wanted], found[:wanted]
            asked *= _MORE
        # The rows that pass are far from the query.
        return self._nearest_exact(vector, count, passed)

    def _nearest_exact(self, vector: Floats, count: int, passed: Passed) -> tuple[Rows, Floats]:
        nodes, cosines = self.graph.nearest_exact(vector, count, np.flatnonzero(passed.nodes))
        rows, found = self._rows_of(nodes, cosines, passed)
        return rows[:count], found[:count]

    def _rows_of(self, nodes: Rows, cosines: Floats, passed: Passed) -> tuple[Rows, Floats]:
        """Return the rows of nodes that pass, with the cosines of their nodes."""
        starts, ends = (np.searchsorted(self._sorted_nodes, nodes, side) for side in ("left", "right"))
        counts = ends - starts
        firsts = np.repeat(starts - np.cumsum(counts) + counts, counts)
        rows = self._rows_by_node[firsts + np.arange(counts.sum())]
        passes = passed.rows[rows]
        return ordered(rows[passes], np.repeat(cosines, counts)[passes])

    @cached_property
    def _rows_by_node(self) -> Rows:
        return np.argsort(self.nodes, kind="stable")

    @cached_property
    def _sorted_nodes(self) -> Rows:
        return self.nodes[self._rows_by_node]

    def browse(self, count: int, filters: Filters) -> Rows:
        """Return rows that pass, evenly spread."""
        passed = np.flatnonzero(self.passed(filters).rows)
        if len(passed) <= count:
            return passed
        return passed[np.linspace(0, len(passed) - 1, count).astype(np.int64)]

    def find(self, sample_id: int) -> int | None:
        """Return the row number of a sample; None if it is not in this part."""
        ids = self.rows["SAMPLE_ID"]
        start = 0
        for chunk in ids.chunks:
            values = chunk.to_numpy()
            place = int(np.searchsorted(values, sample_id))
            if place < len(values) and values[place] == sample_id:
                return start + place
            start += len(values)
        return None

    def row(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.rows.slice(number, 1).to_pylist()[0]
        return found

    def vector(self, row: int) -> Floats:
        """Return the vector of a row."""
        found: Floats = self.graph.floats(self.nodes[row : row + 1])[0]
        return found

    def passed(self, filters: Filters) -> Passed:
        """Return what passes a filter; the last ones are remembered."""
        if (known := self._passed.get(filters)) is not None:
            return known
        if len(self._passed) >= _MASKS:
            self._passed.clear()
        rows = filters.mask(self.rows, self.publish)
        nodes = np.zeros(len(self.graph.vectors), np.bool_)
        nodes[self.nodes[rows]] = True
        return self._passed.setdefault(filters, Passed(rows, nodes))


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """The index of a version; `stats` has its contents and the model it belongs to."""

    release: Release
    stats: StageStats
    parts: tuple[OpenPart, ...]

    def search(self, vector: NDArray[Any], count: int, filters: Filters) -> list[Hit]:
        """Return the images nearest to an L2-normalised vector, nearest first."""
        count = min(count, MAX_RESULTS)
        query = np.ascontiguousarray(vector, np.float32)
        with ThreadPoolExecutor(max(1, min(usable_cores(), len(self.parts)))) as pool:
            found = list(pool.map(lambda part: part.nearest(query, count, filters), self.parts))
        every = [
            (-float(cosine), number, int(row))
            for number, (rows, cosines) in enumerate(found)
            for row, cosine in zip(rows, cosines, strict=True)
        ]
        return [Hit(-away, self.parts[number].row(row)) for away, number, row in sorted(every)[:count]]

    def like(self, sample_id: int, count: int, filters: Filters) -> list[Hit]:
        """Return the images nearest to a sample's image, without the sample itself."""
        part, row = self._place(sample_id)
        found = self.search(part.vector(row), count + 1, filters)
        return [hit for hit in found if hit.sample_id != sample_id][:count]

    def browse(self, count: int, filters: Filters) -> list[Hit]:
        """Return rows from all parts without a query."""
        each = -(-count // max(1, len(self.parts)))
        found = [Hit(None, part.row(int(row))) for part in self.parts for row in part.browse(each, filters)]
        return found[:count]

    def sample(self, sample_id: int) -> Hit:
        """Return one sample."""
        part, row = self._place(sample_id)
        return Hit(None, part.row(row))

    def _place(self, sample_id: int) -> tuple[OpenPart, int]:
        for part in self.parts:
            if (row := part.find(sample_id)) is not None:
                return part, row
        raise MissingInputError(f"cannot find sample {sample_id}: it is not in {self.stats.unit}")


def open_index(published: PublishedVersion, settings: Settings, store: Store) -> SearchIndex:
    """Map the index of a version; files of a store on S3 are downloaded into the data folder first.

    Raises MissingInputError without an index, InputError if the version has changed since it was indexed or a
    part is damaged.
    """
    release = published.release
    if not published.rows:
        raise InputError(f"cannot search {release.folder}: it has no rows; publish a crawl that has samples")
    again = f"run `laion-etl search index --version {release.version}`"
    name = index_stats(release)
    if not store.exists(name):
        raise MissingInputError(f"cannot search {release.folder}: it has no index; {again}")
    stats = store.read_stats(name)
    check_format(store.uri(name), stats.details.get("format"), FORMAT)
    if stats.details["published"] != published.fingerprint:
        raise InputError(
            f"cannot search {release.folder}: its rows have changed since it was indexed; {again} again"
        )
    folder = settings.data_path / "index"
    try:
        stems = [part_stem(release.name, part["crawl"], part["unit"]) for part in stats.details["parts"]]
    except (SettingsError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot search {release.folder}: {store.uri(name)} is not the record of an index ({error}); "
            f"{again}"
        ) from error
    parts = [_open_part(store.read_stats(stem + STATS), settings, store, folder) for stem in stems]
    return SearchIndex(release, stats, tuple(parts))


def _open_part(stats: StageStats, settings: Settings, store: Store, folder: Path) -> OpenPart:
    graph, rows = (checked_copy(store, output, folder) for output in stats.outputs)
    dim, dtype = int(stats.details["dim"]), str(stats.details["dtype"])
    nodes = nodes_of(stats)
    opened, node_of_row = open_rows(rows, stats.kept, nodes)
    return OpenPart(
        stats.crawl,
        Graph.open(graph, dim, nodes, settings.index, dtype),
        opened,
        node_of_row,
        settings.index.exact_rows,
        settings.publish,
    )


def check_model(index: SearchIndex, name: str, weights_sha256: str) -> None:
    """Raise InputError unless this model's embeddings are comparable with the indexed ones."""
    indexed = index.stats.details
    if indexed["weights_sha256"] != weights_sha256:
        raise InputError(
            f"cannot search {index.stats.unit} with {name}: it was scored by {indexed['model']}; set "
            "LAION_ETL_CLIP_MODEL and LAION_ETL_CLIP_PRETRAINED to that model"
        )
