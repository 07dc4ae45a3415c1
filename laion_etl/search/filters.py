"""Which rows a search may return: only those tagged UNLIKELY to be unsafe, unless requested otherwise."""

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
    """Conditions on rows; empty and None mean no condition.

    `languages`: codes, or `nolang`. `license`: a licence's URL, a kind such as `by-sa`, or `known` for any.
    `domain`: registered domain of the image's host. `unsafe`: include rows that are not tagged as safe.
    """

    languages: tuple[str, ...] = ()
    min_similarity: float | None = None
    min_aesthetic: float | None = None
    subset: str = ""
    license: str = ""
    domain: str = ""
    unsafe: bool = False

    def mask(self, rows: pa.Table, publish: PublishSettings) -> Mask:
        """Return whether each row passes. Raises InputError for an unknown subset."""
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
    """Whether a row may be shown by default; untagged rows may not."""
    return tag == SAFE_TAG


def _in_subset(rows: pa.Table, name: str, publish: PublishSettings) -> pa.ChunkedArray:
    known = {subset.name: subset for subset in subsets(publish)}
    if name not in known:
        raise InputError(f"cannot filter by subset {name!r}: unknown subset; choose from {', '.join(known)}")
    return known[name].selects(rows)


def _licensed(column: pa.ChunkedArray, wanted: str) -> pa.ChunkedArray:
    if wanted == KNOWN_LICENSE:
        return pc.not_equal(column, _NO_LICENSE)
    kind = pc.match_substring(column, f"/{wanted}/")
    return pc.or_(pc.equal(column, wanted), kind)
