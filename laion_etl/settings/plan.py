"""Settings of the plan stage."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How new pairs are cut into batches."""

    batch_size: int = setting(10_000, "Pairs per batch at most (the original's work unit).")
    max_pairs_per_host: int = setting(
        1_000, "Pairs of one host in a batch at most; a crawl of few hosts gets more and smaller batches."
    )
    per_language: bool = setting(
        False, "Batches of one language; languages without a full batch share theirs with each other."
    )
    window_pairs: int = setting(
        1_000_000, "Pairs dealt out to batches together, about 0.6 kB of memory each."
    )
