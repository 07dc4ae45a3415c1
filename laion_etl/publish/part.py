"""What was made of a range of batches for one dataset; the parts of all ranges merge into one of the crawl.

A part has counts, sketches, a sample of rows, and the names and digests of files, no rows: its size does not
depend on the number of rows, and in memory is only one more than what is merged.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.coverage import Coverage
from laion_etl.dataset.evaluation_sets import described_sets
from laion_etl.dataset.funnel_report import CountedStage, crawl_funnel_and_settings
from laion_etl.dataset.joined_samples import Joined
from laion_etl.dataset.manifest import ManifestPart, current_manifest
from laion_etl.dataset.score_progress import raw_shards_deleted
from laion_etl.dataset.shaping_settings import as_made, as_scored
from laion_etl.dataset.subsets import DataFile, Subset, subsets
from laion_etl.dataset.used_settings import Used, merged_used, several_of
from laion_etl.dataset.versions import Release
from laion_etl.io.storage import Store
from laion_etl.report.bill import read_bill
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.publish_context import PublishContext
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings

STAGE = "publish range"


@dataclass(slots=True)
class Part:
    """The result of one range, or of several merged ones; `inputs` has the fingerprint of those of each.

    `counted`: rows of the funnel that were added up batch by batch; empty if the stats of all are to be read.
    `joined`: counts of the samples joined into tars; None if they are not wanted.
    """

    coverage: Coverage
    statistics: Statistics
    sampler: Sampler
    dropped: Counter[str]
    files: list[DataFile] = field(default_factory=list)
    counted: dict[str, CountedStage] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    joined: Joined | None = None

    def merge(self, later: "Part") -> None:
        """Add the part of the batches that follow."""
        self.coverage = self.coverage.merged(later.coverage)
        self.statistics.merge(later.statistics)
        self.sampler.merge(later.sampler)
        self.dropped.update(later.dropped)
        self.files += later.files
        self.counted = {stage: one.merged(later.counted[stage]) for stage, one in self.counted.items()}
        self.inputs += later.inputs
        if self.joined is not None and later.joined is not None:
            self.joined.merge(later.joined)

    @property
    def ordered_files(self) -> list[DataFile]:
        """The files as one process would have written them: by subset, then by range."""
        names = ["", *(subset.name for subset in self.statistics.subsets)]
        return sorted(self.files, key=lambda file: names.index(file.subset))

    def to_stats(self, crawl: str, unit: str, rules: str, fingerprint: str, images: str) -> StageStats:
        """Return the record of a range, whose `details` have all that `from_stats` needs.

        `images` is the fingerprint of the images of all ranges among which duplicates were found, or ''.
        """
        return StageStats(
            stage=STAGE,
            crawl=crawl,
            unit=unit,
            fingerprint=fingerprint,
            input=self.statistics.kept + self.dropped.total(),
            kept=self.statistics.kept,
            dropped=dict(sorted(self.dropped.items())),
            outputs=tuple(Output(file.name, file.bytes, file.sha256) for file in self.files),
            details={
                "rules": rules,
                "inputs": self.inputs,
                "coverage": self.coverage.to_plain(),
                "files": [{"subset": file.subset, "rows": file.rows} for file in self.files],
                "funnel": {stage: one.to_plain() for stage, one in self.counted.items()},
                "statistics": self.statistics.to_plain(),
                "sheet": self.sampler.to_plain(),
                **({"images": images} if images else {}),
                **_samples(self),
            },
        )

    @classmethod
    def from_stats(cls, stats: StageStats, chosen: Sequence[Subset], batches: Sequence[int]) -> "Part":
        """Read the record of a range. Raises InputError if it is not one."""
        details: Mapping[str, Any] = stats.details
        try:
            sampler = Sampler(frozenset(batches))
            sampler.add_plain(details["sheet"])
            files = [
                DataFile(
                    output.name,
                    str(one["subset"]),
                    None if one["rows"] is None else int(one["rows"]),
                    output.bytes,
                    output.sha256,
                    stats.crawl,
                )
                for output, one in zip(stats.outputs, details["files"], strict=True)
            ]
            return cls(
                Coverage.from_plain(details["coverage"]),
                Statistics.from_plain(details["statistics"], chosen),
                sampler,
                Counter(stats.dropped),
                files,
                {str(stage): CountedStage.from_plain(one) for stage, one in details["funnel"].items()},
                [str(one) for one in details["inputs"]],
                Joined.from_plain(details["samples"]) if "samples" in details else None,
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"cannot use the record of range {stats.unit} of {stats.crawl}: it is not one ({error!r}); "
                "delete it and publish the range again"
            ) from error


def check_count(what: str, part: Part, scored: int) -> None:
    """Raise InputError unless every row that scoring kept was published or dropped for a reason."""
    found = part.statistics.kept + part.dropped.total()
    if found != scored:
        raise InputError(
            f"cannot publish {what}: {found} rows read, but the stats of the scored batches "
            f"say {scored}; the crawl was scored again in the meantime, publish it again"
        )


def context_of(
    release: Release,
    part: Part,
    settings: Settings,
    variant: str,
    removals: tuple[str, ...],
    fingerprint: str,
    store: Store,
) -> PublishContext:
    """Return what card, manifest and report of a crawl are made of.

    Settings of the stages before are those that their stats record, or else those that were shown when the
    same scored shards were last published.
    """
    sets = described_sets(settings.publish.evaluation_sets, store)
    stats = _stats(release, part, variant, fingerprint, sets)
    current = current_manifest(release.name, store)
    before = current.part(part.coverage.crawl) if current else None
    used: Used = {}
    if before is not None and before.scores == part.coverage.scores:
        settings = as_scored(settings, before.settings)
        used = merged_used([several_of(before.settings)])
    funnel, made = crawl_funnel_and_settings(store, part.coverage.crawl, stats, part.counted)
    used = {group: {**used.get(group, {}), **made.get(group, {})} for group in {**used, **made}}
    settings = as_made(settings, used)
    bill = read_bill(part.coverage.crawl, settings, store) if settings.publish.costs else None
    return PublishContext(
        release, part.coverage, settings, subsets(settings.publish), part.statistics,
        funnel, tuple(part.sampler.kept()),
        tuple(part.sampler.rejected()), stats, variant, removals,
        raw_deleted=raw_shards_deleted(part.coverage.crawl, store), bill=bill,
        removed=_removed(before, part), used=used,
    )  # fmt: skip


def _removed(before: ManifestPart | None, part: Part) -> int:
    """Return how many samples removals have taken out of the scored shards since the crawl was published.

    The rule: a sample counts if scoring had kept it, whether a version published it or left it out for
    another reason, such as a duplicate. So it counts where another sample takes its place, and one that came
    back with a restored shard does not (it is in `dropped`). A crawl scored again starts from this number.
    """
    if before is None:
        return 0
    if before.scores != part.coverage.scores:
        return before.removed
    earlier = before.rows + sum(before.dropped.values())
    return max(0, before.removed + earlier - part.statistics.kept - part.dropped.total())


def _stats(
    release: Release,
    part: Part,
    variant: str,
    fingerprint: str,
    sets: Sequence[Mapping[str, Any]],
) -> StageStats:
    coverage = part.coverage
    return StageStats(
        stage="publish",
        crawl=coverage.crawl,
        unit=f"{release.name}/{release.version}",
        fingerprint=fingerprint,
        input=part.statistics.kept + part.dropped.total(),
        kept=part.statistics.kept,
        dropped=dict(sorted(part.dropped.items())),
        details={
            "variant": variant,
            "subsets": part.statistics.subset_rows,
            "missing_batches": list(coverage.missing),
            "partitions": coverage.partitions,
            "missing_partitions": list(coverage.missing_partitions),
            **({"evaluation_sets": sets} if sets else {}),
            **_samples(part),
        },
    )


def _samples(part: Part) -> dict[str, Any]:
    return {} if part.joined is None else {"samples": part.joined.to_plain()}
