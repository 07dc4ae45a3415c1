"""Publish stage: the kept rows of a crawl become a version of the dataset.

Order of writing: data files, card, report, manifest, then files of earlier attempts are deleted, then the
stats, which make the version visible as done. Before anything is overwritten the stats of an earlier,
different publication are removed, so a version that has stats is whole.
"""

from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import pyarrow as pa

from laion_etl.errors import InputError, SettingsError
from laion_etl.overview import crawl_funnel
from laion_etl.publish import manifest, pictures
from laion_etl.publish.completeness import Expected, as_published, with_partitions
from laion_etl.publish.contact import Sampler
from laion_etl.publish.pictures import PicturesWriter
from laion_etl.publish.presentation import REPORT, presentation, report_files
from laion_etl.publish.redundancy import Redundant, compared_with, find_redundant
from laion_etl.publish.release import PIPELINE, Facts, Release
from laion_etl.publish.report import report_page
from laion_etl.publish.scored import ScoredCrawl, find_scored, read_batch
from laion_etl.publish.statistics import Statistics
from laion_etl.publish.subsets import DataFile, SubsetWriter, published_rows, subsets
from laion_etl.records import Output, StageStats, fingerprint
from laion_etl.settings import Settings
from laion_etl.storage import Store

STATS = "_stats.json"


def publish_dataset(
    crawl: str, settings: Settings, store: Store, version: str = "", expected: Expected | None = None
) -> StageStats:
    """Publishes the complete batches of a crawl as `dataset/<name>/<version>/` (version: the crawl's id).

    Batches that are planned and not scored are left out and named in manifest, card and report; so are
    partitions that were expected and not loaded. Raises IncompleteError when more is missing than expected
    allows, InputError when nothing is scored or a scored file is not what its stats say.
    """
    release = Release(settings.publish.name, version or crawl)
    if settings.publish.rows_per_file < 1:
        raise SettingsError("LAION_ETL_PUBLISH_ROWS_PER_FILE must be at least 1")
    scored = with_partitions(find_scored(crawl, store), expected, store)
    earlier = compared_with(scored, settings.publish, store)
    identity = _fingerprint(release, scored, earlier, settings)
    if done := store.finished(release.file(STATS), identity):
        return done
    store.delete(release.file(STATS))
    redundant = find_redundant(scored, settings.publish, store, earlier)
    stats = StageStats(
        stage="publish",
        crawl=crawl,
        unit=f"{release.name}/{release.version}",
        fingerprint=identity,
        input=scored.kept,
        kept=scored.kept - len(redundant),
        dropped=redundant.counts,
    )
    facts, data_files = _write_rows(release, scored, redundant, settings, store, stats)
    files = [
        *data_files,
        *(_write(facts, name, data, store) for name, data in presentation(facts, data_files, store)),
    ]
    files.append(_write(facts, manifest.NAME, manifest.manifest(facts, files), store))
    _delete_others(release, {file.name for file in files}, store)
    return store.write_stats(release.file(STATS), _with_outputs(stats, facts, files))


def render_report(crawl: str, settings: Settings, store: Store, version: str = "") -> bytes:
    """The report page of a crawl as it stands, published or not; reads only, writes nothing."""
    return report_page(_as_it_stands(crawl, settings, store, version), store)


def rebuild_report(crawl: str, settings: Settings, store: Store, version: str = "") -> str:
    """Writes the report anew, of a published version also its entries in manifest and stats.

    Returns the URI of the page.
    """
    facts = _as_it_stands(crawl, settings, store, version)
    release = facts.release
    written = [store.write(release.file(name), data) for name, data in report_files(facts, store)]
    if store.exists(release.file(STATS)):
        stats = store.read_stats(release.file(STATS))
        document = store.read(release.file(manifest.NAME))
        for output in written:
            entry = DataFile(output.name, "", None, output.bytes, output.sha256)
            document = manifest.with_file(document, entry, release.folder)
        written.append(store.write(release.file(manifest.NAME), document))
        outputs = {output.name: output for output in (*stats.outputs, *written)}
        store.write_stats(release.file(STATS), replace(stats, outputs=tuple(outputs.values())))
    return store.uri(release.file(REPORT))


def _as_it_stands(crawl: str, settings: Settings, store: Store, version: str) -> Facts:
    release = Release(settings.publish.name, version or crawl)
    name = release.file(STATS)
    published = store.read_stats(name) if store.exists(name) else None
    scored = as_published(find_scored(crawl, store), published)
    earlier = compared_with(scored, settings.publish, store)
    redundant = find_redundant(scored, settings.publish, store, earlier)
    return _read_rows(release, scored, redundant, settings, store, published)


def _fingerprint(
    release: Release, scored: ScoredCrawl, earlier: tuple[Output, ...], settings: Settings
) -> str:
    batches = [(batch.number, batch.outputs) for batch in scored.batches]
    return fingerprint(
        "publish",
        PIPELINE,
        release,
        settings.publish,
        batches,
        scored.missing,
        scored.unplanned,
        earlier,
        scored.partitions,
        scored.missing_partitions,
    )


def _write_rows(
    release: Release,
    scored: ScoredCrawl,
    redundant: Redundant,
    settings: Settings,
    store: Store,
    stats: StageStats,
) -> tuple[Facts, list[DataFile]]:
    """Streams the rows into the files of all subsets and into the facts."""
    with ExitStack() as stack:
        file = stack.enter_context(store.create(release.file(pictures.NAME)))
        shown = stack.enter_context(closing(PicturesWriter(file)))
        writers = [
            stack.enter_context(SubsetWriter(subset, release.folder, settings.publish.rows_per_file, store))
            for subset in subsets(settings.publish)
        ]
        facts = _read_rows(release, scored, redundant, settings, store, stats, _DataFiles(writers, shown))
    listed = DataFile(file.output.name, "", shown.rows, file.output.bytes, file.output.sha256)
    return facts, [listed, *(file for writer in writers for file in writer.files)]


@dataclass(frozen=True, slots=True)
class _DataFiles:
    """The data files that are being written."""

    subsets: list[SubsetWriter]
    pictures: PicturesWriter

    def add(self, rows: pa.RecordBatch, table: pa.Table) -> None:
        """Takes scored rows, and the published ones of them."""
        self.pictures.add(rows)
        for writer in self.subsets:
            writer.add(table)


def _read_rows(
    release: Release,
    scored: ScoredCrawl,
    redundant: Redundant,
    settings: Settings,
    store: Store,
    published: StageStats | None,
    files: "_DataFiles | None" = None,
) -> Facts:
    chosen = subsets(settings.publish)
    statistics, sampler = Statistics(chosen), Sampler.over(scored)
    for batch in scored.batches:
        for found in read_batch(scored, batch, store):
            rows = redundant.mark(found)
            table = published_rows(rows, scored.crawl)
            statistics.add(rows, table)
            sampler.add(batch.number, rows)
            if files is not None:
                files.add(rows, table)
    funnel = crawl_funnel(store, scored.crawl, published)
    return Facts(
        release, scored, settings, chosen, statistics, funnel,
        tuple(sampler.kept()), tuple(sampler.rejected()),
    )  # fmt: skip


def _write(facts: Facts, name: str, data: bytes, store: Store) -> DataFile:
    output = store.write(facts.release.file(name), data)
    return DataFile(output.name, "", None, output.bytes, output.sha256)


def _delete_others(release: Release, keep: set[str], store: Store) -> None:
    """Files of an earlier attempt that this one did not write (the stats are deleted already)."""
    for name in store.list(release.folder):
        if name not in keep:
            store.delete(name)


def _with_outputs(stats: StageStats, facts: Facts, files: Iterable[DataFile]) -> StageStats:
    if facts.statistics.kept != stats.kept:
        raise InputError(
            f"{stats.unit}: {facts.statistics.kept} rows read, {stats.kept} announced by the scored batches; "
            f"the crawl was scored again meanwhile, publish it again"
        )
    return replace(
        stats,
        outputs=tuple(Output(file.name, file.bytes, file.sha256) for file in files),
        details={
            "subsets": facts.statistics.subset_rows,
            "missing_batches": list(facts.scored.missing),
            "partitions": facts.scored.partitions,
            "missing_partitions": list(facts.scored.missing_partitions),
        },
    )
