"""Rows that scoring kept and publishing leaves out: rows outside the variant, and redundant images.

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
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.dataset.variants import RESEARCH, unsafe_reasons
from laion_etl.io.storage import Store
from laion_etl.publish.image_dedupe import Redundant, find_redundant
from laion_etl.settings import PublishSettings


@dataclass(slots=True)
class PublishableRows:
    """The scored rows of a crawl as publishing sees them; `dropped` grows while they are read."""

    scored: ScoredCrawl
    settings: PublishSettings
    variant: str
    store: Store
    requests: Matcher
    redundant: Redundant = field(default_factory=Redundant.nothing)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_scored(
        cls,
        scored: ScoredCrawl,
        settings: PublishSettings,
        variant: str,
        store: Store,
        requests: Matcher,
        earlier: tuple[Output, ...],
    ) -> "PublishableRows":
        """Find redundant images first, among the rows of the variant."""
        plain = cls(scored, settings, variant, store, requests)
        redundant = find_redundant(scored, settings, store, earlier, plain.batch)
        return cls(scored, settings, variant, store, requests, redundant)

    def batch(self, batch: ScoredBatch) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a batch, kept and rejected, in key order."""
        for found in map(self._without_removed, read_batch(self.scored, batch, self.store)):
            rows = found
            if self.variant != RESEARCH:
                rows = _with_reasons(rows, unsafe_reasons(rows, self.settings))
            rows = self.redundant.with_reasons(rows)
            self._count(found, rows)
            yield rows

    def _without_removed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if not self.requests:
            return rows
        left = rows.filter(pa.array(~self.requests.finds(rows)))
        gone = rows.column("reason").null_count - left.column("reason").null_count
        if gone:
            self.dropped[REASON] += gone
        return left

    def _count(self, before: pa.RecordBatch, after: pa.RecordBatch) -> None:
        kept = pc.is_null(before.column("reason"))
        for entry in pc.value_counts(after.column("reason").filter(kept)).to_pylist():
            if entry["values"] is not None:
                self.dropped[entry["values"]] += entry["counts"]


def _with_reasons(rows: pa.RecordBatch, reasons: pa.Array) -> pa.RecordBatch:
    """Fill in a reason where a row had none."""
    column = rows.schema.get_field_index("reason")
    return rows.set_column(column, rows.schema.field(column), pc.coalesce(rows.column(column), reasons))
