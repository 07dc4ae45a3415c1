"""Which rows a search may return: only those tagged UNLIKELY to be unsafe, unless requested otherwise."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import ada_url
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.dataset.subsets import subsets
from laion_etl.parse.language_codes import code_of
from laion_etl.settings import PublishSettings
from laion_etl.urls.public_suffix import registered_domain

SAFE_TAG = "UNLIKELY"
KNOWN_LICENSE = "known"
_NO_LICENSE = "?"
_NO_LANGUAGE = "nolang"  # in the column LANGUAGE
# Those of https://creativecommons.org/licenses/, retired ones too, and of /publicdomain/.
_LICENSE_TYPE = re.compile(
    r"by|(by-)?(nc|nd|sa|nc-sa|nc-nd|nd-nc)|devnations|sampling\+?|nc-sampling\+|zero|mark|certification|publicdomain"
)

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
        """Return whether each row passes. Raises InputError for an unknown subset or licence, and for what is
        not a domain.
        """
        passed = np.ones(rows.num_rows, np.bool_)
        for condition in self._conditions(rows, publish):
            passed &= pc.fill_null(condition, False).to_numpy()
        return passed

    def _conditions(self, rows: pa.Table, publish: PublishSettings) -> Iterator[pa.ChunkedArray]:
        if not self.unsafe:
            yield pc.equal(rows["NSFW"], SAFE_TAG)
        if self.languages:
            wanted = pa.array(sorted(set().union(*map(_codes, self.languages))))
            yield pc.is_in(pc.utf8_lower(rows["LANGUAGE"]), wanted)
        if self.min_similarity is not None:
            yield pc.greater_equal(rows["similarity"], self.min_similarity)
        if self.min_aesthetic is not None:
            yield pc.greater_equal(rows["aesthetic"], self.min_aesthetic)
        if self.subset:
            yield _in_subset(rows, self.subset, publish)
        if self.license:
            yield _licensed(rows["LICENSE"], self.license)
        if self.domain:
            yield pc.equal(rows["domain"], _checked_domain(self.domain))


def is_safe(tag: str | None) -> bool:
    """Whether a row may be shown by default; untagged rows may not."""
    return tag == SAFE_TAG


def _codes(language: str) -> set[str]:
    """Return a language as it is written, which may be that of a custom detector, and as a known code."""
    code = code_of(language)
    return {language.lower(), _NO_LANGUAGE if code == "" else code or ""}


def _in_subset(rows: pa.Table, name: str, publish: PublishSettings) -> pa.ChunkedArray:
    known = {subset.name: subset for subset in subsets(publish)}
    if name not in known:
        raise InputError(f"cannot filter by subset {name!r}: unknown subset; choose from {', '.join(known)}")
    return known[name].selects(rows)


def _licensed(column: pa.ChunkedArray, wanted: str) -> pa.ChunkedArray:
    if wanted == KNOWN_LICENSE:
        return pc.not_equal(column, _NO_LICENSE)
    if "://" in wanted:
        return pc.equal(column, wanted)
    if not _LICENSE_TYPE.fullmatch(wanted.lower()):
        raise InputError(
            f"cannot filter by licence {wanted!r}: it is not a type of Creative Commons; write a type such "
            f"as by-sa or zero, the URL of a licence, or {KNOWN_LICENSE} for any"
        )
    return pc.match_substring(column, f"/{wanted.lower()}/")


def _checked_domain(wanted: str) -> str:
    """Return a domain as rows have it. Raises InputError for a URL, a host below a domain, and the like."""
    name = wanted.strip().rstrip(".")
    try:
        url = ada_url.URL(f"http://{name}/")
    except ValueError:
        url = None
    if url is None or url.href != f"http://{url.hostname}/":
        raise InputError(
            f"cannot filter by domain {wanted!r}: it is not a domain; write one like example.org"
        )
    host = str(url.hostname)
    if (domain := registered_domain(host)) != host:
        raise InputError(
            f"cannot filter by domain {wanted!r}: it is a host of {domain}; filter by {domain}, or search "
            "without this filter"
        )
    return host
