"""What the steps of scoring pass on: the start of a shard, its samples and its end; and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.io.storage import Guard
from laion_etl.score.scorer import SampleScorer


@dataclass(frozen=True, slots=True)
class LostBatch:
    """A shard that another worker has taken over meanwhile: its scores count."""

    batch: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who may write. `guard`: makes the guard of a batch's files, which raises LeaseLost; None: none needed.
    `check` is called after each group of samples, and ends the work by raising."""

    guard: Callable[[int], Guard] | None = None
    check: Callable[[], None] = lambda: None

    def guard_of(self, batch: int) -> Guard | None:
        return None if self.guard is None else self.guard(batch)


@dataclass(frozen=True, slots=True)
class OpenedShard:
    """A shard that is to be scored."""

    shard: StageStats
    fingerprint: str
    scorer: SampleScorer | None  # None: the shard has no samples
    dim: int
    scored_by: str = ""  # the part of the fingerprint that all shards have in common


class ShardEnd:
    """The end of a shard."""


Step = StageStats | OpenedShard | ShardEnd | MissingBatch
