"""Settings of the plan stage."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class PlanSettings(Group):
    """How new pairs are cut into batches."""

    GROUP: ClassVar[str] = "plan"

    batch_size: int = setting(
        10_000,
        "Largest batch (the original's work unit).",
        changes=Stage.PLAN,
        unit="pairs",
        minimum=1,
        maximum=MAX_BATCH_PAIRS,
    )
    max_pairs_per_host: int = setting(
        1_000,
        "Most pairs of one host in a batch; a crawl of few hosts gets more and smaller batches, up to some "
        "four times as many, and then more pairs of a host in each.",
        changes=Stage.PLAN,
        unit="pairs",
        minimum=1,
    )
    per_language: bool = setting(
        False,
        "Make batches of one language each; languages with less than a full batch share batches.",
        changes=Stage.PLAN,
    )
    window_pairs: int = setting(
        1_000_000,
        "Pairs assigned to batches together, about 0.6 kB of memory each.",
        changes=Stage.PLAN,
        unit="pairs",
        minimum=1,
    )
