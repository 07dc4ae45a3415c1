"""A group of the score stage, as one command runs it: batches, their stats, and a verdict at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import MissingBatch, check_scored
from laion_etl.dataset.score_progress import GroupRecord
from laion_etl.io.storage import Store
from laion_etl.score.multi_gpu import score_everywhere
from laion_etl.settings import Settings


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """What became of the batches of a group: `scored` ones, and `missing` ones with their causes."""

    crawl: str
    scored: list[StageStats]
    missing: list[MissingBatch]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values; `batches` are those that are scored."""
        return {
            "crawl": self.crawl,
            "stage": "score",
            "batches": [int(stats.unit) for stats in self.scored],
            "missing": [one.to_plain() for one in self.missing],
            "input": sum(stats.input for stats in self.scored),
            "kept": sum(stats.kept for stats in self.scored),
        }

    def check(self, total: int, allowed: float) -> None:
        """Raise IncompleteError if more than a share of `total` batches is missing in this group alone.

        `total` is all batches of the crawl, as when it is published: a group of a few of them may miss one.
        """
        check_scored(self.crawl, self.missing, total, allowed)


def score_group(
    crawl: str,
    batches: Sequence[int],
    settings: Settings,
    store: Store,
    group: str = "",
    on_done: Callable[[StageStats], None] | None = None,
) -> ScoredGroup:
    """Score batches, and keep the record of the group `I/G` if it has a name. Raises like `score_shards`."""
    record = GroupRecord(crawl, group, len(batches), store) if group else None
    missing: list[MissingBatch] = []

    def missed(one: MissingBatch) -> None:
        missing.append(one)
        if record is not None:
            record.miss(one)

    if record is not None:
        record.begin()
    count = record.add if record is not None else None
    scored = score_everywhere(crawl, batches, settings, store, on_done, missed, count)
    if record is not None:
        record.finish()
    return ScoredGroup(crawl, scored, missing)
