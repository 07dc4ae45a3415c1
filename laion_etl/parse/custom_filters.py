"""Custom filters: batches of pairs in; out, for each pair, None (it is kept) or a drop reason.

They come last, after the built-in filters, the duplicates of a WAT file and the languages: what they get are
pairs with all their columns, and what they cost is paid for those only. A whole batch at a time, because a
call per pair would cost more than all built-in filters together.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import SettingsError
from laion_etl.core.funnel import REASON_NAME, ParseReason
from laion_etl.core.import_factory import load_callables
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import apply_by_rows
from laion_etl.settings import ParseSettings

VARIABLE = "LAION_ETL_PARSE_FILTERS"
_TAKEN = frozenset(reason.value for reason in ParseReason)


class LinkFilter(Protocol):
    """The interface of filters; docs/library.md shows how to write one.

    A filter may look at nothing but the pairs it gets: which files a process works on, and in which order,
    differs from run to run.
    """

    def __call__(self, pairs: pa.Table) -> pa.Array | Sequence[str | None]:
        """Return a value for each pair of a table of PAIR_SCHEMA, in order: None to keep it, or the reason.

        A reason is a name like `too_small`, of small letters, digits and underscores.
        """
        ...


def load_filters(settings: ParseSettings) -> tuple[LinkFilter, ...]:
    """Return the filters that the settings name. Raises SettingsError for one that cannot be used.

    Each factory is called with the settings of the parse stage.
    """
    return load_callables(settings.filters, settings, VARIABLE, "LinkFilter")


def keep_passing(
    filters: Sequence[LinkFilter],
    pairs: pa.Table,
    dropped: Counter[str],
    failed: Callable[[str, Exception], None],
) -> pa.Table:
    """Return the pairs that pass all filters; the others are counted in `dropped` by reason.

    A pair for which a filter raises an exception is dropped as well, and passed to `failed` with the URL of
    its page. Raises SettingsError for a filter that does not return a reason or None for each pair.
    """
    for one in filters:
        if not pairs.num_rows:
            break
        reasons = _contained(one, pairs, failed)
        if reasons.null_count < len(reasons):
            for found in pc.value_counts(reasons.drop_null()).to_pylist():
                dropped[found["values"]] += found["counts"]
            pairs = pairs.filter(reasons.is_null())
    return pairs


def _contained(one: LinkFilter, pairs: pa.Table, failed: Callable[[str, Exception], None]) -> pa.Array:
    """Returns the reasons of a filter, INTERNAL_ERROR for pairs that it raises an exception for."""
    found: list[pa.Array] = []

    def apply(start: int, end: int) -> None:
        reasons = _reasons(one, pairs.slice(start, end - start))
        for reason in reasons.unique().drop_null().to_pylist():
            _check(reason, one)
        found.append(reasons)

    def fail(row: int, error: Exception) -> None:
        found.append(pa.array([ParseReason.INTERNAL_ERROR.value], pa.string()))
        failed(pairs["page_url"][row].as_py(), error)

    apply_by_rows(apply, pairs.num_rows, fail)
    return pa.concat_arrays(found)


def _reasons(one: LinkFilter, pairs: pa.Table) -> pa.Array:
    found = one(pairs)
    wrong = f"it returned {type(found).__name__}, which does not hold reasons"
    try:
        reasons = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else pa.array(found)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _refused(one, wrong) from error
    if reasons.type not in (pa.string(), pa.large_string(), pa.null()):  # a mask of booleans, say
        raise _refused(one, f"{wrong} but {reasons.type}")
    if len(reasons) != pairs.num_rows:
        raise _refused(
            one, f"it returned {quantity(len(reasons), 'value')} for {quantity(pairs.num_rows, 'pair')}"
        )
    return reasons.cast(pa.string())


def _check(reason: str, one: LinkFilter) -> None:
    if not REASON_NAME.match(reason):
        raise _refused(one, f"{reason[:80]!r} cannot be the name of a reason")
    if reason in _TAKEN:
        raise _refused(one, f"the reason {reason!r} belongs to a built-in filter")


def _refused(one: LinkFilter, cause: str) -> SettingsError:
    name = getattr(one, "__name__", type(one).__name__)
    return SettingsError(
        f"cannot use the filter {name}: {cause}; return None or a name like too_small for each pair"
    )
