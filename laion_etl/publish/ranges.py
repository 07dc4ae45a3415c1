"""Publishes a crawl in ranges of batches: each range by itself, beside others or not, then the end of all.

The problem: one process that streams the rows of 300,000 batches takes half a day, and starts anew when it is
killed. The choice: batches are divided into ranges of consecutive ones (prepare.py). A range reads its
batches by their names, once for all variants, writes its own files and, last, its record (part.py). So it is
done or not, and is done again with the same bytes. The end merges the records, whose number and size do not
depend on rows, and makes the version visible. Refused: a listing of the scored shards, which grows with the
crawl.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from laion_etl.blocklists.removal_requests import Matcher, read_requests
from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.locator.build import locate_written
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, subsets
from laion_etl.dataset.variants import dataset_name
from laion_etl.dataset.versions import read_versions
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.publish.commit import removals_of
from laion_etl.publish.completeness import check_damaged
from laion_etl.publish.exclusions import open_exclusions
from laion_etl.publish.join import has_restored
from laion_etl.publish.part import Part, check_count
from laion_etl.publish.prepare import scored_of
from laion_etl.publish.prepared import Prepared, again, prepared_for
from laion_etl.publish.range_counts import counted_stages
from laion_etl.publish.range_dedupe import find_redundant_in
from laion_etl.publish.range_images import finished_hashes, image_rows
from laion_etl.publish.range_work import RangeWork
from laion_etl.publish.rows import DataFiles, DatasetRows, new_files, read_rows
from laion_etl.publish.taken_ranges import former_record, taken_over
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings


def hash_range(
    crawl: str, number: int, total: int, settings: Settings, store: Store, variants: Sequence[str]
) -> list[StageStats]:
    """Write the digests of the images of a range, by which duplicates are found; see `range_images.py`.

    Does nothing where they are there, or no duplicates are looked for. Raises like `publish_range`.
    """
    if not settings.publish.looks_for_duplicates:
        return []
    works = _works(crawl, number, total, settings, store, variants)
    done: dict[str, StageStats | None] = {
        work.prepared.dataset: finished_hashes(work.prepared, work.one, work.inputs, store) for work in works
    }
    todo = [work for work in works if not done[work.prepared.dataset]]
    with ExitStack() as stack:
        images = [
            stack.enter_context(image_rows(work.prepared, work.scored, settings.publish, store))
            for work in todo
        ]
        if todo:
            read_rows(todo[0].scored, _matcher(settings, store), images, store)
        for work, rows in zip(todo, images, strict=True):
            done[work.prepared.dataset] = rows.write(work.prepared, work.one, work.inputs, store)
    return [one for work in works if (one := done[work.prepared.dataset])]


def publish_range(
    crawl: str, number: int, total: int, settings: Settings, store: Store, variants: Sequence[str]
) -> list[StageStats]:
    """Publish range `number` of `total` of a prepared crawl: its files and its record, for each variant.

    Does nothing for variants whose record has the same inputs. Raises InputError if the crawl is prepared in
    other ranges, for other settings or another plan, if the variants are not prepared alike, if the version
    is visible already and the inputs have changed, or if a scored file is not the one in its stats.
    """
    works = [
        work.with_digests(settings, store) for work in _works(crawl, number, total, settings, store, variants)
    ]
    done = {work.prepared.dataset: _finished(work, store) or _taken_over(work, store) for work in works}
    todo = [work for work in works if not done[work.prepared.dataset]]
    for work, part in zip(todo, _written(todo, settings, store), strict=True):
        rules, images = work.prepared.rules, work.digests.fingerprint
        stats = part.to_stats(crawl, f"{number}/{total}", rules, work.made_from, images)
        done[work.prepared.dataset] = store.write_stats(work.prepared.range_name(number), stats)
    records = [one for work in works if (one := done[work.prepared.dataset])]
    locate_written(crawl, number, total, [file for one in records for file in _with_links(one)], store)
    return records


def _with_links(record: StageStats) -> list[tuple[str, str]]:
    """Return name and SHA-256 of the files that have each row of a range once."""
    return [
        (output.name, output.sha256)
        for output, file in zip(record.outputs, record.details["files"], strict=True)
        if file["subset"] in LANGUAGE_SUBSETS
    ]


def _finished(work: RangeWork, store: Store) -> StageStats | None:
    """Return the record of a range that is done and has its files, unless it can have more samples now."""
    stats = store.finished(work.prepared.range_name(work.one.number), work.made_from)
    is_whole = stats is not None and all(store.exists(output.name) for output in stats.outputs)
    return stats if stats and is_whole and not has_restored(stats, work.scored, store) else None


def _taken_over(work: RangeWork, store: Store) -> StageStats | None:
    """Return the record of a range of which a removal has changed nothing, see `taken_ranges.py`."""
    if (former := former_record(work, store)) is None:
        return None
    _check_scored(work.prepared, work.scored)
    record = taken_over(former, work, partial(_check_not_visible, work.prepared, store), store)
    name = work.prepared.range_name(work.one.number)
    return None if record is None else store.write_stats(name, record)


def _works(
    crawl: str, number: int, total: int, settings: Settings, store: Store, variants: Sequence[str]
) -> list[RangeWork]:
    """Return the range for each variant, checked against the plan."""
    records = [prepared_variant(crawl, variant, settings, store) for variant in variants]
    one = records[0].find(number, total)
    planned = planned_batches(crawl, store)
    for prepared in records:
        check_record(prepared, records[0], planned, store)
    scored = scored_of(records, one, planned, store)
    return [RangeWork(prepared, one, scored) for prepared in records]


def prepared_variant(crawl: str, variant: str, settings: Settings, store: Store) -> Prepared:
    """Return how a variant is prepared; raises like `prepared_for`."""
    return prepared_for(dataset_name(settings.publish.name, variant), crawl, settings, store)


def check_record(prepared: Prepared, first: Prepared, planned: Sequence[int], store: Store) -> None:
    """Raise InputError unless a crawl is still as it was prepared, and in the same ranges as `first`."""
    crawl = prepared.crawl
    if prepared.planned != fingerprint(list(planned)):
        raise InputError(
            f"cannot publish a range of {crawl}: its plan is not the one that it was prepared with; "
            f"{again(crawl)}"
        )
    if prepared.ranges != first.ranges:
        raise InputError(
            f"cannot publish a range of {crawl}: its variants have different ranges; {again(crawl)}"
        )
    if prepared.removals != removals_of(crawl, read_requests(store)):
        raise InputError(f"cannot publish a range of {crawl}: there are new removal requests; {again(crawl)}")


def _written(todo: Sequence[RangeWork], settings: Settings, store: Store) -> list[Part]:
    """Write the files of a range, for several datasets at once."""
    if not todo:
        return []
    for work in todo:
        _check_not_visible(work.prepared, store)
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                new_files(
                    work.prepared.release,
                    work.prepared.crawl,
                    settings.publish,
                    store,
                    work.one.number,
                    partial(_check_not_visible, work.prepared, store),
                )
            )
            for work in todo
        ]
        parts = read_range(todo, settings, store, files)
    return [
        replace(part, files=list(written.written), joined=written.joined)
        for part, written in zip(parts, files, strict=True)
    ]


def read_range(
    works: Sequence[RangeWork], settings: Settings, store: Store, files: Sequence[DataFiles | None]
) -> list[Part]:
    """Read the rows of a range once and return a part for each dataset."""
    datasets = [
        _dataset_rows(work, settings, store, written) for work, written in zip(works, files, strict=True)
    ]
    scored = works[0].scored
    read_rows(scored, _matcher(settings, store), datasets, store, files)
    counted = counted_stages(scored, store)
    parts = [
        Part(
            scored.coverage,
            rows.statistics,
            rows.sampler,
            rows.exclusions.dropped,
            [],
            dict(counted),
            [work.inputs],
        )
        for work, rows in zip(works, datasets, strict=True)
    ]
    for work, part in zip(works, parts, strict=True):
        check_count(f"{work.prepared.dataset}, range {work.one.number}", part, scored.kept)
    return parts


def _dataset_rows(
    work: RangeWork, settings: Settings, store: Store, written: DataFiles | None
) -> DatasetRows:
    prepared = work.prepared
    _check_scored(prepared, work.scored)
    exclusions = open_exclusions(work.scored, settings.publish, prepared.variant, store)
    if work.digests.images:
        exclusions.redundant = find_redundant_in(work.one, work.digests, prepared.earlier, store)
    statistics, sampler = Statistics(subsets(settings.publish)), Sampler(frozenset(prepared.sheet_batches))
    return DatasetRows(prepared.crawl, prepared.columns, exclusions, statistics, sampler, written)


def _matcher(settings: Settings, store: Store) -> Matcher:
    return Matcher(read_requests(store), settings.download.pdq_distance)


def _check_scored(prepared: Prepared, scored: ScoredCrawl) -> None:
    if prepared.max_missing_share is None:
        check_damaged(prepared.crawl, scored.damaged)
    if others := set(scored.columns) - set(prepared.columns):
        raise InputError(
            f"cannot publish a range of {prepared.crawl}: some batches have the column "
            f"{min(column.name for column in others)} of a head that the first batch of each range does not "
            "have; score the crawl by the same heads"
        )


def _check_not_visible(prepared: Prepared, store: Store) -> None:
    """Raise InputError if the version is visible: nothing may be written to it, late as a process may be."""
    if prepared.version in {one.version for one in read_versions(prepared.dataset, store).listed}:
        raise published_already(prepared)


def published_already(prepared: Prepared) -> InputError:
    """Return the error that a visible version is not written to."""
    return InputError(
        f"cannot publish {prepared.dataset}/{prepared.version}: it is visible already, and its inputs have "
        f"changed since; {again(prepared.crawl)}"
    )
