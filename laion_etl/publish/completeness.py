"""Whether enough of a crawl is there to be published, and what is missing.

A partition is missing when it was not loaded, a batch when it is planned and not scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from laion_etl.crawl import written_numbers
from laion_etl.errors import IncompleteError
from laion_etl.publish.scored import ScoredCrawl
from laion_etl.stats import StageStats
from laion_etl.storage import Store


@dataclass(frozen=True, slots=True)
class Expected:
    """The partitions a run was to make, and which share of them, and of the batches, may be missing."""

    partitions: Sequence[int]
    most_missing: float


def with_partitions(scored: ScoredCrawl, expected: Expected | None, store: Store) -> ScoredCrawl:
    """What was scored, with the partitions that are missing. Raises IncompleteError when that is too much."""
    if expected is None:
        return scored
    missing = tuple(
        number
        for number in expected.partitions
        if not store.exists(f"load/{scored.crawl}/part-{number:05d}.json")
    )
    _check("partitions", missing, len(expected.partitions), expected.most_missing)
    _check("batches", scored.missing, scored.planned or 0, expected.most_missing)
    return replace(scored, partitions=len(expected.partitions), missing_partitions=missing)


def as_published(scored: ScoredCrawl, published: StageStats | None) -> ScoredCrawl:
    """What was scored, with the partitions that were missing when it was published."""
    details = published.details if published else {}
    if details.get("partitions") is None:
        return scored
    missing = tuple(int(number) for number in details["missing_partitions"])
    return replace(scored, partitions=int(details["partitions"]), missing_partitions=missing)


def _check(what: str, missing: Sequence[int], total: int, most: float) -> None:
    if len(missing) > most * total:
        raise IncompleteError(
            f"{len(missing):,} of {total:,} {what} are missing ({written_numbers(missing)[:200]}), and at "
            f"most {most:.1%} may be; mend and retry them, or allow more (--allow-missing, in Airflow the "
            "parameter allow_missing_percent)"
        )
