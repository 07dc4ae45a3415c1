"""Statistics of a published crawl: one pass over its scored rows, in bounded memory.

Those of ranges of batches merge into those of the crawl: counts are exact, sketches within the error that
they state (sketches.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.core.caption_source import SOURCES, CaptionSource
from laion_etl.dataset.subsets import NO_LANGUAGE, Subset, count_rows
from laion_etl.report.contents import Contents
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
_NUMBERS = ("kept", "rejected")
_HISTOGRAMS = ("short_sides", "file_bytes", "caption_chars", "aesthetic", "punsafe", "pwatermark")
_TALLIES = ("languages", "licenses", "domains", "safety_kept", "safety_rejected")
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

    def merge(self, other: "GroupSimilarities") -> None:
        """Add those of other rows."""
        self.kept += other.kept
        self.rejected += other.rejected
        self.thresholds |= other.thresholds

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "kept": self.kept.tolist(),
            "rejected": self.rejected.tolist(),
            "thresholds": sorted(self.thresholds),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "GroupSimilarities":
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        kept, rejected = (_counts(plain[name], SIMILARITY_EDGES) for name in ("kept", "rejected"))
        return cls(kept, rejected, {float(value) for value in plain["thresholds"]})


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
    source_similarities: dict[str, GroupSimilarities] = field(default_factory=dict)  # by source of captions
    language_similarities: dict[str, Counts] = field(default_factory=dict)
    more_languages: bool = False  # than have a histogram
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
    contents: Contents = field(default_factory=Contents)

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
        self._add_sources(kept, rejected)
        self.file_bytes += histogram(kept["bytes"], BYTES_EDGES)
        self.images.add(kept["sha256"])
        self.safety_kept.add(pc.fill_null(kept["nsfw_tag"], "not tagged"))
        self.safety_rejected.add(pc.fill_null(rejected["nsfw_tag"], "not tagged"))
        self._add_published(published)
        self.contents.add(kept, published)

    def merge(self, other: "Statistics") -> None:
        """Add those of other rows of the same crawl."""
        for name in (*_NUMBERS, *_HISTOGRAMS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _TALLIES:
            getattr(self, name).merge(getattr(other, name))
        for subset in self.subset_rows:
            self.subset_rows[subset] += other.subset_rows[subset]
        for group, found in self.similarities.items():
            found.merge(other.similarities[group])
        for source, counted in other.source_similarities.items():
            self.source_similarities.setdefault(source, GroupSimilarities()).merge(counted)
        self._merge_languages(other)
        self.sides.merge(other.sides)
        self.images.merge(other.images)
        self.contents.merge(other.contents)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            **{name: getattr(self, name).tolist() for name in _HISTOGRAMS},
            **{name: getattr(self, name).to_plain() for name in _TALLIES},
            "subset_rows": dict(self.subset_rows),
            "similarities": {group: found.to_plain() for group, found in self.similarities.items()},
            "source_similarities": {s: one.to_plain() for s, one in sorted(self.source_similarities.items())},
            "language_similarities": {
                language: counts.tolist() for language, counts in self.language_similarities.items()
            },
            "more_languages": self.more_languages,
            "sides": self.sides.to_plain(),
            "images": self.images.to_plain(),
            "contents": self.contents.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], subsets: Sequence[Subset]) -> "Statistics":
        """Read what `to_plain` returned. Raises KeyError, TypeError, ValueError or IndexError."""
        found = cls(subsets)
        for name in _NUMBERS:
            setattr(found, name, int(plain[name]))
        for name in _HISTOGRAMS:
            setattr(found, name, getattr(found, name) + np.asarray(plain[name], np.int64))
        for name in _TALLIES:
            setattr(found, name, Tally.from_plain(plain[name]))
        found.subset_rows = {subset.name: int(plain["subset_rows"][subset.name]) for subset in subsets}
        found.similarities = {
            group: GroupSimilarities.from_plain(plain["similarities"][group]) for group in (ENGLISH, OTHER)
        }
        found.source_similarities = {
            CaptionSource(source).value: GroupSimilarities.from_plain(counted)
            for source, counted in plain["source_similarities"].items()
        }
        found.language_similarities = {
            str(language): _counts(counts, SIMILARITY_EDGES)
            for language, counts in plain["language_similarities"].items()
        }
        found.more_languages = bool(plain["more_languages"])
        found.sides.add_plain(plain["sides"])
        found.images = Repeats.from_plain(plain["images"])
        found.contents = Contents.from_plain(plain["contents"])
        return found

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

    def _add_sources(self, kept: pa.Table, rejected: pa.Table) -> None:
        """Rows without a source are of an earlier version, which knew only alt."""
        sources = [pc.fill_null(rows["caption_source"], CaptionSource.ALT) for rows in (kept, rejected)]
        for source in SOURCES:
            mine = [pc.equal(column, source) for column in sources]
            if any(pc.any(mask).as_py() for mask in mine):
                found = self.source_similarities.setdefault(source.value, GroupSimilarities())
                found.add(kept.filter(mine[0]), rejected.filter(mine[1]))

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

    def _merge_languages(self, other: "Statistics") -> None:
        """Where a side has not counted all its languages, those that it lacks would be incomplete."""
        mine, theirs = self.language_similarities, other.language_similarities
        merged = {
            language: mine.get(language, 0) + theirs.get(language, zeros(SIMILARITY_EDGES))
            for language in (*mine, *(one for one in theirs if one not in mine))
            if (language in mine or not self.more_languages)
            and (language in theirs or not other.more_languages)
        }
        self.language_similarities = dict(list(merged.items())[:_MAX_LANGUAGES])
        dropped = len(mine.keys() | theirs.keys()) > len(self.language_similarities)
        self.more_languages = self.more_languages or other.more_languages or dropped

    def _add_language_similarities(self, published: pa.Table) -> None:
        """Languages past the first 200 are only counted: a custom detector may return any number of them."""
        for language in pc.unique(published["LANGUAGE"]).to_pylist():
            found = self.language_similarities.get(language)
            if found is None:
                if self.more_languages or len(self.language_similarities) == _MAX_LANGUAGES:
                    self.more_languages = True
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


def _counts(plain: Sequence[int], edges: Edges) -> Counts:
    """Read the counts of a histogram. Raises ValueError if it has other bins."""
    counts = zeros(edges)
    counts += np.asarray(plain, np.int64)
    return counts


def zeros(edges: Edges) -> Counts:
    return np.zeros(len(edges) - 1, np.int64)


def numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.drop_null(values).cast(pa.float64()).to_numpy(), dtype=np.float64)


def histogram(values: pa.ChunkedArray, edges: Edges) -> Counts:
    """Count values per bin; values outside are counted in the first or last bin."""
    places = np.clip(np.searchsorted(edges, numbers(values), side="right") - 1, 0, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1).astype(np.int64)
