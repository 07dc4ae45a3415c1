"""Checks whether enough of a crawl is loaded and scored to publish it, and lists what is missing.

A partition is missing unless Postgres says that its current pairs are loaded and planned
(`laion_etl.database.loaded`), a batch when it is planned and not scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from laion_etl.core.errors import IncompleteError, InputError
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import written_numbers
from laion_etl.database.loaded import LoadedCrawl
from laion_etl.dataset.coverage import Coverage
from laion_etl.dataset.manifest import Manifest
from laion_etl.dataset.missing_batches import (
    MissingBatch,
    causes,
    check_share,
    missing_batches,
    unconfirmed_batches,
)
from laion_etl.dataset.scored import ScoredCrawl, find_scored
from laion_etl.io.planned import is_being_planned, is_without_batches
from laion_etl.io.storage import Store
from laion_etl.publish.repeated_ids import batches_among


@dataclass(frozen=True, slots=True)
class Expected:
    """The partitions a run should have made, the share of them and of the batches that may be missing, and
    what Postgres has loaded."""

    partitions: Sequence[int]
    max_missing_share: float
    loaded: LoadedCrawl

    def check_partitions(self, crawl: str, store: Store) -> None:
        """Raise IncompleteError if the plan is unfinished, too many are missing, or the store has another."""
        if left := self.loaded.windows_left:
            raise IncompleteError(
                f"cannot publish {crawl}: its plan is not finished, {left:,} of its windows are left; clear "
                f"the failed tasks plan_range, or run `laion-etl stage plan --crawl {crawl}`, then download "
                "and score what it adds"
            )
        missing = sorted(set(self.partitions) - self.loaded.partitions)
        cause = "not loaded, or parsed again since"
        _check(crawl, "partitions", missing, len(self.partitions), self.max_missing_share, cause)
        name = plan_stats_name(crawl)
        if not store.exists(name) or store.read_stats(name).fingerprint != self.loaded.plan:
            raise IncompleteError(
                f"cannot publish {crawl}: its plan in {store.uri(name)} is not the one in Postgres; run "
                f"`laion-etl stage plan --crawl {crawl}`, then download and score what it adds"
            )

    def check_batches(self, coverage: Coverage, store: Store) -> None:
        """Raise IncompleteError, with the causes that are known, if too many are missing."""
        check_batches(coverage, self.max_missing_share, store)


def nothing_new(crawl: str, store: Store) -> bool:
    """Whether the crawl is planned without any batch because all its pairs were known before."""
    return is_without_batches(crawl, store)


def check_still_scored(scored: Coverage, manifest: Manifest | None, store: Store) -> None:
    """Raise InputError if a batch that is published, by the current manifest, is not scored any more.

    For calls that do not say what may be missing: a removal, for example, must not drop such a batch.
    """
    part = manifest.part(scored.crawl) if manifest else None
    if manifest is None or part is None or not scored.missing:
        return
    if lost := sorted(batches_among(frozenset(scored.missing), part, manifest, store)):
        raise InputError(
            f"cannot publish {scored.crawl} again: {len(lost):,} of its published batches are not scored any "
            f"more ({written_numbers(lost)[:200]}); score them again, or say with --expect and "
            "--allow-missing what may be missing"
        )


def scored_crawl(
    crawl: str,
    expected: Expected | None,
    published: StageStats | None,
    store: Store,
    known: ScoredCrawl | None = None,
) -> ScoredCrawl:
    """Find the scored batches of a crawl, unless they are known, and its missing partitions.

    See `partitions_of` for the latter. Raises IncompleteError if more is missing than `expected` allows,
    InputError if nothing is scored, or as `check_damaged`.
    """
    partitions = partitions_of(crawl, expected, published, store)
    scored = known or find_scored(crawl, store)
    if expected is None:
        check_damaged(crawl, scored.damaged)
    else:
        scored = confirmed(scored, store)
        expected.check_batches(scored.coverage, store)
    return replace(scored, partitions=partitions.expected, missing_partitions=partitions.missing)


@dataclass(frozen=True, slots=True)
class Partitions:
    """The number of partitions, None if unknown, and those that are not loaded."""

    expected: int | None
    missing: tuple[int, ...]


def partitions_of(
    crawl: str, expected: Expected | None, published: StageStats | None, store: Store
) -> Partitions:
    """Return the partitions of a crawl. Raises IncompleteError if too many are missing.

    Partitions missing when the crawl was last published stay missing until Postgres has them: a run of a few
    WAT files, or one that expects nothing, does not make a dataset complete. Raises InputError if the plan is
    not finished the first time, and nothing says how much may be missing.
    """
    before = published.details if published else {}
    known = tuple(int(number) for number in before.get("missing_partitions") or ())
    if expected is None:
        if published is None and is_being_planned(crawl, store):
            raise InputError(
                f"cannot publish {crawl}: its plan is not finished; run "
                f"`laion-etl stage plan --crawl {crawl}`, then download and score what it adds"
            )
        return Partitions(before.get("partitions"), known)
    expected.check_partitions(crawl, store)
    loaded, wanted = expected.loaded.partitions, {*expected.partitions, *known}
    return Partitions(len(loaded | wanted), tuple(sorted(wanted - loaded)))


def confirmed(scored: ScoredCrawl, store: Store) -> ScoredCrawl:
    """Count batches whose scores may be those of other images as missing."""
    unconfirmed = set(unconfirmed_batches(scored.crawl, store, {batch.number for batch in scored.batches}))
    if not unconfirmed:
        return scored
    return replace(
        scored,
        batches=tuple(batch for batch in scored.batches if batch.number not in unconfirmed),
        missing=tuple(sorted({*scored.missing, *unconfirmed})),
    )


def check_damaged(crawl: str, damaged: Sequence[int]) -> None:
    """Raise InputError if stats are damaged, for calls that do not say how much may be missing.

    A removal, for example, must not drop a batch that was published.
    """
    if damaged:
        raise InputError(
            f"cannot publish {crawl}: the stats of scored batches are damaged "
            f"({written_numbers(damaged)[:200]}); score them again, or say with --expect and "
            "--allow-missing what may be missing"
        )


def check_batches(coverage: Coverage, allowed: float, store: Store) -> None:
    """Raise IncompleteError, with the causes that are known, if more than a share of batches is missing."""
    missing = coverage.missing
    known = missing_batches(coverage.crawl, store, missing) if missing else []
    _check_batches(coverage.crawl, missing, coverage.planned or 0, allowed, known)


def check_named_batches(crawl: str, planned: int, allowed: float, store: Store) -> None:
    """Raise IncompleteError if the score stage named too many missing batches; there may be more."""
    known = missing_batches(crawl, store)
    _check_batches(crawl, [one.batch for one in known], planned, allowed, known)


def _check_batches(
    crawl: str, missing: Sequence[int], planned: int, allowed: float, known: Sequence[MissingBatch]
) -> None:
    cause = f"not scored: {causes(known)}" if known else "not scored"
    _check(crawl, "batches", missing, planned, allowed, cause)


def _check(crawl: str, what: str, missing: Sequence[int], total: int, allowed: float, cause: str) -> None:
    check_share(f"publish {crawl}", what, missing, total, allowed, cause, "retry them")
