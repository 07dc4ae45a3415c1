"""Rows that scoring kept and publishing leaves out.

These are rows outside the variant, rows near an image of an evaluation set, and redundant images.

Each gets a reason in the scored rows, as if scoring had rejected it, and is counted under it. Rows that match
a removal request are dropped before that, so that no page can show them; there are some only if a shard was
restored from a backup.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists.removal_requests import REASON, Matcher
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.evaluation_sets import read_sets
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.dataset.variants import RESEARCH, unsafe_reasons
from laion_etl.io.storage import Store
from laion_etl.publish.batch_vectors import BatchVectors
from laion_etl.publish.contamination import Contamination, contamination
from laion_etl.publish.image_dedupe import Redundant, find_redundant
from laion_etl.settings import PublishSettings


@dataclass(slots=True)
class Exclusions:
    """The kept rows that one dataset leaves out; `dropped` counts them by reason while rows pass."""

    settings: PublishSettings
    variant: str
    evaluation: Contamination | None = None
    redundant: Redundant = field(default_factory=Redundant.nothing)
    dropped: Counter[str] = field(default_factory=Counter)

    def applied(self, found: pa.RecordBatch, removed: int = 0) -> pa.RecordBatch:
        """Return scored rows with a reason where this dataset excludes them.

        `removed`: kept rows that a removal request took out before; they are counted here.
        """
        rows = found
        if self.variant != RESEARCH:
            rows = _with_reasons(rows, unsafe_reasons(rows, self.settings))
        if self.evaluation is not None:
            rows = _with_reasons(rows, self.evaluation.reasons(rows))
        rows = self.redundant.with_reasons(rows)
        if removed:
            self.dropped[REASON] += removed
        self._count(found, rows)
        return rows

    def _count(self, before: pa.RecordBatch, after: pa.RecordBatch) -> None:
        kept = pc.is_null(before.column("reason"))
        for entry in pc.value_counts(after.column("reason").filter(kept)).to_pylist():
            if entry["values"] is not None:
                self.dropped[entry["values"]] += entry["counts"]


def exclusions(
    scored: ScoredCrawl,
    settings: PublishSettings,
    variant: str,
    store: Store,
    requests: Matcher,
    earlier: tuple[Output, ...],
) -> Exclusions:
    """Find redundant images first, among the rows of the variant."""
    rows_of_variant = open_exclusions(scored, settings, variant, store)

    def read(batch: ScoredBatch) -> Iterator[pa.RecordBatch]:
        for found in read_batch(scored, batch, store):
            yield rows_of_variant.applied(without_removed(found, requests)[0])

    redundant = find_redundant(scored, settings, store, earlier, read)
    return Exclusions(settings, variant, rows_of_variant.evaluation, redundant)


def open_exclusions(
    scored: ScoredCrawl,
    settings: PublishSettings,
    variant: str,
    store: Store,
    vectors: BatchVectors | None = None,
) -> Exclusions:
    """Return exclusions that do not know redundant images yet; `vectors`: the embeddings, if they are open.

    Raises InputError for an evaluation set that is not there, or was made by another model.
    """
    if not settings.evaluation_sets:
        return Exclusions(settings, variant)
    sets = read_sets(settings.evaluation_sets, store)
    found = contamination(sets, scored, settings.evaluation_cosine, vectors or BatchVectors(scored, store))
    return Exclusions(settings, variant, found)


def without_removed(rows: pa.RecordBatch, requests: Matcher) -> tuple[pa.RecordBatch, int]:
    """Return the rows that no removal request matches, and the number of kept ones among the others."""
    if not requests:
        return rows, 0
    left = rows.filter(pa.array(~requests.finds(rows)))
    return left, rows.column("reason").null_count - left.column("reason").null_count


def _with_reasons(rows: pa.RecordBatch, reasons: pa.Array) -> pa.RecordBatch:
    """Fill in a reason where a row had none."""
    column = rows.schema.get_field_index("reason")
    return rows.set_column(column, rows.schema.field(column), pc.coalesce(rows.column(column), reasons))
