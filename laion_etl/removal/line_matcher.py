"""Finds which lines of a removal list match which rows, all lines in one lookup.

A line matches the rows that `Matcher` finds for a request of this line alone. One Matcher for each line costs
0.2 ms a line, however few rows there are, so a long list took longer to count than to search.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from laion_etl.blocklists.column_masks import column, compared_hashes, to_hashes
from laion_etl.blocklists.link_matches import Matches, matching_domains, matching_expressions
from laion_etl.blocklists.near_hashes import NearListed
from laion_etl.blocklists.removal_requests import Request
from laion_etl.blocklists.turned_hashes import TURNS, turned
from laion_etl.core.kernels import Hashes, Longs
from laion_etl.core.schemas import BATCH_FILES, pair_id
from laion_etl.urls import normalize

_ROWS_AT_ONCE = 65_536  # a file of pairs may have millions that match
_EXACT = ("pairs", "md5", "sha256")
_COLUMNS = {"pairs": "pair_id", "md5": "md5", "sha256": "sha256"}


@dataclass(frozen=True, slots=True)
class _Keyed:
    """Lines by keys of 64 bits, ascending; several lines may have the same key."""

    keys: Hashes
    lines: Longs
    distinct: Hashes

    @classmethod
    def of(cls, keys: Sequence[int], lines: Sequence[int]) -> "_Keyed":
        values = np.asarray(keys, np.uint64)
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.asarray(lines, np.int64)[order], np.unique(values))

    def meetings(self, found: Matches) -> Longs:
        """Return rows and lines (n, 2) for rows and keys."""
        first = np.searchsorted(self.keys, found.entries)
        counts = np.searchsorted(self.keys, found.entries, "right") - first
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.stack(
            [np.repeat(found.rows, counts), self.lines[np.repeat(first, counts) + within]], axis=1
        )


@dataclass(frozen=True, slots=True)
class _Links:
    """The domains, URLs and pairs of lines whose hashes one version of the URL rule has made."""

    domains: _Keyed
    urls: _Keyed
    pairs: _Keyed

    @classmethod
    def of(cls, lines: Iterable[tuple[int, Request]]) -> "_Links":
        named = list(lines)
        kinds = []
        for kind in ("domains", "urls", "pairs"):
            keys = [
                (int(one[:16], 16), line) for line, request in named for one in request.rules.get(kind, ())
            ]
            kinds.append(_Keyed.of([key for key, _ in keys], [line for _, line in keys]))
        return cls(*kinds)

    def meetings(self, urls: pa.StringArray) -> list[Longs]:
        return [
            self.domains.meetings(matching_domains(urls, self.domains.distinct)),
            self.urls.meetings(matching_expressions(urls, self.urls.distinct)),
        ]

    def pairs_of(self, urls: Sequence[str], captions: Sequence[str]) -> Longs:
        ids = [int.from_bytes(pair_id(*texts)[:8]) for texts in zip(urls, captions, strict=True)]
        return self.pairs.meetings(Matches(np.arange(len(ids)), np.asarray(ids, np.uint64)))


class LineMatcher:
    """Finds the lines that match rows, given as requests of one line each."""

    def __init__(self, lines: Iterable[Request], pdq_distance: int) -> None:
        self._lines = list({line.id: line for line in lines}.items())
        self._pdq_distance = pdq_distance
        rules = sorted({request.url_rule for _, request in self._lines})
        self._links = {
            rule: _Links.of((n, line) for n, (_, line) in enumerate(self._lines) if line.url_rule == rule)
            for rule in rules
        }
        self._exact = {kind: self._named(kind) for kind in _EXACT}
        self._pdq = self._named("pdq")

    def __bool__(self) -> bool:
        return bool(self._lines)

    def pairs_of_lines(self, rows: pa.Table) -> dict[str, set[bytes]]:
        """Return the ids of the pairs that each line matches, by the id of the line's request.

        `rows` have the column pair_id, and some of those that `Matcher.match_rules` uses.
        """
        found: dict[str, set[bytes]] = {}
        if not self._lines:
            return found
        for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
            some = rows.slice(start, _ROWS_AT_ONCE)
            ids = some["pair_id"].to_pylist()
            for row, line in np.unique(np.concatenate(self._meetings(some)), axis=0).tolist():
                found.setdefault(self._lines[line][0], set()).add(ids[row])
        return found

    def _meetings(self, rows: pa.Table) -> list[Longs]:
        has = set(rows.schema.names)
        found = [np.empty((0, 2), np.int64)]
        if "url" in has:
            found += self._by_link(rows, column(rows, "url").cast(pa.string()))
        for kind, lines in self._exact.items():
            if lines and _COLUMNS[kind] in has:
                found.append(_equal(rows[_COLUMNS[kind]].to_pylist(), lines))
        if self._pdq and "pdq" in has:
            found.append(self._near_ones(compared_hashes(rows).to_pylist()))
        return found

    def _by_link(self, rows: pa.Table, urls: pa.StringArray) -> list[Longs]:
        """Look URLs up as they are, and where they may differ in the form of the rule of the lines."""
        found = [one for links in self._links.values() for one in links.meetings(urls)]
        if not normalize.EARLIER_RULES:
            return found
        other = np.flatnonzero(normalize.may_have_other_forms(urls))
        known = urls.take(pa.array(other)).to_pylist()
        caption = BATCH_FILES.former_names(["caption"], rows.schema)[0]
        captions = (
            column(rows, caption).take(pa.array(other)).to_pylist() if caption in rows.schema.names else None
        )
        for rule, links in self._links.items():
            forms = [normalize.form_by_rule(rule, url) for url in known]
            of_forms = links.meetings(pa.array(forms, pa.string()))
            if captions is not None:
                of_forms.append(links.pairs_of(forms, captions))
            found += [np.stack([other[one[:, 0]], one[:, 1]], axis=1) for one in of_forms]
        return found

    def _near_ones(self, hashes: Sequence[str | None]) -> Longs:
        known = [(row, one) for row, one in enumerate(hashes) if one]
        rows, listed = np.asarray([row for row, _ in known], np.int64), [*self._pdq.values()]
        pairs = self._near.pairs(to_hashes([one for _, one in known]))
        return np.asarray(
            [(rows[row], line) for row, place in pairs.tolist() for line in listed[place // TURNS]], np.int64
        ).reshape(-1, 2)

    @cached_property
    def _near(self) -> NearListed:
        return NearListed(turned(to_hashes([*self._pdq])), self._pdq_distance)

    def _named(self, kind: str) -> dict[str, list[int]]:
        """Return the lines that name each value of a kind."""
        found: dict[str, list[int]] = {}
        for number, (_, request) in enumerate(self._lines):
            for one in request.rules.get(kind, ()):
                found.setdefault(one, []).append(number)
        return found


def _equal(values: Sequence[str | bytes | None], lines: Mapping[str, Sequence[int]]) -> Longs:
    """Return rows and lines (n, 2) whose value, in hexadecimal digits, is the same."""
    texts = (one.hex() if isinstance(one, bytes) else one for one in values)
    met = [(row, line) for row, one in enumerate(texts) if one for line in lines.get(one, ())]
    return np.asarray(met, np.int64).reshape(-1, 2)
