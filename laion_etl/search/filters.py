"""Which rows a search may return. Nothing but what the safety tags call UNLIKELY, unless asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.dataset.subsets import subsets
from laion_etl.settings import PublishSettings

SAFE_TAG = "UNLIKELY"
KNOWN_LICENSE = "known"
_NO_LICENSE = "?"

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Filters:
    """Empty and None: not asked for.

    `languages`: codes, or `nolang`. `license`: a licence's URL, a kind such as `by-sa`, or `known` for any.
    `domain`: registered domain of the image's host. `unsafe`: rows that are not tagged as safe, too.
    """

    languages: tuple[str, ...] = ()
    min_similarity: float | None = None
    min_aesthetic: float | None = None
    subset: str = ""
    license: str = ""
    domain: str = ""
    unsafe: bool = False

    def mask(self, rows: pa.Table, publish: PublishSettings) -> Mask:
        """Whether each row passes; raises InputError for a subset there is none of."""
        passed = np.ones(rows.num_rows, np.bool_)
        for condition in self._conditions(rows, publish):
            passed &= pc.fill_null(condition, False).to_numpy()
        return passed

    def _conditions(self, rows: pa.Table, publish: PublishSettings) -> Iterator[pa.ChunkedArray]:
        if not self.unsafe:
            yield pc.equal(rows["NSFW"], SAFE_TAG)
        if self.languages:
            yield pc.is_in(rows["LANGUAGE"], pa.array(self.languages))
        if self.min_similarity is not None:
            yield pc.greater_equal(rows["similarity"], self.min_similarity)
        if self.min_aesthetic is not None:
            yield pc.greater_equal(rows["aesthetic"], self.min_aesthetic)
        if self.subset:
            yield _in_subset(rows, self.subset, publish)
        if self.license:
            yield _licensed(rows["LICENSE"], self.license)
        if self.domain:
            yield pc.equal(rows["domain"], self.domain.lower())


def is_safe(tag: str | None) -> bool:
    """Whether a row may be shown without being asked for; what was never tagged may not."""
    return tag == SAFE_TAG


def _in_subset(rows: pa.Table, name: str, publish: PublishSettings) -> pa.ChunkedArray:
    known = {subset.name: subset for subset in subsets(publish)}
    if name not in known:
        raise InputError(f"there is no subset {name!r}; there are {', '.join(known)}")
    return known[name].selects(rows)


def _licensed(column: pa.ChunkedArray, wanted: str) -> pa.ChunkedArray:
    if wanted == KNOWN_LICENSE:
        return pc.not_equal(column, _NO_LICENSE)
    kind = pc.match_substring(column, f"/{wanted}/")
    return pc.or_(pc.equal(column, wanted), kind)
