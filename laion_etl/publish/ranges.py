"""Publishes a crawl in ranges of batches: each range by itself, beside others or not, then the end of all.

The problem: one process that streams the rows of 300,000 batches takes half a day, and starts anew when it is
killed. The choice: batches are divided into ranges of consecutive ones (prepare.py). A range reads its
batches by their names, once for all variants, writes its own files and, last, its record (part.py). So it is
done or not, and is done again with the same bytes. The end merges the records, whose number and size do not
depend on rows, and makes the version visible. Refused: a listing of the scored shards, which grows with the
crawl.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from laion_etl.blocklists.removal_requests import Matcher, read_requests
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.schemas import scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset import manifest
from laion_etl.dataset.funnel_report import CountedStage, FunnelRow
from laion_etl.dataset.manifest import STATS
from laion_etl.dataset.scored import ScoredCrawl, scored_among
from laion_etl.dataset.subsets import subsets
from laion_etl.dataset.variants import dataset_name
from laion_etl.dataset.versions import read_versions
from laion_etl.io.planned import planned_batches
from laion_etl.io.storage import Store
from laion_etl.publish.commit import commit_version, refresh_card
from laion_etl.publish.completeness import check_batches, check_damaged, check_still_scored
from laion_etl.publish.exclusions import Exclusions
from laion_etl.publish.part import Part, check_count, context_of
from laion_etl.publish.prepare import batches_of, inputs_of, removals_of
from laion_etl.publish.prepared import BatchRange, Prepared, again, prepared_for
from laion_etl.publish.rows import DataFiles, DatasetRows, new_files, read_rows
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.statistics import Statistics
from laion_etl.settings import Settings

_READERS = 8
_RECORDS_AT_ONCE = 4  # some megabytes each


def publish_range(
    crawl: str, number: int, total: int, settings: Settings, store: Store, variants: Sequence[str]
) -> list[StageStats]:
    """Publish range `number` of `total` of a prepared crawl: its files and its record, for each variant.

    Does nothing for variants whose record has the same inputs. Raises InputError if the crawl is prepared in
    other ranges, for other settings or another plan, if the variants are not prepared alike, if the version
    is visible already and the inputs have changed, or if a scored file is not the one in its stats.
    """
    records = [_prepared(crawl, variant, settings, store) for variant in variants]
    one = records[0].find(number, total)
    planned = planned_batches(crawl, store)
    for prepared in records:
        _check_record(prepared, records[0], planned, store)
    scored = scored_among(crawl, batches_of(one, planned), store)
    done: dict[str, StageStats] = {}
    todo: list[Prepared] = []
    for prepared in records:
        if finished := store.finished(prepared.range_name(number), _made_from(prepared, one, scored)):
            done[prepared.dataset] = finished
        else:
            todo.append(prepared)
    for prepared, part in zip(todo, _written(todo, one, scored, settings, store), strict=True):
        stats = part.to_stats(crawl, f"{number}/{total}", prepared.rules, _made_from(prepared, one, scored))
        done[prepared.dataset] = store.write_stats(prepared.range_name(number), stats)
    return [done[prepared.dataset] for prepared in records]


def finish_ranges(crawl: str, variant: str, settings: Settings, store: Store) -> StageStats:
    """Merge the records of all ranges, write card, manifest and report, and make the version visible.

    Raises InputError if a range is not published or was by other rules, or if nothing is scored;
    IncompleteError if more is missing than allowed when it was prepared. Does nothing if it is done.
    """
    prepared = _prepared(crawl, variant, settings, store)
    part = merged(_stored_parts(prepared, settings, store))
    part = _with_partitions(part, prepared)
    whole = prepared.whole(part.inputs)
    release = prepared.release
    versions = read_versions(release.name, store)
    if release.version in {one.version for one in versions.listed}:
        stats = store.read_stats(release.file(STATS))
        if stats.fingerprint == whole:
            refresh_card(release.name, store)
            return stats
        raise _published_already(prepared)
    _check_complete(prepared, part, store)
    context = context_of(release, part, settings, variant, prepared.removals, whole, store)
    stats = commit_version(context, part.ordered_files, store)
    refresh_card(release.name, store)
    return stats


def read_parts(prepared: Prepared, planned: Sequence[int], settings: Settings, store: Store) -> Part:
    """Read the rows of all ranges without writing anything; returns the merged part."""

    def parts() -> Iterator[Part]:
        for one in prepared.ranges:
            scored = scored_among(prepared.crawl, batches_of(one, planned), store)
            yield from _read([prepared], one, scored, settings, store, [None])

    part = _with_partitions(merged(parts()), prepared)
    _check_complete(prepared, part, store)
    return part


def merged(parts: Iterator[Part]) -> Part:
    """Return the parts of consecutive ranges as one."""
    whole = next(parts)
    for part in parts:
        whole.merge(part)
    return whole


def _prepared(crawl: str, variant: str, settings: Settings, store: Store) -> Prepared:
    return prepared_for(dataset_name(settings.publish.name, variant), crawl, settings, store)


def _check_record(prepared: Prepared, first: Prepared, planned: Sequence[int], store: Store) -> None:
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


def _made_from(prepared: Prepared, one: BatchRange, scored: ScoredCrawl) -> str:
    """Return the fingerprint of the record of a range: its inputs, and the version it belongs to."""
    return fingerprint(inputs_of(prepared, one, scored), prepared.version)


def _written(
    todo: Sequence[Prepared], one: BatchRange, scored: ScoredCrawl, settings: Settings, store: Store
) -> list[Part]:
    """Write the files of a range, for several datasets at once."""
    if not todo:
        return []
    for prepared in todo:
        if prepared.version in {version.version for version in read_versions(prepared.dataset, store).listed}:
            raise _published_already(prepared)
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                new_files(prepared.release, prepared.crawl, settings.publish, store, one.number)
            )
            for prepared in todo
        ]
        parts = _read(todo, one, scored, settings, store, files)
    return [replace(part, files=list(written.written)) for part, written in zip(parts, files, strict=True)]


def _read(
    records: Sequence[Prepared],
    one: BatchRange,
    scored: ScoredCrawl,
    settings: Settings,
    store: Store,
    files: Sequence[DataFiles | None],
) -> list[Part]:
    """Read the rows of a range once and return a part for each dataset."""
    chosen = subsets(settings.publish)
    requests = Matcher(read_requests(store), settings.download.pdq_distance)
    datasets = []
    for prepared, written in zip(records, files, strict=True):
        _check_scored(prepared, scored)
        exclusions = Exclusions(settings.publish, prepared.variant)
        sampler = Sampler(frozenset(prepared.sheet_batches))
        datasets.append(
            DatasetRows(scored.crawl, prepared.columns, exclusions, Statistics(chosen), sampler, written)
        )
    read_rows(scored, requests, datasets, store)
    counted = _counted(scored, store)
    parts = [
        Part(
            scored.coverage, rows.statistics, rows.sampler, rows.exclusions.dropped, [], dict(counted),
            [inputs_of(prepared, one, scored)],
        )
        for prepared, rows in zip(records, datasets, strict=True)
    ]  # fmt: skip
    for prepared, part in zip(records, parts, strict=True):
        check_count(f"{prepared.dataset}, range {one.number}", part, scored.kept)
    return parts


def _check_scored(prepared: Prepared, scored: ScoredCrawl) -> None:
    if prepared.max_missing_share is None:
        check_damaged(prepared.crawl, scored.damaged)
    if others := set(scored.columns) - set(prepared.columns):
        raise InputError(
            f"cannot publish a range of {prepared.crawl}: some batches have the column "
            f"{min(column.name for column in others)} of a head that the first batch of each range does not "
            "have; score the crawl by the same heads"
        )


def _counted(scored: ScoredCrawl, store: Store) -> dict[str, CountedStage]:
    """Add up the stats of the shards and of the scored shards of a range."""
    crawl, numbers = scored.crawl, sorted([*(batch.number for batch in scored.batches), *scored.missing])
    rows = [
        FunnelRow("score", 1, batch.kept + sum(batch.dropped.values()), batch.kept, dict(batch.dropped))
        for batch in scored.batches
    ]
    unusable = _read_stats([scored_stem(crawl, number) for number in scored.damaged], store)
    return {
        "download": CountedStage.from_stats(
            "download", _read_stats([shard_stem(crawl, number) for number in numbers], store)
        ),
        "score": CountedStage(FunnelRow.summed("score", rows)).merged(
            CountedStage.from_stats("score", unusable)
        ),
    }


def _read_stats(stems: Sequence[str], store: Store) -> list[StageStats | str]:
    """Return the stats of those batches that have any, and an error message where they are damaged."""

    def read(stem: str) -> StageStats | str | None:
        try:
            return store.read_stats(f"{stem}_stats.json")
        except MissingFileError:
            return None
        except DamagedFileError as error:
            return str(error)

    with ThreadPoolExecutor(_READERS) as pool:
        return [one for one in pool.map(read, stems) if one is not None]


def _stored_parts(prepared: Prepared, settings: Settings, store: Store) -> Iterator[Part]:
    """Yield the parts of all ranges, in order, with the records of a few in memory."""
    chosen = subsets(settings.publish)
    with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
        for start in range(0, len(prepared.ranges), _RECORDS_AT_ONCE):
            ranges = prepared.ranges[start : start + _RECORDS_AT_ONCE]
            for stats in pool.map(lambda one: _record(prepared, one, store), ranges):
                yield Part.from_stats(stats, chosen, prepared.sheet_batches)


def _record(prepared: Prepared, one: BatchRange, store: Store) -> StageStats:
    """Return the record of a range. Raises InputError if it is not there, or was made by other rules."""
    unit = f"{one.number}/{len(prepared.ranges)}"
    try:
        stats = store.read_stats(prepared.range_name(one.number))
        [inputs] = stats.details["inputs"]
        if (
            stats.fingerprint == fingerprint(inputs, prepared.version)
            and stats.details["rules"] == prepared.rules
        ):
            return stats
        cause = "it was published by other rules, or for another version"
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


def _published_already(prepared: Prepared) -> InputError:
    return InputError(
        f"cannot publish {prepared.dataset}/{prepared.version}: it is visible already, and its inputs have "
        f"changed since; {again(prepared.crawl)}"
    )
