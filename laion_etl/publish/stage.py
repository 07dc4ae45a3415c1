"""Publish stage: the kept rows of a crawl become a version of the dataset.

A version holds the rows of one crawl in its own files and lists the files of other crawls where earlier
versions wrote them. Order of writing: data files, cards, report, manifest, stats, and last versions.json,
which makes the version visible (see dataset/versions.py). Then the dataset's README.md is replaced; a kill
between the two leaves the README of the version before, whose files still exist, and the next call fixes it.
"""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Matcher, read_requests
from laion_etl.core.errors import InputError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.dataset.locator.build import locate_large
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.dataset.subsets import DataFile, SubsetWriter, published_rows, subsets
from laion_etl.dataset.variants import RESEARCH, dataset_name
from laion_etl.dataset.versions import Release, change_versions, is_named, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish import image_hashes, manifest_writer
from laion_etl.publish.commit import commit_version, refresh_card
from laion_etl.publish.completeness import Expected, check_still_scored, nothing_new, scored_crawl
from laion_etl.publish.exclusions import PublishableRows
from laion_etl.publish.image_dedupe import compared_with
from laion_etl.publish.image_hashes import ImageHashesWriter
from laion_etl.publish.presentation import REPORT, report_files
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.page import report_page
from laion_etl.report.publish_context import PIPELINE, PublishContext
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings, Stage, shaping


def publish_variants(
    crawl: str, settings: Settings, store: Store, expected: Expected | None = None
) -> list[StageStats]:
    """Publish the configured variants, one dataset each; see `publish_dataset`.

    Then writes what the locator of a large crawl lacks, by which removals find its files.
    Writes nothing and returns an empty list if the crawl is planned and all its pairs were known before;
    IncompleteError is raised even then.
    """
    if nothing_new(crawl, store):
        if expected is not None:
            expected.check_partitions(crawl, store)
        return []
    published = [
        publish_dataset(crawl, settings, store, expected=expected, variant=variant)
        for variant in settings.publish.variants
    ]
    locate_large(crawl, store)
    return published


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
    work = _prepare(crawl, settings, store, variant, expected)
    versions = read_versions(work.dataset, store)
    if done := _finished(work, version or crawl, store):
        return done
    current = manifest.current_manifest(work.dataset, store)
    if expected is None:
        check_still_scored(work.scored, current, store)
    check_ids(crawl, [batch.number for batch in work.scored.batches], current, store)
    release = versions.release(version or crawl)
    rows = PublishableRows.from_scored(
        work.scored, settings.publish, variant, store, work.requests, work.earlier
    )
    context, data_files = _write_rows(release, rows, work, store)
    stats = commit_version(context, data_files, store)
    refresh_card(work.dataset, store)
    return stats


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


def _as_it_stands(crawl: str, settings: Settings, store: Store, variant: str) -> PublishContext:
    dataset = dataset_name(settings.publish.name, variant)
    released = manifest.published_part(dataset, crawl, store)
    work = _prepare(crawl, settings, store, variant)
    rows = PublishableRows.from_scored(
        work.scored, settings.publish, variant, store, work.requests, work.earlier
    )
    return _read_rows(released or Release(dataset, crawl), rows, work, store)


@dataclass(frozen=True, slots=True)
class _Publication:
    """A checked plan of what to publish."""

    crawl: str
    settings: Settings
    variant: str
    dataset: str
    scored: ScoredCrawl
    earlier: tuple[Output, ...]
    requests: Matcher
    removals: tuple[str, ...]
    fingerprint: str
    columns: tuple[HeadColumn, ...]  # of custom heads


def _prepare(
    crawl: str,
    settings: Settings,
    store: Store,
    variant: str,
    expected: Expected | None = None,
) -> _Publication:
    dataset = Release(dataset_name(settings.publish.name, variant), crawl).name
    subsets(settings.publish)
    published = manifest.published_stats(dataset, crawl, store)
    scored = scored_crawl(crawl, expected, published, store)
    columns = scored.columns
    earlier = compared_with(dataset, scored, settings.publish, store)
    requests = read_requests(store)
    removals = tuple(sorted(request.id for request in requests if crawl in request.crawls))
    matcher = Matcher(requests, settings.download.pdq_distance)
    made_from = _fingerprint(dataset, scored, earlier, settings, variant, removals)
    return _Publication(
        crawl, settings, variant, dataset, scored, earlier, matcher, removals, made_from, columns
    )


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


def _write_rows(
    release: Release, rows: PublishableRows, work: _Publication, store: Store
) -> tuple[PublishContext, list[DataFile]]:
    """Streams the rows into the files of all subsets and into the statistics."""
    publish = work.settings.publish
    with ExitStack() as stack:
        file = stack.enter_context(store.create(release.file(image_hashes.NAME)))
        shown = stack.enter_context(closing(ImageHashesWriter(file)))
        writers = [
            stack.enter_context(
                SubsetWriter(subset, release.folder, work.crawl, publish.rows_per_file, store)
            )
            for subset in subsets(publish)
        ]
        context = _read_rows(release, rows, work, store, _DataFiles(writers, shown))
    output = file.output
    listed = DataFile(output.name, "", shown.rows, output.bytes, output.sha256, work.crawl)
    return context, [listed, *(file for writer in writers for file in writer.files)]


@dataclass(frozen=True, slots=True)
class _DataFiles:
    """The data files being written."""

    subsets: list[SubsetWriter]
    images: ImageHashesWriter

    def add(self, rows: pa.RecordBatch, table: pa.Table) -> None:
        """Add scored rows, and the table of those that are published."""
        self.images.add(rows)
        for writer in self.subsets:
            writer.add(table)


def _read_rows(
    release: Release,
    rows: PublishableRows,
    work: _Publication,
    store: Store,
    files: "_DataFiles | None" = None,
) -> PublishContext:
    chosen = subsets(work.settings.publish)
    statistics, sampler = Statistics(chosen), Sampler.over(work.scored)
    for batch in work.scored.batches:
        for found in rows.batch(batch):
            table = published_rows(found, work.crawl, work.columns)
            statistics.add(found, table)
            sampler.add(batch.number, found)
            if files is not None:
                files.add(found, table)
    dropped = dict(sorted(rows.dropped.items()))
    stats = _stats(release, work, statistics, dropped)
    return PublishContext(
        release, work.scored, work.settings, chosen, statistics,
        crawl_funnel(store, work.crawl, stats), tuple(sampler.kept()), tuple(sampler.rejected()),
        stats, work.variant, work.removals,
    )  # fmt: skip


def _stats(
    release: Release, work: _Publication, statistics: Statistics, dropped: Mapping[str, int]
) -> StageStats:
    scored = work.scored
    if statistics.kept + sum(dropped.values()) != scored.kept:
        raise InputError(
            f"cannot publish {release.name}/{release.version}: "
            f"{statistics.kept + sum(dropped.values())} rows read, but the stats of the scored batches "
            f"say {scored.kept}; the crawl was scored again in the meantime, publish it again"
        )
    return StageStats(
        stage="publish",
        crawl=work.crawl,
        unit=f"{release.name}/{release.version}",
        fingerprint=work.fingerprint,
        input=scored.kept,
        kept=statistics.kept,
        dropped=dict(dropped),
        details={
            "variant": work.variant,
            "subsets": statistics.subset_rows,
            "missing_batches": list(scored.missing),
            "partitions": scored.partitions,
            "missing_partitions": list(scored.missing_partitions),
        },
    )
