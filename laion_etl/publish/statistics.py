"""What a published crawl looks like in numbers: one pass over its scored rows, in bounded memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.publish.subsets import NO_LANGUAGE, Subset, count_rows

Counts = NDArray[np.int64]
Edges = NDArray[np.floating[Any]]

SIMILARITY_STEP = 0.005
SIMILARITY_EDGES: Edges = np.linspace(-1.0, 1.0, 401)
SIDE_EDGES: Edges = 2.0 ** np.arange(5, 14.01, 0.5)  # pixels, two bins per doubling; ends take what is beyond
BYTES_EDGES: Edges = 2.0 ** np.arange(12, 25)  # 4 KiB to 16 MiB
SHORT_SIDE_EDGES = (256, 512, 1024, 2048)  # pixels
AESTHETIC_EDGES: Edges = np.linspace(0.0, 10.0, 21)
_MOST_VALUES = 100_000  # distinct values a tally keeps


class Tally:
    """Counts of text values in bounded memory.

    Past 100,000 distinct values the rarer half is forgotten: large counts stay within a hair, the
    number of distinct values becomes a lower bound (`complete` is False then).
    """

    def __init__(self, most_values: int = _MOST_VALUES) -> None:
        self._counts: Counter[str] = Counter()
        self._most_values = most_values
        self.complete = True

    def add(self, values: pa.ChunkedArray) -> None:
        for entry in pc.value_counts(values.combine_chunks()).to_pylist():
            if entry["values"] is not None:
                self._counts[entry["values"]] += entry["counts"]
        if len(self._counts) > self._most_values:
            self.complete = False
            self._counts = Counter(dict(self.top(self._most_values // 2)))

    def top(self, count: int | None = None) -> list[tuple[str, int]]:
        """Most frequent first, ties by name."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return ordered if count is None else ordered[:count]

    def __len__(self) -> int:
        return len(self._counts)


@dataclass(slots=True)
class Statistics:
    """Grows with `add`; the edges of its histograms are the constants of this module."""

    subsets: Sequence[Subset]
    kept: int = 0
    rejected: int = 0
    subset_rows: dict[str, int] = field(default_factory=dict)
    similarity_kept: Counts = field(default_factory=lambda: _zeros(SIMILARITY_EDGES))
    similarity_rejected: Counts = field(default_factory=lambda: _zeros(SIMILARITY_EDGES))
    thresholds: dict[str, set[float]] = field(default_factory=lambda: {"English": set(), "other": set()})
    sides: Counts = field(default_factory=lambda: np.zeros((len(SIDE_EDGES) - 1,) * 2, np.int64))
    short_sides: Counts = field(default_factory=lambda: np.zeros(len(SHORT_SIDE_EDGES) + 1, np.int64))
    file_bytes: Counts = field(default_factory=lambda: _zeros(BYTES_EDGES))
    aesthetic: Counts = field(default_factory=lambda: _zeros(AESTHETIC_EDGES))
    languages: Tally = field(default_factory=Tally)
    licenses: Tally = field(default_factory=Tally)
    domains: Tally = field(default_factory=Tally)
    safety_kept: Tally = field(default_factory=Tally)
    safety_rejected: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.subset_rows = {subset.name: 0 for subset in self.subsets}

    def add(self, rows: pa.RecordBatch, published: pa.Table) -> None:
        """Takes rows of a scored batch and what of them is published."""
        table = pa.Table.from_batches([rows])
        rejected = table.filter(pc.field("reason").is_valid())
        kept = table.filter(pc.field("reason").is_null())
        self.kept += kept.num_rows
        self.rejected += rejected.num_rows
        self.similarity_kept += _histogram(kept["similarity"], SIMILARITY_EDGES)
        self.similarity_rejected += _histogram(rejected["similarity"], SIMILARITY_EDGES)
        self.file_bytes += _histogram(kept["bytes"], BYTES_EDGES)
        self.safety_kept.add(pc.fill_null(kept["nsfw_tag"], "not tagged"))
        self.safety_rejected.add(pc.fill_null(rejected["nsfw_tag"], "not tagged"))
        self._add_thresholds(table)
        self._add_published(published)

    @property
    def domains_complete(self) -> bool:
        return self.domains.complete

    def quantile(self, share: float) -> float | None:
        """Similarity of kept samples at a quantile, to half a step; None without samples."""
        total = int(self.similarity_kept.sum())
        if not total:
            return None
        position = int(np.searchsorted(np.cumsum(self.similarity_kept), share * total))
        return float(SIMILARITY_EDGES[min(position, len(SIMILARITY_EDGES) - 2)] + SIMILARITY_STEP / 2)

    def _add_thresholds(self, table: pa.Table) -> None:
        english = pc.equal(table["language"], "en")
        for group, chosen in (("English", english), ("other", pc.invert(english))):
            values = pc.unique(table["threshold"].filter(chosen)).to_pylist()
            self.thresholds[group].update(round(value, 4) for value in values if value is not None)

    def _add_published(self, published: pa.Table) -> None:
        for name, rows in count_rows(self.subsets, published).items():
            self.subset_rows[name] += rows
        width, height = (_numbers(published[name]) for name in ("WIDTH", "HEIGHT"))
        columns, lines = (_bins(side, SIDE_EDGES) for side in (width, height))
        np.add.at(self.sides, (columns, lines), 1)
        short = np.minimum(width, height)
        places = np.searchsorted(SHORT_SIDE_EDGES, short, side="right")
        self.short_sides += np.bincount(places, minlength=len(SHORT_SIDE_EDGES) + 1)
        self.aesthetic += _histogram(published["aesthetic"], AESTHETIC_EDGES)
        self.languages.add(published["LANGUAGE"])
        self.licenses.add(published["LICENSE"])
        self.domains.add(
            pa.chunked_array([[_host(url) for url in published["URL"].to_pylist()]], pa.string())
        )


def language_name(code: str) -> str:
    """A language code as people read it; 'nolang' becomes words."""
    return "no reliable language" if code == NO_LANGUAGE else code


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
    return host.removeprefix("www.")


def _zeros(edges: Edges) -> Counts:
    return np.zeros(len(edges) - 1, np.int64)


def _numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.drop_null(values).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _bins(values: NDArray[np.float64], edges: Edges) -> Counts:
    """Index of each value's bin; values outside go to the first or last one."""
    places = np.searchsorted(edges, values, side="right") - 1
    return np.clip(places, 0, len(edges) - 2).astype(np.int64)


def _histogram(values: pa.ChunkedArray, edges: Edges) -> Counts:
    return np.bincount(_bins(_numbers(values), edges), minlength=len(edges) - 1).astype(np.int64)
