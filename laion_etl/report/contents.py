"""Statistics of captions, shapes and scores of published samples, and of images that look alike.

Like all of a version they are counted in bounded memory and merge. Sums are of whole numbers, so that those
of ranges add up to those of one pass to the last digit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.report.sketches import Repeats, Tally

ASPECT_EDGES = np.linspace(-3.0, 3.0, 25)  # log2 of width / height, 1:8 to 8:1
RESOLUTIONS = (256, 512, 1024)  # the table of LAION-5B
SIDES = ("both sides", "either side")
_SAFE_TAG = "UNLIKELY"
_WORD_BREAKS = r"[^\p{L}\p{M}\p{N}']+"
_MIN_LETTERS = 3  # of a word that is counted alone
_MAX_WORDS = 20_000
_SCALES = {"similarity": 10_000, "aesthetic": 1_000, "punsafe": 10_000, "pwatermark": 10_000}
MEASURES = (*_SCALES, "caption length", "pixels")
PAIRS = tuple(combinations(range(len(MEASURES)), 2))

Integers = NDArray[np.int64]


class FrequentWords(Tally):
    """Words and phrases by language; what is rare among all of them is forgotten."""

    def __init__(self, max_values: int = _MAX_WORDS) -> None:
        super().__init__(max_values)

    def of(self, language: str, count: int) -> list[tuple[str, int]]:
        """Return the most frequent ones of a language."""
        start = f"{language}\t"
        found = ((value.removeprefix(start), n) for value, n in self.top() if value.startswith(start))
        return [one for one, _ in zip(found, range(count), strict=False)]


@dataclass(slots=True)
class Contents:
    """Grows with `add`."""

    words: FrequentWords = field(default_factory=FrequentWords)
    phrases: FrequentWords = field(default_factory=FrequentWords)  # of two words
    aspects: Integers = field(default_factory=lambda: np.zeros(len(ASPECT_EDGES) - 1, np.int64))
    resolutions: Integers = field(default_factory=lambda: np.zeros(len(RESOLUTIONS) * len(SIDES), np.int64))
    moments: list[list[int]] = field(default_factory=lambda: [[0] * 6 for _ in PAIRS])
    lookalikes: Repeats = field(default_factory=Repeats)

    def add(self, kept: pa.Table, published: pa.Table) -> None:
        """Add the kept rows of a scored batch and the published ones."""
        self.lookalikes.add(pa.array(map(_digest, kept["phash"].to_pylist()), pa.string()))
        width, height = (published[name].cast(pa.float64()).to_numpy() for name in ("WIDTH", "HEIGHT"))
        shape = np.log2(np.maximum(width, 1) / np.maximum(height, 1))
        places = np.clip(np.searchsorted(ASPECT_EDGES, shape, side="right") - 1, 0, len(self.aspects) - 1)
        self.aspects += np.bincount(places, minlength=len(self.aspects))
        for number, side in enumerate((np.minimum(width, height), np.maximum(width, height))):
            self.resolutions[number :: len(SIDES)] += [int((side >= px).sum()) for px in RESOLUTIONS]
        self._add_moments(published, width * height)
        self._add_words(published.filter(pc.field("NSFW") == _SAFE_TAG))

    def merge(self, other: "Contents") -> None:
        """Add those of other rows."""
        self.words.merge(other.words)
        self.phrases.merge(other.phrases)
        self.aspects += other.aspects
        self.resolutions += other.resolutions
        self.moments = [_added(*both) for both in zip(self.moments, other.moments, strict=True)]
        self.lookalikes.merge(other.lookalikes)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "words": self.words.to_plain(),
            "phrases": self.phrases.to_plain(),
            "aspects": self.aspects.tolist(),
            "resolutions": self.resolutions.tolist(),
            "moments": self.moments,
            "lookalikes": self.lookalikes.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Contents":
        """Read what `to_plain` returned. Raises KeyError, TypeError or ValueError."""
        found = cls(
            FrequentWords.from_plain(plain["words"]),
            FrequentWords.from_plain(plain["phrases"]),
            lookalikes=Repeats.from_plain(plain["lookalikes"]),
        )
        found.aspects += np.asarray(plain["aspects"], np.int64)
        found.resolutions += np.asarray(plain["resolutions"], np.int64)
        read = [[int(value) for value in pair] for pair in plain["moments"]]
        found.moments = [_added(*both) for both in zip(found.moments, read, strict=True)]
        return found

    def correlation(self, pair: int) -> float | None:
        """Return Pearson's correlation of a pair of measures; None where they do not vary."""
        n, x, y, xx, yy, xy = self.moments[pair]
        spread = (n * xx - x * x) * (n * yy - y * y)
        return float((n * xy - x * y) / spread**0.5) if spread > 0 else None

    def _add_moments(self, published: pa.Table, pixels: NDArray[np.float64]) -> None:
        columns = [published[name].cast(pa.float64()).to_numpy() * scale for name, scale in _SCALES.items()]
        columns.append(pc.utf8_length(published["TEXT"]).cast(pa.float64()).to_numpy())
        columns.append(np.log2(np.maximum(pixels, 1)) * 1_000)
        for place, (first, second) in enumerate(PAIRS):
            known = np.isfinite(columns[first]) & np.isfinite(columns[second])
            x, y = (np.rint(columns[one][known]).astype(np.int64) for one in (first, second))
            sums = [len(x), *(int(one.sum()) for one in (x, y, x * x, y * y, x * y))]
            self.moments[place] = _added(self.moments[place], sums)

    def _add_words(self, published: pa.Table) -> None:
        if not published.num_rows:
            return
        texts = pc.utf8_lower(published["TEXT"]).combine_chunks()
        split = pc.split_pattern_regex(texts, _WORD_BREAKS)
        words, rows = pc.list_flatten(split), pc.list_parent_indices(split)
        some = pc.greater(pc.utf8_length(words), 0)
        words, rows = words.filter(some), rows.filter(some)
        languages = published["LANGUAGE"].combine_chunks().take(rows)
        marked = pc.binary_join_element_wise(languages, words, "\t")
        self.words.add(marked.filter(pc.greater_equal(pc.utf8_length(words), _MIN_LETTERS)))
        together = pc.equal(rows[1:], rows[:-1])
        self.phrases.add(pc.binary_join_element_wise(marked[:-1], words[1:], " ").filter(together))


def _added(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [one + other for one, other in zip(first, second, strict=True)]


def _digest(phash: str | None) -> str | None:
    """Spread perceptual hashes evenly, as Repeats needs them: many images have similar ones."""
    return hashlib.sha256(phash.encode()).hexdigest() if phash else None
