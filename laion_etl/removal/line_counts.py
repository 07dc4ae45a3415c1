"""Counts what each line of a removal list matches, among the rows that the whole list matches."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import InputError
from laion_etl.core.quantities import first_in_line, quantity
from laion_etl.removal.lists import Line, RemovalList

_ROWS_AT_ONCE = 65_536  # matched rows in memory; a lookup of a line costs 0.2 ms, however few they are
_COLUMNS = ("pair_id", "url", "caption", "md5", "sha256", "pdq", "pdq_quality")
_NAMED = 5


@dataclass(frozen=True, slots=True)
class LineResult:
    """A line, and how many pairs it has matched, in this search or in earlier requests with the same line."""

    line: Line
    pairs: int


class LineCounts:
    """The pairs that match each of some requests of one line each, by the request's id."""

    def __init__(self, lines: Iterable[Request], pdq_distance: int) -> None:
        self._matchers = {line.id: Matcher([line], pdq_distance) for line in lines}
        self._found: dict[str, set[bytes]] = {line: set() for line in self._matchers}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Add rows that the whole list matches."""
        if not self._matchers:
            return
        chosen = rows.select([name for name in _COLUMNS if name in rows.schema.names])
        self._waiting.setdefault(str(chosen.schema), []).append(chosen.replace_schema_metadata())
        self._rows += chosen.num_rows
        if self._rows >= _ROWS_AT_ONCE:
            self._count()

    def with_counts(self, request: Request) -> Request:
        """Return the request with the numbers of pairs added that it did not have before."""
        self._count()
        known = {bytes.fromhex(one) for one in request.pair_ids}
        found = Counter({line: len(pairs - known) for line, pairs in self._found.items()})
        return replace(request, lines=dict(found + Counter(request.lines)))

    def _count(self) -> None:
        for tables in self._waiting.values():
            rows = pa.concat_tables(tables)
            for line, matcher in self._matchers.items():
                mask = pa.array(matcher.finds(rows))
                self._found[line].update(rows["pair_id"].filter(mask).to_pylist())
        self._waiting, self._rows = {}, 0


def line_results(
    listed: RemovalList, pairs: Mapping[int, str], request: Request, earlier: Iterable[Request]
) -> list[LineResult]:
    """Return the result of each line, in order; `request`: the one of the list, after a search.

    What `earlier` requests removed by the same line cannot be found again, and counts as found.
    """
    counts: dict[str, int] = {}
    for one in (*earlier, request):
        counts |= {line: count for line, count in one.lines.items() if count}
    own = ((line, line.request(pairs)) for line in listed.lines)
    return [LineResult(line, counts.get(one.id, 0) if one else 0) for line, one in own]


def check_misses(listed: RemovalList, results: Iterable[LineResult]) -> None:
    """Raise InputError naming the lines that have matched nothing."""
    misses = [one.line for one in results if not one.pairs]
    if not misses:
        return
    named = first_in_line([f"line {line.number} ({line.text[:100]})" for line in misses], _NAMED)
    raise InputError(
        f"cannot find what {len(misses):,} of {quantity(len(listed.lines), 'line')} of {listed.source} name: "
        f"{named} match nothing; correct them, or allow it with --allow-misses"
    )
