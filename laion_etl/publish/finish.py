"""The end of publishing in ranges: the records of all ranges become one version, which gets visible.

Nothing here reads rows: memory and time depend on the number of ranges and of files.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.subsets import subsets
from laion_etl.dataset.versions import read_versions
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.publish.commit import commit_version, refresh_card
from laion_etl.publish.compared_ranges import delete_bands, digests_of
from laion_etl.publish.completeness import check_batches, check_damaged, check_still_scored
from laion_etl.publish.part import Part, context_of
from laion_etl.publish.prepare import scored_of
from laion_etl.publish.prepared import BatchRange, Prepared
from laion_etl.publish.range_work import RangeWork
from laion_etl.publish.ranges import check_record, prepared_variant, published_already, read_range
from laion_etl.settings import Settings

_RECORDS_AT_ONCE = 4  # some megabytes each


def finish_ranges(crawl: str, variant: str, settings: Settings, store: Store) -> StageStats:
    """Merge the records of all ranges, write card, manifest and report, and make the version visible.

    Raises InputError if a range is not published or was by other rules or before the images of another range
    changed, if there is another plan or a new removal request since, or if nothing is scored;
    IncompleteError if more is missing than allowed when it was prepared. Does nothing if it is done.
    """
    prepared = prepared_variant(crawl, variant, settings, store)
    release = prepared.release
    is_visible = release.version in {one.version for one in read_versions(release.name, store).listed}
    images = "" if is_visible else digests_of(prepared, settings.publish, store).fingerprint
    part = _with_partitions(merged(_stored_parts(prepared, images, settings, store)), prepared)
    whole = prepared.whole(part.inputs)
    if is_visible:
        stats = store.read_stats(release.file(STATS))
        if stats.fingerprint == whole:
            refresh_card(release.name, store)
            delete_bands(prepared, settings.publish, store)
            return stats
        raise published_already(prepared)
    check_record(prepared, prepared, planned_batches(crawl, store), store)
    _check_complete(prepared, part, store)
    context = context_of(release, part, settings, variant, prepared.removals, whole, store)
    stats = commit_version(context, part.ordered_files, store)
    refresh_card(release.name, store)
    delete_bands(prepared, settings.publish, store)
    return stats


def read_parts(prepared: Prepared, planned: Sequence[int], settings: Settings, store: Store) -> Part:
    """Read the rows of all ranges without writing anything; returns the merged part."""

    def parts() -> Iterator[Part]:
        for one in prepared.ranges:
            scored = scored_of([prepared], one, planned, store)
            work = RangeWork(prepared, one, scored).with_digests(settings, store)
            yield from read_range([work], settings, store, [None])

    part = _with_partitions(merged(parts()), prepared)
    _check_complete(prepared, part, store)
    return part


def merged(parts: Iterator[Part]) -> Part:
    """Return the parts of consecutive ranges as one."""
    whole = next(parts)
    for part in parts:
        whole.merge(part)
    return whole


def _stored_parts(prepared: Prepared, images: str, settings: Settings, store: Store) -> Iterator[Part]:
    """Yield the parts of all ranges, in order, with the records of a few in memory."""
    chosen = subsets(settings.publish)
    with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
        for start in range(0, len(prepared.ranges), _RECORDS_AT_ONCE):
            ranges = prepared.ranges[start : start + _RECORDS_AT_ONCE]
            for stats in pool.map(lambda one: _record(prepared, one, images, store), ranges):
                yield Part.from_stats(stats, chosen, prepared.sheet_batches)


def _record(prepared: Prepared, one: BatchRange, images: str, store: Store) -> StageStats:
    """Return the record of a range.

    Raises InputError if it is not there, was made by other rules, or looked for duplicates among other images
    than those of `images`: two ranges may then both have an image, or neither of them.
    """
    unit = f"{one.number}/{len(prepared.ranges)}"
    try:
        stats = store.read_stats(prepared.range_name(one.number))
        [inputs] = stats.details["inputs"]
        cause = "it was published by other rules, or for another version"
        if (
            stats.fingerprint == fingerprint(inputs, prepared.version)
            and stats.details["rules"] == prepared.rules
        ):
            if not images or stats.details.get("images", images) == images:  # early records have none
                return stats
            cause = "the images of other ranges have changed since it was published"
    except (MissingFileError, DamagedFileError) as error:
        cause = str(error)
    except (KeyError, TypeError, ValueError) as error:
        cause = f"its record is incomplete ({error!r})"
    raise InputError(
        f"cannot publish {prepared.crawl} into {prepared.dataset}: range {unit} is not done ({cause}); run "
        f"`laion-etl stage publish --crawl {prepared.crawl} --range {unit}`"
    )


def _with_partitions(part: Part, prepared: Prepared) -> Part:
    coverage = replace(
        part.coverage,
        partitions=prepared.partitions.expected,
        missing_partitions=prepared.partitions.missing,
        columns=prepared.columns,
    )
    return replace(part, coverage=coverage)


def _check_complete(prepared: Prepared, part: Part, store: Store) -> None:
    """Raise IncompleteError or InputError if too much of the crawl is not scored."""
    coverage = part.coverage
    if not coverage.count:
        raise InputError(
            f"cannot publish {prepared.crawl}: no batch of it is scored; run "
            f"`laion-etl stage score --crawl {prepared.crawl}` first"
        )
    if prepared.max_missing_share is None:
        check_damaged(prepared.crawl, coverage.damaged)
        check_still_scored(coverage, manifest.current_manifest(prepared.dataset, store), store)
    else:
        check_batches(coverage, prepared.max_missing_share, store)
