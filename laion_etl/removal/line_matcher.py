"""Finds which lines of a removal list match which rows, all lines in one lookup.

A line matches the rows that `Matcher` finds for a request of this line alone. One Matcher for each line costs
0.2 ms a line, however few rows there are, so a long list took longer to count than to search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.blocklists.column_masks import column, compared_hashes, to_hashes
from laion_etl.blocklists.link_matches import Matches, matching_domains, matching_expressions
from laion_etl.blocklists.near_hashes import NearListed
from laion_etl.blocklists.turned_hashes import TURNS, turned
from laion_etl.core.kernels import Hashes, Longs
from laion_etl.core.schemas import BATCH_FILES, pair_id
from laion_etl.removal.line_rules import HashesOfLines, LineRules
from laion_etl.urls import normalize

_ROWS_AT_ONCE = 4_096  # each may match thousands of lines, and a file of pairs may have millions of rows
_COLUMNS = {"pairs": "pair_id", "md5": "md5", "sha256": "sha256"}


@dataclass(frozen=True, slots=True)
class _Keyed:
    """Lines by keys of 64 bits, ascending; several lines may have the same key."""

    keys: Hashes
    lines: NDArray[np.integer]

    @classmethod
    def of(cls, keys: Hashes, lines: NDArray[np.integer]) -> "_Keyed":
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], lines[order])

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
    def of(cls, rules: LineRules, url_rule: int) -> "_Links":
        chosen = rules.url_rules == url_rule
        kinds = []
        for kind in ("domains", "urls", "pairs"):
            named = rules.kinds[kind]
            kept = chosen[named.lines]
            kinds.append(_Keyed.of(named.numbers()[kept], named.lines[kept]))
        return cls(*kinds)

    def meetings(self, urls: pa.StringArray) -> list[Longs]:
        return [
            self.domains.meetings(matching_domains(urls, self.domains.keys)),
            self.urls.meetings(matching_expressions(urls, self.urls.keys)),
        ]

    def pairs_of(self, urls: Sequence[str], captions: Sequence[str]) -> Longs:
        ids = [int.from_bytes(pair_id(*texts)[:8]) for texts in zip(urls, captions, strict=True)]
        return self.pairs.meetings(Matches(np.arange(len(ids)), np.asarray(ids, np.uint64)))


@dataclass(frozen=True, slots=True)
class _Exact:
    """Lines by hashes of which all bits count."""

    named: HashesOfLines
    places: _Keyed

    @classmethod
    def of(cls, named: HashesOfLines) -> "_Exact":
        return cls(named, _Keyed.of(named.numbers(), np.arange(len(named), dtype=np.int32)))

    def meetings(self, values: Sequence[str | bytes | None]) -> Longs:
        """Return rows and lines (n, 2) for values, bytes or hexadecimal digits."""
        width = self.named.hashes.shape[1]
        known = [(row, one) for row, one in enumerate(map(_as_bytes, values)) if one and len(one) == width]
        rows = np.asarray([row for row, _ in known], np.int64)
        found = HashesOfLines(
            rows.astype(np.int32),
            np.frombuffer(b"".join(one for _, one in known), np.uint8).reshape(-1, width),
        )
        met = self.places.meetings(Matches(np.arange(len(rows)), found.numbers()))
        met = met[(found.hashes[met[:, 0]] == self.named.hashes[met[:, 1]]).all(axis=1)]
        return np.stack([rows[met[:, 0]], self.named.lines[met[:, 1]]], axis=1)


class LineMatcher:
    """Finds the lines that match rows."""

    def __init__(self, rules: LineRules, pdq_distance: int) -> None:
        self._rules = rules
        self._pdq_distance = pdq_distance
        versions = np.unique(rules.url_rules).tolist()
        self._links = {version: _Links.of(rules, version) for version in versions}
        self._exact = {kind: _Exact.of(rules.kinds[kind]) for kind in _COLUMNS if rules.kinds[kind]}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def pairs_of_lines(self, rows: pa.Table) -> dict[str, set[bytes]]:
        """Return the ids of the pairs that each line matches, by the id of the line's request.

        `rows` have the column pair_id, and some of those that `Matcher.match_rules` uses.
        """
        found: dict[int, set[bytes]] = {}
        for start in range(0, rows.num_rows if self._rules else 0, _ROWS_AT_ONCE):
            some = rows.slice(start, _ROWS_AT_ONCE)
            met = np.concatenate(self._meetings(some))
            lines, places = np.divmod(np.unique(met[:, 1] * some.num_rows + met[:, 0]), some.num_rows)
            ids = some["pair_id"].to_pylist()
            bounds = np.flatnonzero(np.diff(lines, prepend=-1, append=-1))
            for first, end in pairwise(bounds.tolist()):
                pairs = found.setdefault(int(lines[first]), set())
                pairs.update(ids[place] for place in places[first:end].tolist())
        return {self._rules.id_of(line): pairs for line, pairs in found.items()}

    def _meetings(self, rows: pa.Table) -> list[Longs]:
        has = set(rows.schema.names)
        found = [np.empty((0, 2), np.int64)]
        if "url" in has:
            found += self._by_link(rows, column(rows, "url").cast(pa.string()))
        for kind, lines in self._exact.items():
            if _COLUMNS[kind] in has:
                found.append(lines.meetings(rows[_COLUMNS[kind]].to_pylist()))
        if self._rules.kinds["pdq"] and "pdq" in has:
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
        rows, (listed, lines) = np.asarray([row for row, _ in known], np.int64), self._near
        pairs = listed.pairs(to_hashes([one for _, one in known]))
        count = max(len(lines.keys), 1)
        # A symmetric image is near several positions of one listed image.
        met, places = np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1] // TURNS), count)
        return lines.meetings(Matches(rows[met], places.astype(np.uint64)))

    @cached_property
    def _near(self) -> tuple[NearListed, _Keyed]:
        """The distinct PDQ hashes in all positions, and lines by the number of their hash."""
        named = self._rules.kinds["pdq"]
        distinct, numbers = np.unique(named.hashes, axis=0, return_inverse=True)
        lines = _Keyed.of(numbers.reshape(-1).astype(np.uint64), named.lines)
        return NearListed(turned(distinct), self._pdq_distance), lines


def _as_bytes(value: str | bytes | None) -> bytes | None:
    if not isinstance(value, str):
        return value
    try:
        return bytes.fromhex(value)
    except ValueError:  # a damaged row has no hash
        return None
