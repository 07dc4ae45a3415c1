"""Publish stage: the kept rows of a crawl become a version of the dataset.

A version holds the rows of one crawl in its own files and lists the files of other crawls where earlier
versions wrote them. Order of writing: data files, cards, report, manifest, stats, and last versions.json,
which makes the version visible (see dataset/versions.py). Then the dataset's README.md is replaced; a kill
between the two leaves the README of the version before, whose files still exist, and the next call fixes it.

A crawl of many batches is published in ranges (ranges.py), one after another where one call does it all.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from laion_etl.blocklists.removal_requests import Matcher, read_requests
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.dataset.subsets import DataFile, subsets
from laion_etl.dataset.variants import RESEARCH, dataset_name
from laion_etl.dataset.versions import Release, change_versions, is_named, read_versions
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.publish import manifest_writer
from laion_etl.publish.commit import commit_version, refresh_card
from laion_etl.publish.completeness import Expected, check_still_scored, nothing_new, scored_crawl
from laion_etl.publish.exclusions import exclusions
from laion_etl.publish.image_dedupe import compared_with
from laion_etl.publish.part import Part, check_count, context_of
from laion_etl.publish.prepare import division, prepare, removals_of
from laion_etl.publish.prepared import Prepared, forget_prepared
from laion_etl.publish.presentation import REPORT, report_files
from laion_etl.publish.ranges import finish_ranges, publish_range, read_parts
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.publish.rows import DataFiles, DatasetRows, new_files, read_rows
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.page import report_page
from laion_etl.report.publish_context import PIPELINE, PublishContext
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings, Stage, shaping


def publish_variants(
    crawl: str, settings: Settings, store: Store, expected: Expected | None = None
) -> list[StageStats]:
    """Publish the configured variants, one dataset each; see `publish_dataset`.

    Writes nothing and returns an empty list if the crawl is planned and all its pairs were known before;
    IncompleteError is raised even then.
    """
    ranges = prepare_variants(crawl, settings, store, expected)
    if isinstance(ranges, list):
        return ranges
    for number in range(1, ranges + 1):
        publish_range(crawl, number, ranges, settings, store, settings.publish.variants)
    return finish_variants(crawl, settings, store)


def prepare_variants(
    crawl: str, settings: Settings, store: Store, expected: Expected | None = None
) -> list[StageStats] | int:
    """Check a crawl of many batches and return the number of ranges to publish it in.

    With one range, or if nothing has changed since it was published, all is done when this returns, and it
    returns what `publish_variants` does.
    """
    if nothing_new(crawl, store):
        if expected is not None:
            expected.check_partitions(crawl, store)
        return []
    variants = settings.publish.variants
    if (planned := _in_ranges(crawl, settings, store)) is None:
        return _publish_at_once(crawl, settings, store, variants, expected)
    found = [prepare(crawl, planned, settings, store, variant, expected) for variant in variants]
    done = [one for one in found if isinstance(one, StageStats)]
    if len(done) == len(found):
        return done
    return next(len(one.ranges) for one in found if isinstance(one, Prepared))


def finish_variants(crawl: str, settings: Settings, store: Store) -> list[StageStats]:
    """Merge the ranges of a crawl and make it visible, in each variant; see `finish_ranges`."""
    return [finish_ranges(crawl, variant, settings, store) for variant in settings.publish.variants]


def publish_dataset(
    crawl: str,
    settings: Settings,
    store: Store,
    version: str = "",
    expected: Expected | None = None,
    variant: str = RESEARCH,
) -> StageStats:
    """Publish the complete batches of a crawl as a new version (named after the crawl) of the dataset.

    Does nothing if the current version has the crawl with the same settings and inputs, even if the crawl is
    now expected in other partitions that are all loaded. Batches that are planned and not scored are left out
    and listed in manifest, card and report; so are partitions that are not loaded although they are expected,
    or were when the crawl was last published. Raises IncompleteError if more is missing than `expected`
    allows, InputError if nothing is scored, a scored file does not match its stats, a published batch is no
    longer scored and nothing is said of what may be missing, or another crawl of the dataset has batches of
    the same numbers, SettingsError for invalid settings, all before anything is visible.
    """
    if (planned := _in_ranges(crawl, settings, store)) is None:
        return _publish_at_once(crawl, settings, store, [variant], expected, version)[0]
    prepared = prepare(crawl, planned, settings, store, variant, expected, version)
    if isinstance(prepared, StageStats):
        return prepared
    for one in prepared.ranges:
        publish_range(crawl, one.number, len(prepared.ranges), settings, store, [variant])
    return finish_ranges(crawl, variant, settings, store)


def render_report(crawl: str, settings: Settings, store: Store, variant: str = RESEARCH) -> bytes:
    """Return the report page of a crawl in its current state, published or not; writes nothing."""
    return report_page(_as_it_stands(crawl, settings, store, variant), store)


def rebuild_report(crawl: str, settings: Settings, store: Store, variant: str = RESEARCH) -> str:
    """Rewrite the report and, for a published version, its entries in manifest, stats and versions.

    Returns the URI of the page.
    """
    context = _as_it_stands(crawl, settings, store, variant)
    release = context.release
    written = [store.write(release.file(name), data) for name, data in report_files(context, store)]
    versions = read_versions(release.name, store)
    if release.version in {one.version for one in versions.listed}:
        stats = store.read_stats(release.file(STATS))
        document = store.read(release.file(manifest.NAME))
        for output in written:
            entry = DataFile(output.name, "", None, output.bytes, output.sha256)
            document = manifest_writer.with_file(document, entry, release)
        written.append(store.write(release.file(manifest.NAME), document))
        outputs = {output.name: output for output in (*stats.outputs, *written)}
        store.write_stats(release.file(STATS), replace(stats, outputs=tuple(outputs.values())))
        change_versions(release.name, store, lambda found: found.with_manifest(release.version, written[-1]))
    return store.uri(release.file(REPORT))


def _in_ranges(crawl: str, settings: Settings, store: Store) -> list[int] | None:
    """Return the planned batches of a crawl that is published in ranges; None if one range has them all."""
    if not store.exists(plan_stats_name(crawl)):
        return None
    planned = planned_batches(crawl, store)
    return planned if len(planned) > settings.publish.batches_per_range else None


def _as_it_stands(crawl: str, settings: Settings, store: Store, variant: str) -> PublishContext:
    dataset = dataset_name(settings.publish.name, variant)
    release = manifest.published_part(dataset, crawl, store) or Release(dataset, crawl)
    if (planned := _in_ranges(crawl, settings, store)) is None:
        work = _checked(crawl, settings, store, variant)
        part, made_from = _read_at_once([work], store, [None])[0], work.fingerprint
    else:
        prepared = division(crawl, planned, settings, store, variant)
        part = read_parts(prepared, planned, settings, store)
        made_from = prepared.whole(part.inputs)
    removals = removals_of(crawl, read_requests(store))
    return context_of(release, part, settings, variant, removals, made_from, store)


@dataclass(frozen=True, slots=True)
class _Publication:
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


def _publish_at_once(
    crawl: str,
    settings: Settings,
    store: Store,
    variants: Sequence[str],
    expected: Expected | None,
    version: str = "",
) -> list[StageStats]:
    """Publish a crawl of one range: its rows are read once for all variants that are not done."""
    done: dict[str, StageStats] = {}
    works: list[tuple[_Publication, Release]] = []
    for variant in variants:
        work = _checked(crawl, settings, store, variant, expected, works[0][0].scored if works else None)
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
        parts = _read_at_once([work for work, _ in works], store, files)
    for (work, release), part, written in zip(works, parts, files, strict=True):
        part.files += written.written
        context = context_of(release, part, settings, work.variant, work.removals, work.fingerprint, store)
        done[work.variant] = commit_version(context, part.ordered_files, store)
        refresh_card(work.dataset, store)
        forget_prepared(work.dataset, crawl, store)
    return [done[variant] for variant in variants]


def _checked(
    crawl: str,
    settings: Settings,
    store: Store,
    variant: str,
    expected: Expected | None = None,
    known: ScoredCrawl | None = None,
) -> _Publication:
    dataset = Release(dataset_name(settings.publish.name, variant), crawl).name
    subsets(settings.publish)
    published = manifest.published_stats(dataset, crawl, store)
    scored = scored_crawl(crawl, expected, published, store, known)
    earlier = compared_with(dataset, crawl, settings.publish, store)
    requests = read_requests(store)
    removals = removals_of(crawl, requests)
    matcher = Matcher(requests, settings.download.pdq_distance)
    made_from = _fingerprint(dataset, scored, earlier, settings, variant, removals)
    return _Publication(crawl, settings, variant, dataset, scored, earlier, matcher, removals, made_from)


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


def _finished(work: _Publication, wanted: str, store: Store) -> StageStats | None:
    """Return the stats of an earlier identical call, if the current version still has its rows."""
    current = manifest.current_manifest(work.dataset, store)
    part = current.part(work.crawl) if current else None
    if part is None or part.fingerprint != work.fingerprint or not is_named(part.version, wanted):
        return None
    refresh_card(work.dataset, store)
    return store.read_stats(Release(work.dataset, part.version).file(STATS))


def _read_at_once(
    works: Sequence[_Publication], store: Store, files: Sequence[DataFiles | None]
) -> list[Part]:
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
    read_rows(first.scored, first.requests, datasets, store)
    parts = [
        Part(work.scored.coverage, rows.statistics, rows.sampler, rows.exclusions.dropped)
        for work, rows in zip(works, datasets, strict=True)
    ]
    for work, part in zip(works, parts, strict=True):
        check_count(work.dataset, part, work.scored.kept)
    return parts
