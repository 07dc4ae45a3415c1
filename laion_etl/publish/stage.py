"""Publish stage: the kept rows of a crawl become a version of the dataset.

A version holds the rows of one crawl in its own files and lists the files of other crawls where earlier
versions wrote them. Order of writing: data files, cards, report, manifest, stats, and last versions.json,
which makes the version visible (see dataset/versions.py). Then the dataset's README.md is replaced; a kill
between the two leaves the README of the version before, whose files still exist, and the next call fixes it.

A crawl of many batches is published in ranges (ranges.py), one after another where one call does it all.
"""

from collections.abc import Sequence
from dataclasses import replace

from laion_etl.blocklists.removal_requests import read_requests
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset import manifest
from laion_etl.dataset.locator.build import locate_large
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.shaping_settings import as_published
from laion_etl.dataset.subsets import DataFile
from laion_etl.dataset.variants import RESEARCH, dataset_name
from laion_etl.dataset.versions import Release, change_versions, read_versions
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.publish import manifest_writer
from laion_etl.publish.at_once import checked, publish_at_once, read_at_once
from laion_etl.publish.commit import removals_of
from laion_etl.publish.compared_ranges import compare_ranges
from laion_etl.publish.completeness import Expected, nothing_new
from laion_etl.publish.finish import finish_ranges, read_parts
from laion_etl.publish.part import context_of
from laion_etl.publish.prepare import Removed, division, prepare, prepare_removal
from laion_etl.publish.prepared import Prepared
from laion_etl.publish.presentation import REPORT, report_files
from laion_etl.publish.ranges import hash_range, publish_range
from laion_etl.report.page import report_page
from laion_etl.report.publish_context import PublishContext
from laion_etl.settings import Settings


def publish_variants(
    crawl: str, settings: Settings, store: Store, expected: Expected | None = None
) -> list[StageStats]:
    """Publish the configured variants, one dataset each; see `publish_dataset`.

    Then writes what the locator of a large crawl lacks, by which removals find its files.
    Writes nothing and returns an empty list if the crawl is planned and all its pairs were known before;
    IncompleteError is raised even then.
    """
    ranges = prepare_variants(crawl, settings, store, expected)
    if isinstance(ranges, list):
        return ranges
    _publish_ranges(crawl, ranges, settings, store, settings.publish.variants)
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
        published = publish_at_once(crawl, settings, store, variants, expected)
        locate_large(crawl, store)
        return published
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
        return publish_at_once(crawl, settings, store, [variant], expected, version)[0]
    prepared = prepare(crawl, planned, settings, store, variant, expected, version)
    if isinstance(prepared, StageStats):
        return prepared
    _publish_ranges(crawl, len(prepared.ranges), settings, store, [variant])
    return finish_ranges(crawl, variant, settings, store)


def publish_removal(
    crawl: str, settings: Settings, store: Store, variant: str, removed: Removed | None
) -> StageStats:
    """Publish a crawl without what a removal has taken out; see `prepare_removal`."""
    if (ranges := prepare_removal_in_ranges(crawl, settings, store, [variant], removed)) is None:
        return publish_at_once(crawl, settings, store, [variant], None)[0]
    _publish_ranges(crawl, ranges, settings, store, [variant])
    return finish_ranges(crawl, variant, settings, store)


def prepare_removal_in_ranges(
    crawl: str, settings: Settings, store: Store, variants: Sequence[str], removed: Removed | None
) -> int | None:
    """Return the number of ranges in which a crawl is published after a removal; None if it is at once."""
    if (planned := _in_ranges(crawl, settings, store)) is None:
        return None
    prepared = [prepare_removal(crawl, planned, settings, store, one, removed) for one in variants]
    return len(prepared[0].ranges)


def is_in_ranges(crawl: str, settings: Settings, store: Store) -> bool:
    """Whether a crawl is published in ranges."""
    return _in_ranges(crawl, settings, store) is not None


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


def _publish_ranges(
    crawl: str, total: int, settings: Settings, store: Store, variants: Sequence[str]
) -> None:
    """Publish all ranges one after another, each step of all ranges before the next."""
    for number in range(1, total + 1):
        hash_range(crawl, number, total, settings, store, variants)
    compare_ranges(crawl, settings, store, variants)
    for number in range(1, total + 1):
        publish_range(crawl, number, total, settings, store, variants)


def _in_ranges(crawl: str, settings: Settings, store: Store) -> list[int] | None:
    """Return the planned batches of a crawl that is published in ranges; None if one range has them all."""
    if not store.exists(plan_stats_name(crawl)):
        return None
    planned = planned_batches(crawl, store)
    return planned if len(planned) > settings.publish.batches_per_range else None


def _as_it_stands(crawl: str, settings: Settings, store: Store, variant: str) -> PublishContext:
    dataset = dataset_name(settings.publish.name, variant)
    current = manifest.current_manifest(dataset, store)
    published = current.part(crawl) if current else None
    release = Release(dataset, published.version if published else crawl)
    if published is not None:
        settings = as_published(settings, published.settings)
    if (planned := _in_ranges(crawl, settings, store)) is None:
        work = checked(crawl, settings, store, variant)
        part, made_from = read_at_once([work], store, [None])[0], work.fingerprint
    else:
        prepared = division(crawl, planned, settings, store, variant)
        part = read_parts(prepared, planned, settings, store)
        made_from = prepared.whole(part.inputs)
    removals = removals_of(crawl, read_requests(store))
    return context_of(release, part, settings, variant, removals, made_from, store)
