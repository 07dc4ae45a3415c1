"""Publishes a crawl of one range of batches, or makes its report, in one reading of its rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from laion_etl.blocklists.removal_requests import Matcher, read_requests
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.dataset.subsets import subsets
from laion_etl.dataset.variants import dataset_name
from laion_etl.dataset.versions import Release, is_named, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.commit import commit_version, refresh_card, removals_of
from laion_etl.publish.completeness import Expected, check_still_scored, scored_crawl
from laion_etl.publish.exclusions import exclusions
from laion_etl.publish.image_dedupe import compared_with
from laion_etl.publish.join import has_restored
from laion_etl.publish.part import Part, check_count, context_of
from laion_etl.publish.prepared import forget_prepared
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.publish.rows import DataFiles, DatasetRows, new_files, read_rows
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.publish_context import PIPELINE
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings, Stage, shaping


@dataclass(frozen=True, slots=True)
class Publication:
    """A checked plan of what to publish at once."""

    crawl: str
    settings: Settings
    variant: str
    dataset: str
    scored: ScoredCrawl
    earlier: tuple[Output, ...]
    requests: Matcher
    removals: tuple[str, ...]
    fingerprint: str


def publish_at_once(
    crawl: str,
    settings: Settings,
    store: Store,
    variants: Sequence[str],
    expected: Expected | None,
    version: str = "",
) -> list[StageStats]:
    """Publish a crawl of one range in some variants, whose rows are read once for all that are not done."""
    done: dict[str, StageStats] = {}
    works: list[tuple[Publication, Release]] = []
    for variant in variants:
        work = checked(crawl, settings, store, variant, expected, works[0][0].scored if works else None)
        if stats := _finished(work, version or crawl, store):
            done[variant] = stats
            continue
        current = manifest.current_manifest(work.dataset, store)
        if expected is None:
            check_still_scored(work.scored.coverage, current, store)
        check_ids(crawl, work.scored.coverage.numbers, current, store)
        works.append((work, read_versions(work.dataset, store).release(version or crawl)))
    with ExitStack() as stack:
        files = [
            stack.enter_context(new_files(release, crawl, settings.publish, store)) for _, release in works
        ]
        parts = read_at_once([work for work, _ in works], store, files)
    for (work, release), part, written in zip(works, parts, files, strict=True):
        part.files += written.written
        part.joined = written.joined
        context = context_of(release, part, settings, work.variant, work.removals, work.fingerprint, store)
        done[work.variant] = commit_version(context, part.ordered_files, store)
        refresh_card(work.dataset, store)
        forget_prepared(work.dataset, crawl, store)
    return [done[variant] for variant in variants]


def checked(
    crawl: str,
    settings: Settings,
    store: Store,
    variant: str,
    expected: Expected | None = None,
    known: ScoredCrawl | None = None,
) -> Publication:
    """Check a crawl; `known`: its scored batches, if they have been found. Raises like `publish_dataset`."""
    dataset = Release(dataset_name(settings.publish.name, variant), crawl).name
    subsets(settings.publish)
    published = manifest.published_stats(dataset, crawl, store)
    scored = scored_crawl(crawl, expected, published, store, known)
    earlier = compared_with(dataset, crawl, settings.publish, store)
    requests = read_requests(store)
    removals = removals_of(crawl, requests)
    matcher = Matcher(requests, settings.download.pdq_distance)
    made_from = _fingerprint(dataset, scored, earlier, settings, variant, removals)
    return Publication(crawl, settings, variant, dataset, scored, earlier, matcher, removals, made_from)


def _fingerprint(
    dataset: str,
    scored: ScoredCrawl,
    earlier: tuple[Output, ...],
    settings: Settings,
    variant: str,
    removals: tuple[str, ...],
) -> str:
    batches = [(batch.number, batch.outputs) for batch in scored.batches]
    return fingerprint(
        "publish",
        PIPELINE,
        dataset,
        variant,
        shaping(settings, Stage.PUBLISH),
        batches,
        scored.missing,
        scored.unplanned,
        earlier,
        scored.missing_partitions,
        *removals,
    )


def _finished(work: Publication, wanted: str, store: Store) -> StageStats | None:
    """Return the stats of an earlier identical call, if the current version still has its rows.

    None also where a damaged shard was restored, so that the version lacks samples that can be joined now.
    """
    current = manifest.current_manifest(work.dataset, store)
    part = current.part(work.crawl) if current else None
    if part is None or part.fingerprint != work.fingerprint or not is_named(part.version, wanted):
        return None
    stats = store.read_stats(Release(work.dataset, part.version).file(STATS))
    if has_restored(stats, work.scored, store):
        return None
    refresh_card(work.dataset, store)
    return stats


def read_at_once(works: Sequence[Publication], store: Store, files: Sequence[DataFiles | None]) -> list[Part]:
    """Read all rows of a crawl once and return a part for each dataset."""
    if not works:
        return []
    first = works[0]
    settings, chosen = first.settings, subsets(first.settings.publish)
    datasets = [
        DatasetRows(
            work.crawl,
            work.scored.columns,
            exclusions(work.scored, settings.publish, work.variant, store, work.requests, work.earlier),
            Statistics(chosen),
            Sampler.over(work.scored),
            written,
        )
        for work, written in zip(works, files, strict=True)
    ]
    read_rows(first.scored, first.requests, datasets, store, files)
    parts = [
        Part(work.scored.coverage, rows.statistics, rows.sampler, rows.exclusions.dropped)
        for work, rows in zip(works, datasets, strict=True)
    ]
    for work, part in zip(works, parts, strict=True):
        check_count(work.dataset, part, work.scored.kept)
    return parts
