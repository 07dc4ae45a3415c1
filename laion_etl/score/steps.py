"""What the steps of scoring pass on: the start of a shard, its samples and its end; and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import MissingBatch
from laion_etl.io.storage import Guard
from laion_etl.score.scorer import SampleScorer

if TYPE_CHECKING:
    from laion_etl.database.queue import Claim


@dataclass(frozen=True, slots=True)
class Unit:
    """A shard to score; `claim`: that of the worker which holds its batch, None without the queue.

    A worker that loses a batch may claim it again while the first attempt is still at work: only the claim
    distinguishes the two.
    """

    batch: int
    claim: "Claim | None" = None


@dataclass(frozen=True, slots=True)
class LostBatch:
    """A shard that another worker has taken over meanwhile: its scores count."""

    batch: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who may write. `guard`: makes the guard of a claim's files, which raises LeaseLost; None: none needed.
    `check` is called after each group of samples, and ends the work by raising. `lease`: makes the guard of
    what a worker may write before it has the batch: of two in a race, both pass it until one writes a result.
    """

    guard: "Callable[[Claim], Guard] | None" = None
    check: Callable[[], None] = lambda: None
    lease: "Callable[[Claim], Guard] | None" = None

    def guard_of(self, unit: Unit) -> Guard | None:
        return None if self.guard is None or unit.claim is None else self.guard(unit.claim)

    def lease_of(self, unit: Unit) -> Guard | None:
        return None if self.lease is None or unit.claim is None else self.lease(unit.claim)


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


# A unit begins each shard.
Step = Unit | StageStats | OpenedShard | ShardEnd | MissingBatch
Result = StageStats | MissingBatch | LostBatch
