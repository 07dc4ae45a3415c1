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
from laion_etl.dataset.manifest import Manifest
from laion_etl.dataset.missing_batches import causes, check_share, missing_batches, unconfirmed_batches
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
        self._check("partitions", missing, len(self.partitions), cause)
        name = plan_stats_name(crawl)
        if not store.exists(name) or store.read_stats(name).fingerprint != self.loaded.plan:
            raise IncompleteError(
                f"cannot publish {crawl}: its plan in {store.uri(name)} is not the one in Postgres; run "
                f"`laion-etl stage plan --crawl {crawl}`, then download and score what it adds"
            )

    def check_batches(self, scored: ScoredCrawl, store: Store) -> None:
        """Raise IncompleteError, with the causes that are known, if too many are missing."""
        known = missing_batches(scored.crawl, store, scored.missing) if scored.missing else []
        cause = f"not scored: {causes(known)}" if known else "not scored"
        self._check("batches", scored.missing, scored.planned or 0, cause)

    def _check(self, what: str, missing: Sequence[int], total: int, cause: str) -> None:
        check_share("publish", what, missing, total, self.max_missing_share, cause, "retry them")


def nothing_new(crawl: str, store: Store) -> bool:
    """Whether the crawl is planned without any batch because all its pairs were known before."""
    return is_without_batches(crawl, store)


def check_still_scored(scored: ScoredCrawl, manifest: Manifest | None, store: Store) -> None:
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
    crawl: str, expected: Expected | None, published: StageStats | None, store: Store
) -> ScoredCrawl:
    """Find the scored batches of a crawl, and its missing partitions.

    Partitions missing when the crawl was last published stay missing until Postgres has them: a run of a few
    WAT files, or one that expects nothing, does not make a dataset complete. Raises IncompleteError if more
    is missing than `expected` allows, InputError if nothing is scored, or if stats are damaged or, the first
    time, the plan is not finished, and nothing says how much may be missing: a removal, for example, must not
    drop a batch that was published.
    """
    before = published.details if published else {}
    known = tuple(int(number) for number in before.get("missing_partitions") or ())
    if expected is None:
        if published is None and is_being_planned(crawl, store):
            raise InputError(
                f"cannot publish {crawl}: its plan is not finished; run "
                f"`laion-etl stage plan --crawl {crawl}`, then download and score what it adds"
            )
        scored = find_scored(crawl, store)
        if scored.damaged:
            raise InputError(
                f"cannot publish {crawl}: the stats of scored batches are damaged "
                f"({written_numbers(scored.damaged)[:200]}); score them again, or say with --expect and "
                "--allow-missing what may be missing"
            )
        return replace(scored, partitions=before.get("partitions"), missing_partitions=known)
    expected.check_partitions(crawl, store)
    scored = _confirmed(find_scored(crawl, store), store)
    expected.check_batches(scored, store)
    loaded, wanted = expected.loaded.partitions, {*expected.partitions, *known}
    return replace(scored, partitions=len(loaded | wanted), missing_partitions=tuple(sorted(wanted - loaded)))


def _confirmed(scored: ScoredCrawl, store: Store) -> ScoredCrawl:
    """Count batches whose scores may be those of other images as missing."""
    unconfirmed = set(unconfirmed_batches(scored.crawl, store, {batch.number for batch in scored.batches}))
    return replace(
        scored,
        batches=tuple(batch for batch in scored.batches if batch.number not in unconfirmed),
        missing=tuple(sorted({*scored.missing, *unconfirmed})),
    )
