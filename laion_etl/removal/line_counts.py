"""Counts what each line of a removal list matches, among the rows that the whole list matches."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Request
from laion_etl.core.errors import InputError
from laion_etl.core.quantities import first_in_line, quantity
from laion_etl.removal.line_matcher import LineMatcher
from laion_etl.removal.line_rules import LineRules
from laion_etl.removal.requested_lines import RequestedLine

_ROWS_AT_ONCE = 65_536  # matched rows in memory
_COLUMNS = ("pair_id", "url", "caption", "md5", "sha256", "pdq", "pdq_quality")
_NAMED = 5


@dataclass(frozen=True, slots=True)
class LineResult:
    """A line, and how many pairs it has matched, in this search or in earlier requests with the same line."""

    line: RequestedLine
    pairs: int


class LineCounts:
    """The pairs that match each of some requests of one line each, by the request's id."""

    def __init__(self, lines: Iterable[Request], pdq_distance: int) -> None:
        self._matcher = LineMatcher(LineRules.of(lines), pdq_distance)
        self._found: dict[str, set[bytes]] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Add rows that the whole list matches."""
        if not self._matcher:
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
            for line, pairs in self._matcher.pairs_of_lines(pa.concat_tables(tables)).items():
                self._found.setdefault(line, set()).update(pairs)
        self._waiting, self._rows = {}, 0


def line_results(
    lines: Sequence[RequestedLine], request: Request, earlier: Iterable[Request]
) -> list[LineResult]:
    """Return the result of each line, in order; `request`: the one of the list, after a search.

    What `earlier` requests removed by the same line cannot be found again, and counts as found.
    """
    counts: dict[str, int] = {}
    for one in (*earlier, request):
        counts |= {line: count for line, count in one.lines.items() if count}
    requests = ((line, line.request) for line in lines)
    return [LineResult(line, counts.get(one.id, 0) if one else 0) for line, one in requests]


def check_misses(source: str, results: Sequence[LineResult]) -> None:
    """Raise InputError naming the lines of a list that have matched nothing."""
    misses = [one.line for one in results if not one.pairs]
    if not misses:
        return
    named = first_in_line([line.name for line in misses], _NAMED)
    raise InputError(
        f"cannot find what {len(misses):,} of {quantity(len(results), 'line')} of {source} name: "
        f"{named} match nothing; correct them, or allow it with --allow-misses"
    )
