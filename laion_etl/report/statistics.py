"""Statistics of a published crawl: one pass over its scored rows, in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.dataset.subsets import NO_LANGUAGE, Subset, count_rows
from laion_etl.report.sketches import HexGrid, Repeats, Tally

Counts = NDArray[np.int64]
Edges = NDArray[np.floating[Any]]

SIMILARITY_STEP = 0.005
SIMILARITY_EDGES: Edges = np.linspace(-1.0, 1.0, 401)
SIDE_LOG2 = (5.0, 14.0)  # 32 to 16,384 pixels; values beyond are counted at the edges
SIDE_CELL = 0.25  # width of a hexagon, doublings
BYTES_EDGES: Edges = 2.0 ** np.arange(12, 24.01, 0.5)  # 4 KiB to 16 MiB
SHORT_SIDE_EDGES = (256, 512, 1024, 2048)  # pixels
AESTHETIC_EDGES: Edges = np.linspace(0.0, 10.0, 41)
SHARE_EDGES: Edges = np.linspace(0.0, 1.0, 41)  # punsafe, pwatermark
CAPTION_EDGES: Edges = 2.0 ** np.arange(2, 11.01, 0.5)  # 4 to 2,048 characters
ENGLISH, OTHER = "English", "other"
_MAX_LANGUAGES = 200  # with a histogram each
_HOST = (
    r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?:www\.)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[^/?#:\[\]@]+)(?::[0-9]*)?(?:[/?#]|$)"
)


@dataclass(slots=True)
class GroupSimilarities:
    """Similarities of one group of languages."""

    kept: Counts = field(default_factory=lambda: zeros(SIMILARITY_EDGES))
    rejected: Counts = field(default_factory=lambda: zeros(SIMILARITY_EDGES))
    thresholds: set[float] = field(default_factory=set)

    def add(self, kept: pa.Table, rejected: pa.Table) -> None:
        self.kept += histogram(kept["similarity"], SIMILARITY_EDGES)
        self.rejected += histogram(rejected["similarity"], SIMILARITY_EDGES)
        for table in (kept, rejected):
            values = pc.unique(table["threshold"]).to_pylist()
            self.thresholds.update(round(value, 4) for value in values if value is not None)


@dataclass(slots=True)
class Statistics:
    """Grows with `add`; the edges of its histograms are the constants of this module."""

    subsets: Sequence[Subset]
    kept: int = 0
    rejected: int = 0
    subset_rows: dict[str, int] = field(default_factory=dict)
    similarities: dict[str, GroupSimilarities] = field(
        default_factory=lambda: {group: GroupSimilarities() for group in (ENGLISH, OTHER)}
    )
    language_similarities: dict[str, Counts] = field(default_factory=dict)
    sides: HexGrid = field(default_factory=lambda: HexGrid(*SIDE_LOG2, SIDE_CELL))
    short_sides: Counts = field(default_factory=lambda: np.zeros(len(SHORT_SIDE_EDGES) + 1, np.int64))
    file_bytes: Counts = field(default_factory=lambda: zeros(BYTES_EDGES))
    caption_chars: Counts = field(default_factory=lambda: zeros(CAPTION_EDGES))
    aesthetic: Counts = field(default_factory=lambda: zeros(AESTHETIC_EDGES))
    punsafe: Counts = field(default_factory=lambda: zeros(SHARE_EDGES))
    pwatermark: Counts = field(default_factory=lambda: zeros(SHARE_EDGES))
    languages: Tally = field(default_factory=Tally)
    licenses: Tally = field(default_factory=Tally)
    domains: Tally = field(default_factory=Tally)
    safety_kept: Tally = field(default_factory=Tally)
    safety_rejected: Tally = field(default_factory=Tally)
    images: Repeats = field(default_factory=Repeats)

    def __post_init__(self) -> None:
        self.subset_rows = {subset.name: 0 for subset in self.subsets}

    def add(self, rows: pa.RecordBatch, published: pa.Table) -> None:
        """Add rows of a scored batch and the published ones among them."""
        table = pa.Table.from_batches([rows])
        rejected = table.filter(pc.field("reason").is_valid())
        kept = table.filter(pc.field("reason").is_null())
        self.kept += kept.num_rows
        self.rejected += rejected.num_rows
        english = pc.field("language") == "en"
        self.similarities[ENGLISH].add(kept.filter(english), rejected.filter(english))
        self.similarities[OTHER].add(kept.filter(~english), rejected.filter(~english))
        self.file_bytes += histogram(kept["bytes"], BYTES_EDGES)
        self.images.add(kept["sha256"])
        self.safety_kept.add(pc.fill_null(kept["nsfw_tag"], "not tagged"))
        self.safety_rejected.add(pc.fill_null(rejected["nsfw_tag"], "not tagged"))
        self._add_published(published)

    @property
    def similarity_kept(self) -> Counts:
        """Similarity counts of all languages."""
        return self.similarities[ENGLISH].kept + self.similarities[OTHER].kept

    @property
    def thresholds(self) -> dict[str, set[float]]:
        """Thresholds applied to the rows, per group of languages."""
        return {group: found.thresholds for group, found in self.similarities.items()}

    def quantile(self, share: float) -> float | None:
        """Return the similarity of kept samples at a quantile, to half a step; None without samples."""
        return similarity_quantile(self.similarity_kept, share)

    def _add_published(self, published: pa.Table) -> None:
        for name, rows in count_rows(self.subsets, published).items():
            self.subset_rows[name] += rows
        self._add_sizes(published)
        self.aesthetic += histogram(published["aesthetic"], AESTHETIC_EDGES)
        self.punsafe += histogram(published["punsafe"], SHARE_EDGES)
        self.pwatermark += histogram(published["pwatermark"], SHARE_EDGES)
        self.caption_chars += histogram(pc.utf8_length(published["TEXT"]), CAPTION_EDGES)
        self.languages.add(published["LANGUAGE"])
        self._add_language_similarities(published)
        self.licenses.add(published["LICENSE"])
        self.domains.add(hosts(published["URL"]))

    def _add_sizes(self, published: pa.Table) -> None:
        width, height = (numbers(published[name]) for name in ("WIDTH", "HEIGHT"))
        self.sides.add(np.log2(np.maximum(width, 1)), np.log2(np.maximum(height, 1)))
        places = np.searchsorted(SHORT_SIDE_EDGES, np.minimum(width, height), side="right")
        self.short_sides += np.bincount(places, minlength=len(SHORT_SIDE_EDGES) + 1)

    def _add_language_similarities(self, published: pa.Table) -> None:
        """Languages past the first 200 are only counted: a custom detector may return any number of them."""
        for language in pc.unique(published["LANGUAGE"]).to_pylist():
            found = self.language_similarities.get(language)
            if found is None:
                if len(self.language_similarities) == _MAX_LANGUAGES:
                    continue
                found = self.language_similarities[language] = zeros(SIMILARITY_EDGES)
            of_language = published.filter(pc.field("LANGUAGE") == language)
            found += histogram(of_language["similarity"], SIMILARITY_EDGES)


def language_name(code: str) -> str:
    """Return a readable language name: the code, or words for 'nolang'."""
    return "no reliable language" if code == NO_LANGUAGE else code


def similarity_quantile(counts: Counts, share: float) -> float | None:
    """Return the similarity at a quantile of a histogram, to half a step; None if it is empty."""
    total = int(counts.sum())
    if not total:
        return None
    position = int(np.searchsorted(np.cumsum(counts), share * total))
    return float(SIMILARITY_EDGES[min(position, len(SIMILARITY_EDGES) - 2)] + SIMILARITY_STEP / 2)


def hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the host of each URL without www; '?' if it has none."""
    found = pc.extract_regex(pc.utf8_lower(urls), _HOST)
    return pc.fill_null(pc.struct_field(found, "host"), "?")


def zeros(edges: Edges) -> Counts:
    return np.zeros(len(edges) - 1, np.int64)


def numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.drop_null(values).cast(pa.float64()).to_numpy(), dtype=np.float64)


def histogram(values: pa.ChunkedArray, edges: Edges) -> Counts:
    """Count values per bin; values outside are counted in the first or last bin."""
    places = np.clip(np.searchsorted(edges, numbers(values), side="right") - 1, 0, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1).astype(np.int64)
