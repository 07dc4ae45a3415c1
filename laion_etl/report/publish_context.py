"""The common input of the manifest, the card and the report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laion_etl import __version__
from laion_etl.blocklists.removal_requests import REASON
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.quantities import first_in_line
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.coverage import Coverage
from laion_etl.dataset.funnel_report import CrawlFunnel
from laion_etl.dataset.manifest import ManifestPart
from laion_etl.dataset.shaping_settings import applied_settings
from laion_etl.dataset.subsets import Subset
from laion_etl.dataset.used_settings import Used, several_of
from laion_etl.dataset.versions import Release
from laion_etl.report.bill import Bill
from laion_etl.report.contact_sheets import Band
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings

PIPELINE = f"laion_etl {__version__}"
_NUMBERS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class PublishContext:
    """Everything known about a version once its rows have been read.

    `stats`: of publishing, without outputs. `removals`: the removal requests applied to the rows.
    `earlier`: the dataset's parts of other crawls, whose files this version lists too. `raw_deleted`: shards
    whose images were deleted after they were scored, except those that scoring kept. `bill`: what the crawl
    has cost, if that is published. `removed`: kept samples that removals took out of the scored shards.
    `earlier_versions`: how many the dataset had before this one, purged ones included.
    `used`: the settings that the units of the stages before were made with.
    """

    release: Release
    scored: Coverage
    settings: Settings
    subsets: tuple[Subset, ...]
    statistics: Statistics
    funnel: CrawlFunnel
    kept: tuple[Band, ...]
    rejected: tuple[Band, ...]
    stats: StageStats
    variant: str
    removals: tuple[str, ...] = ()
    earlier: tuple[ManifestPart, ...] = ()
    raw_deleted: int = 0
    bill: Bill | None = None
    removed: int = 0
    earlier_versions: int = 0
    used: Used = field(default_factory=dict)

    @property
    def changed_settings(self) -> list[tuple[str, str]]:
        """Names and values of the settings that were not the same for all units of the crawl."""
        return [
            (f"{group}.{name}", ", ".join(json.dumps(value) for value in values))
            for group, settings in sorted(several_of(self.applied_settings).items())
            for name, values in sorted(settings.items())
        ]

    @property
    def applied_settings(self) -> dict[str, dict[str, Any]]:
        """The settings that shaped the rows, as manifest and report show them."""
        return applied_settings(self.settings, self.scored, self.used)

    @property
    def removed_rows(self) -> int:
        """Samples that scoring kept and removal requests left out; see `_removed` in publish/part.py."""
        return self.removed + self.dropped.get(REASON, 0)

    @property
    def evaluation_sets(self) -> Sequence[Mapping[str, Any]]:
        """The evaluation sets that rows were kept apart from, as card and manifest name them."""
        found: Sequence[Mapping[str, Any]] = self.stats.details.get("evaluation_sets", ())
        return found

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows that scoring kept and publishing left out, by reason."""
        return self.stats.dropped

    @property
    def crawl(self) -> str:
        return self.scored.crawl

    @property
    def total_rows(self) -> int:
        """Rows of the whole dataset as of this version."""
        return self.statistics.kept + sum(part.rows for part in self.earlier)

    @property
    def columns(self) -> tuple[HeadColumn, ...]:
        """Columns of custom heads in the whole dataset; of several heads with one name, this crawl's."""
        parts = (column for part in self.earlier for column in part.columns)
        found = {column.name: column for column in parts}
        own = {column.name: column for column in self.scored.columns}
        return tuple((found | own).values())

    def total_subset_rows(self, subset: str) -> int:
        """Rows of a subset in the whole dataset as of this version."""
        return self.statistics.subset_rows[subset] + sum(part.subsets.get(subset, 0) for part in self.earlier)

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats a reader must know before trusting the numbers."""
        notes = []
        if self.scored.planned is None:
            notes.append("The crawl has no plan in the store, so missing batches cannot be listed.")
        if self.scored.missing:
            count, numbers = len(self.scored.missing), number_list(self.scored.missing)
            notes.append(f"Missing batches: {count:,} of {self.scored.planned:,} planned ({numbers}).")
        if self.scored.missing_partitions:
            count, numbers = len(self.scored.missing_partitions), number_list(self.scored.missing_partitions)
            notes.append(f"Missing partitions: {count:,} of {self.scored.partitions:,} ({numbers}).")
        if self.scored.unplanned:
            numbers = number_list(self.scored.unplanned)
            notes.append(f"Left out: scored batches that are no longer in the plan ({numbers}).")
        if self.raw_deleted:
            notes.append(
                f"Images that scoring rejected were deleted with {self.raw_deleted:,} raw shards after "
                "scoring, so they cannot be scored with another model."
            )
        if self.scored.has_several_models:
            models = "; ".join(self.scored.all_models)
            notes.append(f"Scored by different models, so similarities are not comparable: {models}.")
            if (count := self.scored.without_other) and self.scored.other_models:
                notes.append(
                    f"{count:,} of {self.scored.count:,} batches were scored without the model for other "
                    "languages."
                )
        return (*notes, *(f"Counts that do not add up: {problem}." for problem in self.funnel.problems))


def number_list(numbers: Iterable[int]) -> str:
    """Format the first numbers, and how many more there are."""
    return first_in_line([str(number) for number in numbers], _NUMBERS_SHOWN)
